package seal

import (
	"fmt"
	"time"
)

// A Day is a day of legal time. The zero Day is none.
type Day struct{ date time.Time } // midnight in UTC, which has no summer time

// DayOf returns the day of the instant t in the zone.
func DayOf(t time.Time, zone *time.Location) Day {
	y, m, d := t.In(zone).Date()
	return Day{time.Date(y, m, d, 0, 0, 0, 0, time.UTC)}
}

// ParseDay reads a day as String writes it: 2026-03-29.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1970 || t.Format(time.DateOnly) != s {
		return Day{}, fmt.Errorf("seal: %.40q is not a day, as 2026-03-29 is", s)
	}
	return Day{t}, nil
}

// String returns the day as ISO 8601 has it.
func (d Day) String() string { return d.date.Format(time.DateOnly) }

// Next returns the day after d.
func (d Day) Next() Day { return Day{d.date.AddDate(0, 0, 1)} }

// IsZero reports whether d is no day.
func (d Day) IsZero() bool { return d.date.IsZero() }

// Compare returns a negative number if d comes before o, 0 if they are the same.
func (d Day) Compare(o Day) int { return d.date.Compare(o.date) }

// Month returns the month of d: 2026-03.
func (d Day) Month() string { return d.date.Format("2006-01") }

// Bounds returns the instants at which the day and the next one begin in the
// zone: 23, 24 or 25 hours apart.
func (d Day) Bounds(zone *time.Location) (since, until time.Time) {
	midnight := func(d Day) time.Time {
		y, m, n := d.date.Date()
		return time.Date(y, m, n, 0, 0, 0, 0, zone)
	}
	return midnight(d), midnight(d.Next())
}

// MarshalText implements encoding.TextMarshaler.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Day) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDay(string(text))
	return err
}
