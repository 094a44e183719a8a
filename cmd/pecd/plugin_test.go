package main

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"pecd/cmd/pecd/config"
)

// TestStoreOwner: before the first start root tries plugins as who will run the daemon.
func TestStoreOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives directories to another user: it needs root")
	}
	dir, theirs := t.TempDir(), t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(theirs, "root", "in"), 0o700), os.Chown(theirs, 12, 13), os.Chown(filepath.Join(theirs, "root", "in"), 14, 15)); err != nil {
		t.Fatal(err)
	}
	pecd := func(name string) (*user.User, error) {
		if name != "pecd" {
			t.Errorf("asked for %s", name)
		}
		return &user.User{Uid: "16", Gid: "17"}, nil
	}
	nobody := func(name string) (*user.User, error) { return nil, user.UnknownUserError(name) }
	for _, c := range []struct {
		store    string
		lookup   func(string) (*user.User, error)
		uid, gid uint32 // 0: root
	}{
		{theirs, pecd, 12, 13},
		{filepath.Join(theirs, "store"), pecd, 12, 13},
		{filepath.Join(theirs, "new", "store"), nobody, 12, 13},
		{filepath.Join(theirs, "root", "store"), pecd, 12, 13},
		{filepath.Join(theirs, "root", "in", "store"), pecd, 14, 15},
		{dir, pecd, 0, 0},
		{filepath.Join(dir, "new", "store"), pecd, 16, 17},
		{filepath.Join(dir, "store"), nobody, 0, 0},
	} {
		got, err := storeOwner(c.store, c.lookup)
		if err != nil || (got == nil) != (c.uid == 0) || got != nil && (got.Uid != c.uid || got.Gid != c.gid) {
			t.Errorf("%s: %+v, %v, want %d, %d", c.store, got, err, c.uid, c.gid)
		}
	}
}

// TestNoPluginsSwept: a daemon without plugins leaves nothing of the messages that its
// killed predecessor had copied for some.
func TestNoPluginsSwept(t *testing.T) {
	cfg := &config.Config{}
	cfg.Store.Path = t.TempDir()
	left, state := filepath.Join(cfg.Store.Path, "plugins", "messages", "to-check"), filepath.Join(cfg.Store.Path, "plugins", "state", "check")
	if err := errors.Join(os.MkdirAll(left, 0o700), os.MkdirAll(state, 0o700), os.WriteFile(filepath.Join(left, "1"), nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (&daemon{}).startPlugins(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(state); err != nil {
		t.Error(err)
	}
}
