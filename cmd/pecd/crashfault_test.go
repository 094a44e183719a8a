package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pecd/logstore"
)

// Steps of the matrix that no part of pecd names: what others outside do.
const (
	stepReport = "report"    // the MTA hears the answer
	stepStore  = "store"     // the mailbox store takes the message
	stepOffer  = "offer"     // the MTA says 354
	stepMTA    = "final-dot" // the MTA takes the message
)

// then stands between two steps in the name of the second after the first.
const then = " > "

var (
	errBroken = errors.New("broken on purpose")
	errDead   = errors.New("the process is dead")
)

// A fault breaks one operation of a way, in one of four manners. Nothing that
// comes after the death of the process is carried out or seen by anybody.
type fault struct {
	step      string
	nth       int
	persisted bool // the operation is carried out
	reported  bool // the process lives, and hears that it failed
	// copy makes dir/image what the disk has at this moment.
	copy func()

	mu   sync.Mutex
	seen int
	from string        // counting begins with it; empty: it has begun
	died chan struct{} // closed by the death
	dead bool
	hit  bool
}

// around is logstore.Options.Around, and the same for those outside.
func (f *fault) around(step string, do func() error) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return errDead
	}
	now := false
	switch {
	case step == f.from:
		f.from = ""
	case step == f.step && f.from == "":
		f.seen++
		now = f.seen == f.nth
	}
	f.mu.Unlock()
	if !now {
		return do()
	}
	var err error
	if f.persisted {
		err = do()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hit = true
	if err != nil || f.reported {
		return errors.Join(errBroken, err)
	}
	f.copy()
	f.dead = true
	close(f.died)
	return errDead
}

func (f *fault) arm(step string, nth int, persisted, reported bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.step = "", step
	if from, to, ok := strings.Cut(step, then); ok {
		f.from, f.step = from, to
	}
	f.nth, f.persisted, f.reported, f.seen = nth, persisted, reported, 0
}

func (f *fault) happened() (hit, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit, f.dead
}

// copyStore copies what a disk has of a store while it is open. What was not
// synced is lost: of a body, when its sync is the step, the octets, and when that
// of the names is, the name.
func copyStore(t *testing.T, from, to string, step string, persisted bool) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		body := filepath.Dir(rel) == "bodies"
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case strings.HasSuffix(rel, "-shm"): // memory
			return nil
		case body && !persisted && step == string(logstore.StepNameSynced):
			return nil
		}
		octets, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if body && !persisted && step == string(logstore.StepSynced) {
			octets = nil
		}
		return os.WriteFile(filepath.Join(to, rel), octets, 0o600)
	})
	if err != nil {
		t.Error(err) // the process dies on the goroutine of whoever came to the step
	}
}
