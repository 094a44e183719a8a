package availability

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// TimesName is the file with how long acceptances took, in the store's directory: a
// line for each day, of one length, so that the last one is written again in place.
const TimesName = "acceptance-times"

// buckets bound how long an acceptance took; what took longer than the last counts
// as Slower.
const (
	bucketCount = 18
	firstBucket = time.Millisecond
	timesLine   = len("2026-11-27") + 11*(bucketCount+1) + 1
)

// Times are acceptances by how long they took, from the last octet of the message to
// the answer. The bucket i is of those of at most 1 ms times 2 to the power of i.
type Times [bucketCount + 1]uint64

// Slower stands for a time longer than the last bucket's: 131 seconds.
const Slower = time.Duration(1<<63 - 1)

func (t *Times) observe(d time.Duration) {
	i, bound := 0, firstBucket
	for i < bucketCount && d > bound {
		i, bound = i+1, bound*2
	}
	t[i]++
}

// Count is how many acceptances there are.
func (t Times) Count() (n uint64) {
	for _, c := range t {
		n += c
	}
	return n
}

// Within returns the time within which the part q of all was accepted, rounded up to
// the bound of a bucket; 0 if there is none, Slower if it is not known.
func (t Times) Within(q float64) time.Duration {
	want := uint64(q*float64(t.Count()) + 0.999999)
	var n uint64
	for i, c := range t {
		if n += c; c > 0 && n >= want {
			if i == bucketCount {
				return Slower
			}
			return firstBucket << i
		}
	}
	return 0
}

// A Stopwatch counts acceptances and keeps the counts of each day on disk. Its
// methods may be called concurrently.
type Stopwatch struct {
	mu    sync.Mutex // guards what follows
	file  *os.File
	day   string
	at    int64 // where the line of day goes
	times Times
	dirty bool
}

// OpenStopwatch opens the file in dir.
func OpenStopwatch(dir string) (*Stopwatch, error) {
	f, err := os.OpenFile(filepath.Join(dir, TimesName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("availability: %w", err)
	}
	w := &Stopwatch{file: f}
	st, err := f.Stat()
	if err == nil {
		w.at = st.Size() - st.Size()%int64(timesLine)
		err = w.resume()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("availability: %w", err), f.Close())
	}
	return w, nil
}

// resume takes the last line up again.
func (w *Stopwatch) resume() error {
	if w.at == 0 {
		return nil
	}
	line := make([]byte, timesLine)
	if _, err := w.file.ReadAt(line, w.at-int64(timesLine)); err != nil {
		return err
	}
	day, times, err := parseTimes(line)
	if err == nil {
		w.at, w.day, w.times = w.at-int64(timesLine), day, times
	}
	return err
}

// Observe counts an acceptance on the day of now that took d. A clock that is set back
// by less than a day begins no line anew; after one that was further ahead, the day of
// now does, or all that follows would count for a day that is yet to come.
func (w *Stopwatch) Observe(now time.Time, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if day := now.Format(time.DateOnly); day > w.day || now.AddDate(0, 0, 1).Format(time.DateOnly) < w.day {
		if err := w.flush(); err != nil {
			return err
		}
		if w.day != "" {
			w.at += int64(timesLine)
		}
		w.day, w.times = day, Times{}
	}
	w.times.observe(d)
	w.dirty = true
	return nil
}

// Flush writes what was counted. A crash loses what was counted since the last one.
func (w *Stopwatch) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Stopwatch) flush() error {
	if !w.dirty {
		return nil
	}
	var b strings.Builder
	b.WriteString(w.day)
	for _, n := range w.times {
		fmt.Fprintf(&b, " %010d", min(n, 9999999999))
	}
	b.WriteString("\n")
	if _, err := w.file.WriteAt([]byte(b.String()), w.at); err != nil {
		return fmt.Errorf("availability: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("availability: %w", err)
	}
	w.dirty = false
	return nil
}

// Close writes what was counted and closes the file.
func (w *Stopwatch) Close() error { return errors.Join(w.Flush(), w.file.Close()) }

// ReadTimes sums the days from first to last, both included, as 2026-11-27.
func ReadTimes(dir, first, last string) (sum Times, err error) {
	data, err := os.ReadFile(filepath.Join(dir, TimesName))
	if errors.Is(err, fs.ErrNotExist) {
		return sum, nil
	}
	if err != nil {
		return sum, fmt.Errorf("availability: %w", err)
	}
	for ; len(data) >= timesLine; data = data[timesLine:] {
		day, times, err := parseTimes(data[:timesLine])
		if err != nil {
			return sum, err
		}
		if day < first || day > last {
			continue
		}
		for i, n := range times {
			sum[i] += n
		}
	}
	return sum, nil
}

func parseTimes(line []byte) (day string, times Times, err error) {
	words := bytes.Fields(line)
	if len(words) != bucketCount+2 {
		return "", times, fmt.Errorf("availability: a line of times that is none: %.40q", line)
	}
	for i, w := range words[1:] {
		if _, err := fmt.Sscanf(string(w), "%d", &times[i]); err != nil {
			return "", times, fmt.Errorf("availability: a line of times that is none: %.40q", line)
		}
	}
	return string(words[0]), times, nil
}
