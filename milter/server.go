package milter

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	gomilter "github.com/emersion/go-milter"

	"pecd/milter/socket"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = socket.ErrServerClosed

// A Server serves one Backend on any number of listeners.
type Server struct {
	opts  Options
	check RecipientChecker // nil: recipients are not asked about
	keep  *socket.Keeper
	// addresses is how many octets the recipients of all messages under way take.
	addresses atomic.Int64
}

// NewServer returns a server that waits for Serve.
func NewServer(o Options) *Server {
	o = o.withDefaults()
	s := &Server{opts: o, keep: socket.NewKeeper(o.MaxConnections)}
	s.check, _ = o.Backend.(RecipientChecker)
	return s
}

// Serve takes connections from l until Shutdown, then returns ErrServerClosed.
// Errors of Accept that may pass do not end it. It closes l.
func (s *Server) Serve(l net.Listener) error {
	report := func(err error) {
		if errors.Is(err, socket.ErrOwnUser) {
			s.opts.Log.Warn("milter: a connection was turned away", "error", err)
			return
		}
		s.opts.Log.Error("milter: cannot accept a connection", "error", err)
	}
	return s.keep.Serve(l, report, func(l net.Listener) error {
		// One go-milter server for each listener: the pairing of connection and
		// session relies on Accept and NewMilter being called in turn.
		pairing := &pairing{Listener: l, s: s}
		lib := &gomilter.Server{
			NewMilter: pairing.session,
			Actions:   gomilter.OptSetSymList,
			Protocol:  s.protocol(),
			SymList:   macrosWanted,
		}
		return lib.Serve(pairing)
	})
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
// all connections, cancels what the backend does, waits for its end
// (socket.Keeper.Grace), and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error { return s.keep.Shutdown(ctx) }

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
		if !p.s.keep.Add(c) {
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
