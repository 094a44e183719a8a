package logstore

import (
	"context"
	"database/sql"
	"time"
)

// inRange reports whether t can be stored as nanoseconds since 1970.
func inRange(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 2262 }

// instant is the inverse of UnixNano; null is the zero time.
func instant(ns sql.NullInt64) time.Time {
	if !ns.Valid {
		return time.Time{}
	}
	return time.Unix(0, ns.Int64).UTC()
}

// register appends r to the chain, writes what it is searched by and its keys,
// and returns its number; RFC 6109, 2.3.
func (t *transaction) register(ctx context.Context, r record) (int64, error) {
	r.Seq = t.seq + 1
	line, err := r.encode()
	if err != nil {
		return 0, err
	}
	chain := t.chain.Next(line)
	at := r.At.UnixNano()
	_, err = t.exec(ctx, "INSERT INTO entry (seq, at, type, identifier, record, chain) VALUES (?, ?, ?, ?, ?, ?)",
		r.Seq, at, valid(string(r.Type)), valid(string(r.Identifier)), string(line), chain[:])
	if err != nil {
		return 0, err
	}
	for _, a := range r.addresses() {
		if _, err := t.exec(ctx, "INSERT INTO entry_address (address, at, seq) VALUES (?, ?, ?)", a, at, r.Seq); err != nil {
			return 0, err
		}
	}
	for _, id := range r.messageIDs() {
		if _, err := t.exec(ctx, "INSERT INTO entry_message (message_id, at, seq) VALUES (?, ?, ?)", id, at, r.Seq); err != nil {
			return 0, err
		}
	}
	for _, k := range r.issued() {
		_, err := t.exec(ctx, "INSERT INTO issued (identifier, kind, origin, recipient, seq) VALUES (?, ?, ?, ?, ?)",
			k.identifier, k.kind, k.origin, k.recipient, r.Seq)
		if err != nil {
			return 0, err
		}
	}
	t.seq, t.chain = r.Seq, chain
	return r.Seq, nil
}

// anyIssued reports whether one of keys exists.
func (t *transaction) anyIssued(ctx context.Context, keys []Key) (bool, error) {
	for _, k := range keys {
		known, err := keyIssued(ctx, t.conn, k)
		if err != nil || known {
			return known, err
		}
	}
	return false, nil
}

// A rowQuerier is a database, a connection or a transaction.
type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// issuedAs is the condition for the key of issuedArgs in the table issued.
const issuedAs = `identifier = ? AND kind = ? AND origin = ? AND recipient IN (?, ?) AND
	(recipient = ? OR seq <= (SELECT seq FROM folded_keys))`

func (k Key) issuedArgs() []any {
	key := valid(k.Recipient.Key())
	return []any{valid(string(k.Identifier)), valid(k.Kind), valid(k.Origin), key, foldAll(k.Recipient), key}
}

func keyIssued(ctx context.Context, q rowQuerier, k Key) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM issued WHERE "+issuedAs, k.issuedArgs()...).Scan(&n)
	return n > 0, err
}
