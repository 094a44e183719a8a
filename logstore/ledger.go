package logstore

import (
	"context"
	"database/sql"
	"time"

	"pecd/pec"
)

// ledgerColumns are what scanAwaited reads.
const ledgerColumns = "identifier, recipient, sent, taken_at, ended_at, coalesce(outcome, ''), warned_at, expired_at"

// Awaited returns the ledger rows of a message of ours; see Store.
func (r *Reader) Awaited(ctx context.Context, id pec.Identifier) ([]Awaited, error) {
	return r.ledger(ctx, "SELECT "+ledgerColumns+" FROM awaited WHERE identifier = ? ORDER BY sent, position", string(id))
}

// Overdue returns ledger rows that have waited for as long as term; see Store.
func (r *Reader) Overdue(ctx context.Context, now time.Time, term time.Duration, warned bool, limit int) ([]Awaited, error) {
	sent, limit := clamp(now.Add(-term)), max(limit, 0)
	h, whole := r.timeline.horizon(term)
	if !whole {
		// Whether any is overdue by its date comes first: it costs next to nothing, and
		// mostly none is.
		seem, err := r.ledger(ctx, overdueSQL(warned, sentBefore), sent, int64(0), h.young, min(limit, 1))
		if err != nil || len(seem) == 0 {
			return nil, err // that any dated in the future is old is not known yet
		}
		if h, err = r.bornOut(ctx, h, now, term); err != nil {
			return nil, err
		}
	}
	out, err := r.ledger(ctx, overdueSQL(warned, sentBefore), sent, int64(0), h.young, limit)
	if err != nil || h.old == 0 || len(out) == limit {
		return out, err
	}
	ahead, err := r.ledger(ctx, overdueSQL(warned, sentAfter), clamp(now), int64(1), h.old, limit-len(out))
	return append(out, ahead...), err
}

// What overdueSQL asks about when a row was sent.
const (
	sentBefore = "sent <= ?"
	sentAfter  = "sent > ?"
)

// overdueSQL returns a query of Overdue: rows that were sent before or after an instant,
// whose entries are numbered from one number to another, or 0 if they are gone. It names
// its indexes, so that it fails rather than walk through all that was ever sent.
func overdueSQL(warned bool, when string) string {
	index, where := "awaited_open", "outcome IS NULL AND expired_at IS NULL"
	if !warned {
		index, where = "awaited_unwarned", where+" AND warned_at IS NULL AND taken_at IS NULL"
	}
	return "SELECT " + ledgerColumns + " FROM awaited INDEXED BY " + index + " WHERE " + where +
		" AND " + when + ` AND coalesce((SELECT min(seq) FROM entry INDEXED BY entry_by_identifier
		WHERE entry.identifier = awaited.identifier AND at = sent), 0) BETWEEN ? AND ? ORDER BY sent, identifier, position LIMIT ?`
}

func (r *Reader) ledger(ctx context.Context, query string, args ...any) ([]Awaited, error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failure("reading the ledger", err)
	}
	defer rows.Close()
	var out []Awaited
	for rows.Next() {
		a, err := scanAwaited(rows)
		if err != nil {
			return nil, failure("reading the ledger", err)
		}
		out = append(out, a)
	}
	if err := rows.Err(); err != nil {
		return nil, failure("reading the ledger", err)
	}
	return out, nil
}

func scanAwaited(rows *sql.Rows) (Awaited, error) {
	var a Awaited
	var sent, taken, ended, warned, expired sql.NullInt64
	err := rows.Scan(&a.Identifier, &a.Recipient, &sent, &taken, &ended, &a.Outcome, &warned, &expired)
	a.Sent, a.TakenAt, a.EndedAt = instant(sent), instant(taken), instant(ended)
	a.WarnedAt, a.ExpiredAt = instant(warned), instant(expired)
	return a, err
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

// answer clears ledger rows and returns how many it changed.
func (t *transaction) answer(ctx context.Context, a *Answer, at time.Time) (changed int64, err error) {
	others := map[string]bool{} // recipients without a row of their key
	for _, r := range a.Recipients {
		n, known, err := t.answerRow(ctx, a, r.Key(), at)
		if err != nil {
			return 0, err
		}
		changed += n
		if !known {
			others[r.Folded()] = true
		}
	}
	if len(others) == 0 {
		return changed, nil
	}
	keys, err := t.ledgerKeys(ctx, a.Identifier)
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		if !others[pec.Address(key).Folded()] {
			continue
		}
		n, _, err := t.answerRow(ctx, a, key, at)
		if err != nil {
			return 0, err
		}
		changed += n
	}
	return changed, nil
}

// answerRow clears one row, and reports whether it changed it (1 or 0) and whether
// there is one. The first outcome stands: what comes later is in the register only.
func (t *transaction) answerRow(ctx context.Context, a *Answer, key string, at time.Time) (n int64, known bool, err error) {
	if a.Kind == pec.KindTakeCharge {
		n, err = t.exec(ctx, "UPDATE awaited SET taken_at = ? WHERE identifier = ? AND key = ? AND taken_at IS NULL AND outcome IS NULL",
			at.UnixNano(), string(a.Identifier), key)
	} else {
		n, err = t.exec(ctx, "UPDATE awaited SET ended_at = ?, outcome = ? WHERE identifier = ? AND key = ? AND outcome IS NULL",
			at.UnixNano(), string(a.Kind), string(a.Identifier), key)
	}
	if err != nil || n > 0 {
		return n, n > 0, err
	}
	err = t.conn.QueryRowContext(ctx, "SELECT count(*) > 0 FROM awaited WHERE identifier = ? AND key = ?", string(a.Identifier), key).Scan(&known)
	return 0, known, err
}

func (t *transaction) ledgerKeys(ctx context.Context, id pec.Identifier) ([]string, error) {
	rows, err := t.conn.QueryContext(ctx, "SELECT key FROM awaited WHERE identifier = ?", string(id))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// markNotice writes into the ledger that a notice was issued, and reports whether its
// row still calls for one. The conditions are those of Overdue: what arrived
// since the row was read from there is seen here, where nobody else writes.
func (t *transaction) markNotice(ctx context.Context, n *Notice, at time.Time) (due bool, err error) {
	query := "UPDATE awaited SET warned_at = ? WHERE warned_at IS NULL AND taken_at IS NULL AND "
	if n.Last {
		query = "UPDATE awaited SET expired_at = ? WHERE "
	}
	rows, err := t.exec(ctx, query+"expired_at IS NULL AND outcome IS NULL AND identifier = ? AND key = ?",
		at.UnixNano(), string(n.Identifier), n.Recipient.Key())
	return rows > 0, err
}
