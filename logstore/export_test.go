package logstore

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
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

// FindOutAgain has the writer find out twice whether a transaction is in the store,
// as if its first answer had been lost. The store must have no work.
func (s *SQLite) FindOutAgain(ctx context.Context, happened bool) (first, second bool, err error) {
	mark := s.mark + 1
	if happened {
		if _, err := s.conn.ExecContext(ctx, "UPDATE mark SET n = ?", mark); err != nil {
			return false, false, err
		}
	}
	first, err = s.findOut(ctx, mark)
	if err == nil {
		second, err = s.findOut(ctx, mark)
	}
	return first, second, err
}

// SetPatience sets how long the store tries to find out what a COMMIT did.
func (s *SQLite) SetPatience(d time.Duration) { s.patience = d }

// OverdueSQL returns the query of Overdue for rows that are overdue by their date.
func OverdueSQL(warned bool) string { return overdueSQL(warned, sentBefore) }

// AheadSQL returns the query of Overdue for rows dated in the future.
func AheadSQL(warned bool) string { return overdueSQL(warned, sentAfter) }

// FirstWithinSQL returns the query for what bears a row's date out.
const FirstWithinSQL = firstWithinSQL

// WatchSyncs has f called before each sync of a body or its directory, with the
// name of what is synced; an error of f is that of the sync.
func (s *SQLite) WatchSyncs(f func(name string) error) {
	s.sync = func(file *os.File) error {
		if err := f(filepath.Base(file.Name())); err != nil {
			return err
		}
		return file.Sync()
	}
}
