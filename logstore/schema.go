package logstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
)

//go:embed migrations/*.sql
var migrations embed.FS

// databaseName is the SQLite file in the store's directory.
const databaseName = "pecd.db"

// ErrSchema says that the store was written by another version of this program.
var ErrSchema = errors.New("store schema does not fit")

// The writer waits for a lock only if a foreign program holds one.
const (
	writeOptions = "?mode=rw&_auto_vacuum=incremental&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=1&_busy_timeout=5000&_stmt_cache_size=64"
	readOptions  = "?mode=ro&_query_only=1&_foreign_keys=1&_busy_timeout=5000&_stmt_cache_size=32"
)

// openDatabase opens the SQLite file of dir; it does not touch it yet.
func openDatabase(dir, options string, connections int) (*sql.DB, error) {
	return openDatabaseFile(dir, databaseName, options, connections)
}

func openDatabaseFile(dir, name, options string, connections int) (*sql.DB, error) {
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	db, err := sql.Open("sqlite3", "file:"+url.PathEscape(path)+options)
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// checkPragmas reads back what the promise of durability rests on: SQLite
// ignores what it does not know or cannot do.
func checkPragmas(ctx context.Context, c *sql.Conn) error {
	for _, p := range []struct{ name, want string }{
		{"journal_mode", "wal"},
		{"synchronous", "2"}, // FULL
		{"foreign_keys", "1"},
	} {
		var got string
		if err := c.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got); err != nil {
			return failure("reading "+p.name, err)
		}
		if got != p.want {
			return fmt.Errorf("logstore: %s is %q and must be %q", p.name, got, p.want)
		}
	}
	return nil
}

// schemaFiles returns the names of the migrations; the first leads from an empty
// file to schema 1.
func schemaFiles() ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	return names, nil
}

// migrate brings the schema up to date, one transaction per step. A crash
// leaves a schema between two steps, and the next start goes on from there.
func migrate(ctx context.Context, c *sql.Conn, progress func(done, total int64)) error {
	names, err := schemaFiles()
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, c)
	if err != nil {
		return err
	}
	if have > len(names) {
		return newerSchema(have, len(names))
	}
	for i := have; i < len(names); i++ {
		if err := migrateStep(ctx, c, names[i], i+1, progress); err != nil {
			_, rollbackErr := c.ExecContext(ctx, "ROLLBACK")
			return failure(fmt.Sprintf("migrating to schema %d", i+1), errors.Join(err, rollbackErr))
		}
	}
	return nil
}

// makeReclaimable writes a store of before schema 4 anew, so that space can be given
// back bit by bit. If that fails, for want of space, the store works as well, and
// the next start tries again.
func (s *SQLite) makeReclaimable(ctx context.Context) error {
	var mode int
	if err := s.conn.QueryRowContext(ctx, "PRAGMA auto_vacuum").Scan(&mode); err != nil {
		return failure("reading auto_vacuum", err)
	}
	if mode == incremental {
		return nil
	}
	// The connection asks for it already; VACUUM does it.
	if _, err := s.conn.ExecContext(ctx, "VACUUM"); err != nil {
		s.log.Warn("the store was not written anew: space in it cannot be given back", "error", err)
	}
	return nil
}

// incremental is SQLite's number of the mode in which free pages are given back
// when it is told to.
const incremental = 2

// chainSchema is the schema that makes the register a chain.
const chainSchema = 4

func migrateStep(ctx context.Context, c *sql.Conn, name string, version int, progress func(done, total int64)) error {
	text, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE;\n"+string(text)); err != nil {
		return err
	}
	if version == chainSchema {
		if err := chainEntries(ctx, c, progress); err != nil {
			return err
		}
	}
	_, err = c.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d;\nCOMMIT;", version))
	return err
}

// chainEntries gives all entries of a store from before the chain theirs, some
// at a time. It is part of a transaction.
func chainEntries(ctx context.Context, c *sql.Conn, progress func(done, total int64)) error {
	var last, seq int64
	var chain Digest
	if err := c.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM entry").Scan(&last); err != nil {
		return err
	}
	for seq < last {
		lines, err := recordsAfter(ctx, c, seq)
		if err != nil {
			return err
		}
		for _, l := range lines {
			if l.seq != seq+1 {
				return fmt.Errorf("entry %d is missing", seq+1)
			}
			seq, chain = l.seq, chain.Next(l.record)
			if _, err := c.ExecContext(ctx, "UPDATE entry SET chain = ? WHERE seq = ?", chain[:], seq); err != nil {
				return err
			}
		}
		if progress != nil {
			progress(seq, last)
		}
	}
	return nil
}

// A line is the record of an entry without chain.
type line struct {
	seq    int64
	record []byte
}

func recordsAfter(ctx context.Context, c *sql.Conn, seq int64) ([]line, error) {
	return scanLines(c.QueryContext(ctx, "SELECT seq, record FROM entry WHERE seq > ? ORDER BY seq LIMIT ?", seq, chainPage))
}

// recordsUpTo returns the oldest entries.
func recordsUpTo(ctx context.Context, c *sql.Conn, through int64) ([]line, error) {
	return scanLines(c.QueryContext(ctx, "SELECT seq, record FROM entry WHERE seq <= ? ORDER BY seq LIMIT ?", through, removeBatch))
}

func scanLines(rows *sql.Rows, err error) ([]line, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var lines []line
	for rows.Next() {
		var l line
		if err := rows.Scan(&l.seq, &l.record); err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, rows.Err()
}

func schemaVersion(ctx context.Context, c *sql.Conn) (int, error) {
	var v int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, failure("reading the schema version", err)
	}
	return v, nil
}

func newerSchema(have, know int) error {
	return fmt.Errorf("logstore: %w: the store has schema %d and this version of pecd knows schemas up to %d; it was written by a newer pecd, install that",
		ErrSchema, have, know)
}

// checkSchema is for readers, which cannot migrate.
func checkSchema(ctx context.Context, c *sql.Conn) error {
	names, err := schemaFiles()
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, c)
	switch {
	case err != nil:
		return err
	case have > len(names):
		return newerSchema(have, len(names))
	case have < len(names):
		return fmt.Errorf("logstore: %w: the store has schema %d and this version of pecd reads schema %d; start the daemon once to migrate it",
			ErrSchema, have, len(names))
	}
	return nil
}
