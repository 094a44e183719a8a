package clockwatch

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/clockwatch/clockwatchtest"
)

// serve is a server that is ahead, with answers that change alters; nil: it does not.
func serve(t *testing.T, ahead time.Duration, change func([]byte) []byte) string {
	if change == nil {
		change = func(p []byte) []byte { return p }
	}
	return clockwatchtest.ServeChanged(t, func() time.Time { return time.Now().Add(ahead) }, change)
}

func TestAsk(t *testing.T) {
	random := func() *bytes.Reader { return bytes.NewReader([]byte("12345678")) }
	for _, ahead := range []time.Duration{0, 3 * time.Second, -2 * time.Hour} {
		got, err := Ask(t.Context(), serve(t, ahead, nil), time.Now, random())
		if err != nil || (got-ahead).Abs() > 500*time.Millisecond {
			t.Errorf("%v, %v, want %v", got, err, ahead)
		}
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":       func(p []byte) []byte { return p[:20] },
		"another's":   func(p []byte) []byte { p[24]++; return p },
		"ignorant":    func(p []byte) []byte { p[1] = 0; return p },
		"alarm":       func(p []byte) []byte { p[0] |= 0xc0; return p },
		"a client":    func(p []byte) []byte { p[0] = 0x23; return p },
		"no time":     func(p []byte) []byte { clear(p[32:]); return p },
		"backwards":   func(p []byte) []byte { clockwatchtest.Put(p[40:], time.Now().Add(-time.Minute)); return p },
		"much, empty": func([]byte) []byte { return make([]byte, 400) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if got, err := Ask(ctx, serve(t, 0, change), time.Now, random()); !errors.Is(err, ErrNTP) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		cancel()
	}
}

func FuzzRead(f *testing.F) {
	f.Add(make([]byte, packetSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= packetSize {
			_, _ = read(p[:packetSize], time.Unix(0, 0), time.Unix(1, 0))
		}
	})
}

// TestLook: what servers and kernel say, and what follows from it.
func TestLook(t *testing.T) {
	right, wrong, two := serve(t, 0, nil), serve(t, 5*time.Second, nil), serve(t, 2*time.Second, nil)
	dead := serve(t, 0, func([]byte) []byte { return nil })
	good := func() (Kernel, error) { return Kernel{true, 20 * time.Millisecond}, nil }
	bad := func() (Kernel, error) { return Kernel{}, nil }
	for _, tt := range []struct {
		name         string
		servers      []string
		kernel       func() (Kernel, error)
		known, doubt bool
		by           string
	}{
		{"server", []string{right}, bad, true, false, right},
		{"off", []string{wrong}, good, true, true, wrong},
		{"median", []string{wrong, right, right}, bad, true, false, right},
		{"kernel in place of a dead server", []string{dead}, good, true, false, "kernel"},
		{"kernel", nil, good, true, false, "kernel"},
		{"between two questions of timesyncd", nil, func() (Kernel, error) { return Kernel{true, 1100 * time.Millisecond}, nil }, true, false, "kernel"},
		{"one of them not answered", nil, func() (Kernel, error) { return Kernel{true, 2200 * time.Millisecond}, nil }, true, false, "kernel"},
		{"off by less than the kernel may be", []string{two}, good, true, true, two},
		{"wide", nil, func() (Kernel, error) { return Kernel{true, 3 * time.Second}, nil }, true, true, "kernel"},
		{"nobody", nil, bad, false, false, ""},
		{"broken", nil, func() (Kernel, error) { return Kernel{}, errors.New("no") }, false, false, ""},
	} {
		w := New(Options{Servers: tt.servers, Patience: 200 * time.Millisecond, Now: time.Now, Kernel: tt.kernel})
		w.Look(t.Context())
		if st := w.Status(); st.Known != tt.known || st.Doubt != tt.doubt || st.By != tt.by || !st.Known && st.Err == nil {
			t.Errorf("%s: %+v", tt.name, st)
		}
	}
	if st, err := AskKernel(); err != nil && !strings.Contains(err.Error(), "permitted") {
		t.Errorf("%+v, %v", st, err)
	}
}

// A desk is a watch under clocks that the test moves; the kernel vouches for the
// clock where it is synchronised.
type desk struct {
	*Watch
	now          time.Time
	elapsed      time.Duration
	synchronised bool
	off          time.Duration
	asked        func() // before the kernel answers
}

func newDesk(hold time.Duration) *desk {
	d := &desk{now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), asked: func() {}}
	d.Watch = New(Options{Hold: hold, Now: func() time.Time { return d.now }, Elapsed: func() time.Duration { return d.elapsed },
		Kernel: func() (Kernel, error) {
			d.asked()
			return Kernel{Synchronised: d.synchronised, Error: d.off}, nil
		}})
	return d
}

func (d *desk) pass(wall, steady time.Duration) {
	d.now, d.elapsed = d.now.Add(wall), d.elapsed+steady
}

// TestJump: a clock that jumps is doubted until somebody says that it is right, or an
// hour is over.
func TestJump(t *testing.T) {
	w := newDesk(0)
	pass := func(wall, steady time.Duration) bool {
		w.pass(wall, steady)
		jumped := w.move()
		w.Look(t.Context())
		return jumped
	}
	if pass(0, 0) || pass(10*time.Second, 10*time.Second) || w.Status().Doubt {
		t.Errorf("a steady clock is doubted: %+v", w.Status())
	}
	if !pass(5*time.Hour, 10*time.Second) || !w.Status().Doubt {
		t.Errorf("a jump is not doubted: %+v", w.Status())
	}
	if pass(59*time.Minute, 59*time.Minute) || !w.Status().Doubt {
		t.Errorf("doubted for too short: %+v", w.Status())
	}
	if pass(2*time.Minute, 2*time.Minute) || w.Status().Doubt {
		t.Errorf("doubted for longer than an hour: %+v", w.Status())
	}
	if !pass(-5*time.Hour, time.Second) || !w.Status().Doubt {
		t.Errorf("a jump back is not doubted: %+v", w.Status())
	}
	w.synchronised = true
	if pass(time.Second, time.Second) || w.Status().Doubt {
		t.Errorf("doubted though the kernel vouches for it: %+v", w.Status())
	}
}

// TestJumpUnseen: who asks for the status hears of a jump that Run has not seen yet,
// and Run asks about it although another saw it first.
func TestJumpUnseen(t *testing.T) {
	w := newDesk(0)
	w.synchronised = true
	w.Look(t.Context())
	w.pass(25*time.Hour, time.Second)
	if st := w.Status(); !st.Doubt || !st.Unsure {
		t.Errorf("a jump is not told: %+v", st)
	}
	if !w.move() {
		t.Error("nobody is asked about a jump that was seen by the way")
	}
	w.Look(t.Context())
	if w.move() || w.Status().Doubt {
		t.Errorf("doubted though the kernel vouches for it: %+v", w.Status())
	}
	for range 3 { // each of them would pass
		w.pass(1400*time.Millisecond, time.Second)
		w.Status()
	}
	if !w.Status().Doubt {
		t.Error("small steps between two questions do not count together")
	}
}

// TestJumpDuringLook: what somebody says about the clock of before a jump does not
// count for the one of after it.
func TestJumpDuringLook(t *testing.T) {
	w := newDesk(time.Hour)
	w.synchronised = true
	w.asked = func() { w.pass(25*time.Hour, time.Second) }
	w.Look(t.Context())
	if st := w.Status(); !st.Doubt || st.Known || st.Err == nil {
		t.Errorf("%+v", st)
	}
	w.asked = func() {}
	if !w.move() {
		t.Error("nobody is asked again")
	}
	w.Look(t.Context())
	if st := w.Status(); st.Doubt || st.Unsure || !st.Known {
		t.Errorf("%+v", st)
	}
}

// TestHold: from the start on the watch is unsure until somebody vouches for the
// clock, or an hour is over; certified is meanwhile.
func TestHold(t *testing.T) {
	w := newDesk(time.Hour)
	if st := w.Status(); !st.Unsure || st.Doubt {
		t.Errorf("before the first look: %+v", st)
	}
	select {
	case <-w.Looked():
		t.Error("it says that it has looked")
	default:
	}
	w.Look(t.Context())
	<-w.Looked()
	if st := w.Status(); !st.Unsure || st.Doubt {
		t.Errorf("nobody vouches: %+v", st)
	}
	w.pass(59*time.Minute, 59*time.Minute)
	w.Look(t.Context())
	if st := w.Status(); !st.Unsure {
		t.Errorf("sure too early: %+v", st)
	}
	w.pass(2*time.Minute, 2*time.Minute)
	if st := w.Status(); st.Unsure {
		t.Errorf("unsure for longer than an hour: %+v", st)
	}

	w = newDesk(time.Hour)
	w.synchronised = true
	w.Look(t.Context())
	if st := w.Status(); st.Unsure || st.Doubt {
		t.Errorf("the kernel vouches: %+v", st)
	}
}

// TestFoundOff: a clock that somebody found off is doubted when he cannot be asked any
// more.
func TestFoundOff(t *testing.T) {
	w := newDesk(0)
	w.synchronised, w.off = true, 3*time.Second
	w.Look(t.Context())
	w.synchronised = false
	w.pass(5*time.Minute, 5*time.Minute)
	w.Look(t.Context())
	if st := w.Status(); !st.Doubt || st.Known {
		t.Errorf("%+v", st)
	}
	w.pass(time.Hour, time.Hour)
	w.Look(t.Context())
	if st := w.Status(); st.Doubt {
		t.Errorf("doubted for longer than an hour: %+v", st)
	}
}
