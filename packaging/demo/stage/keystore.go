package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Where a provider's key can be.
const (
	KeysPEM     = "pem"
	KeysPKCS12  = "pkcs12"
	KeysSoftHSM = "softhsm" // a token of SoftHSM2, in the place of a hardware module
)

// tokenLabel and keyLabel name a provider's token and the key in it.
const (
	tokenLabel = "pecd"
	keyLabel   = "sign"
)

// modules are where distributions put the library of SoftHSM2.
var modules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"}

// keepKey moves the provider's key to where kind says. But for PEM its file is
// gone then.
func (p *Provider) keepKey(ctx context.Context, kind string) error {
	switch kind {
	case "", KeysPEM:
		return nil
	case KeysPKCS12:
		return p.keepPKCS12(ctx)
	case KeysSoftHSM:
		return p.keepSoftHSM(ctx)
	}
	return fmt.Errorf("%q is not known; %s, %s or %s", kind, KeysPEM, KeysPKCS12, KeysSoftHSM)
}

func (p *Provider) keepPKCS12(ctx context.Context) error {
	file, password := filepath.Join(p.Dir, "key.p12"), filepath.Join(p.Dir, "key.password")
	if err := writeFile(password, []byte("demo-password\n"), 0o600); err != nil {
		return err
	}
	err := do(ctx, nil, "openssl", "pkcs12", "-export", "-in", p.Certificate, "-inkey", p.Key, "-out", file, "-passout", "file:"+password)
	if err != nil {
		return err
	}
	p.Pecd.Config.Signer = SignerConfig{KeyConfig: KeyConfig{PKCS12: file, PasswordFile: password}}
	return errors.Join(os.Chmod(file, 0o600), os.Remove(p.Key))
}

// Tokens is the folder of a provider's token, with KeysSoftHSM. Without it the
// token is away.
func (p *Provider) Tokens() string { return filepath.Join(p.Dir, "tokens") }

func (p *Provider) keepSoftHSM(ctx context.Context) error {
	module := ""
	for _, m := range modules {
		if _, err := os.Stat(m); err == nil {
			module = m
		}
	}
	if module == "" {
		return errors.New("SoftHSM2 is not installed: no libsofthsm2.so where distributions put it")
	}
	conf, pin := filepath.Join(p.Dir, "softhsm2.conf"), filepath.Join(p.Dir, "pin")
	if err := makeDir(p.Tokens(), 0o700); err != nil {
		return err
	}
	if err := writeFile(conf, []byte("directories.tokendir = "+p.Tokens()+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o644); err != nil {
		return err
	}
	if err := writeFile(pin, []byte("demo-pin\n"), 0o600); err != nil {
		return err
	}
	env := []string{"SOFTHSM2_CONF=" + conf}
	if err := do(ctx, env, "softhsm2-util", "--init-token", "--free", "--label", tokenLabel, "--so-pin", "demo-so-pin", "--pin", "demo-pin"); err != nil {
		return err
	}
	if err := do(ctx, env, "softhsm2-util", "--import", p.Key, "--token", tokenLabel, "--label", keyLabel, "--id", "01", "--pin", "demo-pin"); err != nil {
		return err
	}
	p.Pecd.Env = append(p.Pecd.Env, env...)
	p.Pecd.Config.Signer = SignerConfig{KeyConfig: KeyConfig{Certificate: p.Certificate, Module: module, Token: tokenLabel, KeyLabel: keyLabel, PINFile: pin}}
	return os.Remove(p.Key)
}

// do runs a program with more environment; its output is in the error.
func do(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
