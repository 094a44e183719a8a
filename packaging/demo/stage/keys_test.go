package stage

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// issued makes a CA and a provider's certificate on disk.
func issued(t *testing.T) (dir string, ca, leaf Authority) {
	t.Helper()
	dir = t.TempDir()
	ca, err := NewAuthority("Test CA")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err = ca.Issue("Alfa PEC S.p.A.", "posta-certificata@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.Write(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), ca); err != nil {
		t.Fatal(err)
	}
	if err := writeCertificates(filepath.Join(dir, "ca.pem"), ca); err != nil {
		t.Fatal(err)
	}
	return dir, ca, leaf
}

// RFC 6109, 5.5.
func TestCertificateProfile(t *testing.T) {
	dir, ca, leaf := issued(t)
	c := leaf.Certificate
	if c.Subject.Organization[0] != "Alfa PEC S.p.A." || c.EmailAddresses[0] != "posta-certificata@alfa.example" {
		t.Errorf("subject %v, addresses %v", c.Subject, c.EmailAddresses)
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.SubjectKeyId) == 0 || !bytes.Equal(c.AuthorityKeyId, ca.Certificate.SubjectKeyId) {
		t.Errorf("usage %v, key ids %x %x", c.KeyUsage, c.SubjectKeyId, c.AuthorityKeyId)
	}
	for _, e := range c.Extensions {
		switch e.Id.String() {
		case "2.5.29.19":
			t.Error("basic constraints are there")
		case "2.5.29.15":
			if !e.Critical {
				t.Error("key usage is not critical")
			}
		default:
			if e.Critical {
				t.Errorf("extension %v is critical", e.Id)
			}
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", fi.Mode(), err)
	}
}

func TestDirectoryIsSignedLDIF(t *testing.T) {
	dir, _, leaf := issued(t)
	ldif := record("Alfa PEC S.p.A.", "alfa.example", "ricevute@alfa.example", leaf.Certificate.Raw)
	file := filepath.Join(dir, "igpec.ldif.p7m")
	if err := SignLDIF(context.Background(), ldif, file, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", file, "-CAfile", filepath.Join(dir, "ca.pem")).Output()
	if err != nil || !bytes.Equal(out, ldif) {
		t.Errorf("signed content differs, or: %v", err)
	}
}

func TestRecordFolds(t *testing.T) {
	certificate := bytes.Repeat([]byte{0xa5}, 1000)
	text := string(record("Alfa PEC S.p.A.", "alfa.example", "ricevute@alfa.example", certificate))
	for _, l := range strings.Split(text, "\n") {
		if len(l) > 76 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	flat := strings.ReplaceAll(text, "\n ", "")
	if want := "providerCertificate;binary:: " + base64.StdEncoding.EncodeToString(certificate) + "\n"; !strings.Contains(flat, want) {
		t.Errorf("unfolded: %s", flat)
	}
}

func TestVerifyMessage(t *testing.T) {
	dir, _, _ := issued(t)
	sign := exec.Command("openssl", "cms", "-sign", "-signer", filepath.Join(dir, "cert.pem"), "-inkey", filepath.Join(dir, "key.pem"), "-from", "x@alfa.example")
	sign.Stdin = strings.NewReader("Content-Type: text/plain\r\n\r\nciao\r\n")
	raw, err := sign.Output()
	if err != nil {
		t.Fatal(err)
	}
	ctx, ca := context.Background(), filepath.Join(dir, "ca.pem")
	if signer, err := VerifyMessage(ctx, raw, ca); err != nil || signer != "posta-certificata@alfa.example" {
		t.Errorf("signer %q, %v", signer, err)
	}
	changed := bytes.Replace(raw, []byte("ciao"), []byte("ciaO"), 1)
	if _, err := VerifyMessage(ctx, changed, ca); !errors.Is(err, ErrNotVerified) {
		t.Errorf("one octet changed: %v", err)
	}
	other, _, _ := issued(t)
	if _, err := VerifyMessage(ctx, raw, filepath.Join(other, "ca.pem")); !errors.Is(err, ErrNotVerified) {
		t.Errorf("a foreign CA: %v", err)
	}
}
