package main

import (
	"context"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"weak"
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

// TestPastInstallations: what a reload has replaced is let go of when no message can be
// under way with it any more, once, and the one in force never.
func TestPastInstallations(t *testing.T) {
	d := &daemon{}
	begin := time.Now()
	var gone []int
	for n, at := range []time.Duration{0, time.Minute, keepPast, keepPast + time.Minute, keepPast + 2*time.Minute} {
		d.succeed(begin.Add(at), func() error { gone = append(gone, n); return nil })
		// The first was replaced when the second came, a minute after the begin.
		if want := [][]int{nil, nil, nil, {0}, {0}}[n]; !slices.Equal(gone, want) {
			t.Errorf("%s after the begin %v are gone, want %v", at, gone, want)
		}
	}
	d.release()
	if !slices.Equal(gone, []int{0, 1, 2, 3, 4}) {
		t.Errorf("at the end %v are gone", gone)
	}
}

// TestPastIsSmall: of an installation that is kept only to be let go of, the directory
// and the rest go when nobody uses them any more.
func TestPastIsSmall(t *testing.T) {
	in, err := load(context.Background(), newSite(t).config, look)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{}
	d.succeed(time.Now(), in.letGo())
	whole, directory := weak.Make(in), weak.Make(in.directory)
	in = nil
	runtime.GC()
	if whole.Value() != nil || directory.Value() != nil {
		t.Errorf("the installation is kept: %v, its directory: %v", whole.Value() != nil, directory.Value() != nil)
	}
	d.release()
}
