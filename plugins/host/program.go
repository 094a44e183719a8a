package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A program is a plugin's file, open, so that what was checked is what runs.
type program struct {
	file *os.File
	path string // without symbolic links
	sum  string // SHA-256, in hexadecimal
	elf  bool
}

// openProgram opens and hashes the program at path. Nobody but root and this user
// may be able to change it, or to put another in its place.
func openProgram(path string) (*program, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	for dir := real; ; dir = filepath.Dir(dir) {
		if err := safe(dir); err != nil {
			return nil, err
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	p := &program{file: f, path: real}
	if err := p.read(); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// safe checks that only root and this user can change path. In a directory with
// the sticky bit others can add files, but not put them in the place of ours.
func safe(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: the owner of %s is not known", ErrUnsafe, path)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to the user %d; it must belong to root or to pecd's user", ErrUnsafe, path, st.Uid)
	}
	sticky := fi.IsDir() && fi.Mode()&os.ModeSticky != 0
	if fi.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%w: %s can be written by its group or by all; chmod go-w %s", ErrUnsafe, path, path)
	}
	return nil
}

func (p *program) read() error {
	fi, err := p.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is not a file that can be executed", p.path)
	}
	var magic [4]byte
	if _, err := p.file.ReadAt(magic[:], 0); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	p.elf = string(magic[:]) == "\x7fELF"
	h := sha256.New()
	if _, err := io.Copy(h, p.file); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	p.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

// compare checks the program against the configured checksum, if there is one.
func (p *program) compare(want string) error {
	if want == "" || strings.EqualFold(want, p.sum) {
		return nil
	}
	return fmt.Errorf("%w: %s has %s, the configuration wants %s", ErrChecksum, p.path, p.sum, want)
}

// executable is what to execute: the file that was hashed, whatever its path
// leads to by now. A script goes by its path, since its interpreter opens it
// itself and finds what lies beside it.
func (p *program) executable() string {
	if p.elf {
		return fmt.Sprintf("/proc/self/fd/%d", p.file.Fd())
	}
	return p.path
}
