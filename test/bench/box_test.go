package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBox: a folder that changed long ago is not read again, since the looks at it must
// cost the servers nothing; one that changed just now is, since a file that comes within
// the same step of the kernel's clock does not show.
func TestBox(t *testing.T) {
	for _, c := range []struct {
		what    string
		changed time.Time
		second  int // files that are counted after the second file, which does not show
	}{{"long ago", time.Now().Add(-time.Minute), 1}, {"just now", time.Now().Add(time.Minute), 2}} {
		b := &box{dir: filepath.Join(t.TempDir(), "new")}
		if n, err := b.count(); err != nil || n != 0 {
			t.Errorf("%s: %d files (%v) without a folder", c.what, n, err)
		}
		if err := os.Mkdir(b.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		add := func(name string, at time.Time, want int) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(b.dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(b.dir, at, at); err != nil {
				t.Fatal(err)
			}
			if n, err := b.count(); err != nil || n != want {
				t.Errorf("%s: %d files are counted after %q (%v), want %d", c.what, n, name, err, want)
			}
		}
		add("first", c.changed, 1)
		add("second", c.changed, c.second)
		add("third", c.changed.Add(time.Second), 3)
	}
}
