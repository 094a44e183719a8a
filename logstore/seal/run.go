package seal

import (
	"context"
	"errors"
	"time"
)

// A Status says how far the sealing is.
type Status struct {
	Last    Day       // last sealed day; zero if there is none
	Through int64     // its last entry, or that of a day before if it has none
	Stamped time.Time // when it was sealed, by the token
	Next    Day       // day to be sealed next; zero while nothing is known
	Late    bool      // it should have been sealed by now: the alarm
	// Err is why the last attempt failed; nil if it did not. Attempts is how many
	// failed since one did not.
	Err      error
	Attempts int
}

// Status returns how far the sealing is, as of now.
func (s *Sealer) Status() Status {
	s.mu.Lock()
	st := s.status
	s.mu.Unlock()
	if !st.Next.IsZero() {
		_, until := st.Next.Bounds(s.o.Zone)
		st.Late = !s.o.Now().Before(until.Add(s.o.Late))
	}
	return st
}

// reached notes the last seal and the day that is next.
func (s *Sealer) reached(last Seal, next Day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Last, s.status.Next = last.Manifest.Day, next
	s.status.Through, s.status.Stamped = last.Manifest.Last, last.Stamped
}

// note notes how an attempt ended.
func (s *Sealer) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Err = err
	s.status.Attempts++
	if err == nil {
		s.status.Attempts = 0
	}
}

// longest bounds the waits of Run: clocks are set, and machines sleep.
const longest = 10 * time.Minute

// Run seals each day when its time has come, and tries again until it is sealed.
// It returns when ctx ends.
func (s *Sealer) Run(ctx context.Context) {
	pause := s.o.Retry
	for ctx.Err() == nil {
		wait := longest
		_, err := s.Seal(ctx)
		switch {
		case err == nil:
			pause = s.o.Retry
			wait = s.untilDue()
		case errors.Is(err, ErrBusy):
			wait = s.o.Retry
		default:
			s.o.Log.Error("sealing the register failed", "err", err, "late", s.Status().Late, "again", pause)
			wait = pause
			pause = min(2*pause, s.o.MaxRetry)
		}
		select {
		case <-ctx.Done():
		case <-s.o.Timer(wait):
		}
	}
}

// untilDue returns how long Run may wait until the next day is to be sealed.
func (s *Sealer) untilDue() time.Duration {
	next := s.Status().Next
	if next.IsZero() {
		return longest
	}
	_, until := next.Bounds(s.o.Zone)
	return max(0, min(longest, until.Add(s.o.After).Sub(s.o.Now())))
}
