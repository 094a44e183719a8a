package logstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// create makes a file that does not exist yet, for its owner only.
func create(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := handOver(f); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(file))
	}
	return f, nil
}

// openOrCreate is create for a file that may be there already.
func openOrCreate(file string) (*os.File, error) {
	f, err := create(file)
	if errors.Is(err, fs.ErrExist) {
		return os.OpenFile(file, os.O_RDWR, 0)
	}
	return f, err
}

// handOver gives what root has just made to the owner of the directory that it is in:
// a command that an administrator gives must not lock the daemon out of its store. It
// goes by the descriptor, since whoever owns the directory could exchange the name.
func handOver(made *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(filepath.Dir(filepath.Clean(made.Name())))
	if err != nil {
		return err
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		return made.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

func handOverDir(dir string) error {
	d, err := os.OpenFile(filepath.Clean(dir), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(handOver(d), d.Close())
}
