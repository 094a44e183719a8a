package socket

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Patient returns l with an Accept that outlives errors that may pass, such as
// too many open files: it reports each, waits up to a second, and tries again. It
// returns an error only when l is closed or ctx ends.
func Patient(ctx context.Context, l net.Listener, report func(error)) net.Listener {
	return &patient{Listener: l, ctx: ctx, report: report}
}

type patient struct {
	net.Listener
	ctx    context.Context
	report func(error)
}

func (p *patient) Accept() (net.Conn, error) {
	wait := 5 * time.Millisecond
	for {
		c, err := p.Listener.Accept()
		if err == nil {
			return Prompt(c), nil
		}
		if errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
			return nil, err
		}
		p.report(err)
		select {
		case <-p.ctx.Done():
			return nil, p.ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

// refused reports whether nobody serves a socket that exists, or it is gone.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}
