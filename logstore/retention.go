package logstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// A Purge removes the oldest entries of the register, after their term (RFC 6109,
// 2.3: at least 30 months) and after they were archived and sealed. With an entry
// goes what it is searched by, the keys that it certified, and the ledger rows of
// its message that wait for nothing. Keys go no earlier: as long as the register
// says what was issued, nothing of it is issued twice.
type Purge struct {
	// First is the first entry that was archived: there must be none before it that is
	// not archived and would go as well.
	First int64
	// Through is the last entry that goes, and Chain its chain as the archive has it:
	// what was archived is what is here.
	Through int64
	Chain   Digest
	// Before is after the instant of every entry that may go.
	Before time.Time
	// At is the instant of the entry that says what went.
	At time.Time
	// Proof is what shows that the entries were archived and sealed; not empty. The
	// store keeps it and does not interpret it.
	Proof []byte
	// Progress hears how many entries of how many have gone; nil if nobody wants to
	// know.
	Progress func(done, total int64)
}

// maxProof bounds Purge.Proof, in octets.
const maxProof = 1 << 20

// ErrNeeded says that entries cannot be purged because something needs them.
var ErrNeeded = errors.New("entries are still needed")

func (p Purge) check() error {
	switch {
	case !inRange(p.At):
		return fmt.Errorf("logstore: %w: its instant is %v", ErrInvalid, p.At)
	case p.First < 1 || p.First > p.Through:
		return fmt.Errorf("logstore: %w: a purge of entries %d to %d", ErrInvalid, p.First, p.Through)
	case p.Before.After(p.At):
		return fmt.Errorf("logstore: %w: a purge of what is not over yet", ErrInvalid)
	case len(p.Proof) == 0 || len(p.Proof) > maxProof:
		return fmt.Errorf("logstore: %w: a proof of %d octets", ErrInvalid, len(p.Proof))
	}
	return nil
}

// Purgeable is what a Purge could remove.
type Purgeable struct {
	// Through is the last entry that could go; the zero Link if none could.
	Through Link
	// Entries is how many would go.
	Entries int64
	// Kept says what stands against more: an entry that is not older, a message in the
	// outbox or in the virus store; 0 means nothing. It is the number of that entry.
	Kept int64
}

// Purgeable returns what could be purged with p.Before = before. It changes nothing.
func (r *Reader) Purgeable(ctx context.Context, before time.Time) (Purgeable, error) {
	var p Purgeable
	purged, err := r.PurgedThrough(ctx)
	if err != nil {
		return p, err
	}
	last, err := lastOf(ctx, r.db)
	if err != nil {
		return p, failure("reading the register", err)
	}
	if p.Kept, err = firstNeeded(ctx, r.db, purged.Seq, before); err != nil {
		return p, failure("reading the register", err)
	}
	if p.Kept > 0 {
		last = p.Kept - 1
	}
	if last <= purged.Seq {
		return p, nil
	}
	p.Entries = last - purged.Seq
	p.Through, err = r.LinkAt(ctx, last)
	return p, err
}

func lastOf(ctx context.Context, q rowQuerier) (last int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM entry").Scan(&last)
	return last, err
}

// firstNeeded returns the first entry that must not go, or 0. It reads no more
// than the entries that may.
func firstNeeded(ctx context.Context, q rowQuerier, purged int64, before time.Time) (int64, error) {
	young, err := firstYoung(ctx, q, purged, before)
	if err != nil {
		return 0, err
	}
	held, err := firstHeld(ctx, q)
	if young == 0 || held > 0 && held < young {
		return held, err
	}
	return young, err
}

// firstYoung returns the first entry whose term is not over, or 0.
func firstYoung(ctx context.Context, q rowQuerier, purged int64, before time.Time) (first int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce((SELECT seq FROM entry NOT INDEXED WHERE seq > ? AND at >= ? ORDER BY seq LIMIT 1), 0)",
		purged, clamp(before)).Scan(&first)
	return first, err
}

// firstHeld returns the first entry to which a message in the outbox or in the virus
// store belongs, or 0.
func firstHeld(ctx context.Context, q rowQuerier) (first int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce(min(seq), 0) FROM (SELECT seq FROM outbox UNION ALL SELECT seq FROM infected)").Scan(&first)
	return first, err
}

// PurgeEntries carries out p: the entry that says what goes is committed first, then
// the entries go, some at a time, so that other commits wait little. It returns how
// many went, also with an error; FinishPurge goes on after a crash. ErrNeeded if
// entries must stay, ErrInvalid if the chain is another or entries would go that
// were not archived.
func (s *SQLite) PurgeEntries(ctx context.Context, p Purge) (n int64, err error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	s.purging.Lock()
	defer s.purging.Unlock()
	// All that goes is in the register already and does not change: it is read here,
	// so that no commit waits for it.
	purged, err := s.PurgedThrough(ctx)
	if err != nil {
		return 0, err
	}
	young, err := firstYoung(ctx, s.db, purged.Seq, p.Before)
	if err != nil {
		return 0, failure("reading the register", err)
	}
	if young > 0 && young <= p.Through {
		return 0, fmt.Errorf("logstore: %w: %w: entry %d", ErrInvalid, ErrNeeded, young)
	}
	j := &purgeEntriesJob{Purge: p, outcome: make(chan error, 1)}
	if err := s.submit(ctx, j); err != nil {
		return 0, err
	}
	if err := <-j.outcome; err != nil {
		return 0, err
	}
	return s.finishPurge(ctx, p.Progress)
}

// FinishPurge removes the entries that a purge has named and that are still there,
// and returns how many; progress may be nil. It has nothing to do but after a crash
// or an error in PurgeEntries.
func (s *SQLite) FinishPurge(ctx context.Context, progress func(done, total int64)) (n int64, err error) {
	s.purging.Lock()
	defer s.purging.Unlock()
	return s.finishPurge(ctx, progress)
}

// finishPurge is FinishPurge for whoever holds purging.
func (s *SQLite) finishPurge(ctx context.Context, progress func(done, total int64)) (n int64, err error) {
	purged, err := s.PurgedThrough(ctx)
	if err != nil {
		return 0, err
	}
	total, err := s.Unfinished(ctx)
	if err != nil {
		return 0, err
	}
	for n < total {
		j := &removeJob{through: purged.Seq, outcome: make(chan error, 1)}
		if err := s.submitTo(ctx, s.alone, j); err != nil {
			return n, err
		}
		if err := <-j.outcome; err != nil {
			return n, err
		}
		if j.gone == 0 {
			return n, nil
		}
		n += j.gone
		if progress != nil {
			progress(n, total)
		}
		if err := s.pause(ctx); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Unfinished returns how many entries a purge has named that are still there.
func (r *Reader) Unfinished(ctx context.Context) (n int64, err error) {
	err = r.db.QueryRowContext(ctx, "SELECT count(*) FROM entry WHERE seq <= (SELECT max(through) FROM purged)").Scan(&n)
	if err != nil {
		return 0, failure("reading the register", err)
	}
	return n, nil
}

// housePause is between two steps of housekeeping, so that at least as much time
// is for commits.
const housePause = 10 * time.Millisecond

func (s *SQLite) pause(ctx context.Context) error {
	t := time.NewTimer(housePause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return failure("waiting between two steps", ctx.Err())
	case <-s.closing:
		return failure("store is closing", ErrUnavailable)
	}
}

// A purgeEntriesJob says in the register what is going to go.
type purgeEntriesJob struct {
	Purge
	outcome chan error
}

func (j *purgeEntriesJob) step(phase) Step { return "" }

func (j *purgeEntriesJob) settle(err error) { j.outcome <- err }

// apply implements job. A crash after the commit leaves entries that FinishPurge
// removes; until then they are found, and Verify begins after them.
func (j *purgeEntriesJob) apply(ctx context.Context, t *transaction) error {
	var purged int64
	if err := t.conn.QueryRowContext(ctx, "SELECT coalesce(max(through), 0) FROM purged").Scan(&purged); err != nil {
		return err
	}
	if j.First > purged+1 {
		return fmt.Errorf("%w: entries %d to %d were not archived", ErrInvalid, purged+1, j.First-1)
	}
	if j.Through <= purged {
		return fmt.Errorf("%w: entries through %d have gone already", ErrInvalid, purged)
	}
	held, err := firstHeld(ctx, t.conn)
	if err != nil {
		return err
	}
	if held > 0 && held <= j.Through {
		return fmt.Errorf("%w: %w: entry %d", ErrInvalid, ErrNeeded, held)
	}
	var chain []byte
	err = t.conn.QueryRowContext(ctx, "SELECT coalesce((SELECT chain FROM entry WHERE seq = ? AND seq > ?), x'')", j.Through, purged).Scan(&chain)
	if err != nil {
		return err
	}
	if string(chain) != string(j.Chain[:]) {
		return fmt.Errorf("%w: entry %d, through which entries shall go, is not the one that was archived", ErrInvalid, j.Through)
	}
	said := recordPurge{Through: j.Through, Chain: j.Chain, Proof: sha256.Sum256(j.Proof)}
	seq, err := t.register(ctx, record{Purge: &said, Entry: Entry{
		At: j.At, Type: EntryPurged, Detail: fmt.Sprintf("register, entries %d to %d, chain %v", purged+1, j.Through, j.Chain),
	}})
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, "INSERT INTO purged (through, chain, seq, at, proof) VALUES (?, ?, ?, ?, ?)",
		j.Through, j.Chain[:], seq, j.At.UnixNano(), j.Proof)
	return err
}

// removeBatch is how many entries one transaction removes: some milliseconds.
const removeBatch = 100

// A removeJob removes up to removeBatch entries of a purge.
type removeJob struct {
	through int64
	gone    int64
	outcome chan error
}

func (j *removeJob) step(phase) Step { return "" }

func (j *removeJob) settle(err error) { j.outcome <- err }

// apply implements job.
func (j *removeJob) apply(ctx context.Context, t *transaction) error {
	j.gone = 0
	lines, err := recordsUpTo(ctx, t.conn, j.through)
	if err != nil {
		return err
	}
	for _, l := range lines {
		r, err := decodeRecord(l.record)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrInvalid, l.seq, err)
		}
		if err := t.remove(ctx, l.seq, r); err != nil {
			return err
		}
		j.gone++
	}
	return nil
}

// remove removes entry seq with all that is derived from it. What its columns say
// is what its record says, or Verify has told.
func (t *transaction) remove(ctx context.Context, seq int64, r record) error {
	for table, tuples := range r.tuples(seq) {
		for _, x := range tuples {
			if _, err := t.exec(ctx, derived[table].remove, append(derived[table].args(x), seq)...); err != nil {
				return err
			}
		}
	}
	for _, s := range []struct {
		query string
		args  []any
	}{
		// The records of before the chain do not name their keys.
		{"DELETE FROM issued WHERE identifier IN (?, '') AND seq = ? AND seq <= (SELECT seq FROM unnamed_keys)", []any{string(r.Identifier), seq}},
		{"DELETE FROM awaited WHERE identifier = ? AND sent <= ? AND (outcome IS NOT NULL OR expired_at IS NOT NULL)",
			[]any{string(r.Identifier), r.At.UnixNano()}},
		{"DELETE FROM entry WHERE seq = ?", []any{seq}},
	} {
		if _, err := t.exec(ctx, s.query, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// Reclaim gives space that purges have left back to the file system, until no more
// than keep octets are free, some at a time; progress, which may be nil, hears
// octets. It returns how many octets it gave back, also with an error. Space that
// stays is used again by entries to come.
func (s *SQLite) Reclaim(ctx context.Context, keep int64, progress func(done, total int64)) (freed int64, err error) {
	total := int64(-1)
	for {
		j := &reclaimJob{keep: keep, outcome: make(chan error, 1)}
		if err := s.submit(ctx, j); err != nil {
			return freed, err
		}
		if err := <-j.outcome; err != nil {
			return freed, err
		}
		if total < 0 {
			total = max(j.left+j.freed-keep, j.freed)
		}
		freed += j.freed
		if progress != nil && total > 0 {
			progress(min(freed, total), total)
		}
		if j.freed == 0 {
			return freed, nil
		}
		if err := s.pause(ctx); err != nil {
			return freed, err
		}
	}
}

// reclaimPages is how many pages one transaction gives back.
const reclaimPages = 250

// A reclaimJob gives pages back that nothing uses.
type reclaimJob struct {
	keep        int64
	freed, left int64 // octets
	outcome     chan error
}

func (j *reclaimJob) step(phase) Step { return "" }

func (j *reclaimJob) settle(err error) { j.outcome <- err }

// apply implements job.
func (j *reclaimJob) apply(ctx context.Context, t *transaction) error {
	before, size, err := freePages(ctx, t)
	if err != nil {
		return err
	}
	j.freed, j.left = 0, before*size
	n := min((j.left-j.keep)/size, reclaimPages)
	if n <= 0 {
		return nil
	}
	// One row for each page.
	rows, err := t.conn.QueryContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", n))
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	after, _, err := freePages(ctx, t)
	j.freed, j.left = (before-after)*size, after*size
	return err
}

func freePages(ctx context.Context, t *transaction) (pages, size int64, err error) {
	if err := t.conn.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages); err != nil {
		return 0, 0, err
	}
	err = t.conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size)
	return pages, size, err
}

// A purgedRow is a row of the table purged.
type purgedRow struct {
	recordPurge
	seq int64
}

func (r *Reader) purgedRows(ctx context.Context) ([]purgedRow, error) {
	rows, err := r.db.QueryContext(ctx, "SELECT through, chain, seq, proof FROM purged ORDER BY through")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []purgedRow
	for rows.Next() {
		var p purgedRow
		var chain, proof []byte
		if err := rows.Scan(&p.Through, &chain, &p.seq, &proof); err != nil {
			return nil, err
		}
		copy(p.Chain[:], chain) // the schema sees to its length
		p.Proof = sha256.Sum256(proof)
		out = append(out, p)
	}
	return out, rows.Err()
}
