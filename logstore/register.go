package logstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"pecd/pec"
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

// bareID returns a Message-ID without its angle brackets.
func bareID(id string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(id), "<"), ">")
}

// register writes e and what it is searched by, and returns its number; RFC
// 6109, 2.3.
func (t *transaction) register(ctx context.Context, e Entry) (int64, error) {
	e.Seq = t.seq + 1
	record, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	at := e.At.UnixNano()
	_, err = t.exec(ctx, "INSERT INTO entry (seq, at, type, identifier, record) VALUES (?, ?, ?, ?, ?)",
		e.Seq, at, string(e.Type), string(e.Identifier), string(record))
	if err != nil {
		return 0, err
	}
	for _, a := range e.addresses() {
		if _, err := t.exec(ctx, "INSERT INTO entry_address (address, at, seq) VALUES (?, ?, ?)", a, at, e.Seq); err != nil {
			return 0, err
		}
	}
	for _, id := range e.messageIDs() {
		if _, err := t.exec(ctx, "INSERT INTO entry_message (message_id, at, seq) VALUES (?, ?, ?)", id, at, e.Seq); err != nil {
			return 0, err
		}
	}
	t.seq = e.Seq
	return e.Seq, nil
}

// foldAll returns the form in which addresses are searched: whoever looks for
// one does not know how it was spelled.
func foldAll(a pec.Address) string { return strings.ToLower(string(a)) }

// addresses returns all addresses of e as they are searched, each once.
func (e Entry) addresses() []string {
	var s set
	s.add(foldAll(e.Sender))
	s.add(foldAll(e.Recipient))
	for _, r := range e.Recipients {
		s.add(foldAll(r.Address))
	}
	for _, a := range e.Taken {
		s.add(foldAll(a))
	}
	return s.list
}

// messageIDs returns all Message-IDs of e without brackets, each once.
func (e Entry) messageIDs() []string {
	var s set
	s.add(bareID(e.MsgID))
	for _, id := range e.Messages {
		s.add(bareID(id))
	}
	return s.list
}

// A set keeps strings that are not empty, each once, in their order.
type set struct {
	seen map[string]bool
	list []string
}

func (s *set) add(v string) {
	if v == "" || s.seen[v] {
		return
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[v] = true
	s.list = append(s.list, v)
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
	key := k.Recipient.Key()
	return []any{string(k.Identifier), k.Kind, k.Origin, key, foldAll(k.Recipient), key}
}

func keyIssued(ctx context.Context, q rowQuerier, k Key) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM issued WHERE "+issuedAs, k.issuedArgs()...).Scan(&n)
	return n > 0, err
}

// issue records keys. One that an act names twice counts once.
func (t *transaction) issue(ctx context.Context, keys []Key, seq int64) error {
	for i, k := range keys {
		if repeated(keys[:i], k) {
			continue
		}
		_, err := t.exec(ctx, "INSERT INTO issued (identifier, kind, origin, recipient, seq) VALUES (?, ?, ?, ?, ?)",
			string(k.Identifier), k.Kind, k.Origin, k.Recipient.Key(), seq)
		if err != nil {
			return err
		}
	}
	return nil
}

func repeated(keys []Key, k Key) bool {
	for _, o := range keys {
		if o.Kind == k.Kind && o.Origin == k.Origin && o.Identifier == k.Identifier && o.Recipient.Same(k.Recipient) {
			return true
		}
	}
	return false
}
