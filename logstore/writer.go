package logstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// maxBatch bounds how many jobs share a transaction, so that the first of them
// does not wait for ever.
const maxBatch = 128

// maxLinger is how long a transaction of patient jobs waits for others at most.
const maxLinger = 20 * time.Millisecond

// findOutLimit bounds how long the writer tries to find out whether a commit
// happened, while everything waits, and findOutPause is between two tries.
const (
	findOutLimit = 5 * time.Second
	findOutPause = 50 * time.Millisecond
)

// A job is one change of the store. The goroutine of run owns it from when it
// was submitted until settle.
type job interface {
	// apply writes its rows. It may be called again, after a rollback. It changes
	// nothing but the transaction and the job itself.
	apply(ctx context.Context, t *transaction) error
	// settle hears the outcome, once; nil means on stable storage.
	settle(err error)
	// step names the step of the job at a phase of the transaction.
	step(p phase) Step
}

type phase int

const (
	begun phase = iota
	written
	committed
)

// A transaction is the SQL transaction under way.
type transaction struct {
	conn  *sql.Conn
	seq   int64  // of the last entry in it
	chain Digest // of that entry
	mark  int64  // its own number, which is how it is recognised later
}

func (t *transaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *transaction) apply(ctx context.Context, jobs []job) error {
	for _, j := range jobs {
		if err := j.apply(ctx, t); err != nil {
			return err
		}
	}
	_, err := t.exec(ctx, "UPDATE mark SET n = ?", t.mark)
	return err
}

// submit hands j to the writer. After it returned nil the writer has j and will
// call settle; after an error it never will.
func (s *SQLite) submit(ctx context.Context, j job) error { return s.submitTo(ctx, s.queue, j) }

func (s *SQLite) submitTo(ctx context.Context, queue chan<- job, j job) error {
	select {
	case <-s.closing:
		return failure("store is closing", ErrUnavailable)
	case <-ctx.Done(): // not by chance: who has given up must not find it done
		return failure("waiting for the writer", ctx.Err())
	default:
	}
	select {
	case queue <- j:
		return nil
	case <-ctx.Done():
		return failure("waiting for the writer", ctx.Err())
	case <-s.closing:
		return failure("store is closing", ErrUnavailable)
	}
}

// run is the one goroutine that writes; it ends with Close.
func (s *SQLite) run() {
	defer close(s.ended)
	for {
		select {
		case j := <-s.queue:
			s.batch(s.gather(j))
		case j := <-s.alone:
			s.batchAlone(j)
		case <-s.sweeps:
			if ids := s.sweepable(); len(ids) > 0 {
				s.batch([]job{&sweep{s: s, ids: ids}})
			}
		case <-s.closing:
			return
		}
	}
}

// gather returns first and all jobs that wait already. While it has only jobs
// whose callers have time, it waits a little for others: they cost a sync less.
func (s *SQLite) gather(first job) []job {
	jobs := []job{first}
	if patient(first) {
		jobs = s.linger(jobs)
	}
	for len(jobs) < maxBatch {
		select {
		case j := <-s.queue:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// linger waits for the first job that is not patient, maxLinger at most.
func (s *SQLite) linger(jobs []job) []job {
	t := time.NewTimer(maxLinger)
	defer t.Stop()
	for len(jobs) < maxBatch {
		select {
		case j := <-s.queue:
			if jobs = append(jobs, j); !patient(j) {
				return jobs
			}
		case <-t.C:
			return jobs
		case <-s.closing:
			return jobs
		}
	}
	return jobs
}

// patient reports whether nobody outside waits for j: what the MTA has taken is
// sent again if it is lost in a crash, as after a reply lost on the wire.
func patient(j job) bool {
	_, ok := j.(*takenJob)
	return ok
}

// batch carries out jobs in one transaction. If that fails because of one of
// them, each gets its own, so that the others do not suffer.
func (s *SQLite) batch(jobs []job) {
	// The callers' contexts are not used: a job that was begun is carried through.
	ctx := context.Background()
	err := s.transact(ctx, jobs)
	if err == nil || len(jobs) == 1 || errors.Is(err, ErrUnavailable) {
		for _, j := range jobs {
			j.settle(err)
		}
		return
	}
	for i, j := range jobs {
		j.settle(s.transact(ctx, jobs[i:i+1]))
	}
}

// batchAlone carries out a job that removes entries. SQLite would look for rows
// that refer to each of them in all of the larger tables, which have no index for
// that: the job itself knows which there are.
func (s *SQLite) batchAlone(j job) {
	ctx := context.Background()
	err := s.connect(ctx)
	if err == nil {
		if _, err = s.conn.ExecContext(ctx, "PRAGMA foreign_keys = OFF"); err != nil {
			err = failure("preparing a purge", err)
		} else {
			err = s.transact(ctx, []job{j})
		}
	}
	if s.conn != nil {
		if _, onErr := s.conn.ExecContext(ctx, "PRAGMA foreign_keys = ON"); onErr != nil {
			s.disconnect() // a new one has them on
		}
	}
	j.settle(err)
}

// transact is steps 5 to 7 of Commit and steps 1 to 3 of Taken, for all jobs
// together. After an error nothing of them is in the store, or the error is
// ErrUncertain.
func (s *SQLite) transact(ctx context.Context, jobs []job) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if s.unknown {
		if _, err := s.findOut(ctx, 0); err != nil {
			return failure("recovering from a failed commit", err)
		}
		// If it did happen nobody has told the courier: its caller heard ErrUncertain, and
		// may find when he comes again that all is done.
		s.awake()
	}

	s.timeline.note(s.seq)

	// 5. Begin. A crash from here to the end of step 6 leaves nothing in the
	// database: SQLite rolls back when it is opened, and recover removes the files
	// that got their names in step 3.
	err := s.around(jobs[0].step(begun), func() error {
		_, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		s.disconnect()
		return failure("beginning a transaction", err)
	}
	t := &transaction{conn: s.conn, seq: s.seq, chain: s.chain, mark: s.mark + 1}
	s.reach(jobs, begun)

	// 6. Write the rows, and the mark by which step 7 knows them again.
	if err := s.around(jobs[0].step(written), func() error { return t.apply(ctx, jobs) }); err != nil {
		s.disconnect() // rolls back
		return failure("writing", err)
	}
	s.reach(jobs, written)

	// 7. Commit. A crash before the log is synced leaves nothing, as above, and
	// after it everything. The caller does not know yet: to the MTA it is a reply
	// lost on the wire.
	err = s.around(jobs[0].step(committed), func() error { return s.commit(s.conn) })
	if err == nil {
		s.seq, s.chain, s.mark = t.seq, t.chain, t.mark
	} else if err = s.afterFailedCommit(ctx, t, err); err != nil {
		return err
	}
	s.timeline.note(s.seq)
	s.reach(jobs, committed)
	return nil
}

func (s *SQLite) reach(jobs []job, p phase) {
	if s.options.AtStep == nil {
		return
	}
	for _, j := range jobs {
		s.at(j.step(p))
	}
}

func commitSQL(c *sql.Conn) error {
	_, err := c.ExecContext(context.Background(), "COMMIT")
	return err
}

// afterFailedCommit returns nil if the transaction is in the store in spite of
// cause.
func (s *SQLite) afterFailedCommit(ctx context.Context, t *transaction, cause error) error {
	if notWritten(cause) {
		s.disconnect() // rolls back
		return failure("committing", cause)
	}
	s.log.Error("commit failed, finding out whether it happened", "error", cause)
	s.disconnect()
	s.unknown = true
	limit := time.NewTimer(s.patience)
	defer limit.Stop()
	happened := false
	for {
		var err error
		if happened, err = s.findOut(ctx, t.mark); err == nil {
			break
		}
		select {
		case <-time.After(findOutPause):
			continue
		case <-limit.C:
		case <-s.closing:
		}
		return fmt.Errorf("logstore: committing: %w: %w: %w", ErrUnavailable, ErrUncertain, errors.Join(cause, err))
	}
	if happened {
		return nil
	}
	return failure("committing", cause)
}

// findOut gets a working connection, reports whether the transaction with mark
// is in the store, and then puts a mark without content: what a failed commit
// may have left in SQLite's log, whole but not announced, is overwritten by it
// and cannot come to life at the next start. The new mark says the same as the one
// that was found, not below mark or below it: it may be found in its turn, where it
// was put and an error said that it was not.
func (s *SQLite) findOut(ctx context.Context, mark int64) (happened bool, err error) {
	if err := s.connect(ctx); err != nil {
		return false, err
	}
	if err := s.position(ctx); err != nil {
		s.disconnect()
		return false, err
	}
	happened = s.mark >= mark
	found := s.mark + 1
	if !happened {
		found = s.mark - 1
	}
	if _, err := s.conn.ExecContext(ctx, "UPDATE mark SET n = ?", found); err != nil {
		s.disconnect()
		return false, err
	}
	s.mark = max(found, mark) // the next transaction has a number that none had
	s.unknown = false
	return happened, nil
}

// awake tells whoever waits at Wake that the outbox may have something new.
func (s *SQLite) awake() {
	select {
	case s.wake <- struct{}{}:
	default: // he has been told already
	}
}

// position reads where the writer stands: the numbers of the last transaction
// and the last entry, and the end of the chain.
func (s *SQLite) position(ctx context.Context) error {
	var seq sql.NullInt64
	var chain []byte
	err := s.conn.QueryRowContext(ctx, "SELECT n, seq, chain FROM mark LEFT JOIN entry ON seq = (SELECT max(seq) FROM entry)").
		Scan(&s.mark, &seq, &chain)
	if err != nil {
		return err
	}
	s.seq, s.chain = seq.Int64, Digest{}
	if copy(s.chain[:], chain) != len(s.chain) && seq.Valid {
		return fmt.Errorf("entry %d has a chain of %d octets", s.seq, len(chain))
	}
	return nil
}

// disconnect throws the writer's connection away with all its state.
func (s *SQLite) disconnect() {
	if s.conn != nil {
		dropConn(s.conn)
		s.conn = nil
	}
}

// dropConn closes c and keeps it out of the pool.
func dropConn(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
}
