package stage

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
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of everything made here; a demo does not live as long.
const lifetime = 90 * 24 * time.Hour

// An Authority is a CA with its key, or a leaf with its key.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// authorities are the two CAs of a stage: the one of providers and the one of
// TLS servers must not be able to speak for each other.
type authorities struct{ pec, tls, directory Authority }

func (s *Stage) makeKeys() error {
	if err := makeDir(filepath.Join(s.Root, "ca"), 0o755); err != nil {
		return err
	}
	var k authorities
	var err error
	if k.pec, err = NewAuthority("PEC Demo CA"); err != nil {
		return err
	}
	if k.tls, err = NewAuthority("TLS Demo CA"); err != nil {
		return err
	}
	if k.directory, err = k.pec.Issue("Indice dei gestori", "igpec@directory.example"); err != nil {
		return err
	}
	s.keys = &k
	if err := writeCertificates(s.CA, k.pec); err != nil {
		return err
	}
	if err := writeCertificates(s.TLSCA, k.tls); err != nil {
		return err
	}
	if err := k.directory.Write(filepath.Join(s.Root, "ca", "directory.pem"), filepath.Join(s.Root, "ca", "directory-key.pem"), k.pec); err != nil {
		return err
	}
	for _, m := range s.servers() {
		if err := makeDir(m.Dir, 0o755); err != nil {
			return err
		}
		if err := k.tls.serve(m); err != nil {
			return err
		}
	}
	return s.makeProviderKeys()
}

func (s *Stage) makeProviderKeys() error {
	for _, p := range s.Providers() {
		leaf, err := s.keys.pec.Issue(p.Name, "posta-certificata@"+p.Domain)
		if err != nil {
			return err
		}
		if err := leaf.Write(p.Certificate, p.Key, s.keys.pec); err != nil {
			return err
		}
	}
	return nil
}

// NewAuthority makes a CA with a new RSA key. Tests use it to be a foreign CA.
func NewAuthority(name string) (Authority, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Authority{}, err
	}
	t := blank(name, key.Public())
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return sign(t, key, Authority{Certificate: t, Key: key})
}

// Issue makes a provider's certificate and key after RFC 6109, 5.5: the
// provider's name in the subject, the sender of system messages as alternative
// name, digitalSignature critical, both key identifiers, no basic constraints.
func (a Authority) Issue(providerName, address string) (Authority, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Authority{}, err
	}
	t := blank("Posta Certificata", key.Public())
	t.Subject.Organization = []string{providerName}
	t.EmailAddresses = []string{address}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	return sign(t, key, a)
}

// serve gives a mail server its TLS certificate.
func (a Authority) serve(m *MailServer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := blank("mail."+m.Domain, key.Public())
	t.DNSNames = []string{"mail." + m.Domain, "localhost"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf, err := sign(t, key, a)
	if err != nil {
		return err
	}
	return leaf.Write(filepath.Join(m.Dir, "tls.pem"), filepath.Join(m.Dir, "tls-key.pem"), a)
}

func blank(name string, key crypto.PublicKey) *x509.Certificate {
	now := time.Now()
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // crypto/rand does not fail
	serial[0] = serial[0]&0x7f | 0x40
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{Country: []string{"IT"}, Organization: []string{"pecd demo"}, CommonName: name},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		SubjectKeyId: keyID(key),
	}
}

// keyID is the subject key identifier: RFC 5280, 4.2.1.2, over the encoded key.
func keyID(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil // a key that was just made; without it the certificate only lacks the extension
	}
	sum := sha1.Sum(der)
	return sum[:]
}

func sign(t *x509.Certificate, key crypto.Signer, by Authority) (Authority, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, by.Certificate, key.Public(), by.Key)
	if err != nil {
		return Authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return Authority{Certificate: cert, Key: key}, err
}

// Write writes the certificate followed by its issuers, and the key with mode
// 0600.
func (a Authority) Write(certificate, key string, issuers ...Authority) error {
	if err := writeCertificates(certificate, append([]Authority{a}, issuers...)...); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return err
	}
	return writeFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func writeCertificates(file string, list ...Authority) error {
	var out []byte
	for _, a := range list {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})...)
	}
	return writeFile(file, out, os.FileMode(0o644))
}
