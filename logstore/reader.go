package logstore

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"

	"pecd/pec"
)

// A Reader reads a store, also while a daemon has it open. All methods may be
// called concurrently.
type Reader struct {
	db *sql.DB
}

// OpenReadOnly opens the store in dir for reading. Nothing is created, migrated
// or recovered; ErrSchema if the store was written by another version.
func OpenReadOnly(ctx context.Context, dir string) (*Reader, error) {
	if _, err := os.Stat(filepath.Join(dir, databaseName)); err != nil {
		return nil, failure("opening the store", err)
	}
	db, err := openDatabase(dir, readOptions, readers)
	if err != nil {
		return nil, err
	}
	r := &Reader{db: db}
	if err := r.check(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

func (r *Reader) check(ctx context.Context) error {
	c, err := r.db.Conn(ctx)
	if err != nil {
		return failure("opening the store", err)
	}
	return errors.Join(checkSchema(ctx, c), c.Close())
}

// Close closes the reader.
func (r *Reader) Close() error { return r.db.Close() }

// Issued reports for each key whether an act with it was committed.
func (r *Reader) Issued(ctx context.Context, keys []Key) ([]bool, error) {
	out := make([]bool, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = keyIssued(ctx, r.db, k); err != nil {
			return nil, failure("looking up keys", err)
		}
	}
	return out, nil
}

// Awaited returns the ledger rows of a message of ours; see Store.
func (r *Reader) Awaited(ctx context.Context, id pec.Identifier) ([]Awaited, error) {
	out, err := r.awaited(ctx, id)
	if err != nil {
		return nil, failure("reading the ledger", err)
	}
	return out, nil
}

func (r *Reader) awaited(ctx context.Context, id pec.Identifier) ([]Awaited, error) {
	rows, err := r.db.QueryContext(ctx, `SELECT recipient, sent, taken_at, ended_at, coalesce(outcome, '')
		FROM awaited WHERE identifier = ? ORDER BY sent, position`, string(id))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Awaited
	for rows.Next() {
		a := Awaited{Identifier: id}
		var sent, taken, ended sql.NullInt64
		if err := rows.Scan(&a.Recipient, &sent, &taken, &ended, &a.Outcome); err != nil {
			return nil, err
		}
		a.Sent, a.TakenAt, a.EndedAt = instant(sent), instant(taken), instant(ended)
		out = append(out, a)
	}
	return out, rows.Err()
}

// Stats returns figures for metrics.
func (r *Reader) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	var oldest sql.NullInt64
	// The register has no gaps, so that its entries need not be counted.
	err := r.db.QueryRowContext(ctx, `SELECT
		(SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM entry),
		(SELECT count(*) FROM outbox),
		(SELECT min(created) FROM outbox),
		(SELECT count(*) FROM awaited WHERE outcome IS NULL)`).Scan(&s.Entries, &s.Outbox, &oldest, &s.Open)
	if err != nil {
		return Stats{}, failure("reading figures", err)
	}
	s.Oldest = instant(oldest)
	return s, nil
}
