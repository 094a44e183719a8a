package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

func TestLoadPEM(t *testing.T) {
	ca, alfa := newAlfa(t)
	id, err := signer.LoadPEM(alfa.KeyFile, alfa.CertFile, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if id.Address() != alfaPost || !id.Certificate().Equal(alfa.Certificate()) ||
		len(id.Issuers()) != 1 || !id.Issuers()[0].Equal(ca.Certificate) {
		t.Errorf("identity of %s with %d issuers", id.Address(), len(id.Issuers()))
	}
	leaf := pemOf("CERTIFICATE", alfa.Certificate().Raw)
	last := writeFile(t, "last.pem", append(pemOf("CERTIFICATE", ca.Certificate.Raw), leaf...))
	if id, err = signer.LoadPEM(alfa.KeyFile, last, testTime); err != nil || !id.Certificate().Equal(alfa.Certificate()) {
		t.Errorf("certificate behind its issuer: %v", err)
	}
	key := signertest.Key(t, alfaPost)
	pkcs1 := writeFile(t, "pkcs1.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)))
	if _, err := signer.LoadPEM(pkcs1, alfa.CertFile, testTime); err != nil {
		t.Errorf("PKCS #1: %v", err)
	}
	if err := os.Chmod(pkcs1, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.LoadPEM(pkcs1, alfa.CertFile, testTime); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
}

func TestLoadPEMOfECDSA(t *testing.T) {
	ca := signertest.NewCA(t)
	for _, tc := range []struct {
		curve elliptic.Curve
		ok    bool
	}{{elliptic.P256(), true}, {elliptic.P224(), false}} {
		key, err := ecdsa.GenerateKey(tc.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		leaf := ca.Issue(t, ca.Template(alfaName, alfaPost), key.Public())
		_, err = signer.LoadPEM(writeFile(t, "ec.key", pemOf("EC PRIVATE KEY", der)),
			writeFile(t, "ec.pem", pemOf("CERTIFICATE", leaf.Raw)), testTime)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.curve.Params().Name, err)
		}
	}
}

// TestLoadPEMRefuses: each error names the file and the way out.
func TestLoadPEMRefuses(t *testing.T) {
	ca, alfa := newAlfa(t)
	dir := t.TempDir()
	file := func(name string, data []byte, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := signertest.Key(t, alfaPost)
	pkcs1 := x509.MarshalPKCS1PrivateKey(key)
	leaf := func(name string, pub crypto.PublicKey, change func(*x509.Certificate)) string {
		tmpl := ca.Template(alfaName, alfaPost)
		change(tmpl)
		return file(name, pemOf("CERTIFICATE", ca.Issue(t, tmpl, pub).Raw), 0o644)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	same := func(*x509.Certificate) {}
	encrypted := openssl(t, pemOf("RSA PRIVATE KEY", pkcs1), "pkcs8", "-topk8", "-passout", "pass:secret")
	legacy := openssl(t, pemOf("RSA PRIVATE KEY", pkcs1), "rsa", "-aes128", "-traditional", "-passout", "pass:secret")
	broken := bytes.Clone(pkcs1)
	broken[len(broken)/2] ^= 0xff
	for name, tc := range map[string]struct {
		key, cert string
		want      []string
	}{
		"group may read":     {file("0640.key", pemOf("RSA PRIVATE KEY", pkcs1), 0o640), alfa.CertFile, []string{"0640.key", "mode 0640", "chmod 600"}},
		"all may read":       {file("0604.key", pemOf("RSA PRIVATE KEY", pkcs1), 0o604), alfa.CertFile, []string{"0604.key", "mode 0604", "chmod 600"}},
		"no key file":        {filepath.Join(dir, "none.key"), alfa.CertFile, []string{"none.key", "no such file"}},
		"no certificate":     {alfa.KeyFile, filepath.Join(dir, "none.pem"), []string{"none.pem", "no such file"}},
		"directory as key":   {file2dir(t, dir), alfa.CertFile, []string{"as-dir"}},
		"no PEM":             {file("text.key", []byte("hello"), 0o600), alfa.CertFile, []string{"text.key", "no private key"}},
		"too large":          {file("large.key", make([]byte, 2<<20), 0o600), alfa.CertFile, []string{"large.key", "larger than"}},
		"certificate as key": {file("cert.key", pemOf("CERTIFICATE", alfa.Certificate().Raw), 0o600), alfa.CertFile, []string{"cert.key", "no private key"}},
		"encrypted":          {file("enc.key", encrypted, 0o600), alfa.CertFile, []string{"enc.key", "is encrypted", "openssl pkey"}},
		"encrypted, old":     {file("old.key", legacy, 0o600), alfa.CertFile, []string{"old.key", "is encrypted", "openssl pkey"}},
		"broken":             {file("broken.key", pemOf("RSA PRIVATE KEY", broken), 0o600), alfa.CertFile, []string{"broken.key", "cannot be read"}},
		"key as certificate": {alfa.KeyFile, alfa.KeyFile, []string{alfa.KeyFile, "no certificate"}},
		"broken certificate": {alfa.KeyFile, file("broken.pem", pemOf("CERTIFICATE", []byte{0x30, 3, 1, 2, 3}), 0o644), []string{"broken.pem", "certificate 1"}},
		"other key":          {file("other.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), 0o600), alfa.CertFile, []string{alfa.CertFile, "other.key", "belongs to the key"}},
		"1024 bits":          {file("small.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), 0o600), leaf("small.pem", small.Public(), same), []string{"small.pem", "1024 bits", "2048"}},
		"expired":            {alfa.KeyFile, leaf("expired.pem", key.Public(), func(c *x509.Certificate) { c.NotAfter = testTime.Add(-time.Hour) }), []string{"expired.pem", "expired on 2026-09-19", "renew"}},
		"not yet valid":      {alfa.KeyFile, leaf("future.pem", key.Public(), func(c *x509.Certificate) { c.NotBefore = testTime.Add(time.Hour) }), []string{"future.pem", "valid only from", "clock"}},
		"no address":         {alfa.KeyFile, leaf("noaddress.pem", key.Public(), func(c *x509.Certificate) { c.EmailAddresses = nil }), []string{"noaddress.pem", "subjectAltName"}},
		"usage":              {alfa.KeyFile, leaf("usage.pem", key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), []string{"usage.pem", "digitalSignature"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := signer.LoadPEM(tc.key, tc.cert, testTime)
			if !errors.Is(err, signer.ErrIdentity) {
				t.Fatalf("got %v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
			if secret := base64.StdEncoding.EncodeToString(pkcs1)[100:140]; strings.Contains(err.Error(), secret) {
				t.Error("the error quotes the key")
			}
		})
	}
}

func file2dir(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "as-dir")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadAnchors(t *testing.T) {
	ca, alfa := newAlfa(t)
	two := writeFile(t, "two.pem", append(pemOf("CERTIFICATE", ca.Certificate.Raw), pemOf("CERTIFICATE", alfa.Certificate().Raw)...))
	pool, n, err := signer.LoadAnchors(two)
	if err != nil || n != 2 || pool == nil {
		t.Errorf("%d anchors: %v", n, err)
	}
	for _, file := range []string{"/nonexistent.pem", alfa.KeyFile, t.TempDir()} {
		if _, _, err := signer.LoadAnchors(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}
