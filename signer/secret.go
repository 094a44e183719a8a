package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxSecret bounds a file with a PIN or a pass phrase, in octets.
const maxSecret = 1 << 10

// openPrivate opens a file that only its owner may read. The mode is that of the
// opened file, so that the file cannot be exchanged between check and use.
func openPrivate(file, what string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		f.Close()
		return nil, fmt.Errorf("%s: mode %04o lets others at the %s; run: chmod 600 %s", file, mode, what, file)
	}
	return f, nil
}

// ReadSecret returns the first line of a file that only its owner may read; what
// names it in errors. The file may have up to 1024 octets.
func ReadSecret(file, what string) ([]byte, error) {
	f, err := openPrivate(file, what)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return firstLine(f, file, what)
}

// unitCredentials is where systemd keeps the credentials of the daemon while it runs. A
// shell and a package's script have no $CREDENTIALS_DIRECTORY; as root they read them here.
var unitCredentials = "/run/credentials/pecd.service"

// readCredential returns the first line of the systemd credential name. Its mode
// is systemd's business: with an access list it looks readable by a group.
func readCredential(name, what string) ([]byte, error) {
	dir, hint := os.Getenv("CREDENTIALS_DIRECTORY"), ""
	if dir == "" {
		dir, hint = unitCredentials, "there is no $CREDENTIALS_DIRECTORY; outside of the unit root can read it while pecd.service runs; "
	}
	if name != filepath.Base(name) || name == ".." || name == "." {
		return nil, fmt.Errorf("%s: %q is no name of a credential", what, name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; %sgive the unit LoadCredential=%s:FILE, or name a file", what, err, hint, name)
	}
	defer f.Close()
	return firstLine(f, f.Name(), what)
}

func firstLine(r io.Reader, file, what string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("%s: larger than %d octets; it must hold the %s in one line", file, maxSecret, what)
	}
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: it must hold the %s in one line", file, what)
	}
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

var errEmptyPIN = errors.New("the PIN is empty")
