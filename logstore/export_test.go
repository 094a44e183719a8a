package logstore

import (
	"database/sql"
	"errors"
	"time"
)

// FailNextCommit makes the next COMMIT report an error, after it happened or
// instead. It must be called while the store has no work.
func (s *SQLite) FailNextCommit(happens bool, then func()) {
	s.commit = func(c *sql.Conn) error {
		s.commit = commitSQL
		if happens {
			if err := commitSQL(c); err != nil {
				return err
			}
		}
		then()
		return errors.New("an error that says nothing")
	}
}

// SetPatience sets how long the store tries to find out what a COMMIT did.
func (s *SQLite) SetPatience(d time.Duration) { s.patience = d }
