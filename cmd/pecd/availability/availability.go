// Package availability keeps the times in which the daemon was able to accept
// messages, so that a report can say how much of a period it was (decree of 2
// November 2005, art. 12: 99.8 % of four months).
//
// They stand in one small file of lines of the same length, "since until" in
// seconds since 1970. The daemon moves the end of the last line forward, in place:
// a crash at any instant leaves the line as it was or as it is to be.
package availability

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// FileName is the file in the store's directory.
const FileName = "availability"

// Files are the names of all files of this package in the store's directory.
func Files() []string { return []string{FileName, TimesName} }

const lineSize = 22 // two numbers of ten digits, a blank, a line feed

// A Span is a time in which messages could be accepted.
type Span struct{ Since, Until time.Time }

// A Recorder writes the file. It belongs to one goroutine.
type Recorder struct {
	file *os.File
	next int64 // where the line goes that is to be begun
	open bool  // the line before it is ours and goes on
	span Span
}

// Open opens the file in dir. What a crash left of a last line is overwritten.
func Open(dir string) (*Recorder, error) {
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("availability: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("availability: %w", err), f.Close())
	}
	return &Recorder{file: f, next: st.Size() - st.Size()%lineSize}, nil
}

// Up says that messages can be accepted at the instant now. If more than longest
// has gone by since the last Up, nothing is known of the time between.
func (r *Recorder) Up(now time.Time, longest time.Duration) error {
	if r.open && !now.Before(r.span.Until) && now.Sub(r.span.Until) <= longest {
		r.span.Until = now
		return r.write(r.next - lineSize)
	}
	r.span, r.open = Span{now, now}, false
	if err := r.write(r.next); err != nil {
		return err
	}
	r.next, r.open = r.next+lineSize, true
	return nil
}

// Down says that they cannot any more.
func (r *Recorder) Down() { r.open = false }

func (r *Recorder) write(at int64) error {
	line := fmt.Sprintf("%010d %010d\n", r.span.Since.Unix(), r.span.Until.Unix())
	if len(line) != lineSize {
		return fmt.Errorf("availability: %s cannot be written", r.span.Until)
	}
	if _, err := r.file.WriteAt([]byte(line), at); err != nil {
		return fmt.Errorf("availability: %w", err)
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("availability: %w", err)
	}
	return nil
}

// Close closes the file.
func (r *Recorder) Close() error { return r.file.Close() }

// Read returns the spans in dir that touch the time from since to until, cut to
// it, in their order and merged where they overlap. No file is no span.
func Read(dir string, since, until time.Time) ([]Span, error) {
	f, err := os.Open(filepath.Join(dir, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("availability: %w", err)
	}
	defer f.Close()
	var spans []Span
	r := bufio.NewReader(f)
	for line := make([]byte, lineSize); ; {
		if _, err := io.ReadFull(r, line); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return merge(spans), nil
		} else if err != nil {
			return nil, fmt.Errorf("availability: %w", err)
		}
		s, err := parse(line)
		if err != nil {
			return nil, err
		}
		if s.Since.Before(since) {
			s.Since = since
		}
		if s.Until.After(until) {
			s.Until = until
		}
		if s.Until.After(s.Since) {
			spans = append(spans, s)
		}
	}
}

// parse reads a line as write writes it.
func parse(line []byte) (Span, error) {
	var since, until int64
	n, err := fmt.Sscanf(string(line), "%d %d\n", &since, &until)
	if n != 2 || err != nil || since < 0 || until < since {
		return Span{}, fmt.Errorf("availability: a line that is none: %q", line)
	}
	return Span{time.Unix(since, 0), time.Unix(until, 0)}, nil
}

// merge joins what overlaps: a clock that was set back leaves such spans.
func merge(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return a.Since.Compare(b.Since) })
	var out []Span
	for _, s := range spans {
		if n := len(out); n > 0 && !s.Since.After(out[n-1].Until) {
			if s.Until.After(out[n-1].Until) {
				out[n-1].Until = s.Until
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// First returns the instant from which on anything is known; ok is false if
// nothing is.
func First(dir string) (first time.Time, ok bool, err error) {
	spans, err := Read(dir, time.Unix(0, 0), time.Unix(9999999999, 0))
	if err != nil || len(spans) == 0 {
		return time.Time{}, false, err
	}
	return spans[0].Since, true, nil
}

// Sum says how much of the time from since to until the spans of Read cover, and
// how long the longest time without is.
func Sum(spans []Span, since, until time.Time) (up, longest time.Duration) {
	at := since
	for _, s := range spans {
		longest = max(longest, s.Since.Sub(at))
		up += s.Until.Sub(s.Since)
		at = s.Until
	}
	return up, max(longest, until.Sub(at))
}
