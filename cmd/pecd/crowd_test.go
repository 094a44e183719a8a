package main

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// crowded is a crowd that is full as long as the test runs.
func crowded(t *testing.T) *crowd {
	c := new(crowd)
	for range max(2, runtime.GOMAXPROCS(0)) {
		t.Cleanup(c.enter())
	}
	c.full.Store(time.Now().Add(time.Hour).UnixNano())
	return c
}

// TestYield: a message waits for a crowd until it is old enough, by its own instant
// or, where that lies ahead of a clock that was set back, by its waiting.
func TestYield(t *testing.T) {
	for name, tc := range map[string]struct {
		crowd       *crowd
		created     time.Duration // from now
		least, most time.Duration
	}{
		"nobody":      {new(crowd), 0, 0, time.Second},
		"old":         {crowded(t), -maxYield, 0, time.Second},
		"young":       {crowded(t), 500*time.Millisecond - maxYield, 400 * time.Millisecond, maxYield - 500*time.Millisecond},
		"clock ahead": {crowded(t), time.Hour, maxYield - time.Second, maxYield + 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			begun := time.Now()
			tc.crowd.yield(ctx, begun.Add(tc.created))
			if d := time.Since(begun); d < tc.least || d > tc.most {
				t.Errorf("waited %v, want %v to %v", d, tc.least, tc.most)
			}
		})
	}
}

// TestCrowdFills: as many as processors are a crowd, one is none.
func TestCrowdFills(t *testing.T) {
	c := new(crowd)
	leave := c.enter()
	if c.full.Load() != 0 {
		t.Error("one message is a crowd")
	}
	for range max(2, runtime.GOMAXPROCS(0)) - 1 {
		defer c.enter()()
	}
	if c.full.Load() == 0 {
		t.Error("as many as processors are none")
	}
	leave()
}

// TestCrowdStays: two large messages are a crowd for as long as they take.
func TestCrowdStays(t *testing.T) {
	c := new(crowd)
	var leave []func()
	for range max(2, runtime.GOMAXPROCS(0)) {
		leave = append(leave, c.enter())
	}
	c.full.Store(0) // as when they came long ago
	if !c.felt() {
		t.Error("a crowd is not felt because it came long ago")
	}
	c.full.Store(0)
	leave[0]()
	if c.full.Load() == 0 {
		t.Error("a crowd is not felt although it went a moment ago")
	}
	c.full.Store(0)
	if c.felt() {
		t.Error("all but one have gone, and a crowd is felt")
	}
}
