package timestamp

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// Bounds on RSA keys, in bits. Longer ones would take minutes to compute with.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

func checkKey(c *x509.Certificate) error {
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && (k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits) {
		return fmt.Errorf("%w: an RSA key of %d bits", ErrWeak, k.N.BitLen())
	}
	return nil
}

// digestOf returns the digest algorithm of oid, if it is one that is accepted.
func digestOf(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	switch oid.String() {
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256, true
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384, true
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512, true
	}
	return 0, false
}

// A family of signature algorithms by their digest.
type family map[crypto.Hash]x509.SignatureAlgorithm

var (
	rsaFamily   = family{crypto.SHA256: x509.SHA256WithRSA, crypto.SHA384: x509.SHA384WithRSA, crypto.SHA512: x509.SHA512WithRSA}
	pssFamily   = family{crypto.SHA256: x509.SHA256WithRSAPSS, crypto.SHA384: x509.SHA384WithRSAPSS, crypto.SHA512: x509.SHA512WithRSAPSS}
	ecdsaFamily = family{crypto.SHA256: x509.ECDSAWithSHA256, crypto.SHA384: x509.ECDSAWithSHA384, crypto.SHA512: x509.ECDSAWithSHA512}
)

// signatures are the signature algorithms that are verified. RSASSA-PSS counts
// with a salt as long as the digest, as crypto/x509 has it and authorities use.
var signatures = map[string]struct {
	family family
	hash   crypto.Hash // 0: the digest algorithm decides
}{
	"1.2.840.113549.1.1.1":  {rsaFamily, 0},
	"1.2.840.113549.1.1.11": {rsaFamily, crypto.SHA256},
	"1.2.840.113549.1.1.12": {rsaFamily, crypto.SHA384},
	"1.2.840.113549.1.1.13": {rsaFamily, crypto.SHA512},
	"1.2.840.113549.1.1.10": {pssFamily, 0},
	"1.2.840.10045.2.1":     {ecdsaFamily, 0},
	"1.2.840.10045.4.3.2":   {ecdsaFamily, crypto.SHA256},
	"1.2.840.10045.4.3.3":   {ecdsaFamily, crypto.SHA384},
	"1.2.840.10045.4.3.4":   {ecdsaFamily, crypto.SHA512},
}

// readAlgorithms decides hash and signature.
func (p *parsed) readAlgorithms() error {
	var known bool
	if p.hash, known = digestOf(p.signer.Digest.Algorithm); !known {
		return fmt.Errorf("%w: digest algorithm %s", ErrWeak, p.signer.Digest.Algorithm)
	}
	s, known := signatures[p.signer.Algorithm.Algorithm.String()]
	if !known {
		return fmt.Errorf("%w: signature algorithm %s", ErrWeak, p.signer.Algorithm.Algorithm)
	}
	if s.hash != 0 && s.hash != p.hash {
		return fmt.Errorf("signature algorithm %s beside the digest %s", p.signer.Algorithm.Algorithm, p.hash)
	}
	p.signature = s.family[p.hash]
	return nil
}
