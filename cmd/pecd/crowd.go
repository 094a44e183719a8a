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

// A crowd is the messages that are being accepted. While there are as many as
// processors, what has been accepted waits a little: acceptance goes before
// forwarding, since a client waits for the one and nobody for the other. The zero
// value is ready; its methods may be called concurrently.
type crowd struct {
	inside atomic.Int32
	full   atomic.Int64 // when it was last full, in Unix nanoseconds
}

// enter counts a message until it is called back.
func (c *crowd) enter() (leave func()) {
	if int(c.inside.Add(1)) >= max(2, runtime.GOMAXPROCS(0)) {
		c.full.Store(time.Now().UnixNano())
	}
	return func() { c.inside.Add(-1) }
}

// yield returns when there is no crowd, or the message that was committed at
// created has waited long enough: also by this clock, since the one that created
// is from may have been set back. It measures the machine's load, so its clock is
// the machine's.
func (c *crowd) yield(ctx context.Context, created time.Time) {
	begun := time.Now()
	for time.Since(time.Unix(0, c.full.Load())) < crowdEcho && time.Since(created) < maxYield && time.Since(begun) < maxYield {
		t := time.NewTimer(crowdPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
