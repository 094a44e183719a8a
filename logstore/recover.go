package logstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// recover removes what a crash may have left: rows of bodies to which no message
// points, temporary files, and files without a row, of infected messages too. It
// changes nothing else. It runs before the store is used, on the writer's
// connection.
func (s *SQLite) recover(ctx context.Context) error {
	if err := s.recoverRows(ctx); err != nil {
		return failure("recovering the store", err)
	}
	files, err := s.recoverFiles(ctx, s.bodyDir(), "SELECT id FROM body WHERE data IS NULL")
	if err != nil {
		return failure("recovering the store", err)
	}
	var rows int64
	err = s.conn.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM body").Scan(&rows)
	if err == nil {
		err = s.position(ctx)
	}
	if err != nil {
		return failure("recovering the store", err)
	}
	// Above all files too, so that one which could not be removed is not met.
	s.nextBody.Store(max(rows, files))
	if err := s.recoverKept(ctx); err != nil {
		return failure("recovering the virus store", err)
	}
	return nil
}

// recoverKept removes files of infected messages without a row: those that no
// transaction put there, and those whose term was over.
func (s *SQLite) recoverKept(ctx context.Context) error {
	files, err := s.recoverFiles(ctx, virusDir(s.options.Dir), "SELECT id FROM infected")
	if err != nil {
		return err
	}
	// Ids of messages that were purged are not used again.
	var rows int64
	err = s.conn.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'infected'").Scan(&rows)
	s.nextKept.Store(max(rows, files))
	return err
}

func (s *SQLite) recoverRows(ctx context.Context) error {
	r, err := s.conn.ExecContext(ctx, "DELETE FROM body WHERE id NOT IN (SELECT body FROM outbox_piece WHERE body IS NOT NULL)")
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if n > 0 {
		s.log.Info("recovery: removed bodies that no message needs", "count", n)
	}
	return err
}

// recoverFiles removes the files of dir but those of the ids that query selects.
// It returns the highest id that a file has.
func (s *SQLite) recoverFiles(ctx context.Context, dir, query string) (highest int64, err error) {
	rows, err := s.conn.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	ids, err := scanIDs(rows)
	if err != nil {
		return 0, err
	}
	wanted := map[int64]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		id, temporary, ok := parseBodyName(f.Name())
		if !ok {
			s.log.Warn("a foreign file in the store", "file", filepath.Join(dir, f.Name()))
			continue
		}
		highest = max(highest, id)
		if wanted[id] && !temporary {
			delete(wanted, id)
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return 0, fmt.Errorf("removing what a crash left: %w", err)
		}
		s.log.Info("recovery: removed a file that no message needs", "file", f.Name())
	}
	for id := range wanted {
		s.log.Error("the file of a message is missing", "file", filepath.Join(dir, strconv.FormatInt(id, 10)))
	}
	return highest, nil
}
