package logstore

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// A Reader reads a store, also while a daemon has it open. All methods may be
// called concurrently.
type Reader struct {
	db       *sql.DB
	dir      string
	timeline *timeline // nil where the store is not ours
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
	r := &Reader{db: db, dir: dir}
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

// IssuedAt returns for each key the date of the act that was committed with it; see
// Store.
func (r *Reader) IssuedAt(ctx context.Context, keys []Key) ([]time.Time, error) {
	out := make([]time.Time, len(keys))
	for i, k := range keys {
		var err error
		if _, out[i], err = r.issued(ctx, k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// issuedSQL takes seq from the row with the least date, as SQLite promises of min(). To
// sort for that one row takes it two to five times as long.
const issuedSQL = "SELECT seq, min((SELECT at FROM entry WHERE entry.seq = issued.seq)) FROM issued WHERE " + issuedAs

// issued returns the first entry of those that were committed with k, and its date; 0
// and zero if there is none.
func (r *Reader) issued(ctx context.Context, k Key) (seq int64, at time.Time, err error) {
	var first, ns sql.NullInt64
	if err := r.db.QueryRowContext(ctx, issuedSQL, k.issuedArgs()...).Scan(&first, &ns); err != nil {
		return 0, time.Time{}, failure("looking up keys", err)
	}
	if !ns.Valid {
		return 0, time.Time{}, nil
	}
	return first.Int64, instant(ns), nil
}

// LongIssued reports for each key whether the act that was committed with it is as old
// as term; see Store.
func (r *Reader) LongIssued(ctx context.Context, keys []Key, now time.Time, term time.Duration) ([]bool, error) {
	out := make([]bool, len(keys))
	var h *horizon
	for i, k := range keys {
		seq, at, err := r.issued(ctx, k)
		if err != nil {
			return nil, err
		}
		if seq == 0 || at.After(now.Add(-term)) && !at.After(now) {
			continue // so it is for most, and the horizon is not needed
		}
		if h == nil {
			found, err := r.horizon(ctx, now, term)
			if err != nil {
				return nil, err
			}
			h = &found
		}
		out[i] = h.over(seq, at, now, term)
	}
	return out, nil
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
		(SELECT count(*) FROM awaited WHERE outcome IS NULL AND expired_at IS NULL),
		(SELECT count(*) FROM infected)`).Scan(&s.Entries, &s.Outbox, &oldest, &s.Open, &s.Infected)
	if err != nil {
		return Stats{}, failure("reading figures", err)
	}
	s.Oldest = instant(oldest)
	return s, nil
}
