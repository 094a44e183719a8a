package logstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pecd/pec"
)

// Commit makes tx durable; see Store. The context is heeded until the writer has
// begun; from then on Commit waits for the outcome, so that nothing becomes
// durable of which the caller does not hear.
func (s *SQLite) Commit(ctx context.Context, tx Tx) ([]bool, error) {
	if err := tx.check(); err != nil {
		return nil, err
	}

	// 1. Prepare: flatten the contents, spool what is not in a body of ours, copy
	// what is infected. A crash leaves temporary files; recover removes them.
	j := newCommitJob(s, tx)
	defer j.release()
	if err := j.prepare(); err != nil {
		return nil, err
	}
	s.at(StepPrepared)
	if err := s.complete(ctx, j, j); err != nil {
		return nil, err
	}

	// 8. The outcome is known and the courier has been woken: see settle. A crash
	// before the caller answers is, to the MTA, a reply lost on the wire; what is
	// in the outbox is sent after the restart.
	return j.done, nil
}

// complete is steps 2 to 7 of Commit for the bodies and infected messages of j. In the
// transaction the writer has work, which is j or made of it.
func (s *SQLite) complete(ctx context.Context, j *commitJob, work job) error {
	// 2. Sync the bytes of the bodies and of what is infected. A crash leaves the
	// same.
	if err := j.syncBodies(); err != nil {
		return err
	}
	if err := j.syncKept(); err != nil {
		return err
	}
	s.at(StepSynced)

	// 3. Give them their names. A crash leaves files to which no row points;
	// recover removes them.
	renamed, err := j.nameBodies()
	if err != nil {
		return err
	}
	if err := j.nameKept(); err != nil {
		return err
	}
	s.at(StepNamed)

	// 4. Sync the names, before any row points to them. A crash leaves the same.
	if err := j.syncNames(renamed); err != nil {
		return err
	}
	if err := j.syncKeptNames(); err != nil {
		return err
	}
	s.at(StepNameSynced)

	// 5, 6, 7. The writer: see transact.
	if err := s.submit(ctx, work); err != nil {
		return err
	}
	return <-j.outcome
}

// check refuses what no later attempt could commit.
func (tx Tx) check() error {
	if !inRange(tx.At) {
		return fmt.Errorf("logstore: %w: its instant is %v", ErrInvalid, tx.At)
	}
	for i, a := range tx.Acts {
		if err := a.check(tx.At); err != nil {
			return fmt.Errorf("logstore: %w: act %d: %w", ErrInvalid, i, err)
		}
	}
	return nil
}

func (a Act) check(at time.Time) error {
	switch {
	case a.Entry.Type == "":
		return errors.New("its entry has no type")
	case !a.Entry.At.IsZero() && !a.Entry.At.Equal(at):
		return errors.New("its entry has another instant") // RFC 6109, 4.1
	case a.Send != nil && a.Send.Duplicate():
		return errors.New("its message is a duplicate, which is not sent")
	case a.Send != nil && len(a.Send.To()) == 0:
		return errors.New("its message has no recipient")
	case a.Await != nil && a.Entry.Identifier == "":
		return errors.New("it awaits answers to a message without identifier")
	}
	if a.Policy != nil {
		if err := a.Policy.check(); err != nil {
			return err
		}
	}
	if err := a.Keep.check(at); err != nil {
		return err
	}
	if a.Answer == nil {
		return nil
	}
	switch a.Answer.Kind {
	case pec.KindTakeCharge, pec.KindDelivery, pec.KindNonDelivery:
		return nil
	}
	return fmt.Errorf("an answer cannot be %q", a.Answer.Kind)
}

// A commitJob is a Tx on its way into the store.
type commitJob struct {
	store   *SQLite
	tx      Tx
	letters []letter // by act
	kept    map[*Kept]*keptFile
	rows    map[int64]row
	used    []int64 // bodies to which rows point in this attempt
	pinned  []int64
	spool   *spool
	done    []bool
	sent    bool // something went into the outbox in this attempt
	outcome chan error
}

// A row is a body as its row has it.
type row struct {
	body   *body
	size   int64
	data   []byte
	file   bool
	stored bool
}

func newCommitJob(s *SQLite, tx Tx) *commitJob {
	return &commitJob{
		store: s, tx: tx,
		letters: make([]letter, len(tx.Acts)), kept: map[*Kept]*keptFile{}, rows: map[int64]row{},
		spool: &spool{store: s, copies: map[copyKey]*body{}},
		done:  make([]bool, len(tx.Acts)), outcome: make(chan error, 1),
	}
}

func (j *commitJob) prepare() error {
	for i, a := range j.tx.Acts {
		if a.Keep != nil && j.kept[a.Keep] == nil {
			k, err := j.store.newKeptFile(a.Keep.Content)
			if err != nil {
				return fmt.Errorf("logstore: act %d: %w", i, err)
			}
			j.kept[a.Keep] = k
		}
		if a.Send == nil {
			continue
		}
		l, err := j.spool.letter(a.Send, a.EnvelopeID)
		if err != nil {
			return fmt.Errorf("logstore: act %d: %w", i, err)
		}
		j.letters[i] = l
		for _, p := range l.pieces {
			j.pin(p)
		}
	}
	return nil
}

// pin holds the body of p until release.
func (j *commitJob) pin(p piece) {
	if p.id == 0 {
		return
	}
	if _, ok := j.rows[p.id]; !ok {
		j.store.pin(p.id, nil)
		j.pinned = append(j.pinned, p.id)
		j.rows[p.id] = row{body: p.body, stored: p.body == nil}
	}
}

// release lets go of the bodies. An error changes nothing of the outcome: what
// is left is removed at the next start.
func (j *commitJob) release() {
	errs := []error{j.spool.close()}
	for _, id := range j.pinned {
		errs = append(errs, j.store.unpin(id))
	}
	for _, k := range j.kept {
		errs = append(errs, k.close())
	}
	if err := errors.Join(errs...); err != nil {
		j.store.log.Warn("letting go of bodies", "error", err)
	}
}

func (j *commitJob) syncBodies() error {
	for id, r := range j.rows {
		if r.body == nil {
			continue
		}
		r, err := r.body.sync()
		if err != nil {
			return err
		}
		j.rows[id] = r
	}
	return nil
}

// nameBodies returns the bodies whose names have to be synced.
func (j *commitJob) nameBodies() (renamed []*body, err error) {
	for _, r := range j.rows {
		if r.body == nil {
			continue
		}
		did, err := r.body.name()
		if err != nil {
			return nil, err
		}
		if did {
			renamed = append(renamed, r.body)
		}
	}
	return renamed, nil
}

func (j *commitJob) syncNames(renamed []*body) error {
	if len(renamed) == 0 {
		return nil
	}
	sync := func() error { return syncDir(j.store.bodyDir(), j.store.sync) }
	if err := j.store.around(StepNameSynced, sync); err != nil {
		return failure("syncing the names of bodies", err)
	}
	for _, b := range renamed {
		b.setNamed()
	}
	return nil
}

func (j *commitJob) step(p phase) Step {
	return [...]Step{begun: StepBegun, written: StepWritten, committed: StepCommitted}[p]
}

// apply writes the rows of all acts whose keys are new and whose notices are due.
func (j *commitJob) apply(ctx context.Context, t *transaction) error {
	j.used, j.sent = nil, false
	for _, k := range j.kept {
		k.rowed = false
	}
	for i := range j.tx.Acts {
		var err error
		if j.done[i], err = j.act(ctx, t, i); err != nil {
			return fmt.Errorf("act %d: %w", i, err)
		}
	}
	return nil
}

func (j *commitJob) act(ctx context.Context, t *transaction, i int) (bool, error) {
	a, l := j.tx.Acts[i], j.letters[i]
	kept := j.kept[a.Keep]
	if kept != nil && kept.rowed {
		kept = nil // an act before this one has it
	}
	for _, keys := range [][]Key{a.Keys, a.Unless} {
		if known, err := t.anyIssued(ctx, keys); err != nil || known {
			return false, err
		}
	}
	if a.Notice != nil {
		if due, err := t.markNotice(ctx, a.Notice, j.tx.At); err != nil || !due {
			return false, err
		}
	}
	if a.Answer != nil {
		if n, err := t.answer(ctx, a.Answer, j.tx.At); err != nil || n == 0 && a.Answer.First {
			return false, err
		}
	}
	entry := a.Entry
	entry.At, entry.Kept = j.tx.At, ""
	if kept != nil {
		entry.Kept = kept.sum()
	}
	seq, err := t.register(ctx, newRecord(entry, a.Keys))
	if err != nil {
		return false, err
	}
	if err = t.await(ctx, entry.Identifier, j.tx.At, a.Await); err != nil {
		return false, err
	}
	if err = t.setPolicy(ctx, a.Policy); err != nil {
		return false, err
	}
	if kept != nil {
		if err = t.keep(ctx, kept, a.Keep, entry, seq); err != nil {
			return false, err
		}
	}
	if a.Send == nil {
		return true, nil
	}
	if err = j.storeBodies(ctx, t, l); err != nil {
		return false, err
	}
	j.sent = true
	return true, t.post(ctx, l, seq, j.tx.At)
}

// storeBodies writes the rows of the bodies to which l points, if this is the
// first message that does.
func (j *commitJob) storeBodies(ctx context.Context, t *transaction, l letter) error {
	for _, p := range l.pieces {
		r, ok := j.rows[p.id]
		if !ok || r.stored {
			continue
		}
		var data any // null: a file
		if !r.file {
			data = append([]byte{}, r.data...) // never nil, also if empty
		}
		_, err := t.exec(ctx, "INSERT INTO body (id, size, data) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING", p.id, r.size, data)
		if err != nil {
			return err
		}
		j.used = append(j.used, p.id)
	}
	return nil
}

// settleKept keeps the files of infected messages to which rows point, or may
// point; then the next start finds out.
func (j *commitJob) settleKept(err error) {
	for _, k := range j.kept {
		k.stored = k.rowed || err != nil
	}
}

// settle implements job. It is step 8 of Commit: the courier is woken, then the
// caller hears.
func (j *commitJob) settle(err error) {
	if err == nil || errors.Is(err, ErrUncertain) {
		for _, id := range j.used {
			j.rows[id].body.setStored()
			if err != nil {
				j.store.keep(id) // the sweep finds out later what became of it
			}
		}
		j.settleKept(err)
	}
	if err == nil && j.sent {
		j.store.awake()
	}
	if err == nil {
		j.store.at(StepSettled)
	}
	j.outcome <- err
}
