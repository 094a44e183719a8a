package seal

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"pecd/logstore"
)

// Days returns the days that have a folder in files, in their order.
func Days(files fs.FS) ([]Day, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var days []Day
	for _, e := range entries {
		if day, err := ParseDay(e.Name()); err == nil && e.IsDir() {
			days = append(days, day)
		}
	}
	slices.SortFunc(days, Day.Compare)
	return days, nil
}

// A Result says which days are sound.
type Result struct {
	// Days are all days from the first to the last; one without a folder is among
	// them, and is not sound.
	Days  []DayResult `json:"days"`
	Sound int         `json:"sound"` // how many are
	// First is the first day that is not; nil if all are.
	First *DayResult `json:"first,omitempty"`
	// Through is the last entry up to which all days are sound, from the first day
	// on; zero if the first is not.
	Through logstore.Anchor `json:"through"`
}

// OK reports whether all days are sound, and there are some.
func (r Result) OK() bool { return r.First == nil && len(r.Days) > 0 }

// VerifyDays verifies all days of files, and that each follows from the one
// before; a day that does not is not sound, unless it is the one before that is
// broken. progress, which may be nil, hears each result. An error says that the
// days could not be listed or that ctx ended.
func (v *Verifier) VerifyDays(ctx context.Context, files fs.FS, progress func(DayResult)) (Result, error) {
	days, err := Days(files)
	if err != nil {
		return Result{}, err
	}
	var r Result
	for i := range days {
		for i > 0 && len(r.Days) > 0 && r.last().Day.Next().Compare(days[i]) < 0 {
			gap := r.last().Day.Next()
			r.add(DayResult{Day: gap, Problem: &Problem{File: gap.String(), Text: "the day is missing"}}, progress)
		}
		day := v.VerifyDay(ctx, files, days[i])
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if i > 0 {
			follow(r.last(), &day)
		}
		r.add(day, progress)
	}
	return r, nil
}

func (r *Result) last() *DayResult { return &r.Days[len(r.Days)-1] }

func (r *Result) add(day DayResult, progress func(DayResult)) {
	r.Days = append(r.Days, day)
	switch {
	case !day.Sound && r.First == nil:
		r.First = &day
	case day.Sound && r.First == nil:
		r.Through = logstore.Anchor{Seq: day.Seal.Manifest.Last, Chain: day.Seal.Manifest.ChainAfter}
	}
	if day.Sound {
		r.Sound++
	}
	if progress != nil {
		progress(day)
	}
}

// stampSlack is how much earlier a day may be stamped than the day before: each of two
// authorities may be off by a second (ETSI EN 319 421, 7.7), and tell whole seconds.
const stampSlack = 3 * time.Second

// follow checks that day follows from the day before. If the seal of that does not
// hold, nothing can be said against day. A provider may change its name.
func follow(before, day *DayResult) {
	if before.Seal == nil || !day.Sound {
		return
	}
	b, m := before.Seal, day.Seal.Manifest
	text := ""
	switch {
	case m.PreviousSHA256 != b.Digest:
		text = "it does not follow the seal of the day before"
	case m.First != b.Manifest.Last+1:
		text = fmt.Sprintf("its first entry is %d, the last of the day before %d", m.First, b.Manifest.Last)
	case m.ChainBefore != b.Manifest.ChainAfter:
		text = "its chain does not begin where that of the day before ends"
	case day.Seal.Stamped.Before(b.Stamped.Add(-stampSlack)):
		text = "it was sealed before the day before"
	default:
		return
	}
	day.Sound, day.Problem = false, &Problem{File: m.Day.name(nameManifest), Seq: m.First, Text: text}
}

// WriteText writes r for people: a line for each day, and the sum.
func (r Result) WriteText(w io.Writer) error {
	for _, d := range r.Days {
		if err := d.WriteText(w); err != nil {
			return err
		}
	}
	verdict := "all sound"
	switch {
	case len(r.Days) == 0:
		verdict = "nothing to verify"
	case r.First != nil:
		verdict = fmt.Sprintf("%d sound, %d not; the first is %s", r.Sound, len(r.Days)-r.Sound, r.First.Day)
	}
	_, err := fmt.Fprintf(w, "%d days: %s\n", len(r.Days), verdict)
	return err
}

// WriteText writes d for people, as one line.
func (d DayResult) WriteText(w io.Writer) error {
	if !d.Sound {
		_, err := fmt.Fprintf(w, "%s BROKEN  %s\n", d.Day, escape(d.Problem.Error()))
		return err
	}
	m := d.Seal.Manifest
	_, err := fmt.Fprintf(w, "%s sound  %d entries, through %d; stamped %s, %s after the day's end, by %s\n", d.Day, m.Entries, m.Last,
		d.Seal.Stamped.Format(time.RFC3339), d.Seal.Delay().Round(time.Second), escape(d.Seal.Authority))
	return err
}
