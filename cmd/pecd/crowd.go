package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// maxYield is how long a message of the outbox waits at most for others to be
	// accepted.
	maxYield = 3 * time.Second
	// crowdEcho is how long a crowd is felt: between two messages of its sessions.
	crowdEcho = 50 * time.Millisecond
	// crowdPause is how often it is looked whether it has gone.
	crowdPause = 5 * time.Millisecond
)

// A crowd is the messages that are being accepted, each from its first octet at the
// access door to the answer: the MTA has the whole of it by then, so that no slow
// client is waited for. While there are as many as processors, what has been
// accepted waits a little: acceptance goes before forwarding, since a client waits
// for the one and nobody for the other. The zero value is ready; its methods may be
// called concurrently.
type crowd struct {
	inside atomic.Int32
	full   atomic.Int64 // when it was last seen full, in Unix nanoseconds
}

// enter counts a message until it is called back, once.
func (c *crowd) enter() (leave func()) {
	c.look(c.inside.Add(1))
	return func() { c.look(c.inside.Add(-1) + 1) }
}

// look notes that it is full, if so many are.
func (c *crowd) look(inside int32) {
	if int(inside) >= max(2, runtime.GOMAXPROCS(0)) {
		c.full.Store(time.Now().UnixNano())
	}
}

// felt reports whether it is full, or was a moment ago.
func (c *crowd) felt() bool {
	c.look(c.inside.Load())
	return time.Since(time.Unix(0, c.full.Load())) < crowdEcho
}

// yield returns when there is no crowd, or the message that was committed at
// created has waited long enough: also by this clock, since the one that created
// is from may have been set back. It measures the machine's load, so its clock is
// the machine's.
func (c *crowd) yield(ctx context.Context, created time.Time) {
	begun := time.Now()
	for c.felt() && time.Since(created) < maxYield && time.Since(begun) < maxYield {
		t := time.NewTimer(crowdPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
