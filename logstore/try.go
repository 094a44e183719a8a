package logstore

import (
	"context"
	"math/rand/v2"

	"pecd/pec/message"
)

// trySize is as large in octets as a receipt is that must be written, as a rule: its
// original is on the disk by then.
const trySize = 128 << 10

// Try implements Store. It commits bodies to which no message points, one in a row and
// one in a file; they are removed like those whose last message has been taken, and by
// the next start after a crash.
func (s *SQLite) Try(ctx context.Context) error {
	j := newCommitJob(s, Tx{})
	defer j.release()
	var l letter
	noise := rand.NewChaCha8([32]byte{}) // zeros might take no room
	for _, size := range []int64{min(s.options.InlineLimit, defaultInlineLimit), trySize} {
		text := make([]byte, size)
		_, _ = noise.Read(text) // it never fails
		if err := j.spool.addCopy(&l, message.Bytes(text), message.Range{Len: size}, copyKey{}); err != nil {
			return err
		}
	}
	for _, p := range l.pieces {
		j.pin(p)
	}
	s.at(StepPrepared)
	return s.complete(ctx, j, &tryJob{commitJob: j, letter: l})
}

// A tryJob stores the bodies of a letter that is not sent.
type tryJob struct {
	*commitJob
	letter letter
}

func (j *tryJob) apply(ctx context.Context, t *transaction) error {
	j.used = nil
	return j.storeBodies(ctx, t, j.letter)
}

// settle has the bodies go with their last pin, which is Try's.
func (j *tryJob) settle(err error) {
	if err == nil {
		for _, id := range j.used {
			j.store.keep(id)
		}
	}
	j.commitJob.settle(err)
}
