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

// addresses returns the keys of all addresses of e, each once.
func (e Entry) addresses() []string {
	var s set
	s.add(e.Sender.Key())
	s.add(e.Recipient.Key())
	for _, r := range e.Recipients {
		s.add(r.Address.Key())
	}
	for _, a := range e.Taken {
		s.add(a.Key())
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

func keyIssued(ctx context.Context, q rowQuerier, k Key) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM issued WHERE identifier = ? AND kind = ? AND origin = ? AND recipient = ?",
		string(k.Identifier), k.Kind, k.Origin, k.Recipient.Key()).Scan(&n)
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

// await writes ledger rows; a recipient named twice is one.
func (t *transaction) await(ctx context.Context, id pec.Identifier, at time.Time, recipients []pec.Address) error {
	for i, r := range recipients {
		_, err := t.exec(ctx, `INSERT INTO awaited (identifier, key, recipient, position, sent) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (identifier, key) DO NOTHING`, string(id), r.Key(), string(r), i, at.UnixNano())
		if err != nil {
			return err
		}
	}
	return nil
}

// answer clears ledger rows. The first outcome stands: what comes later is in
// the register only.
func (t *transaction) answer(ctx context.Context, a *Answer, at time.Time) error {
	if a == nil {
		return nil
	}
	for _, r := range a.Recipients {
		var err error
		if a.Kind == pec.KindTakeCharge {
			_, err = t.exec(ctx, "UPDATE awaited SET taken_at = ? WHERE identifier = ? AND key = ? AND taken_at IS NULL AND outcome IS NULL",
				at.UnixNano(), string(a.Identifier), r.Key())
		} else {
			_, err = t.exec(ctx, "UPDATE awaited SET ended_at = ?, outcome = ? WHERE identifier = ? AND key = ? AND outcome IS NULL",
				at.UnixNano(), string(a.Kind), string(a.Identifier), r.Key())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
