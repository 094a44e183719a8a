package milter

import (
	"context"
	"errors"
	"net"
	"sync"

	gomilter "github.com/emersion/go-milter"

	"pecd/milter/socket"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("milter: server closed")

// A Server serves one Backend on any number of listeners.
type Server struct {
	opts  Options
	check RecipientChecker // nil: recipients are not asked about

	ctx    context.Context // ends when a shutdown can wait no longer
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows
	closing   bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	ended     sync.WaitGroup // one for each element of conns, and one for each Serve, which alone adds others
}

// NewServer returns a server that waits for Serve.
func NewServer(o Options) *Server {
	s := &Server{
		opts:      o.withDefaults(),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
	}
	s.check, _ = o.Backend.(RecipientChecker)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve takes connections from l until Shutdown, then returns ErrServerClosed.
// Errors of Accept that may pass do not end it. It closes l.
func (s *Server) Serve(l net.Listener) error {
	patient := socket.Patient(s.ctx, l, func(err error) {
		s.opts.Log.Error("milter: cannot accept a connection", "error", err)
	})
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(ErrServerClosed, l.Close())
	}
	s.listeners[l] = struct{}{}
	s.ended.Add(1)
	s.mu.Unlock()
	defer s.ended.Done()

	// One go-milter server for each listener: the pairing of connection and
	// session relies on Accept and NewMilter being called in turn.
	pairing := &pairing{Listener: patient, s: s}
	lib := &gomilter.Server{
		NewMilter: pairing.session,
		Actions:   gomilter.OptSetSymList,
		Protocol:  s.protocol(),
		SymList:   macrosWanted,
	}
	err := lib.Serve(pairing)

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closing {
		return ErrServerClosed
	}
	return err
}

// protocol returns what the MTA is asked for: header values to the octet, no
// commands that go-milter answers by itself, and no waiting for answers that are
// always "continue". It halves what a message costs.
func (s *Server) protocol() gomilter.OptProtocol {
	p := gomilter.OptHeaderLeadingSpace | gomilter.OptNoUnknown | gomilter.OptNoData |
		gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply |
		gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply
	if s.check == nil {
		p |= gomilter.OptNoRcptReply
	}
	return p
}

// Shutdown stops accepting, closes connections that have had no message for
// Options.Linger, and waits until all have ended. When ctx ends first it closes
// all connections, cancels what the backend does, and returns the error of ctx.
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

// add registers a new connection; false: it is one too many. One that was taken
// from the listener just when a shutdown began is served as those before it: nobody
// else could serve it.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || len(s.conns) >= s.opts.MaxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	s.ended.Add(1)
	if s.closing {
		c.drain()
	}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.ended.Done()
}

// A pairing gives each session of go-milter the connection that it serves:
// go-milter calls NewMilter in the goroutine of Accept, right after it. It would
// call it again after a final answer, from elsewhere, but ours are none.
type pairing struct {
	net.Listener
	s    *Server
	last *session // of the connection that Accept returned last
}

func (p *pairing) Accept() (net.Conn, error) {
	for {
		raw, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := newConn(p.s, raw)
		if !p.s.add(c) {
			p.s.opts.Observe(EventBusy)
			p.s.opts.Log.Warn("milter: connection refused: too many, or shutting down")
			_ = raw.Close()
			continue
		}
		c.open()
		p.s.opts.Observe(EventConnection)
		p.last = c.session
		return c, nil
	}
}

func (p *pairing) session() gomilter.Milter { return p.last }
