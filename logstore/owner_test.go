package logstore_test

import (
	"crypto/rand"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pecd/logstore"
)

// TestRootOpens: a store that root opens first in the daemon's directory is the
// daemon's.
func TestRootOpens(t *testing.T) {
	dir := t.TempDir()
	daemon, group := os.Geteuid(), os.Getegid()
	if daemon == 0 {
		daemon, group = 23456, 34567
		if err := os.Chown(dir, daemon, group); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second finds everything there
		s, err := logstore.Open(t.Context(), logstore.Options{Dir: dir, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			found++
			if o := st.Sys().(*syscall.Stat_t); int(o.Uid) != daemon || int(o.Gid) != group {
				t.Errorf("%s belongs to %d:%d", path, o.Uid, o.Gid)
			}
			return nil
		})
		if err != nil || found < 5 {
			t.Errorf("%d files, %v", found, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
