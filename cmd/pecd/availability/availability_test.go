package availability

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRecorder(t *testing.T) {
	dir, day := t.TempDir(), time.Unix(1_790_000_000, 0)
	at := func(minutes int) time.Time { return day.Add(time.Duration(minutes) * time.Minute) }
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	up := func(r *Recorder, minutes ...int) {
		t.Helper()
		for _, m := range minutes {
			if err := r.Up(at(m), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	}
	up(r, 0, 1, 2, 3)    // up to 3
	up(r, 10, 11)        // it was stopped, as by SIGSTOP: 7 minutes
	r.Down()             // cannot accept
	up(r, 13, 14, 5, 15) // the clock is set back for a while
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of a line.
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("17900"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if r, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	up(r, 18, 19)
	r.Close()

	spans, err := Read(dir, at(1), at(30))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, s := range spans {
		got = append(got, int(s.Since.Sub(day).Minutes()), int(s.Until.Sub(day).Minutes()))
	}
	want := []int{1, 3, 10, 11, 13, 14, 18, 19}
	if len(got) != len(want) {
		t.Fatalf("spans %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("spans %v, want %v", got, want)
		}
	}
	if total, longest := Sum(spans, at(1), at(30)); total != 5*time.Minute || longest != 11*time.Minute {
		t.Errorf("up %s, longest outage %s, want 5m and 11m", total, longest)
	}
	if total, longest := Sum(nil, at(0), at(30)); total != 0 || longest != 30*time.Minute {
		t.Errorf("without a file: up %s, longest outage %s", total, longest)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("0000000009 0000000001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, time.Unix(0, 0), time.Unix(100, 0)); err == nil {
		t.Error("a span that ends before it begins was read")
	}
}

func TestStopwatch(t *testing.T) {
	dir, day := t.TempDir(), time.Date(2026, 11, 27, 23, 0, 0, 0, time.UTC)
	observe := func(at time.Time, n int, d time.Duration) {
		t.Helper()
		w, err := OpenStopwatch(dir) // as after a restart
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := w.Observe(at, d); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	observe(day, 90, 3*time.Millisecond)
	observe(day, 9, 50*time.Millisecond)
	observe(day, 1, time.Hour)
	observe(day.Add(2*time.Hour), 7, time.Microsecond)
	one, err := ReadTimes(dir, "2026-11-27", "2026-11-27")
	if err != nil {
		t.Fatal(err)
	}
	if one.Count() != 100 || one.Within(0.5) != 4*time.Millisecond || one.Within(0.9) != 4*time.Millisecond ||
		one.Within(0.95) != 64*time.Millisecond || one.Within(0.99) != 64*time.Millisecond || one.Within(1) != Slower {
		t.Errorf("%v: %d, %s %s %s", one, one.Count(), one.Within(0.5), one.Within(0.99), one.Within(1))
	}
	if both, err := ReadTimes(dir, "2026-11-01", "2026-12-31"); err != nil || both.Count() != 107 {
		t.Errorf("%d acceptances: %v", both.Count(), err)
	}
	// A clock that was ahead, then back within a day, then right.
	observe(day.AddDate(0, 1, 0), 5, time.Microsecond)
	observe(day.AddDate(0, 1, -1), 6, time.Microsecond)
	observe(day.AddDate(0, 0, 3), 11, time.Microsecond)
	observe(day.AddDate(0, 0, 4), 12, time.Microsecond)
	for span, want := range map[[2]string]uint64{{"2026-11-30", "2026-11-30"}: 11, {"2026-12-01", "2026-12-01"}: 12, {"2026-12-26", "2026-12-27"}: 11, {"2026-11-01", "2026-12-31"}: 141} {
		if times, err := ReadTimes(dir, span[0], span[1]); err != nil || times.Count() != want {
			t.Errorf("%v: %d acceptances, want %d: %v", span, times.Count(), want, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, TimesName)); err != nil || st.Size() != int64(5*timesLine) {
		t.Errorf("not a line for each of five days: %v, %v", st.Size(), err)
	}
	if none, err := ReadTimes(t.TempDir(), "2026-11-01", "2026-12-31"); err != nil || none.Within(0.5) != 0 {
		t.Errorf("without a file: %s, %v", none.Within(0.5), err)
	}
}
