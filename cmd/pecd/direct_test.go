package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

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
