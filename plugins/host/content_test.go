package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
)

// source is a message of n zeros that tells what is read.
type source struct {
	n    int64
	read func()
}

func (s *source) Size() int64 { return s.n }

func (s *source) ReadAt(b []byte, _ int64) (int, error) {
	s.read()
	clear(b)
	return len(b), nil
}

// TestCopyStops: of a message that nobody waits for any more no more than a piece is
// copied.
func TestCopyStops(t *testing.T) {
	o, r := options(t)
	h := start(t, o, spec("clean"))
	ctx, cancel := context.WithCancel(limit(t))
	var read int64
	src := &source{n: 4 * pieceSize}
	src.read = func() {
		cancel()
		list, err := filepath.Glob(filepath.Join(o.Messages, "to-check", "*"))
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if fi, err := os.Stat(list[0]); err == nil {
			read = fi.Size()
		}
	}
	if f := h.Check(ctx, points.Submission, question(src)); len(f) != 1 || f[0].Says != points.Unavailable {
		t.Errorf("%+v", f)
	}
	if read == 0 || read > pieceSize {
		t.Errorf("%d octets were copied for nobody", read)
	}
	read = 0
	h.Check(ctx, points.Submission, question(src))
	if left, err := filepath.Glob(filepath.Join(o.Messages, "to-check", "*")); read > 0 || err != nil || len(left) > 0 {
		t.Errorf("%d octets were copied without any hope; left: %v, %v", read, left, err)
	}
	if got := r.observed(); got != "check cancelled, check cancelled" {
		t.Errorf("observed %s", got)
	}
}

// TestSlowCopy: what the copy of a message takes is not held against the plugin, which
// has the whole of its time for the answer.
func TestSlowCopy(t *testing.T) {
	o, r := options(t)
	s := spec("clean")
	h := start(t, o, s)
	p := h.plugins[0]
	var ready time.Time
	src := &source{n: 1 << 20, read: func() { ready = time.Now() }}
	q := question(src)
	err := p.call(limit(t), h.newContent(q.Source, q.Range, q.Facts), func(ctx context.Context, _ *session, m *pluginv1.Message) (string, error) {
		if d, ok := ctx.Deadline(); !ok || d.Before(ready.Add(s.Timeout)) {
			t.Errorf("the plugin has until %v for what it can read since %v", d, ready)
		}
		if _, err := os.Stat(m.GetPath()); err != nil {
			t.Error(err)
		}
		return "clean", nil
	})
	if err != nil || ready.IsZero() {
		t.Errorf("%v, ready at %v", err, ready)
	}
	p.spec.Timeout = time.Millisecond
	src.read = func() { <-time.After(2 * time.Millisecond) } // later than its deadline, however busy the machine is
	for range maxStrikes {
		if f := ask(t, h, q); f.Says != points.Unavailable {
			t.Errorf("%+v", f)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.HasSuffix(r.observed(), "check timeout, check timeout, check timeout") || p.strikes != 0 || len(p.hung) > 0 || p.state != Running {
		t.Errorf("observed %s; %d are held against the plugin", r.observed(), p.strikes)
	}
	if !strings.Contains(p.lastErr, errNotAsked.Error()) {
		t.Errorf("%s", p.lastErr)
	}
}

// TestLostWhileCopied: a plugin that ends while a message is copied for it does not run.
func TestLostWhileCopied(t *testing.T) {
	o, r := options(t)
	o.BackOff = time.Hour
	h := start(t, o, spec("clean"))
	src := &source{n: 1 << 20}
	src.read = func() {
		src.read = func() {}
		ask(t, h, small("crash"))
		until(t, "the end", func() bool { return h.Status()[0].State == BackingOff })
	}
	ask(t, h, question(message.Source(src)))
	if !strings.HasSuffix(r.observed(), "check not-running") {
		t.Errorf("observed %s", r.observed())
	}
}
