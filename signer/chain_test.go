package signer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

func TestVerifyWho(t *testing.T) {
	ca, alfa := newAlfa(t)
	foreignCA, foreign := newAlfa(t)
	with := func(change func(*x509.Certificate)) *signertest.Identity {
		tmpl := ca.Template(alfaName, alfaPost)
		change(tmpl)
		return ca.IdentityOf(t, signertest.Key(t, alfaPost), tmpl)
	}
	tmpl := ca.Template(alfaName, alfaPost)
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	web := &signertest.Identity{KeyFile: alfa.KeyFile, // one that pecd itself would not sign with
		CertFile: writeFile(t, "web.pem", pemOf("CERTIFICATE", ca.Issue(t, tmpl, alfa.Certificate().PublicKey).Raw))}
	may := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		id      *signertest.Identity
		anchors *x509.CertPool
		at      time.Time
		want    error
	}{
		"known":                        {alfa, ca.Pool(), testTime, nil},
		"foreign":                      {foreign, ca.Pool(), testTime, signer.ErrUntrusted},
		"foreign, other":               {foreign, foreignCA.Pool(), testTime, nil},
		"no anchors":                   {foreign, nil, testTime, nil},
		"expired":                      {with(func(c *x509.Certificate) { c.NotAfter = may }), ca.Pool(), may.Add(time.Second), signer.ErrExpired},
		"not expired":                  {with(func(c *x509.Certificate) { c.NotAfter = may }), ca.Pool(), may, nil},
		"early":                        {with(func(c *x509.Certificate) { c.NotBefore = may }), ca.Pool(), may.Add(-time.Second), signer.ErrExpired},
		"expired, alone":               {with(func(c *x509.Certificate) { c.NotAfter = may }), nil, testTime, signer.ErrExpired},
		"not yet":                      {with(func(c *x509.Certificate) { c.NotBefore = may }), ca.Pool(), may.Add(-time.Second), signer.ErrNotYet},
		"not yet, and by nobody known": {with(func(c *x509.Certificate) { c.NotBefore = may }), foreignCA.Pool(), may.Add(-time.Second), signer.ErrUntrusted},
		"early, alone":                 {with(func(c *x509.Certificate) { c.NotBefore = may }), nil, may.Add(-time.Second), signer.ErrExpired},
		"authority gone":               {alfa, ca.Pool(), signertest.NotAfter.Add(time.Hour), signer.ErrExpired},
		"own time":                     {alfa, ca.Pool(), time.Time{}, nil},
		"any usage":                    {with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), ca.Pool(), testTime, nil},
		"no usage":                     {with(func(c *x509.Certificate) { c.ExtKeyUsage, c.KeyUsage = nil, 0 }), ca.Pool(), testTime, nil},
		"web server":                   {web, ca.Pool(), testTime, signer.ErrUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			mail := wrap([]byte(entityText), cmsSign(t, tc.id, []byte(entityText)))
			r, err := signer.NewVerifier(tc.anchors).Verify(read(t, mail), tc.at)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if !r.SignatureHolds || !r.ContentIntact || r.ChainChecked != (tc.anchors != nil) || !errors.Is(r.ChainErr, tc.want) {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// TestIntermediate: an authority that comes along with the signature leads to
// the anchor, as long as it is valid itself.
func TestIntermediate(t *testing.T) {
	ca, alfa := newAlfa(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	may := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	tmpl := ca.Template("Sub CA", "ca@ca.example")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage, tmpl.NotAfter = true, true, x509.KeyUsageCertSign, may
	sub := ca.Issue(t, tmpl, key.Public())
	leaf, err := x509.CreateCertificate(rand.Reader, ca.Template(alfaName, alfaPost), sub, signertest.Key(t, alfaPost).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	id := &signertest.Identity{KeyFile: alfa.KeyFile, CertFile: writeFile(t, "leaf.pem", pemOf("CERTIFICATE", leaf))}
	subFile := writeFile(t, "sub.pem", pemOf("CERTIFICATE", sub.Raw))
	with := wrap([]byte(entityText), cmsSign(t, id, []byte(entityText), "-certfile", subFile))
	without := wrap([]byte(entityText), cmsSign(t, id, []byte(entityText)))
	alone := x509.NewCertPool()
	alone.AddCert(sub)
	for name, tc := range map[string]struct {
		mail    []byte
		anchors *x509.CertPool
		at      time.Time
		want    error
	}{
		"whole chain":       {with, ca.Pool(), may, nil},
		"authority expired": {with, ca.Pool(), may.Add(time.Second), signer.ErrExpired},
		"link missing":      {without, ca.Pool(), may, signer.ErrUntrusted},
		"issuer as anchor":  {without, alone, may, nil},
	} {
		if _, err := signer.NewVerifier(tc.anchors).Verify(read(t, tc.mail), tc.at); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// TestNoTime: a signature without a signing time cannot be judged at it.
func TestNoTime(t *testing.T) {
	ca, alfa := newAlfa(t)
	mail := wrap([]byte(entityText), cmsSign(t, alfa, []byte(entityText), "-noattr"))
	r, err := signer.NewVerifier(ca.Pool()).Verify(read(t, mail), time.Time{})
	if !errors.Is(err, signer.ErrUntrusted) || !r.SignatureHolds || !r.ContentIntact {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestKeyUsage: the certificate allows only certificates to be signed. Own
// identities are refused it, so the signature is made by OpenSSL.
func TestKeyUsage(t *testing.T) {
	ca, alfa := newAlfa(t)
	tmpl := ca.Template(alfaName, alfaPost)
	tmpl.KeyUsage = x509.KeyUsageKeyEncipherment
	leaf := ca.Issue(t, tmpl, alfa.Certificate().PublicKey)
	if _, err := signer.NewIdentity(signertest.Key(t, alfaPost), leaf, nil, testTime); !errors.Is(err, signer.ErrIdentity) {
		t.Errorf("an identity that may not sign: %v", err)
	}
	file := writeFile(t, "leaf.pem", pemOf("CERTIFICATE", leaf.Raw))
	p7s := openssl(t, []byte(entityText), "cms", "-sign", "-binary", "-outform", "DER", "-signer", file, "-inkey", alfa.KeyFile)
	if _, err := verify(t, signer.NewVerifier(ca.Pool()), wrap([]byte(entityText), p7s)); !errors.Is(err, signer.ErrUntrusted) {
		t.Errorf("certificate without digitalSignature: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	ca, alfa := newAlfa(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	leaf := ca.Issue(t, ca.Template(alfaName, alfaPost), key.Public())
	short := &signertest.Identity{
		CertFile: writeFile(t, "short.pem", pemOf("CERTIFICATE", leaf.Raw)),
		KeyFile:  writeFile(t, "short.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))),
	}
	mail := wrap([]byte(entityText), cmsSign(t, short, []byte(entityText)))
	v := signer.NewVerifier(ca.Pool())
	if _, err := verify(t, v, mail); !errors.Is(err, signer.ErrWeak) {
		t.Errorf("key of 1024 bits: %v", err)
	}
	old := signer.Policy{Digests: []crypto.Hash{crypto.SHA256, crypto.MD5, crypto.MD4}, RSABits: 1024}
	if _, err := verify(t, v.WithPolicy(old), mail); err != nil {
		t.Errorf("key of 1024 bits where that is enough: %v", err)
	}
	sha1 := wrap([]byte(entityText), cmsSign(t, alfa, []byte(entityText), "-md", "sha1"))
	if _, err := verify(t, v.WithPolicy(old), sha1); !errors.Is(err, signer.ErrWeak) {
		t.Errorf("SHA-1 where it is not accepted: %v", err)
	}
}
