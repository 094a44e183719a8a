package seal_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
	"pecd/signer/timestamp"
)

var errCrash = errors.New("crash")

// TestCrash: wherever sealing is cut off, the day is there whole or not at all,
// and the next attempt makes it good. Seal cleans up nothing when it fails, so
// that an error leaves what a crash leaves.
func TestCrash(t *testing.T) {
	for _, step := range []string{"exported", "signed", "stamped", "verified", "renamed"} {
		s := newScene(t)
		s.register.event(t, "2026-05-04 09:00:00")
		s.set("2026-05-05 08:00:00")
		sealer := s.sealer(nil)
		reached := false
		sealer.AtStep(func(at string) error {
			if at != step {
				return nil
			}
			reached = true
			return errCrash
		})
		if _, err := sealer.Seal(t.Context()); !errors.Is(err, errCrash) || !reached {
			t.Fatalf("%s: %v", step, err)
		}
		want := 0
		if step == "renamed" {
			want = 1
		}
		if r := s.verify(); r.Sound != want || len(r.Days) != want {
			t.Errorf("%s: %+v", step, r)
		}
		if want == 0 {
			s.seal("2026-05-05 08:00:00", "2026-05-04")
		} else {
			s.seal("2026-05-05 08:00:00")
		}
		s.sound(1)
		if got := strings.Join(list(t, s.dir), " "); got != ".lock 2026-05-04" {
			t.Errorf("%s: left over: %s", step, got)
		}
	}
}

// An outage is a Stamper that does not work for some time.
type outage struct {
	seal.Stamper
	left int
	hook func()
}

func (o *outage) Stamp(ctx context.Context, digest [sha256.Size]byte) (*timestamp.Token, error) {
	if o.hook != nil {
		o.hook()
	}
	if o.left > 0 {
		o.left--
		return nil, timestamp.ErrUnavailable
	}
	return o.Stamper.Stamp(ctx, digest)
}

// TestRun: sealing is tried again until the token is had, at growing intervals,
// with an alarm when it is late; then each day at its time.
func TestRun(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-05 00:05:00")
	away := &outage{Stamper: s.tsa, left: 6}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waits []time.Duration
	var late []bool
	var sealer *seal.Sealer
	sealer = s.sealer(func(o *seal.Options) {
		o.Stamper, o.Retry, o.MaxRetry, o.Late = away, time.Minute, 8*time.Minute, 30*time.Minute
		o.Timer = func(d time.Duration) <-chan time.Time {
			waits = append(waits, d)
			late = append(late, sealer.Status().Late)
			if sealer.Status().Last == day("2026-05-05") || len(waits) > 500 {
				cancel()
			}
			s.setTime(s.clock().Add(d))
			c := make(chan time.Time, 1)
			c <- s.clock()
			return c
		}
	})
	sealer.Run(ctx)
	// 00:05, due at 00:10; 6 failures; then waits of at most 10 minutes.
	want := []time.Duration{5 * time.Minute, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 8 * time.Minute, 8 * time.Minute, 10 * time.Minute}
	for i, w := range want {
		if i >= len(waits) || waits[i] != w {
			t.Fatalf("wait %d: %v, want %v", i, waits[:min(len(waits), 10)], want)
		}
	}
	if alarm := late[:8]; alarm[4] || !alarm[6] || alarm[7] {
		t.Errorf("alarm at each wait: %v", alarm)
	}
	st := sealer.Status()
	if st.Last != day("2026-05-05") || st.Next != day("2026-05-06") || st.Through != 1 || st.Err != nil || st.Attempts != 0 || st.Late {
		t.Errorf("%+v", st)
	}
	s.sound(2)
	if r := s.verify(); r.Days[1].Seal.Delay() != 10*time.Minute {
		t.Errorf("the second day was sealed %s after its end", r.Days[1].Seal.Delay())
	}
}

// TestStatusError: why it fails is known.
func TestStatusError(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-05 08:00:00")
	sealer := s.sealer(func(o *seal.Options) { o.Stamper = &outage{Stamper: s.tsa, left: 2} })
	for range 2 {
		if _, err := sealer.Seal(t.Context()); !errors.Is(err, timestamp.ErrUnavailable) {
			t.Error(err)
		}
	}
	st := sealer.Status()
	if !errors.Is(st.Err, timestamp.ErrUnavailable) || st.Attempts != 2 || st.Next != day("2026-05-04") || !st.Late {
		t.Errorf("%+v", st)
	}
}

// TestOneAtATime: who comes second is told so, and does no harm.
func TestOneAtATime(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-05 08:00:00")
	second := s.sealer(nil)
	var err error
	first := s.sealer(func(o *seal.Options) {
		o.Stamper = &outage{Stamper: s.tsa, hook: func() { _, err = second.Seal(t.Context()) }}
	})
	if sealed, err := first.Seal(t.Context()); err != nil || len(sealed) != 1 {
		t.Errorf("%v, %v", sealed, err)
	}
	if !errors.Is(err, seal.ErrBusy) {
		t.Errorf("the second: %v", err)
	}
	s.sound(1)
}

// TestBrokenRegister: what does not follow from the seal before is not sealed.
func TestBrokenRegister(t *testing.T) {
	for name, change := range map[string]func(m *memory){
		"altered":           func(m *memory) { m.links[3].Record = append(m.links[3].Record[:0:0], `{"seq":4}`...) },
		"rewritten":         func(m *memory) { rewrite(m, 1) },
		"lost":              func(m *memory) { m.links = append(m.links[:3:3], m.links[4:]...) },
		"cut":               func(m *memory) { m.links = m.links[:1] },
		"cut and rewritten": func(m *memory) { m.links = m.links[:2]; rewrite(m, 1) },
		"number in record": func(m *memory) {
			m.links[4].Record = []byte(strings.Replace(string(m.links[4].Record), `"seq":5`, `"seq":6`, 1))
			m.links[4].Chain = m.links[3].Chain.Next(m.links[4].Record)
		},
		"line feed": func(m *memory) {
			m.links[4].Record = append(m.links[4].Record[:0:0], "{\"seq\":5,\n\"at\":\"2026-05-05T00:00:00Z\"}"...)
			m.links[4].Chain = m.links[3].Chain.Next(m.links[4].Record)
		},
	} {
		s := newScene(t)
		for _, at := range []string{"2026-05-04 09:00:00", "2026-05-04 10:00:00", "2026-05-05 09:00:00", "2026-05-05 10:00:00", "2026-05-05 11:00:00"} {
			s.register.event(t, at)
		}
		s.seal("2026-05-05 09:00:00", "2026-05-04")
		change(s.register)
		s.set("2026-05-06 09:00:00")
		sealed, err := s.sealer(nil).Seal(t.Context())
		if len(sealed) > 0 || !errors.Is(err, seal.ErrBroken) && !errors.Is(err, seal.ErrRecord) {
			t.Errorf("%s: %v, %v", name, sealed, err)
		}
		s.sound(1)
	}
}

// rewrite alters entry i and computes the chain anew from there.
func rewrite(m *memory, i int) {
	m.links[i].Record = []byte(strings.Replace(string(m.links[i].Record), "Offerta", "Niente", 1))
	var before logstore.Digest
	for j := range m.links {
		m.links[j].Chain = before.Next(m.links[j].Record)
		before = m.links[j].Chain
	}
}

// TestBrokenSeals: nothing is put on top of a last seal that does not hold, and
// none is published that would not.
func TestBrokenSeals(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.seal("2026-05-05 09:00:00", "2026-05-04")
	s.set("2026-05-06 09:00:00")
	altered(t, filepath.Join(s.dir, "2026-05-04", "2026-05-04.json"), middleByte, func() {
		if _, err := s.sealer(nil).Seal(t.Context()); !errors.Is(err, seal.ErrUnsound) {
			t.Error(err)
		}
	})
	stranger := newScene(t)
	if _, err := s.sealer(func(o *seal.Options) { o.Signer = stranger.key }).Seal(t.Context()); !errors.Is(err, seal.ErrUnsound) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	s.tsa.Now = func() time.Time { return romeTime("2026-05-05 23:59:59") }
	if _, err := s.sealer(nil).Seal(t.Context()); !errors.Is(err, seal.ErrUnsound) || !strings.Contains(err.Error(), "before the day's end") {
		t.Errorf("a token from before the day's end: %v", err)
	}
	if got := list(t, s.dir); strings.Join(got, " ") != ".lock .part 2026-05-04" {
		t.Error(got)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "2026-05-05"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.sealer(nil).Seal(t.Context()); err == nil {
		t.Error("a file in the way of a day")
	}
}
