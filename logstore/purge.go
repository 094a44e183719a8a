package logstore

import (
	"context"
	"fmt"
	"time"
)

// The steps of PurgeInfected, in their order.
const (
	StepPurgeBegun     Step = "purge-begun"     // the SQL transaction is open
	StepPurgeWritten   Step = "purge-written"   // entries are in it, and rows gone
	StepPurgeCommitted Step = "purge-committed" // it is on stable storage, files are still there
	StepPurgeSettled   Step = "purge-settled"   // the files are gone
)

// PurgeSteps returns the steps of PurgeInfected in their order.
func PurgeSteps() []Step {
	return []Step{StepPurgeBegun, StepPurgeWritten, StepPurgeCommitted, StepPurgeSettled}
}

// purgeBatch is how many infected messages one transaction removes.
const purgeBatch = 100

// PurgeInfected removes the infected messages whose term is over; see Store.
func (s *SQLite) PurgeInfected(ctx context.Context, at time.Time) (n int, err error) {
	if !inRange(at) {
		return 0, fmt.Errorf("logstore: %w: its instant is %v", ErrInvalid, at)
	}
	for {
		j := &purgeJob{store: s, at: at, outcome: make(chan error, 1)}
		if err := s.submit(ctx, j); err != nil {
			return n, err
		}
		if err := <-j.outcome; err != nil {
			return n, err
		}
		n += len(j.gone)
		if len(j.gone) < purgeBatch {
			return n, nil
		}
	}
}

// A purgeJob removes up to purgeBatch infected messages.
type purgeJob struct {
	store   *SQLite
	at      time.Time
	gone    []int64
	outcome chan error
}

func (j *purgeJob) step(p phase) Step {
	return [...]Step{begun: StepPurgeBegun, written: StepPurgeWritten, committed: StepPurgeCommitted}[p]
}

// apply implements job. A crash before the commit leaves all as it was, one after
// it files without rows, which recover removes.
func (j *purgeJob) apply(ctx context.Context, t *transaction) error {
	j.gone = nil
	rows, err := t.conn.QueryContext(ctx, "SELECT "+infectedColumns+" FROM infected WHERE until <= ? ORDER BY until, id LIMIT ?",
		j.at.UnixNano(), purgeBatch)
	if err != nil {
		return err
	}
	over, err := scanInfected(rows)
	if err != nil {
		return err
	}
	for _, m := range over {
		// The entry first: without it the row does not go.
		if _, err := t.register(ctx, record{Entry: m.purged(j.at)}); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM infected WHERE id = ?", m.ID); err != nil {
			return err
		}
		j.gone = append(j.gone, m.ID)
	}
	return nil
}

// purged returns the register entry that says that m was removed.
func (m Infected) purged(at time.Time) Entry {
	return Entry{
		At: at, Type: EntryPurged, Identifier: m.Identifier, Sender: m.Sender,
		Detail: fmt.Sprintf("%s, SHA-256 %s", m.Virus, m.Digest), Kept: m.Digest,
	}
}

// settle implements job.
func (j *purgeJob) settle(err error) {
	if err == nil {
		for _, id := range j.gone {
			if err := j.store.removeStored(virusPath(j.store.options.Dir, id)); err != nil {
				j.store.log.Warn("the file of a purged message is left until the next start", "error", err)
			}
		}
		j.store.at(StepPurgeSettled)
	}
	j.outcome <- err
}
