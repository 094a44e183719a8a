package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A shutting is a door that is told to shut.
type shutting func(context.Context) error

func (s shutting) Shutdown(ctx context.Context) error { return s(ctx) }

// TestDrain: all doors are shut at once, and one that is cut off at the end of the
// time is told of, and no failure.
func TestDrain(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var told sync.WaitGroup
	told.Add(3)
	meets := shutting(func(ctx context.Context) error { // ends when all have been told
		told.Done()
		met := make(chan struct{})
		go func() { told.Wait(); close(met) }()
		select {
		case <-met:
			return nil
		case <-ctx.Done():
			t.Error("a door was not told while another one was still shutting")
			return ctx.Err()
		}
	})
	if err := drain(ctx, logger, meets, meets, meets); err != nil || log.Len() > 0 {
		t.Errorf("a good end: %v\n%s", err, &log)
	}

	over, end := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer end()
	slow := shutting(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	prompt := shutting(func(context.Context) error { return nil })
	if err := drain(over, logger, slow, prompt, prompt); err != nil || !strings.Contains(log.String(), "messages under way were cut off") {
		t.Errorf("a door that was cut off: %v\n%s", err, &log)
	}
	broken := errors.New("the listener does not close")
	if err := drain(over, logger, slow, shutting(func(context.Context) error { return broken }), prompt); !errors.Is(err, broken) {
		t.Errorf("a door that broke: %v", err)
	}
}
