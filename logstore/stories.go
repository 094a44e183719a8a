package logstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"pecd/pec"
)

// storyPage is how many entries Stories reads at a time, so that it keeps no
// transaction open for long.
const storyPage = 2000

// Stories calls f for each identifier of the register, in an order of its own, with
// all its entries, the oldest first, until f returns an error, which it returns. f
// may keep the entries. Entries without identifier are left out; those committed
// meanwhile may or may not be found. Its memory is that of the longest story and a
// page.
func (r *Reader) Stories(ctx context.Context, f func([]Entry) error) error {
	const query = `SELECT identifier, at, seq, record FROM entry
		WHERE (identifier, at, seq) > (?, ?, ?) ORDER BY identifier, at, seq LIMIT ?`
	var story []Entry
	id, at, seq, current := "", int64(0), int64(0), ""
	for {
		rows, err := r.db.QueryContext(ctx, query, id, at, seq, storyPage)
		if err != nil {
			return failure("reading the register", err)
		}
		n := 0
		for rows.Next() {
			n++
			var record string
			var e Entry
			if err = rows.Scan(&id, &at, &seq, &record); err == nil {
				err = json.Unmarshal([]byte(record), &e)
			}
			if err == nil && id != current && len(story) > 0 {
				err = f(story)
				story = nil
			}
			if err != nil {
				rows.Close()
				return err
			}
			if current = id; id != "" {
				story = append(story, e)
			}
		}
		if err := rows.Err(); err != nil {
			return failure("reading the register", err)
		}
		if n < storyPage {
			break
		}
	}
	if len(story) > 0 {
		return f(story)
	}
	return nil
}

// Waiting is a message of the outbox: signed, registered, and not yet taken by the
// MTA.
type Waiting struct {
	// Seq is the entry that issued it.
	Seq       int64         `json:"seq"`
	Kind      pec.Kind      `json:"kind"`
	MessageID string        `json:"message_id"`
	To        []pec.Address `json:"to"` // those not taken yet
	Attempts  int           `json:"attempts"`
	Due       time.Time     `json:"due"`           // of the next attempt
	Why       string        `json:"why,omitempty"` // the last one failed
}

// Waiting returns what of a message's story is still in the outbox, the oldest
// first.
func (r *Reader) Waiting(ctx context.Context, id pec.Identifier) ([]Waiting, error) {
	rows, err := r.db.QueryContext(ctx, `SELECT o.id, o.seq, o.kind, o.message_id, o.attempts, o.due, o.why
		FROM entry e JOIN outbox o ON o.seq = e.seq WHERE e.identifier = ? ORDER BY o.id`, string(id))
	if err != nil {
		return nil, failure("reading the outbox", err)
	}
	defer rows.Close()
	var list []Waiting
	var ids []int64
	for rows.Next() {
		var w Waiting
		var o, due int64
		if err := rows.Scan(&o, &w.Seq, &w.Kind, &w.MessageID, &w.Attempts, &due, &w.Why); err != nil {
			return nil, failure("reading the outbox", err)
		}
		w.Due = instant(sql.NullInt64{Int64: due, Valid: true})
		list, ids = append(list, w), append(ids, o)
	}
	if err := rows.Err(); err != nil {
		return nil, failure("reading the outbox", err)
	}
	for i := range list {
		if list[i].To, err = r.outboxRecipients(ctx, ids[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (r *Reader) outboxRecipients(ctx context.Context, id int64) (to []pec.Address, err error) {
	rows, err := r.db.QueryContext(ctx, "SELECT address FROM outbox_recipient WHERE outbox = ? ORDER BY position", id)
	if err != nil {
		return nil, failure("reading the outbox", err)
	}
	defer rows.Close()
	for rows.Next() {
		var a pec.Address
		if err := rows.Scan(&a); err != nil {
			return nil, fmt.Errorf("reading the outbox: %w", err)
		}
		to = append(to, a)
	}
	return to, rows.Err()
}
