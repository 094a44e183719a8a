package socket

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Patient returns l with an Accept that outlives errors that may pass, such as
// too many open files: it reports each, waits up to a second, and tries again. It
// returns an error only when l is closed or ctx ends.
//
// It turns away those who call at a unix socket as our own user, unless that is root:
// they are plugins, which may open sockets, and whoever speaks at a door is believed to
// be the MTA. It is reported once an hour, as ErrOwnUser.
func Patient(ctx context.Context, l net.Listener, report func(error)) net.Listener {
	return &patient{Listener: l, ctx: ctx, report: report, user: os.Getuid(), now: time.Now}
}

// ErrOwnUser says that a process of our own user was turned away.
var ErrOwnUser = errors.New("a process of pecd's own user called where the MTA does: a plugin, or pecd doctor and other commands, which are for root there")

// tellAgain is after how long it is reported again that somebody was turned away.
const tellAgain = time.Hour

type patient struct {
	net.Listener
	ctx    context.Context
	report func(error)
	user   int // ours; 0: nobody is turned away
	now    func() time.Time
	told   time.Time // when ErrOwnUser was reported last
}

// turnedAway closes c if it is of our own user. If the kernel cannot say whose it is it
// stays: file modes still keep others out.
func (p *patient) turnedAway(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok || p.user == 0 {
		return false
	}
	if _, user, err := Peer(u); err != nil || user != p.user {
		return false
	}
	c.Close()
	if now := p.now(); p.told.IsZero() || now.Sub(p.told) >= tellAgain {
		p.told = now
		p.report(ErrOwnUser)
	}
	return true
}

func (p *patient) Accept() (net.Conn, error) {
	wait := 5 * time.Millisecond
	for {
		c, err := p.Listener.Accept()
		if err == nil && p.turnedAway(c) {
			continue
		}
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
