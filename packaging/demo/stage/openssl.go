package stage

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotVerified says that OpenSSL did not find the signature good.
var ErrNotVerified = errors.New("OpenSSL does not verify the signature")

// Verify has OpenSSL verify the S/MIME signature of a message, with nothing but
// the message itself and the stage's CA, and returns the address in the signer's
// certificate. It may be called concurrently.
func (s *Stage) Verify(ctx context.Context, raw []byte) (signer string, err error) {
	return VerifyMessage(ctx, raw, s.CA)
}

// VerifyMessage is Verify against the CAs in the PEM file ca alone; those of the
// system do not count.
func VerifyMessage(ctx context.Context, raw []byte, ca string) (signer string, err error) {
	dir, err := os.MkdirTemp("", "pecd-verify-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "signer.pem")
	// Not -binary: OpenSSL would then take the CRLF line ends of the wire for
	// content that has changed.
	cmd := exec.CommandContext(ctx, "openssl", "cms", "-verify", "-CAfile", ca, "-no-CApath", "-no-CAstore",
		"-signer", file, "-out", os.DevNull)
	cmd.Stdin = bytes.NewReader(raw)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %w: %s", ErrNotVerified, err, bytes.TrimSpace(out))
	}
	return addressIn(file)
}

func addressIn(certificate string) (string, error) {
	b, err := os.ReadFile(certificate)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("%w: no signer's certificate", ErrNotVerified)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	if len(c.EmailAddresses) == 0 {
		return "", fmt.Errorf("%w: the signer's certificate has no address", ErrNotVerified)
	}
	return c.EmailAddresses[0], nil
}
