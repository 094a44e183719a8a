// Command mortal is a check that finds every message clean, and dies now and
// then: before it has read the message, half way, or with its answer on the way.
package main

import (
	"context"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"pecd/plugins/sdk"
	"pecd/points"
)

func main() {
	sdk.Main(sdk.Plugin{Name: "mortal", Version: "1", About: "dies in every third call", Open: open})
}

// die is SIGKILL: nothing of the process has a say in it.
func die() { _ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) }

func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	t := struct{ Every int64 }{3}
	if err := c.Decode(&t); err != nil {
		return nil, err
	}
	var calls atomic.Int64
	// A new process begins with another way to die.
	ways := int64(syscall.Getpid())
	return sdk.Check(func(_ context.Context, m *sdk.Message) (points.Finding, error) {
		doomed := t.Every > 0 && calls.Add(1)%t.Every == 0
		if doomed && ways%3 == 0 {
			die()
		}
		r, err := m.Open()
		if err != nil {
			return points.Finding{}, err
		}
		defer r.Close()
		half := io.LimitReader(r, r.Size()/2)
		if !doomed {
			half = r
		}
		if _, err := io.Copy(io.Discard, half); err != nil {
			return points.Finding{}, err
		}
		if doomed && ways%3 == 1 {
			die()
		}
		if doomed {
			time.AfterFunc(time.Millisecond, die)
		}
		return sdk.Clean(), nil
	}, points.Submission, points.Incoming, points.Delivery), nil
}
