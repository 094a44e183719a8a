package signer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"pecd/signer"
	"pecd/signer/hsm/hsmtest"
	"pecd/signer/signertest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := hsmtest.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestLoadPKCS11 signs with an RSA and an ECDSA key in SoftHSM, and goes on when
// the token was away.
func TestLoadPKCS11(t *testing.T) {
	ca := signertest.NewCA(t)
	hsmtest.NewToken(t, "pec")
	pin := writeFile(t, "pin", []byte(hsmtest.PIN+"\n"))
	for label, key := range map[string]crypto.Signer{"rsa": signertest.Key(t, alfaPost), "ecdsa": ecdsaKey(t)} {
		t.Run(label, func(t *testing.T) {
			hsmtest.Import(t, "pec", label, []byte(label), key)
			leaf := ca.Issue(t, ca.Template(alfaName, alfaPost), key.Public())
			certs := writeFile(t, "certs.pem", append(pemOf("CERTIFICATE", leaf.Raw), pemOf("CERTIFICATE", ca.Certificate.Raw)...))
			id, err := signer.LoadPKCS11(t.Context(), signer.PKCS11{Module: hsmtest.Module, Token: "pec", Key: label,
				KeyID: fmt.Sprintf("%x", label), PINFile: pin}, certs, testTime)
			if err != nil {
				t.Fatal(err)
			}
			d := receiptDraft(t)
			checkWithOthers(t, ca, sign(t, id, d), bytesOf(t, d.Entity))
			tokens := hsmtest.Tokens(t)
			if err := os.Rename(tokens, tokens+".away"); err != nil {
				t.Fatal(err)
			}
			if _, err := signer.NewSigner(id).Sign(d); !errors.Is(err, signer.ErrKeyUnavailable) {
				t.Errorf("without token: %v", err)
			}
			if err := os.Rename(tokens+".away", tokens); err != nil {
				t.Fatal(err)
			}
			checkWithOthers(t, ca, sign(t, id, d), bytesOf(t, d.Entity))
			if err := id.Close(); err != nil {
				t.Error(err)
			}
			if _, err := signer.NewSigner(id).Sign(d); !errors.Is(err, signer.ErrKeyUnavailable) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestLoadPKCS11Refuses(t *testing.T) {
	_, alfa := newAlfa(t)
	hsmtest.NewToken(t, "refuse")
	hsmtest.Import(t, "refuse", "firma", []byte{7}, signertest.Key(t, "another@alfa.example"))
	pin := writeFile(t, "pin", []byte(hsmtest.PIN))
	open := writeFile(t, "open", []byte(hsmtest.PIN))
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	credentials := t.TempDir()
	if err := os.WriteFile(filepath.Join(credentials, "pin"), []byte("000000"), 0o440); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	good := signer.PKCS11{Module: hsmtest.Module, Token: "refuse", Key: "firma", PINFile: pin}
	with := func(change func(*signer.PKCS11)) signer.PKCS11 {
		p := good
		change(&p)
		return p
	}
	for name, tc := range map[string]struct {
		p    signer.PKCS11
		want string
	}{
		"no module":        {with(func(p *signer.PKCS11) { p.Module = "" }), "no module"},
		"no token":         {with(func(p *signer.PKCS11) { p.Token = "" }), "token"},
		"no key":           {with(func(p *signer.PKCS11) { p.Key = "" }), "id of the key"},
		"id":               {with(func(p *signer.PKCS11) { p.KeyID = "xyz" }), "hexadecimal"},
		"no PIN":           {with(func(p *signer.PKCS11) { p.PINFile = "" }), "PIN"},
		"two PINs":         {with(func(p *signer.PKCS11) { p.PINCredential = "pin" }), "name one"},
		"PIN for all":      {with(func(p *signer.PKCS11) { p.PINFile = open }), "chmod 600"},
		"empty PIN":        {with(func(p *signer.PKCS11) { p.PINFile = writeFile(t, "empty", []byte("\n")) }), "empty"},
		"PIN of two lines": {with(func(p *signer.PKCS11) { p.PINFile = writeFile(t, "two", []byte("1\n2\n")) }), "one line"},
		"wrong credential": {with(func(p *signer.PKCS11) { p.PINFile, p.PINCredential = "", "pin" }), "refused the PIN"},
		"no credential":    {with(func(p *signer.PKCS11) { p.PINFile, p.PINCredential = "", "none" }), "LoadCredential=none:FILE"},
		"credential above": {with(func(p *signer.PKCS11) { p.PINFile, p.PINCredential = "", "../pin" }), "no name of a credential"},
		"another key":      {good, "none of the certificates"},
		"unknown label":    {with(func(p *signer.PKCS11) { p.Key = "other" }), "no private key with label"},
		"unknown token":    {with(func(p *signer.PKCS11) { p.Token = "other" }), "0 tokens"},
	} {
		_, err := signer.LoadPKCS11(t.Context(), tc.p, alfa.CertFile, testTime)
		if !errors.Is(err, signer.ErrIdentity) || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), hsmtest.PIN) {
			t.Errorf("%s: the error quotes the PIN", name)
		}
	}
}

func TestLoadPKCS12(t *testing.T) {
	ca, alfa := newAlfa(t)
	ec := ca.IdentityOf(t, ecdsaKey(t), ca.Template(alfaName, alfaPost))
	secret := writeFile(t, "secret", []byte("segreto\r\n"))
	for name, tc := range map[string]struct {
		id   *signertest.Identity
		args []string
	}{
		"AES":   {alfa, nil},
		"ECDSA": {ec, nil},
		"3DES":  {alfa, []string{"-legacy", "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"}},
	} {
		p12 := openssl(t, nil, append([]string{"pkcs12", "-export", "-in", tc.id.CertFile, "-inkey", tc.id.KeyFile, "-passout", "pass:segreto"}, tc.args...)...)
		for form, data := range map[string][]byte{"DER": p12, "BER": outerBER(t, p12)} {
			id, err := signer.LoadPKCS12(writeFile(t, "id.p12", data), secret, testTime)
			if err != nil {
				t.Errorf("%s %s: %v", name, form, err)
				continue
			}
			if !id.Certificate().Equal(tc.id.Certificate()) || len(id.Issuers()) != 1 || id.Close() != nil {
				t.Errorf("%s %s: %v with %d issuers", name, form, id.Certificate().Subject, len(id.Issuers()))
			}
			d := receiptDraft(t)
			checkWithOthers(t, ca, sign(t, id, d), bytesOf(t, d.Entity))
		}
	}
}

// outerBER gives the outermost value an indefinite length.
func outerBER(t *testing.T, der []byte) []byte {
	t.Helper()
	if der[0] != 0x30 || der[1] != 0x82 {
		t.Fatalf("%x", der[:4])
	}
	return append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0)
}

func TestLoadPKCS12Refuses(t *testing.T) {
	ca, alfa := newAlfa(t)
	key := signertest.Key(t, alfaPost)
	secret := writeFile(t, "secret", []byte("segreto"))
	p12, err := pkcs12.Modern.Encode(key, alfa.Certificate(), []*x509.Certificate{ca.Certificate}, "segreto")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pkcs12.Modern.Encode(key, ca.Certificate, nil, "segreto")
	if err != nil {
		t.Fatal(err)
	}
	mode := func(data []byte, mode os.FileMode) string {
		file := writeFile(t, "mode", data)
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	rounds := strings.Replace(string(p12), "\x02\x02\x08\x00", "\x02\x02\x7f\xff", 1)
	for name, tc := range map[string]struct {
		file, secret string
		now          time.Time
		want         string
	}{
		"wrong pass phrase": {writeFile(t, "x", p12), writeFile(t, "s", []byte("altro")), testTime, "does not fit"},
		"no pass phrase":    {writeFile(t, "x", p12), filepath.Join(t.TempDir(), "none"), testTime, "pass phrase"},
		"pass phrase, 0644": {writeFile(t, "x", p12), mode([]byte("segreto"), 0o644), testTime, "chmod 600"},
		"file, 0640":        {mode(p12, 0o640), secret, testTime, "chmod 600"},
		"no file":           {filepath.Join(t.TempDir(), "none"), secret, testTime, "no such file"},
		"large":             {writeFile(t, "x", make([]byte, 2<<20)), secret, testTime, "larger than"},
		"PEM":               {alfa.KeyFile, secret, testTime, "not a PKCS #12 file"},
		"truncated":         {writeFile(t, "x", p12[:len(p12)/2]), secret, testTime, "not a PKCS #12 file"},
		"certificate":       {writeFile(t, "x", ca.Certificate.Raw), secret, testTime, "openssl pkcs12 -export"},
		"other certificate": {writeFile(t, "x", other), secret, testTime, "belongs to the key"},
		"altered":           {writeFile(t, "x", []byte(rounds)), secret, testTime, "does not fit"},
		"expired":           {writeFile(t, "x", p12), secret, signertest.NotAfter.AddDate(1, 0, 0), "expired"},
	} {
		_, err := signer.LoadPKCS12(tc.file, tc.secret, tc.now)
		if !errors.Is(err, signer.ErrIdentity) || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// TestRenewal: the certificate changes on its date, without a restart.
func TestRenewal(t *testing.T) {
	ca, alfa := newAlfa(t)
	next := ca.IdentityOf(t, ecdsaKey(t), ca.Template(alfaName, alfaPost))
	d := receiptDraft(t)
	for name, tc := range map[string]struct {
		from time.Time
		want *x509.Certificate
	}{
		"before":     {testTime.Add(time.Nanosecond), alfa.Identity.Certificate()},
		"on the day": {testTime, next.Identity.Certificate()},
		"long after": {testTime.AddDate(-1, 0, 0), next.Identity.Certificate()},
	} {
		s, err := signer.NewRenewal(alfa.Identity, next.Identity, tc.from)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := s.Sign(d)
		if err != nil {
			t.Fatal(err)
		}
		r, err := verify(t, signer.NewVerifier(ca.Pool()), bytesOf(t, signed.Content()))
		if err != nil || !r.Signer.Equal(tc.want) || !s.IdentityAt(testTime).Certificate().Equal(tc.want) {
			t.Errorf("%s: %v, %v", name, err, r.Signer.SerialNumber)
		}
		if terms := s.Terms(); len(terms) != 2 || terms[0].Identity != s.Identity() || !terms[1].From.Equal(tc.from) {
			t.Errorf("%s: %v", name, terms)
		}
	}
	other := ca.Identity(t, "Beta", "posta-certificata@beta.example")
	short := ca.Template(alfaName, alfaPost)
	short.NotBefore, short.NotAfter = testTime, testTime.AddDate(0, 1, 0)
	brief := ca.IdentityOf(t, signertest.Key(t, alfaPost), short)
	for name, tc := range map[string]struct {
		current, next *signertest.Identity
		from          time.Time
		want          string
	}{
		"another address": {alfa, other, testTime, "same address"},
		"next too late":   {alfa, brief, testTime.Add(-time.Hour), "not valid on the date"},
		"next too early":  {alfa, brief, testTime.AddDate(0, 2, 0), "not valid on the date"},
		"a gap":           {brief, alfa, testTime.AddDate(0, 2, 0), "before it"},
	} {
		if _, err := signer.NewRenewal(tc.current.Identity, tc.next.Identity, tc.from); !errors.Is(err, signer.ErrIdentity) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEncoderKeys: GnuTLS, OpenSSL and pkcs7 take signatures by every kind of key.
func TestEncoderKeys(t *testing.T) {
	ca := signertest.NewCA(t)
	keys := map[string]crypto.Signer{"P-256": ecdsaKey(t)}
	for _, bits := range []int{2048, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys[fmt.Sprint("RSA ", bits)] = key
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			id := ca.IdentityOf(t, key, ca.Template(alfaName, alfaPost))
			d := receiptDraft(t)
			s := sign(t, id.Identity, d)
			checkWithOthers(t, ca, s, bytesOf(t, d.Entity))
			checkWithGnuTLS(t, ca, p7sOf(t, bytesOf(t, s.Content())), bytesOf(t, d.Entity))
			again := sign(t, id.Identity, d)
			if string(bytesOf(t, s.Content())) != string(bytesOf(t, again.Content())) {
				t.Error("not deterministic")
			}
		})
	}
}

func checkWithGnuTLS(t *testing.T, ca *signertest.CA, p7s, entity []byte) {
	t.Helper()
	verify := func(content []byte) ([]byte, error) {
		return exec.Command("certtool", "--p7-verify", "--inder", "--infile", writeFile(t, "p7s", p7s),
			"--load-ca-certificate", ca.File, "--load-data", writeFile(t, "entity", content)).CombinedOutput()
	}
	if out, err := verify(entity); err != nil || !strings.Contains(string(out), "Signature status: ok") {
		t.Errorf("certtool: %v\n%s", err, out)
	}
	if out, err := verify(append(entity, 'x')); err == nil {
		t.Errorf("certtool takes another content\n%s", out)
	}
}
