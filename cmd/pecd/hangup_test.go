package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestHangup: SIGHUP before the daemon is ready waits for it, and while it drains it
// does nothing. Where the signal is not caught it ends this process.
func TestHangup(t *testing.T) {
	d := &daemon{hangup: catchHangup()}
	hangUp := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	select {
	case <-d.hangup:
	case <-time.After(time.Minute):
		t.Fatal("a signal at the start was lost")
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	d.reloadOnHangup(over)
	hangUp()
	select {
	case <-d.hangup: // caught, and nobody acts on it
	case <-time.After(time.Minute):
		t.Fatal("the signal went elsewhere")
	}
}
