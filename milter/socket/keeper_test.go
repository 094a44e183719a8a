package socket_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"pecd/milter/socket"
)

// A kept connection that says what is done to it.
type kept struct{ drained, killed chan struct{} }

func newKept() *kept { return &kept{make(chan struct{}, 1), make(chan struct{}, 1)} }

func (k *kept) Drain() { k.drained <- struct{}{} }
func (k *kept) Kill()  { k.killed <- struct{}{} }

func TestKeeper(t *testing.T) {
	k := socket.NewKeeper(2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- k.Serve(l, func(err error) { t.Error(err) }, func(l net.Listener) error {
			_, err := l.Accept()
			return err
		})
	}()
	// serve ends after one connection.
	if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	} else {
		defer c.Close()
	}
	if err := <-served; err != nil {
		t.Errorf("a listener that ends by itself: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is open still: %v", err)
	}

	first, second, third := newKept(), newKept(), newKept()
	if !k.Add(first) || !k.Add(second) || k.Add(third) {
		t.Fatal("it must keep two")
	}
	k.Remove(second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Shutdown(ctx) }()
	<-first.drained
	if !k.Add(third) { // taken from the listener just before
		t.Fatal("a late one was not taken")
	}
	<-third.drained
	k.Remove(third)
	if err := k.Serve(l, nil, nil); !errors.Is(err, socket.ErrServerClosed) {
		t.Errorf("served after the shutdown: %v", err)
	}
	if k.Context().Err() != nil {
		t.Error("it could wait longer")
	}
	cancel()
	<-first.killed
	<-k.Context().Done()
	if k.Add(newKept()) {
		t.Error("one was taken after the end")
	}
	k.Remove(first)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the shutdown ended with %v", err)
	}
	if err := k.Shutdown(t.Context()); err != nil {
		t.Errorf("a second shutdown: %v", err)
	}
}

// TestKeeperGrace: a shutdown that has cut a connection off waits for its handler, but
// not for one that never ends.
func TestKeeperGrace(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	k := socket.NewKeeper(1)
	k.Grace = time.Minute
	c, finished := newKept(), false
	if !k.Add(c) {
		t.Fatal("not taken")
	}
	go func() {
		<-c.killed
		<-k.Context().Done()
		finished = true
		k.Remove(c)
	}()
	if err := k.Shutdown(over); !errors.Is(err, context.Canceled) || !finished {
		t.Errorf("%v; its handler has finished: %v", err, finished)
	}

	k = socket.NewKeeper(1)
	k.Grace = time.Millisecond
	if !k.Add(newKept()) {
		t.Fatal("not taken")
	}
	if err := k.Shutdown(over); !errors.Is(err, context.Canceled) {
		t.Errorf("one that never ends: %v", err)
	}
}
