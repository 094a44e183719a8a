package logstore_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

// Try fails where there is room for a transaction without content, but not for a receipt.
func TestTryNeedsRoom(t *testing.T) {
	runChild(t, "tight", filepath.Join(t.TempDir(), "store"), "")
}

func tightChild(t testing.TB, dir, _ string) {
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	mustCommit(t, s, smallAccess(t, storetest.NewProvider(t)))
	before := statsOf(t, s)
	wal, err := os.Stat(filepath.Join(dir, "pecd.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	limitFiles(t, uint64(wal.Size())+32<<10)
	for range 2 {
		if err := s.Try(ctx); !errors.Is(err, logstore.ErrUnavailable) || errors.Is(err, logstore.ErrUncertain) {
			t.Errorf("Try on a full disk: %v", err)
		}
		mustCommit(t, s, logstore.Tx{At: storetest.At})
	}
	limitFiles(t, noLimit)
	if err := s.Try(ctx); err != nil {
		t.Errorf("Try with room again: %v", err)
	}
	untilNoBody(t, dir)
	if after := statsOf(t, s); after != before {
		t.Errorf("it left %+v, before %+v", after, before)
	}
}

// untilNoBody waits until what was tried is gone.
func untilNoBody(t testing.TB, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(bodyFiles(t, dir)) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("files %v are left", bodyFiles(t, dir))
		}
	}
}

// Try takes the steps of a commit, in their order, wakes nobody and leaves no row.
func TestTry(t *testing.T) {
	dir := t.TempDir()
	var order []string
	recovered := &recoveries{}
	s := open(t, logstore.Options{Dir: dir, AtStep: func(at logstore.Step) { order = append(order, string(at)) }})
	s.WatchSyncs(func(name string) error { order = append(order, name); return nil })
	if err := s.Try(context.Background()); err != nil {
		t.Error(err)
	}
	want := []string{"commit-prepared", "2.tmp", "commit-synced", "commit-named", "bodies", "commit-name-synced",
		"commit-begun", "commit-written", "commit-committed", "commit-settled"}
	if !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	select {
	case <-s.Wake():
		t.Error("the courier was woken")
	default:
	}
	untilNoBody(t, dir)
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir, Log: recovered.log()})
	defer closeStore(t, s)
	if recovered.n != 0 {
		t.Errorf("the next start had %d things to remove", recovered.n)
	}
	if st := statsOf(t, s); st != (logstore.Stats{}) {
		t.Errorf("it left %+v", st)
	}
}

// recoveries counts what a store says when it is opened.
type recoveries struct{ n int }

func (r *recoveries) log() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func (r *recoveries) Write(p []byte) (int, error) {
	r.n++
	return len(p), nil
}
