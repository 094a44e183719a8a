package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// TestRestart restarts pecd of Alfa again and again while clients send. With the
// sockets of systemd nobody hears a refusal: who connects waits, and who is
// connected is served to the end. Without them clients hear 4xx and nothing worse.
func TestRestart(t *testing.T) {
	t.Run("pecd.socket", func(t *testing.T) { restartUnderLoad(t, true) })
	t.Run("own sockets", func(t *testing.T) { restartUnderLoad(t, false) })
}

func restartUnderLoad(t *testing.T, passed bool) {
	s := newStage(t)
	p := s.Alfa.Pecd
	if passed {
		if err := p.Stop(within(t)); err != nil {
			t.Fatal(err)
		}
		for _, addr := range []string{p.Config.Access.Milter, p.Config.Gate.Milter, p.Config.Reception.LMTP} {
			p.Sockets = append(p.Sockets, activated(t, addr))
		}
		if err := p.Start(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience) // three stops, three starts, and clients between them
	defer cancel()
	over := make(chan struct{})
	progress := make(chan struct{})
	var sent, later atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for k := range 4 {
		g.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-over:
					return nil
				default:
				}
				taken, err := sendThree(gctx, s, fmt.Sprintf("riavvio-%d-%d", k, n))
				sent.Add(taken)
				var reply *textproto.Error
				switch {
				case err == nil:
				case errors.As(err, &reply) && reply.Code/100 == 4 && !passed:
					later.Add(1)
				default:
					return fmt.Errorf("client %d: %w", k, err)
				}
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
	}
	g.Go(func() error {
		defer close(over)
		for range 3 {
			for range 6 { // clients are at work
				select {
				case <-progress:
				case <-gctx.Done():
					return nil
				}
			}
			if err := p.Stop(gctx); err != nil {
				return err
			}
			if err := p.Start(gctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("3 restarts: %d messages taken, %d sessions put off", sent.Load(), later.Load())
	if !passed && later.Load() == 0 {
		t.Error("nobody noticed a restart: the test sends too little")
	}
	defer func() {
		if !t.Failed() {
			return
		}
		for _, p := range s.Providers() { // what is late is there
			queue, err := p.Queue(within(t))
			t.Logf("the MTA of %s has %d messages (%v): %q", p.Domain, len(queue), err, queue)
		}
	}()
	// Each has its acceptance receipt, and two delivery receipts. What was put off comes
	// back by the MTA's queue: it has a time of its own, however long the sending took.
	ctx, cancel = context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	waitFiles(ctx, t, s, letterFrom, 3*int(sent.Load()))
}

// sendThree sends three messages over one connection, and returns how many were
// taken.
func sendThree(ctx context.Context, s *stage.Stage, name string) (taken int64, err error) {
	c, err := s.Login(ctx, letterFrom)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for n := range 3 {
		if _, err := c.Send(letterFrom, letterTo, newSmallLetter(fmt.Sprintf("%s-%d", name, n)).raw); err != nil {
			return taken, err
		}
		taken++
	}
	return taken, nil
}

// activated is a socket as systemd opens it.
func activated(t *testing.T, addr string) *os.File {
	t.Helper()
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		l, err := net.Listen("tcp", strings.TrimPrefix(addr, "inet:"))
		if err != nil {
			t.Fatal(err)
		}
		return passedOn(t, l.(*net.TCPListener))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, 0, gid)); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	return passedOn(t, l)
}

// passedOn is the file of a listener, open until the test ends.
func passedOn(t *testing.T, l interface {
	File() (*os.File, error)
	Close() error
}) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}
