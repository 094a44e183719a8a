package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxRoot keeps the longest socket path under the 108 octets of sockaddr_un:
// Dovecot's deepest is root + "/beta/dovecot/run/token-login/imap-urlauth".
const maxRoot = 60

// Where a stage goes that cannot be below its own directory.
const (
	elsewhereDir  = "/var/tmp"
	elsewhereName = "pecd-demo-"
)

// place makes the directory where the servers live. It is dir/run wherever the
// users postfix and dovecot can get there and the path is short enough for
// sockets. Otherwise (a checkout under /root, a long path) it is a new
// directory in /var/tmp, dir/run is a symbolic link to it, and it goes away
// with the stage.
func place(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	run := filepath.Join(dir, "run")
	if real, err := filepath.EvalSymlinks(dir); err == nil && len(real)+4 <= maxRoot && traversable(real) {
		run = filepath.Join(real, "run")
		return run, os.Mkdir(run, 0o755)
	}
	elsewhere, err := os.MkdirTemp(elsewhereDir, elsewhereName)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(elsewhere, 0o755); err != nil {
		return "", err
	}
	return elsewhere, os.Symlink(elsewhere, run)
}

// traversable reports whether every user may pass through dir.
func traversable(dir string) bool {
	for {
		fi, err := os.Stat(dir)
		if err != nil || fi.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

const stateFile = "stage.json"

// state is what another process needs to find and stop a stage.
type state struct {
	Root       string
	CA, TLSCA  string
	Directory  string
	Alfa, Beta *Provider
	Ordinary   *Ordinary
}

func (s *Stage) save() error {
	return writeJSON(filepath.Join(s.Dir, stateFile), state{
		Root: s.Root, CA: s.CA, TLSCA: s.TLSCA, Directory: s.Directory,
		Alfa: s.Alfa, Beta: s.Beta, Ordinary: s.Ordinary,
	})
}

// Open returns the stage that another process laid out in dir. Without one the
// error is fs.ErrNotExist. Authority does not work on it.
func Open(dir string) (*Stage, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("stage: %s: %w", filepath.Join(dir, stateFile), err)
	}
	if st.Alfa == nil || st.Beta == nil || st.Ordinary == nil || !filepath.IsAbs(st.Root) {
		return nil, fmt.Errorf("stage: %s is not complete; remove %s by hand", stateFile, dir)
	}
	return &Stage{
		Dir: dir, Root: st.Root, CA: st.CA, TLSCA: st.TLSCA, Directory: st.Directory,
		Alfa: st.Alfa, Beta: st.Beta, Ordinary: st.Ordinary,
	}, nil
}

// erase removes what New made: the servers' directory first, the state last,
// so that an interrupted removal can be taken up again.
func (s *Stage) erase() error { return erase(s.Dir) }

func erase(dir string) error {
	run := filepath.Join(dir, "run")
	// Only a directory that place made is followed and removed.
	if to, err := os.Readlink(run); err == nil && filepath.Dir(to) == elsewhereDir && strings.HasPrefix(filepath.Base(to), elsewhereName) {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(run); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Clean stops and removes what a stage has left in dir, whichever process made
// it. Where there is none, nothing happens.
func Clean(ctx context.Context, dir string) error {
	s, err := Open(dir)
	if err == nil {
		return s.Remove(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A stage whose state is lost may still run.
	if root, err := filepath.EvalSymlinks(filepath.Join(dir, "run")); err == nil {
		if err := sweep(ctx, root); err != nil {
			return err
		}
	}
	return erase(dir)
}
