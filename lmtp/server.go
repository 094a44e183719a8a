package lmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/milter/socket"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = socket.ErrServerClosed

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

// Events that Options.Observe hears. The last three are told for each recipient of a
// message that came to its end.
const (
	EventConnection = "connection" // a connection was taken
	EventBusy       = "busy"       // a connection was refused: too many
	EventAbort      = "abort"      // a message was given up before its end
	EventPanic      = "panic"      // the backend panicked
	EventDelivered  = "delivered"
	EventRefused    = "refused"
	EventDeferred   = "deferred"
)

// Events returns all of them.
func Events() []string {
	return []string{EventConnection, EventBusy, EventAbort, EventPanic, EventDelivered, EventRefused, EventDeferred}
}

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
	// GreetTimeout is how long LHLO may take with which a connection begins. 0: 30
	// seconds, since until then a connection keeps its place for nothing.
	GreetTimeout time.Duration
	// IdleTimeout is how long the MTA may be silent, between commands and within
	// the content. 0: 5 minutes.
	IdleTimeout time.Duration
	// WriteTimeout is how long the MTA may take to take replies, each time that they
	// are sent to it. 0: 30 seconds.
	WriteTimeout time.Duration
	// EndTimeout bounds Begin and End each. It should be less than the MTA's own
	// patience (Postfix: lmtp_data_done_timeout, 600 s). 0: 5 minutes.
	EndTimeout time.Duration
	// Sleep waits before more is read from who sends a few octets at a time (see
	// socket.Trickle). It may be called concurrently. nil: time.Sleep.
	Sleep func(time.Duration)
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
	if o.GreetTimeout == 0 {
		o.GreetTimeout = 30 * time.Second
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
	if o.Sleep == nil {
		o.Sleep = time.Sleep
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
	keep *socket.Keeper
}

// NewServer returns a server that waits for Serve.
func NewServer(o Options) *Server {
	o = o.withDefaults()
	s := &Server{opts: o, keep: socket.NewKeeper(o.MaxConnections)}
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
	report := func(err error) {
		if errors.Is(err, socket.ErrOwnUser) {
			s.opts.Log.Warn("lmtp: a connection was turned away", "error", err)
			return
		}
		s.opts.Log.Error("lmtp: cannot accept a connection", "error", err)
	}
	return s.keep.Serve(l, report, func(l net.Listener) error { return s.lib.Serve(&limited{Listener: l, s: s}) })
}

// Shutdown stops accepting, ends connections without a message, and waits until
// the messages under way have been answered. When ctx ends first it closes all
// connections, cancels what the backend does, waits for its end (socket.Keeper.Grace),
// and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error { return s.keep.Shutdown(ctx) }

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
		if l.s.keep.Add(c) {
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
