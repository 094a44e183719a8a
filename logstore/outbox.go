package logstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"pecd/pec"
	"pecd/pec/message"
)

// maxWhy bounds the text in octets that a failed attempt leaves.
const maxWhy = 1000

// Outgoing returns messages of the outbox; see Store. What their contents point
// to can be read until they have been taken.
func (s *SQLite) Outgoing(ctx context.Context, now time.Time, limit int, except []int64) ([]Outgoing, error) {
	// One transaction, so that a message taken meanwhile is seen whole or not.
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, failure("reading the outbox", err)
	}
	out, err := s.outgoing(ctx, tx, now, limit, except)
	if rollbackErr := tx.Rollback(); err == nil && !errors.Is(rollbackErr, sql.ErrTxDone) {
		err = rollbackErr
	}
	if err != nil {
		return nil, failure("reading the outbox", err)
	}
	return out, nil
}

func (s *SQLite) outgoing(ctx context.Context, tx *sql.Tx, now time.Time, limit int, except []int64) ([]Outgoing, error) {
	out, err := due(ctx, tx, now, limit, except)
	if err != nil {
		return nil, err
	}
	bodies := map[int64]*storedBody{}
	for i := range out {
		if out[i].To, err = outgoingTo(ctx, tx, out[i].ID); err != nil {
			return nil, err
		}
		if out[i].Content, err = s.outgoingContent(ctx, tx, out[i].ID, bodies); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// MaxPutOff is how long after now a message can be due. What is due later was
// written while the clock was ahead, and does not wait until it is that late.
const MaxPutOff = 2 * time.Minute

// due returns what is due at now, and then what a clock that was ahead has left.
func due(ctx context.Context, tx *sql.Tx, now time.Time, limit int, except []int64) ([]Outgoing, error) {
	except = slices.Sorted(slices.Values(except)) // it may be long
	out, err := dueWhere(ctx, tx, "due <= ?", clamp(now), limit, except)
	if err != nil || len(out) == limit {
		return out, err
	}
	ahead, err := dueWhere(ctx, tx, "due > ?", clamp(now.Add(MaxPutOff)), limit-len(out), except)
	return append(out, ahead...), err
}

func dueWhere(ctx context.Context, tx *sql.Tx, where string, at int64, limit int, except []int64) (out []Outgoing, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, kind, message_id, envelope, sender, eight_bit, created, due, attempts
		FROM outbox WHERE `+where+` ORDER BY due, id LIMIT ?`, at, limit+len(except))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() && len(out) < limit {
		var o Outgoing
		var created, due sql.NullInt64
		if err := rows.Scan(&o.ID, &o.Kind, &o.MessageID, &o.EnvelopeID, &o.From, &o.EightBit, &created, &due, &o.Attempts); err != nil {
			return nil, err
		}
		if _, skip := slices.BinarySearch(except, o.ID); !skip {
			o.Created, o.Due = instant(created), instant(due)
			out = append(out, o)
		}
	}
	return out, rows.Err()
}

// clamp returns t as nanoseconds since 1970, the nearest if out of range.
func clamp(t time.Time) int64 {
	switch {
	case t.Year() < 1970:
		return 0
	case !inRange(t):
		return 1<<63 - 1
	}
	return t.UnixNano()
}

func outgoingTo(ctx context.Context, tx *sql.Tx, id int64) ([]pec.Address, error) {
	rows, err := tx.QueryContext(ctx, "SELECT address FROM outbox_recipient WHERE outbox = ? ORDER BY position", id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var to []pec.Address
	for rows.Next() {
		var a pec.Address
		if err := rows.Scan(&a); err != nil {
			return nil, err
		}
		to = append(to, a)
	}
	return to, rows.Err()
}

func (s *SQLite) outgoingContent(ctx context.Context, tx *sql.Tx, id int64, bodies map[int64]*storedBody) (message.Content, error) {
	rows, err := tx.QueryContext(ctx, "SELECT text, body, off, len FROM outbox_piece WHERE outbox = ? ORDER BY position", id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var c message.Content
	var missing []*storedBody
	for rows.Next() {
		var p message.Piece
		var bodyID sql.NullInt64
		if err := rows.Scan(&p.Text, &bodyID, &p.Range.Off, &p.Range.Len); err != nil {
			return nil, err
		}
		if bodyID.Valid {
			b := bodies[bodyID.Int64]
			if b == nil {
				b = &storedBody{store: s, id: bodyID.Int64}
				bodies[b.id] = b
				missing = append(missing, b)
			}
			p.Source = b
		}
		c = append(c, p)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, b := range missing {
		err := tx.QueryRowContext(ctx, "SELECT size, data FROM body WHERE id = ?", b.id).Scan(&b.size, &b.data)
		if err != nil {
			return nil, fmt.Errorf("body %d: %w", b.id, err)
		}
	}
	return c, nil
}

// Taken records what the MTA took; see Store. It says nothing about messages
// that are not in the outbox any more.
func (s *SQLite) Taken(ctx context.Context, id int64, by []pec.Address) error {
	j := &takenJob{store: s, id: id, by: by, outcome: make(chan error, 1)}
	if err := s.submit(ctx, j); err != nil {
		return err
	}
	return <-j.outcome
}

type takenJob struct {
	store   *SQLite
	id      int64
	by      []pec.Address
	files   []int64 // bodies whose files are of no use after the commit
	outcome chan error
}

func (j *takenJob) step(p phase) Step {
	return [...]Step{begun: StepTakeBegun, written: StepTakeWritten, committed: StepTakeCommitted}[p]
}

// apply implements job. A crash before the commit leaves the message in the
// outbox: it is sent again, as after a reply lost on the wire. One after it
// leaves files without rows, which recover removes.
func (j *takenJob) apply(ctx context.Context, t *transaction) error {
	j.files = nil
	left, err := t.strike(ctx, j.id, j.by)
	if err != nil || left > 0 {
		return err
	}
	bodies, err := t.bodiesOf(ctx, j.id)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "DELETE FROM outbox WHERE id = ?", j.id); err != nil {
		return err
	}
	for _, id := range bodies {
		if j.store.keep(id) {
			continue // it goes with its last pin
		}
		gone, err := t.removeBody(ctx, id)
		if err != nil {
			return err
		}
		if gone {
			j.files = append(j.files, id)
		}
	}
	return nil
}

// settle implements job.
func (j *takenJob) settle(err error) {
	if err == nil {
		if err := j.store.around(StepTakeSettled, func() error { return j.store.removeFiles(j.files) }); err != nil {
			j.store.log.Warn("bodies that nobody needs are left until the next start", "error", err)
		}
		j.store.at(StepTakeSettled)
	}
	j.outcome <- err
}

// strike removes recipients of message id and returns how many are left.
func (t *transaction) strike(ctx context.Context, id int64, by []pec.Address) (left int, err error) {
	rows, err := t.conn.QueryContext(ctx, "SELECT position, address FROM outbox_recipient WHERE outbox = ?", id)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var struck []int64
	for rows.Next() {
		var position int64
		var a pec.Address
		if err := rows.Scan(&position, &a); err != nil {
			return 0, err
		}
		if slices.ContainsFunc(by, a.Same) {
			struck = append(struck, position)
		} else {
			left++
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, position := range struck {
		if _, err := t.exec(ctx, "DELETE FROM outbox_recipient WHERE outbox = ? AND position = ?", id, position); err != nil {
			return 0, err
		}
	}
	return left, nil
}

func (t *transaction) bodiesOf(ctx context.Context, id int64) ([]int64, error) {
	rows, err := t.conn.QueryContext(ctx, "SELECT DISTINCT body FROM outbox_piece WHERE outbox = ? AND body IS NOT NULL", id)
	if err != nil {
		return nil, err
	}
	return scanIDs(rows)
}

func scanIDs(rows *sql.Rows) ([]int64, error) {
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// Postpone records a failed attempt; see Store. Of why the first 1000 octets are
// kept.
func (s *SQLite) Postpone(ctx context.Context, id int64, next time.Time, why string) error {
	j := &postponeJob{id: id, next: clamp(next), why: why[:min(len(why), maxWhy)], outcome: make(chan error, 1)}
	if err := s.submit(ctx, j); err != nil {
		return err
	}
	return <-j.outcome
}

type postponeJob struct {
	id      int64
	next    int64
	why     string
	outcome chan error
}

func (j *postponeJob) step(phase) Step { return "" }

func (j *postponeJob) apply(ctx context.Context, t *transaction) error {
	_, err := t.exec(ctx, "UPDATE outbox SET attempts = attempts + 1, due = ?, why = ? WHERE id = ?", j.next, j.why, j.id)
	return err
}

func (j *postponeJob) settle(err error) { j.outcome <- err }
