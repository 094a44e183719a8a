package logstore

import (
	"context"
	"errors"
)

// A pin keeps a body from being removed while someone may still need it: an open
// handle, or a commit that points to it.
type pin struct {
	count int
	body  *body // nil if only commits of a stored body hold it
}

// pin adds a holder to body id; b is its handle, if it has one.
func (s *SQLite) pin(id int64, b *body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pins[id]
	if p == nil {
		p = &pin{}
		s.pins[id] = p
	}
	p.count++
	if b != nil {
		p.body = b
	}
}

// unpin removes a holder. The last one drops the handle and, if the body's last
// message has been taken meanwhile, has the writer remove the body.
func (s *SQLite) unpin(id int64) error {
	s.mu.Lock()
	p := s.pins[id]
	p.count--
	last := p.count == 0
	if last {
		delete(s.pins, id)
	}
	_, orphan := s.orphans[id]
	s.mu.Unlock()
	if !last {
		return nil
	}
	var err error
	if p.body != nil {
		err = p.body.drop()
	}
	if orphan {
		select {
		case s.sweeps <- struct{}{}:
		default: // the writer has been told already
		}
	}
	return err
}

// keep reports whether body id is pinned; then it goes with its last pin.
func (s *SQLite) keep(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[id] == nil {
		return false
	}
	s.orphans[id] = struct{}{}
	return true
}

// sweepable returns the orphans that nobody holds any more.
func (s *SQLite) sweepable() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int64
	for id := range s.orphans {
		if s.pins[id] == nil {
			ids = append(ids, id)
			delete(s.orphans, id)
		}
	}
	return ids
}

// A sweep is the job that removes bodies to which no message points. If it fails
// the next start does its work.
type sweep struct {
	s     *SQLite
	ids   []int64
	files []int64
}

func (j *sweep) step(phase) Step { return "" }

func (j *sweep) apply(ctx context.Context, t *transaction) error {
	j.files = j.files[:0]
	for _, id := range j.ids {
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

func (j *sweep) settle(err error) {
	if err == nil {
		err = j.s.removeFiles(j.files)
	}
	if err != nil {
		j.s.log.Warn("bodies that nobody needs are left until the next start", "error", err)
	}
}

// removeBody removes the row of body id if no message points to it, and reports
// whether a file of that id is of no use now.
func (t *transaction) removeBody(ctx context.Context, id int64) (bool, error) {
	_, err := t.exec(ctx, "DELETE FROM body WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox_piece WHERE body = ?1)", id)
	if err != nil {
		return false, err
	}
	var left int
	err = t.conn.QueryRowContext(ctx, "SELECT count(*) FROM body WHERE id = ?", id).Scan(&left)
	return left == 0, err
}

// removeFiles removes the files of bodies that have no row any more.
func (s *SQLite) removeFiles(ids []int64) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, s.removeStored(s.bodyPath(id)))
	}
	return errors.Join(errs...)
}
