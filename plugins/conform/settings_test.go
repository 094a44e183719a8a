package conform

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSet(t *testing.T) {
	for setting, want := range map[string]map[string]any{
		`max=50`:                 {"max": int64(50)},
		`max = 50`:               {"max": int64(50)},
		`word=prot.`:             {"word": "prot."},
		`word="a b"`:             {"word": "a b"},
		`word=`:                  {"word": ""},
		`on=true`:                {"on": true},
		`words=["a", "b"]`:       {"words": []any{"a", "b"}},
		`socket=unix:/run/x=1`:   {"socket": "unix:/run/x=1"},
		`timeout=30s`:            {"timeout": "30s"},
		"text=a\nW = 3":          {"text": "a\nW = 3"},
		"text=\"a\"\n[x]\ny = 1": {"text": "\"a\"\n[x]\ny = 1"},
	} {
		got := make(map[string]any)
		if err := Set(got, setting); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v; want %#v", setting, got, err, want)
		}
	}
	for _, setting := range []string{"", "max", "=50", " = x"} {
		if err := Set(map[string]any{}, setting); err == nil {
			t.Errorf("%q is taken", setting)
		}
	}
}

// TestRunRefuses: what is no program at all is an error, and not a plugin that
// failed.
func TestRunRefuses(t *testing.T) {
	ok, err := Run(context.Background(), "/nonexistent/plugin", Options{Now: time.Now}, func(r Result) { t.Errorf("it reports %v", r) })
	if ok || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", ok, err)
	}
}

// TestNoPlugin: a program that is no plugin fails the first tests, and the rest is
// skipped.
func TestNoPlugin(t *testing.T) {
	results, ok := check(t, "/bin/true", nil)
	if ok {
		t.Error("it passes")
	}
	for name, r := range results {
		want := Skipped
		if name == "by hand" || name == "handshake" {
			want = Failed
		}
		if r.Outcome != want || r.Reason == "" || r.Wants == "" {
			t.Errorf("%+v, want %s", r, want)
		}
	}
}

// TestCancelled: Run ends with its context.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	ok, err := Run(ctx, "../example/python/subjectwords", Options{Now: time.Now}, func(Result) { n++; cancel() })
	if ok || !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%v, %v after %d results", ok, err, n)
	}
}

func TestHuman(t *testing.T) {
	var b strings.Builder
	report := Human(&b)
	report(Result{Name: "open", Wants: "it opens", Outcome: Passed, Took: 12 * time.Millisecond})
	report(Result{Name: "panic", Wants: "none", Outcome: Skipped, Reason: "no Go"})
	report(Result{Name: "alive", Wants: "it lives", Outcome: Failed, Reason: "it is\ngone", Took: time.Second})
	const want = "ok    open                 12 ms\n" +
		"-     panic                 0 ms  no Go\n" +
		"FAIL  alive              1000 ms\n      wanted: it lives\n      found:  it is\n              gone\n"
	if b.String() != want {
		t.Errorf("%s, want\n%s", b.String(), want)
	}
}

// TestJournal: why a call failed is kept until it is asked for, and panics are
// counted.
func TestJournal(t *testing.T) {
	var lines []string
	j := newJournal(func(l string) { lines = append(lines, l) })
	log := j.logger().With("plugin", "x")
	log.Warn("a plugin did not answer", "error", errors.New("late"))
	log.Log(context.Background(), slog.LevelError, "a handler panicked", "panic", "x")
	log.Debug("noise")
	if why := j.last(); why != "late" {
		t.Errorf("why: %q", why)
	}
	if why := j.last(); why != "it cannot tell" {
		t.Errorf("why, again: %q", why)
	}
	if j.panicked() != 1 {
		t.Errorf("%d panics", j.panicked())
	}
	if len(lines) != 2 || lines[0] != `WARN a plugin did not answer plugin="x" error="late"` {
		t.Errorf("%q", lines)
	}
}
