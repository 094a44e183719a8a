package logstore

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"sync"
	"time"
)

// A date in the register is what the clock showed, and the clock may have been wrong.
// Whether an entry is as old as its date says is told by two things that no clock can
// change: the entries before it were committed before it, so it is younger than the
// youngest of them; and how long the store has been open, by a clock that does not jump.

// A horizon says of the entries of the register which can be as old as a term is long.
type horizon struct {
	// young: the entries after it are younger than the term, whatever their dates say.
	young int64
	// old: the entries through it are older; 0: of none it is known.
	old int64
}

// over reports whether the term of entry seq, dated at, is over by the clock that shows
// now: by its date, unless the entry is younger; or, if its date is in the future, once it
// is known to be older. A seq of 0 is of an entry that is gone: its date is all there is.
func (h horizon) over(seq int64, at, now time.Time, term time.Duration) bool {
	if at.After(now) {
		return seq > 0 && seq <= h.old
	}
	return seq <= h.young && !at.After(now.Add(-term))
}

// horizon returns the horizon of term by the clock that shows now.
func (r *Reader) horizon(ctx context.Context, now time.Time, term time.Duration) (horizon, error) {
	h, whole := r.timeline.horizon(term)
	if whole {
		return h, nil
	}
	return r.bornOut(ctx, h, now, term)
}

// bornOut returns h with what the dates of the register say, for a term that began before
// the store was opened: all that was committed after an entry dated within the term is
// younger. An entry that is dated in the future says nothing: the clock was ahead. When
// its date has come it is believed. So a notice may be late by as much as the clock was
// ahead once, but by no more than the term, and only in the first term after a start.
func (r *Reader) bornOut(ctx context.Context, h horizon, now time.Time, term time.Duration) (horizon, error) {
	var first sql.NullInt64
	err := r.db.QueryRowContext(ctx, firstWithinSQL, clamp(now.Add(-term)), clamp(now)).Scan(&first)
	if err != nil {
		return horizon{}, failure("reading the register", err)
	}
	if first.Valid {
		h.young = min(h.young, first.Int64)
	}
	return h, nil
}

// firstWithinSQL finds the first entry of those that are dated after one instant and not
// after another, in the index alone.
const firstWithinSQL = "SELECT min(seq) FROM entry INDEXED BY entry_by_time WHERE at > ? AND at <= ?"

// A timeline knows of the entries of an open store when they were committed, to a minute,
// by a clock that does not jump. nil knows nothing. It may be used concurrently.
type timeline struct {
	elapsed func() time.Duration

	mu      sync.Mutex
	last    int64    // the last entry that was committed; guarded by mu
	moments []moment // in their order, the first when the store was opened; guarded by mu
}

// At a moment the entries through seq had been committed, and none after it.
type moment struct {
	seq int64
	at  time.Duration
}

const (
	// momentEvery is how far two moments are apart, or more.
	momentEvery = time.Minute
	// momentsFor is how far back moments are kept: longer than any term.
	momentsFor = 48 * time.Hour
)

func newTimeline(elapsed func() time.Duration, last int64) *timeline {
	if elapsed == nil {
		return nil
	}
	return &timeline{elapsed: elapsed, last: last, moments: []moment{{last, elapsed()}}}
}

// note hears that the entries through last are committed, and no other is yet.
func (l *timeline) note(last int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = last
	l.tick()
}

// tick makes a moment of now, if the last one is long ago. Its caller holds mu.
func (l *timeline) tick() (now time.Duration) {
	now = l.elapsed()
	if now-l.moments[len(l.moments)-1].at < momentEvery {
		return now
	}
	l.moments = append(l.moments, moment{l.last, now})
	// One stays that is older than any term.
	for len(l.moments) > 1 && now-l.moments[1].at >= momentsFor {
		l.moments = l.moments[1:]
	}
	return now
}

// horizon returns what is known by the clock that does not jump; whole says that it is all
// that can be known, as the store has been open for as long as term.
func (l *timeline) horizon(term time.Duration) (h horizon, whole bool) {
	if l == nil {
		return horizon{young: math.MaxInt64}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.tick()
	within := slices.IndexFunc(l.moments, func(m moment) bool { return now-m.at < term })
	switch {
	case within < 0:
		return horizon{young: math.MaxInt64, old: l.moments[len(l.moments)-1].seq}, true
	case within == 0:
		return horizon{young: l.moments[0].seq}, false
	}
	return horizon{young: l.moments[within].seq, old: l.moments[within-1].seq}, true
}
