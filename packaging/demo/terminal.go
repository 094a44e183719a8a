package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// A terminal writes the demo's output. On a real terminal it uses colour and
// shows that a long step is alive; into a file or a pipe it writes plain lines.
type terminal struct {
	out   *os.File
	fancy bool

	mu    sync.Mutex // guards writing, and step and since
	step  string     // what is being done; "" if nothing
	since time.Time
	quit  chan struct{} // ends the goroutine that shows progress
	ended sync.WaitGroup
}

func newTerminal(out *os.File) *terminal {
	fi, err := out.Stat()
	tty := err == nil && fi.Mode()&os.ModeCharDevice != 0
	return &terminal{out: out, fancy: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (t *terminal) printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLine()
	fmt.Fprintf(t.out, format, args...)
}

// begin names a step that may take a while; done or drop ends it.
func (t *terminal) begin(format string, args ...any) {
	t.drop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step, t.since = fmt.Sprintf(format, args...), time.Now()
	if !t.fancy {
		return
	}
	t.quit = make(chan struct{})
	t.ended.Add(1)
	go t.progress(t.quit)
}

// progress redraws the current step until quit is closed.
func (t *terminal) progress(quit <-chan struct{}) {
	defer t.ended.Done()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		t.mu.Lock()
		t.clearLine()
		line := t.step
		if len(line) > 66 {
			line = line[:63] + "..."
		}
		fmt.Fprintf(t.out, "  \x1b[2m%6.1f s  %s\x1b[0m", time.Since(t.since).Seconds(), line)
		t.mu.Unlock()
		select {
		case <-quit:
			return
		case <-tick.C:
		}
	}
}

// done ends the step and leaves a line with the time it took.
func (t *terminal) done() {
	t.mu.Lock()
	step, took := t.step, time.Since(t.since)
	t.mu.Unlock()
	t.drop()
	t.printf("  %6.1f s  %s\n", took.Seconds(), step)
}

// drop ends the step and leaves nothing.
func (t *terminal) drop() {
	if t.quit != nil {
		close(t.quit)
		t.ended.Wait()
		t.quit = nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLine()
	t.step = ""
}

// clearLine removes a progress line; the caller holds mu.
func (t *terminal) clearLine() {
	if t.fancy && t.step != "" {
		fmt.Fprint(t.out, "\r\x1b[K")
	}
}

func (t *terminal) heading(format string, args ...any) {
	t.printf("\n%s\n", t.paint("1", fmt.Sprintf(format, args...)))
}

// paint wraps text in an SGR sequence on a real terminal.
func (t *terminal) paint(sgr, text string) string {
	if !t.fancy {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (t *terminal) good(text string) string { return t.paint("32", text) }
func (t *terminal) bad(text string) string  { return t.paint("1;31", text) }

// table prints rows below a head, the columns as wide as they need to be.
func (t *terminal) table(head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, r := range append([][]string{head}, rows...) {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	t.printf("  %s\n", t.paint("2", line(head, width)))
	for _, r := range rows {
		t.printf("  %s\n", line(r, width))
	}
}

func line(cells []string, width []int) string {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
		}
	}
	return strings.TrimRight(b.String(), " ")
}
