package logstore

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// ErrInvalid says that a transaction cannot be committed as it is, now or later.
var ErrInvalid = errors.New("invalid transaction")

// ErrUncertain says that a commit failed in a way that leaves open whether it
// will be there after a restart. It comes together with ErrUnavailable: the MTA
// is to try again, and as after a reply lost on the wire there may be a
// duplicate.
var ErrUncertain = errors.New("outcome of the commit is not known")

// failure wraps err for the caller: with ErrUnavailable unless waiting cannot
// cure it.
func failure(doing string, err error) error {
	switch {
	case errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrSchema) || errors.Is(err, ErrNoEntry):
		return err
	case lasting(err):
		return fmt.Errorf("logstore: %s: %w", doing, err)
	}
	return fmt.Errorf("logstore: %s: %w: %w", doing, ErrUnavailable, err)
}

// lasting reports whether SQLite said something that time does not change.
func lasting(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrMisuse,
		sqlite3.ErrMismatch, sqlite3.ErrTooBig, sqlite3.ErrRange, sqlite3.ErrError:
		return true
	}
	return false
}

// notWritten reports whether a COMMIT that returned err has surely not happened:
// the frame that makes it valid is the last to be written to the log, so no
// failed write leaves a valid one. A failed sync may.
func notWritten(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrFull, sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrConstraint, sqlite3.ErrReadonly:
		return true
	case sqlite3.ErrIoErr:
		return e.ExtendedCode == sqlite3.ErrIoErrWrite
	}
	return false
}
