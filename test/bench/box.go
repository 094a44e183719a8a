package main

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// A box is the folder of a mailbox into which new mail comes. Reading all folders at
// each look would take much of a processor that the servers need, so that one is read
// only when it has changed.
type box struct {
	dir   string
	files int
	// changed is when the folder changed, as it was before it was read; zero: read it anyhow.
	changed time.Time
}

// clockStep is more than the steps of the clock by which the kernel says when a folder
// changed: within one, a second change cannot be told from the first.
const clockStep = 20 * time.Millisecond

// count returns how many files there are. Without a folder nothing has come yet.
func (b *box) count() (int, error) {
	now := time.Now()
	st, err := os.Stat(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !b.changed.IsZero() && st.ModTime().Equal(b.changed) {
		return b.files, nil
	}
	list, err := os.ReadDir(b.dir)
	if err != nil {
		return 0, err
	}
	b.files, b.changed = len(list), time.Time{}
	if now.Sub(st.ModTime()) > clockStep {
		b.changed = st.ModTime()
	}
	return b.files, nil
}
