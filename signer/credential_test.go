package signer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCredentialOutside: beside the daemon, where systemd sets no variable, its credentials
// are read from where they are while it runs.
func TestCredentialOutside(t *testing.T) {
	old := unitCredentials
	t.Cleanup(func() { unitCredentials = old })
	unitCredentials = filepath.Join(t.TempDir(), "pecd.service")
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := readCredential("pin", "PIN"); err == nil || !strings.Contains(err.Error(), "while pecd.service runs") || !strings.Contains(err.Error(), "LoadCredential=pin:FILE") {
		t.Errorf("the unit does not run: %v", err)
	}
	if err := os.Mkdir(unitCredentials, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unitCredentials, "pin"), []byte("1234\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if got, err := readCredential("pin", "PIN"); err != nil || string(got) != "1234" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := readCredential("../pin", "PIN"); err == nil || !strings.Contains(err.Error(), "no name of a credential") {
		t.Errorf("%v", err)
	}
}
