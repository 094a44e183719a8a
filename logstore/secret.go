package logstore

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"slices"
)

// secretSize is the size of the secret in octets.
const secretSize = 32

// Secret returns the secret of the store; see Store. It is not for readers, who
// do not issue anything.
func (s *SQLite) Secret(context.Context) ([]byte, error) {
	select {
	case <-s.closing:
		return nil, failure("store is closing", ErrUnavailable)
	default:
		return slices.Clone(s.secret), nil
	}
}

// loadSecret reads the secret, and makes it if there is none yet. A crash before
// the insertion leaves none, and the next start makes it.
func (s *SQLite) loadSecret(ctx context.Context) error {
	err := s.conn.QueryRowContext(ctx, "SELECT octets FROM secret").Scan(&s.secret)
	if err == nil {
		return nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return failure("reading the secret", err)
	}
	if s.options.Rand == nil {
		return errors.New("logstore: the store has no secret yet and Options.Rand is not set")
	}
	fresh := make([]byte, secretSize)
	if _, err := io.ReadFull(s.options.Rand, fresh); err != nil {
		return failure("making the secret", err)
	}
	if _, err := s.conn.ExecContext(ctx, "INSERT INTO secret (id, octets) VALUES (1, ?)", fresh); err != nil {
		return failure("storing the secret", err)
	}
	s.secret = fresh
	return nil
}
