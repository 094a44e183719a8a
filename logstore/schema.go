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
	writeOptions = "?mode=rw&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=1&_busy_timeout=5000&_stmt_cache_size=64"
	readOptions  = "?mode=ro&_query_only=1&_foreign_keys=1&_busy_timeout=5000&_stmt_cache_size=32"
)

// openDatabase opens the SQLite file of dir; it does not touch it yet.
func openDatabase(dir, options string, connections int) (*sql.DB, error) {
	path, err := filepath.Abs(filepath.Join(dir, databaseName))
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
func migrate(ctx context.Context, c *sql.Conn) error {
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
		text, err := migrations.ReadFile(names[i])
		if err != nil {
			return fmt.Errorf("logstore: %w", err)
		}
		script := fmt.Sprintf("BEGIN IMMEDIATE;\n%s\nPRAGMA user_version = %d;\nCOMMIT;", text, i+1)
		if _, err := c.ExecContext(ctx, script); err != nil {
			_, rollbackErr := c.ExecContext(ctx, "ROLLBACK")
			return failure(fmt.Sprintf("migrating to schema %d", i+1), errors.Join(err, rollbackErr))
		}
	}
	return nil
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
