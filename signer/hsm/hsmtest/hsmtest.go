// Package hsmtest makes tokens of SoftHSM 2 for tests, with keys in them.
package hsmtest

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Module is the library of SoftHSM 2 where Debian and Ubuntu put it.
const Module = "/usr/lib/softhsm/libsofthsm2.so"

// PIN is the PIN of all tokens.
const PIN = "147258"

// SoftHSM reads its configuration when it is initialised, from a file that the
// environment names: there is one for the process, and one folder of tokens.
var store struct {
	once sync.Once
	dir  string
	err  error
}

// Tokens returns the folder of the tokens. A token is taken away by renaming it.
// Call it before any key is opened; Remove it in TestMain.
func Tokens(t testing.TB) string {
	t.Helper()
	store.once.Do(func() {
		if store.dir, store.err = os.MkdirTemp("", "pecd-softhsm"); store.err != nil {
			return
		}
		conf := filepath.Join(store.dir, "softhsm2.conf")
		tokens := filepath.Join(store.dir, "tokens")
		text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens)
		if store.err = os.Mkdir(tokens, 0o700); store.err != nil {
			return
		}
		if store.err = os.WriteFile(conf, []byte(text), 0o600); store.err == nil {
			store.err = os.Setenv("SOFTHSM2_CONF", conf)
		}
	})
	if store.err != nil {
		t.Fatal(store.err)
	}
	return filepath.Join(store.dir, "tokens")
}

// Remove removes what Tokens made.
func Remove() error {
	if store.dir == "" {
		return nil
	}
	return os.RemoveAll(store.dir)
}

// NewToken makes a token with this label, which must be new in the process.
func NewToken(t testing.TB, label string) {
	t.Helper()
	Tokens(t)
	softhsm(t, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "9"+PIN)
}

// Import puts key into the token.
func Import(t testing.TB, token, label string, id []byte, key crypto.Signer) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	softhsm(t, "--import", file, "--token", token, "--label", label, "--id", hex.EncodeToString(id), "--pin", PIN)
}

func softhsm(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
