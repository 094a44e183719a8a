package conform

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// A journal keeps of the log what tells why something failed.
type journal struct {
	tell func(line string)

	mu     sync.Mutex // guards what follows
	why    string     // what was last said of a call without an answer
	panics int        // of handlers, as the SDK for Go tells them
}

func newJournal(tell func(string)) *journal {
	if tell == nil {
		tell = func(string) {}
	}
	return &journal{tell: tell}
}

func (j *journal) logger() *slog.Logger { return slog.New(handler{j, nil}) }

// last returns, and forgets, why the last call was not answered.
func (j *journal) last() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	why := j.why
	j.why = ""
	if why == "" {
		return "it cannot tell"
	}
	return why
}

func (j *journal) panicked() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.panics
}

// note takes one record.
func (j *journal) note(level slog.Level, message string, attrs []slog.Attr) {
	var b strings.Builder
	b.WriteString(level.String() + " " + message)
	for _, a := range attrs {
		fmt.Fprintf(&b, " %s=%q", a.Key, a.Value)
	}
	j.mu.Lock()
	if message == "a handler panicked" {
		j.panics++
	}
	for _, a := range attrs {
		if (a.Key == "error" || a.Key == "detail") && a.Value.String() != "" {
			j.why = a.Value.String()
		}
	}
	j.mu.Unlock()
	if level >= slog.LevelInfo {
		j.tell(b.String())
	}
}

// handler is a slog.Handler that writes to a journal.
type handler struct {
	journal *journal
	attrs   []slog.Attr
}

// Enabled implements slog.Handler.
func (handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	h.journal.note(r.Level, r.Message, attrs)
	return nil
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.journal, append(append([]slog.Attr(nil), h.attrs...), attrs...)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(string) slog.Handler { return h }
