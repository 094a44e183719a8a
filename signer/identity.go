package signer

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"pecd/pec"
)

// maxPEM limits key and certificate files, in octets.
const maxPEM = 1 << 20

// ErrIdentity says that a key or certificate cannot be used for signing. The
// error names the file and what to do, and holds nothing of the key.
var ErrIdentity = errors.New("signer: unusable identity")

// An Identity is a provider's key with its certificate (RFC 6109, 5.5) and the
// certificates of the issuers that are sent along. It is not changed after it
// was made and may be used concurrently. Close ends it.
type Identity struct {
	key     crypto.Signer
	leaf    *x509.Certificate
	issuers []*x509.Certificate
	address pec.Address
}

// NewIdentity returns the identity of key, which may live in a hardware module,
// if the certificate belongs to the key and CheckProfile finds no error in it at
// now. Errors wrap ErrIdentity.
func NewIdentity(key crypto.Signer, leaf *x509.Certificate, issuers []*x509.Certificate, now time.Time) (*Identity, error) {
	id, err := newIdentity(key, leaf, issuers, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return id, nil
}

func newIdentity(key crypto.Signer, leaf *x509.Certificate, issuers []*x509.Certificate, now time.Time) (*Identity, error) {
	if !samePublicKey(key.Public(), leaf.PublicKey) {
		return nil, errors.New("the certificate belongs to another key; put the provider's certificate beside the key it was issued for")
	}
	if err := profileError(leaf, now); err != nil {
		return nil, err
	}
	return &Identity{key: key, leaf: leaf, issuers: issuers, address: pec.Address(leaf.EmailAddresses[0])}, nil
}

// identityOf picks the certificate of key among certs; the others are issuers.
func identityOf(key crypto.Signer, certs []*x509.Certificate, now time.Time) (*Identity, error) {
	leaf, issuers := pickLeaf(certs, key.Public())
	if leaf == nil {
		return nil, errNoLeaf
	}
	return newIdentity(key, leaf, issuers, now)
}

var errNoLeaf = errors.New("no certificate in it belongs to the key; put the provider's certificate first, its issuers after it")

// LoadPEM reads an unencrypted private key (PKCS#8, PKCS#1 or SEC 1) and the
// certificate with its issuers. The key file must be readable by its owner
// alone. Errors wrap ErrIdentity and say which file, what is wrong and how to
// mend it.
func LoadPEM(keyFile, certFile string, now time.Time) (*Identity, error) {
	key, err := loadKey(keyFile)
	if err != nil {
		return nil, err
	}
	certs, err := loadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	id, err := identityOf(key, certs, now)
	if errors.Is(err, errNoLeaf) {
		err = fmt.Errorf("%w; the key is in %s", err, keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, certFile, err)
	}
	return id, nil
}

// Through has the key's signatures made by wrap(key): the same key, in another
// library. Each signature is verified. To be called before the identity is used.
func (id *Identity) Through(wrap func(crypto.Signer) crypto.Signer) { id.key = wrap(id.key) }

// Close gives back what the key holds: sessions of a hardware module. It waits
// for signatures under way. Nothing is signed afterwards.
func (id *Identity) Close() error {
	if c, ok := id.key.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Certificate returns the provider's own certificate.
func (id *Identity) Certificate() *x509.Certificate { return id.leaf }

// Address returns the e-mail address in the certificate: what From must hold
// (RFC 6109, 5.5.1).
func (id *Identity) Address() pec.Address { return id.address }

func pickLeaf(certs []*x509.Certificate, pub crypto.PublicKey) (leaf *x509.Certificate, issuers []*x509.Certificate) {
	for _, c := range certs {
		if leaf == nil && samePublicKey(pub, c.PublicKey) {
			leaf = c
			continue
		}
		issuers = append(issuers, c)
	}
	return leaf, issuers
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// loadKey reads the key.
func loadKey(file string) (crypto.Signer, error) {
	f, err := openPrivate(file, "private key")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer f.Close()
	data, err := readPEM(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, file, err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, file, err)
	}
	return key, nil
}

func readPEM(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPEM {
		return nil, fmt.Errorf("larger than %d octets; this is not a PEM file", maxPEM)
	}
	return data, nil
}

// parseKey returns the first private key of a PEM file. The reasons that the
// parsers of crypto/x509 give are left out: they may quote the key.
func parseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncrypted
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncrypted
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("the %s in it cannot be read; make it again with openssl pkey", block.Type)
		}
		return signer, nil
	}
	return nil, errors.New("no private key in it; it must hold a PEM block PRIVATE KEY")
}

var errEncrypted = errors.New("the private key is encrypted; write it without a pass phrase with openssl pkey and chmod 600 it")

func loadCertificates(file string) ([]*x509.Certificate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrIdentity, err)
	}
	defer f.Close()
	data, err := readPEM(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, file, err)
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, file, err)
	}
	return certs, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it; it must hold a PEM block CERTIFICATE")
	}
	return certs, nil
}

// LoadAnchors reads the certificates that are trusted without further proof,
// roots or issuing authorities, from a PEM file, and says how many they are.
func LoadAnchors(file string) (*x509.CertPool, int, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("signer: trust anchors: %w", err)
	}
	defer f.Close()
	data, err := readPEM(f)
	if err != nil {
		return nil, 0, fmt.Errorf("signer: trust anchors: %s: %w", file, err)
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, 0, fmt.Errorf("signer: trust anchors: %s: %w", file, err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(withNameConstraints(c))
	}
	return pool, len(certs), nil
}
