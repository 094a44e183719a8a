package lmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/milter/socket"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("lmtp: server closed")

// A Backend is asked once per message. It may be called concurrently for
// different messages.
type Backend interface {
	// Begin is called when the MTA has announced the content. After an error all
	// recipients are deferred.
	Begin(ctx context.Context, env Envelope) (Message, error)
}

// A Message receives one message. Its methods are never called concurrently. It
// ends with exactly one call of End or of Abort; only if End panics both are
// called.
type Message interface {
	// Write receives the content byte for byte, without the dots that SMTP adds.
	// After an error nothing more is written, Abort is called, and all recipients
	// are deferred.
	io.Writer
	// End is called when all bytes are written. It returns one status for each
	// recipient of the envelope, in order; any other number defers them all. The
	// context ends after Options.EndTimeout, and when a shutdown can wait no
	// longer.
	End(ctx context.Context, env Envelope) []Status
	// Abort is called when the message ends without End: the connection was lost,
	// or the size limit was passed.
	Abort()
}

// Events that Options.Observe hears, beside "delivered", "deferred" and "refused"
// for each recipient of a message that came to its end.
const (
	EventConnection = "connection" // a connection was taken
	EventBusy       = "busy"       // a connection was refused: too many
	EventAbort      = "abort"      // a message was given up before its end
	EventPanic      = "panic"      // the backend panicked
)

// Options configure a Server. Only Backend is needed.
type Options struct {
	Backend Backend
	Domain  string       // named in the greeting; empty: "localhost"
	Log     *slog.Logger // nil: slog.Default()
	// MaxConnections is how many connections are served at once; further ones
	// hear 421. 0: 200.
	MaxConnections int
	MaxRecipients  int   // of one message; further ones hear 452. 0: 1,000
	MaxMessage     int64 // octets; larger messages hear 552. 0: no limit
	// IdleTimeout is how long the MTA may be silent, between commands and within
	// the content. 0: 5 minutes.
	IdleTimeout  time.Duration
	WriteTimeout time.Duration // for one reply. 0: 30 seconds
	// EndTimeout bounds Begin and End each. It should be less than the MTA's own
	// patience (Postfix: lmtp_data_done_timeout, 600 s). 0: 5 minutes.
	EndTimeout time.Duration
	// Observe is told of events, for metrics. It may be called concurrently.
	Observe func(event string)
}

func (o Options) withDefaults() Options {
	if o.Domain == "" {
		o.Domain = "localhost"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 200
	}
	if o.MaxRecipients == 0 {
		o.MaxRecipients = 1000
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 5 * time.Minute
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.EndTimeout == 0 {
		o.EndTimeout = 5 * time.Minute
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	return o
}

// A Server serves one Backend on any number of listeners.
type Server struct {
	opts Options
	lib  *smtp.Server

	ctx    context.Context // ends when a shutdown can wait no longer
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows
	closing   bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	ended     sync.WaitGroup // one for each element of conns; Add only while closing is false
}

// NewServer returns a server that waits for Serve.
func NewServer(o Options) *Server {
	s := &Server{
		opts:      o.withDefaults(),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lib = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.lib.LMTP = true
	s.lib.Domain = s.opts.Domain
	s.lib.MaxRecipients = s.opts.MaxRecipients
	s.lib.MaxMessageBytes = s.opts.MaxMessage
	s.lib.MaxLineLength = 0 // it would apply to the content too; conn limits commands
	s.lib.WriteTimeout = s.opts.WriteTimeout
	s.lib.EnableSMTPUTF8 = true
	s.lib.EnableDSN = true
	s.lib.ErrorLog = libLog{s.opts.Log}
	return s
}

// Serve takes connections from l until Shutdown, then returns ErrServerClosed.
// Errors of Accept that may pass do not end it. It closes l.
func (s *Server) Serve(l net.Listener) error {
	patient := socket.Patient(s.ctx, l, func(err error) {
		s.opts.Log.Error("lmtp: cannot accept a connection", "error", err)
	})
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(ErrServerClosed, l.Close())
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()

	err := s.lib.Serve(&limited{Listener: patient, s: s})

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrServerClosed
	}
	delete(s.listeners, l)
	return errors.Join(err, l.Close())
}

// Shutdown stops accepting, ends connections without a message, and waits until
// the messages under way have been answered. When ctx ends first it closes all
// connections, cancels what the backend does, and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stopAccepting()
	done := make(chan struct{})
	go func() { // ends with the last connection
		s.ended.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.cancel()
		return err
	case <-ctx.Done():
		s.cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			_ = c.Conn.Close() // the connection's own goroutine does the rest
		}
		return ctx.Err()
	}
}

func (s *Server) stopAccepting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	var errs []error
	for l := range s.listeners {
		errs = append(errs, l.Close())
	}
	clear(s.listeners)
	for c := range s.conns {
		c.drain()
	}
	return errors.Join(errs...)
}

// add registers a new connection; false: it is one too many.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.conns) >= s.opts.MaxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	s.ended.Add(1)
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.ended.Done()
}

// A limited listener makes connections ours and refuses those beyond the limit.
type limited struct {
	net.Listener
	s *Server
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := newConn(l.s, raw)
		if l.s.add(c) {
			c.open()
			l.s.opts.Observe(EventConnection)
			return c, nil
		}
		l.s.opts.Observe(EventBusy)
		l.s.opts.Log.Warn("lmtp: connection refused: too many, or shutting down")
		_ = raw.SetWriteDeadline(time.Now().Add(time.Second)) // best effort: the peer is refused anyway
		_, _ = io.WriteString(raw, "421 4.3.2 Too many connections, try again later\r\n")
		_ = raw.Close()
	}
}

// libLog gives go-smtp's messages to our log.
type libLog struct{ log *slog.Logger }

// Printf implements smtp.Logger.
func (l libLog) Printf(format string, v ...any) {
	l.log.Warn("lmtp: " + fmt.Sprintf(format, v...))
}

// Println implements smtp.Logger.
func (l libLog) Println(v ...any) { l.log.Warn("lmtp: " + fmt.Sprint(v...)) }
