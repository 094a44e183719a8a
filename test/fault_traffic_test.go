package test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// A traffic is letters that several clients send at the same time, each trying
// again for as long as it must.
type traffic struct {
	letters  []letter
	accepted chan struct{} // one value for each letter, when it is accepted
	clients  errgroup.Group
}

func startTraffic(t *testing.T, s *stage.Stage, name string, n int) *traffic {
	t.Helper()
	f := &traffic{accepted: make(chan struct{}, n)}
	todo := make(chan letter, n)
	for i := range n {
		l := newLetter(name + "-" + strconv.Itoa(i))
		f.letters = append(f.letters, l)
		todo <- l
	}
	close(todo)
	// A letter may wait while pecd is ended and started several times.
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	for range 4 {
		f.clients.Go(func() error {
			for l := range todo {
				if err := l.insist(ctx, s); err != nil {
					return err
				}
				f.accepted <- struct{}{}
			}
			return nil
		})
	}
	t.Cleanup(func() {
		cancel()             // a test that has failed has no use for what they still try
		_ = f.clients.Wait() // wait has told the error
	})
	return f
}

// insist offers the letter until it is accepted.
func (l letter) insist(ctx context.Context, s *stage.Stage) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		final, err := l.offer(ctx, s)
		if err == nil || final {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", l.msgid, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// await waits until so many more letters are accepted.
func (f *traffic) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-f.accepted:
		case <-within(t).Done():
			t.Fatal("the clients do not get on")
		}
	}
}

// wait waits until all letters are accepted.
func (f *traffic) wait(t *testing.T) {
	t.Helper()
	if err := f.clients.Wait(); err != nil {
		t.Fatal(err)
	}
}

// sent reports whether a letter of this traffic has the Message-ID.
func (f *traffic) sent(msgid string) bool {
	return slices.ContainsFunc(f.letters, func(l letter) bool { return l.msgid == msgid })
}
