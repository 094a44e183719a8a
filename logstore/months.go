package logstore

import (
	"context"
	"time"
)

// A Month is a month of the register, of legal time.
type Month struct {
	// Since and Until bound it: Since <= At < Until.
	Since, Until time.Time
	Span
}

// Months returns the months from that of the oldest to that of the newest instant
// in the register, in the legal time of loc, also those without entries.
func (r *Reader) Months(ctx context.Context, loc *time.Location) ([]Month, error) {
	var first, last int64
	err := r.db.QueryRowContext(ctx, "SELECT coalesce((SELECT min(at) FROM entry), 0), coalesce((SELECT max(at) FROM entry), -1)").Scan(&first, &last)
	if err != nil {
		return nil, failure("reading the register", err)
	}
	end := time.Unix(0, last)
	y, m, _ := time.Unix(0, first).In(loc).Date()
	var out []Month
	for since := time.Date(y, m, 1, 0, 0, 0, 0, loc); !since.After(end); {
		m++
		month := Month{Since: since, Until: time.Date(y, m, 1, 0, 0, 0, 0, loc)}
		if month.Span, err = r.Span(ctx, month.Since, month.Until); err != nil {
			return nil, err
		}
		out, since = append(out, month), month.Until
	}
	return out, nil
}
