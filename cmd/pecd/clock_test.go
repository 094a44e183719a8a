package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/clockwatch"
	"pecd/cmd/pecd/clockwatch/clockwatchtest"
	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/points/act"
)

// A termsBook is a store that is asked what is over at an instant, and says nothing.
type termsBook struct {
	logstore.Store
	asked []time.Time
	full  func() // after a question about the ledger; nil: nothing is overdue
}

func (b *termsBook) PurgeInfected(_ context.Context, at time.Time) (int, error) {
	b.asked = append(b.asked, at)
	return 0, nil
}

func (b *termsBook) Overdue(ctx context.Context, now time.Time, term time.Duration, _ bool, _ int) ([]logstore.Awaited, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.asked = append(b.asked, now.Add(-term))
	if b.full != nil {
		b.full()
	}
	return nil, nil
}

// TestFallDue: no term is over by a clock that jumped a moment ago, nor after the start
// by one for which nobody vouches.
func TestFallDue(t *testing.T) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	now, elapsed, vouched := start, time.Duration(0), false
	book := &termsBook{}
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.office.Store(&office{clerk: &act.Clerk{Store: book, Now: func() time.Time { return now }, Location: time.UTC}})
	d.time.watch = clockwatch.New(clockwatch.Options{Hold: clockwatch.Patience, Now: func() time.Time { return now },
		Elapsed: func() time.Duration { return elapsed },
		Kernel:  func() (clockwatch.Kernel, error) { return clockwatch.Kernel{Synchronised: vouched}, nil }})
	due := func() []time.Time {
		book.asked = nil
		d.fallDue(t.Context())
		return book.asked
	}
	if got := due(); got != nil {
		t.Errorf("before the first look: %v", got)
	}
	d.time.watch.Look(t.Context())
	if got := due(); got != nil {
		t.Errorf("nobody vouches: %v", got)
	}
	vouched = true
	d.time.watch.Look(t.Context())
	if got := due(); len(got) != 3 || !got[0].Equal(start) {
		t.Errorf("the clock is right: %v", got)
	}
	book.full = func() { now = now.Add(25 * time.Hour) }
	for _, at := range due() {
		if at.After(start) {
			t.Errorf("terms are over by a clock that jumped meanwhile: %v", at)
		}
	}
	book.full = nil
	if got := due(); got != nil {
		t.Errorf("the clock has jumped: %v", got)
	}
	d.time.watch.Look(t.Context())
	if got := due(); len(got) != 3 {
		t.Errorf("the jump was right: %v", got)
	}
}

// TestExpireWaits: expire does nothing before the clock was looked at.
func TestExpireWaits(t *testing.T) {
	book := &termsBook{}
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.office.Store(&office{clerk: &act.Clerk{Store: book, Now: time.Now, Location: time.UTC}})
	d.time.watch = clockwatch.New(clockwatch.Options{Now: time.Now}) // unsure of nothing
	ctx, stop := context.WithCancel(t.Context())
	stop()
	d.expire(ctx)
	if book.asked != nil {
		t.Errorf("terms are over before anybody has looked: %v", book.asked)
	}
}

// TestPurgeUnsure: the daemon removes nothing of the register by a clock that may be
// wrong.
func TestPurgeUnsure(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler)} // without a store
	d.time.watch = clockwatch.New(clockwatch.Options{Hold: clockwatch.Patience, Now: time.Now})
	w := httptest.NewRecorder()
	d.purgeNow(w, httptest.NewRequest(http.MethodPost, "/purge", strings.NewReader(`{"through":6}`)))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), errUnsure.Error()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestTermBegan: thirty months are of legal time, with its summer time, wherever the
// machine is; so shell and daemon do not differ.
func TestTermBegan(t *testing.T) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, rome)
	for _, zone := range []*time.Location{rome, time.UTC, time.FixedZone("elsewhere", -9*3600)} {
		if got, want := termBegan(now.In(zone), retentionMonths, rome), time.Date(2024, 5, 30, 10, 0, 0, 0, time.UTC); !got.Equal(want) {
			t.Errorf("in %s: %s, want %s", zone, got, want)
		}
	}
}

// TestPurgeAloneOff: nor does the command itself, where a server says that the clock is
// off.
func TestPurgeAloneOff(t *testing.T) {
	server := clockwatchtest.Serve(t, func() time.Time { return time.Now().AddDate(-1, 0, 0) })
	cfg := &config.Config{Store: config.Store{Path: t.TempDir()}, Time: config.Time{NTP: []string{server}, Interval: "5m"}}
	if _, err := purgeAlone(t.Context(), cfg, purgeOrder{}); !errors.Is(err, errUnsure) {
		t.Error(err)
	}
}
