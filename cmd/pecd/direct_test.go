package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/pec"
	"pecd/points/pointstest"
)

// A lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// directWorld is Alfa with an envelope to anna, one of its own users, in the outbox.
func directWorld(t *testing.T) (*crashWorld, *lines) {
	t.Helper()
	world := pointstest.New(t)
	base := newCrashWorld(t, world, world.Alfa)
	base.mustSubmit(anna)
	base.discardOutbox()
	base.close()
	w, log := base.again(t), &lines{}
	w.doors.log = slog.New(slog.NewTextHandler(log, nil))
	return w, log
}

// doorEvents are the counts of what happened at the doors, "door event n".
func doorEvents(t *testing.T, m *metrics) (list []string) {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "pecd_door_events_total" {
			continue
		}
		for _, c := range f.GetMetric() {
			list = append(list, fmt.Sprint(c.GetLabel()[0].GetValue(), " ", c.GetLabel()[1].GetValue(), " ", c.GetCounter().GetValue()))
		}
	}
	return list
}

// TestDirectPanic: a panic on the direct way ends nothing, and the MTA gets the
// message.
func TestDirectPanic(t *testing.T) {
	w, log := directWorld(t)
	w.doors.atStep = func(step string) {
		if step == stepTakenInCharge {
			panic("on purpose")
		}
	}
	w.send(true)
	if w.count(&w.mta) != 1 || w.count(&w.mailbox) != 0 || len(w.outbox(pec.KindTransport)) != 0 {
		t.Errorf("%d at the MTA, %d in the mailbox, %d in the outbox", w.count(&w.mta), w.count(&w.mailbox), len(w.outbox(pec.KindTransport)))
	}
	if log.count("panic on the direct way") != 1 || log.count("arrival.go") == 0 {
		t.Errorf("no panic with its stack in the log:\n%s", &log.text)
	}
	if got := doorEvents(t, w.doors.metrics); !slices.Contains(got, "direct panic 1") {
		t.Errorf("counted: %q", got)
	}
	w.doors.atStep = func(string) {}
	w.mustArrive([]byte(w.all(&w.mta)[0]), "posta-certificata@alfa.example", anna)
	if got := copiesOnce(w); got != "1" {
		t.Errorf("%s copies in the mailbox", got)
	}
}

// TestDirectHangs: a mailbox store that takes a connection and says nothing is waited
// for once, and then by one message at a time, until it works again.
func TestDirectHangs(t *testing.T) {
	w, log := directWorld(t)
	m := w.outbox(pec.KindTransport)[0]
	good, asked := w.doors.mailbox.Dial, 0
	hangs := func(context.Context) (net.Conn, error) {
		asked++
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		return ours, nil
	}
	w.doors.mailbox.Dial, w.doors.mailbox.CommandTimeout = hangs, 10*time.Millisecond
	way := newDirectWay(w.doors)
	want := func(what string, taken, times int) {
		t.Helper()
		if got := way.take(t.Context(), m); len(got) != taken || asked != times {
			t.Errorf("%s: taken for %v, the store was asked %d times, not %d", what, got, asked, times)
		}
	}
	want("the first", 0, 1)
	want("within the pause", 0, 1)
	w.ahead += directPause
	want("the trial", 0, 2)
	want("after the trial", 0, 2)
	w.ahead += directPause
	w.doors.atStep = func(string) { panic("on purpose") }
	want("a trial that does not come to the store", 0, 2)
	w.doors.atStep = func(string) {}
	want("the trial after it", 0, 3)
	want("after that trial", 0, 3)
	if n := log.count("the mailbox store does not answer"); n != 1 {
		t.Errorf("said %d times", n)
	}
	w.ahead += directPause
	w.doors.mailbox.Dial, w.doors.mailbox.CommandTimeout = good, 0
	want("when it works", 1, 3)
	if n := w.count(&w.mailbox); n != 1 {
		t.Errorf("%d in the mailbox", n)
	}
}

// TestDirectPatience: when its time is over an attempt ends, but not while the mailbox
// store has all of the message: what it answers then counts, and meanwhile no other
// message goes straight.
func TestDirectPatience(t *testing.T) {
	w, log := directWorld(t)
	m := w.outbox(pec.KindTransport)[0]
	way := newDirectWay(w.doors)
	over := func() {}
	way.after = func(d time.Duration, f func()) func() bool {
		if d != directPatience {
			t.Errorf("the time is over after %v", d)
		}
		over = f
		return func() bool { return true }
	}
	good := w.doors.mailbox.Dial
	w.doors.mailbox.Dial = func(ctx context.Context) (net.Conn, error) {
		over()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if got := way.take(t.Context(), m); len(got) > 0 || w.count(&w.mailbox) > 0 {
		t.Errorf("before the store has it: taken for %v, %d in the mailbox", got, w.count(&w.mailbox))
	}
	if n := log.count("the mailbox store does not answer"); n != 1 {
		t.Errorf("said %d times", n)
	}
	w.ahead += directPause
	var attempt context.Context
	w.doors.mailbox.Dial = func(ctx context.Context) (net.Conn, error) {
		attempt = ctx
		return good(ctx)
	}
	w.slow = func() {
		over()
		if err := attempt.Err(); err != nil {
			t.Errorf("the attempt is cut off: %v", err)
		}
		if _, ok := way.barrier.enter(w.now()); ok {
			t.Error("another one passes while the store is slow")
		}
	}
	if got := way.take(t.Context(), m); len(got) != 1 || w.count(&w.mailbox) != 1 {
		t.Errorf("when the store has it: taken for %v, %d in the mailbox", got, w.count(&w.mailbox))
	}
	if _, ok := way.barrier.enter(w.now()); ok {
		t.Error("another one passes after the store was slow")
	}
}

// TestBarrier: who was behind it before it went down does not lift it, and while one is
// on trial nobody passes.
func TestBarrier(t *testing.T) {
	now := pointstest.At
	var b barrier
	enter := func(trial, ok bool) {
		t.Helper()
		if gotTrial, gotOK := b.enter(now); gotTrial != trial || gotOK != ok {
			t.Fatalf("may pass: %v, on trial: %v", gotOK, gotTrial)
		}
	}
	leave := func(trial, failed, fell bool) {
		t.Helper()
		if b.leave(now, trial, failed, !failed) != fell {
			t.Fatalf("it went down: %v", !fell)
		}
	}
	enter(false, true)
	enter(false, true)
	enter(false, true)
	leave(false, true, true)
	leave(false, false, false)
	enter(false, false)
	now = now.Add(directPause)
	enter(true, true)
	enter(false, false)
	leave(false, true, false) // the third
	enter(false, false)
	leave(true, true, false)
	enter(false, false)
	now = now.Add(directPause)
	enter(true, true)
	b.leave(now, true, false, false) // nobody knows
	enter(true, true)
	enter(false, false)
	leave(true, false, false)
	enter(false, true)
	enter(false, true)
	if !b.fall(now) || b.fall(now) {
		t.Error("it falls once")
	}
	leave(false, true, false)
	leave(false, false, false)
	enter(false, false)
}
