package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// drain shuts all doors at once: a message that is slow at one of them must not take
// the others' time. What has not ended when ctx does is cut off, and comes again by
// the MTA: that is no failure of a daemon that was told to stop.
func drain(ctx context.Context, log *slog.Logger, doors ...interface{ Shutdown(context.Context) error }) error {
	errs := make([]error, len(doors))
	var all sync.WaitGroup
	for i, door := range doors {
		all.Add(1)
		go func() {
			defer all.Done()
			errs[i] = door.Shutdown(ctx)
		}()
	}
	all.Wait()
	cut := 0
	for i, err := range errs {
		if ctx.Err() != nil && err == ctx.Err() { // not what it is joined with
			errs[i] = nil
			cut++
		}
	}
	if cut > 0 {
		log.Warn("messages under way were cut off: the MTA has them", "doors", cut, "after", drainTime)
	}
	return errors.Join(errs...)
}
