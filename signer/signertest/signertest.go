// Package signertest makes throw-away authorities and provider identities for
// tests. It is the only room of signer that draws randomness.
package signertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pecd/signer"
)

// The certificates of this package are valid between these instants, so that a
// test may take place at any time between.
var (
	NotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	NotAfter  = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// A CA is a throw-away authority.
type CA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	File        string // the certificate in PEM

	dir    string
	serial int64
}

// An Identity is a provider's signing identity with its PEM files.
type Identity struct {
	*signer.Identity
	KeyFile  string // mode 0600
	CertFile string // the leaf, then the CA
}

// NewCA makes an authority whose files last as long as the test.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Country: []string{"IT"}, Organization: []string{"Test CA"}, CommonName: "Test CA"},
		NotBefore:             NotBefore,
		NotAfter:              NotAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))(t)
	ca := &CA{Certificate: must(x509.ParseCertificate(der))(t), Key: key, dir: t.TempDir(), serial: 1}
	ca.File = filepath.Join(ca.dir, "ca.pem")
	write(t, ca.File, 0o644, "CERTIFICATE", der)
	return ca
}

// Pool returns the pool that holds only ca.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.Certificate)
	return p
}

// Identity makes the identity of a provider (RFC 6109, 5.5) with an RSA key of
// 2048 bits. Within one process an address always has the same key: making
// keys is slow.
func (ca *CA) Identity(t testing.TB, name, address string) *Identity {
	t.Helper()
	return ca.IdentityOf(t, Key(t, address), ca.Template(name, address))
}

// Template returns the certificate that Identity issues, for tests that want
// another one.
func (ca *CA) Template(name, address string) *x509.Certificate {
	ca.serial++
	return &x509.Certificate{
		SerialNumber:   big.NewInt(ca.serial),
		Subject:        pkix.Name{Country: []string{"IT"}, Organization: []string{name}, CommonName: name},
		NotBefore:      NotBefore,
		NotAfter:       NotAfter,
		KeyUsage:       x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		EmailAddresses: []string{address},
	}
}

// Issue returns the certificate of tmpl for the public key pub.
func (ca *CA) Issue(t testing.TB, tmpl *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	if tmpl.SubjectKeyId == nil { // only authorities get one from crypto/x509
		id := sha1.Sum(must(x509.MarshalPKIXPublicKey(pub))(t))
		tmpl.SubjectKeyId = id[:]
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, ca.Certificate, pub, ca.Key))(t)
	return must(x509.ParseCertificate(der))(t)
}

// IdentityOf makes the identity with this key and certificate template.
func (ca *CA) IdentityOf(t testing.TB, key crypto.Signer, tmpl *x509.Certificate) *Identity {
	t.Helper()
	leaf := ca.Issue(t, tmpl, key.Public())
	base := filepath.Join(ca.dir, "identity-"+tmpl.SerialNumber.String())
	id := &Identity{KeyFile: base + ".key", CertFile: base + ".pem"}
	write(t, id.KeyFile, 0o600, "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	write(t, id.CertFile, 0o644, "CERTIFICATE", leaf.Raw, ca.Certificate.Raw)
	id.Identity = must(signer.LoadPEM(id.KeyFile, id.CertFile, leaf.NotBefore))(t)
	return id
}

var keys struct {
	sync.Mutex
	of map[string]*rsa.PrivateKey
}

// Key returns the RSA key of 2048 bits that belongs to address in this process.
func Key(t testing.TB, address string) *rsa.PrivateKey {
	t.Helper()
	keys.Lock()
	defer keys.Unlock()
	if k := keys.of[address]; k != nil {
		return k
	}
	k := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	if keys.of == nil {
		keys.of = make(map[string]*rsa.PrivateKey)
	}
	keys.of[address] = k
	return k
}

func write(t testing.TB, file string, mode os.FileMode, kind string, ders ...[]byte) {
	t.Helper()
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	if err := os.WriteFile(file, out, mode); err != nil {
		t.Fatal(err)
	}
}

// must(f())(t) returns the value of f, or ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
