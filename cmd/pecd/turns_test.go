package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestTurns(t *testing.T) {
	var turns turns
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for i := range 100 {
		key := []string{"a", "b"}[i%2]
		n := counts[key]
		wg.Add(1)
		go func() {
			defer wg.Done()
			done, err := turns.take(ctx, key)
			if err != nil {
				t.Error(err)
				return
			}
			*n++ // the race detector sees two at once
			done()
		}()
	}
	wg.Wait()
	for key, n := range counts {
		if *n != 50 {
			t.Errorf("%s had %d turns", key, *n)
		}
	}
	if len(turns.waiting) != 0 {
		t.Errorf("%d turns are left over", len(turns.waiting))
	}
}

func TestTurnsGiveUp(t *testing.T) {
	var turns turns
	first, err := turns.take(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := turns.take(over, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("the second got %v", err)
	}
	other, err := turns.take(context.Background(), "b")
	if err != nil {
		t.Fatal("another key has to wait:", err)
	}
	other()
	first()
	again, err := turns.take(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(turns.waiting) != 0 {
		t.Errorf("%d turns are left over", len(turns.waiting))
	}
}
