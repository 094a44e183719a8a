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
	right, wrong := serve(t, 0, nil), serve(t, 5*time.Second, nil)
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

// TestJump: a clock that jumps is doubted until somebody says that it is right, or an
// hour is over.
func TestJump(t *testing.T) {
	now, elapsed := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), time.Duration(0)
	synchronised := false
	w := New(Options{Now: func() time.Time { return now }, Elapsed: func() time.Duration { return elapsed },
		Kernel: func() (Kernel, error) { return Kernel{Synchronised: synchronised}, nil }})
	pass := func(wall, steady time.Duration) bool {
		now, elapsed = now.Add(wall), elapsed+steady
		jumped := w.jump()
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
	synchronised = true
	if pass(time.Second, time.Second) || w.Status().Doubt {
		t.Errorf("doubted though the kernel vouches for it: %+v", w.Status())
	}
}
