package timestamp

import (
	"bytes"
	"crypto"
	_ "crypto/sha1"   // for crypto.SHA1, in references to certificates
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// maxCertificates bounds the certificates in a token.
const maxCertificates = 32

// A signedData is the SignedData of a token; RFC 5652, 5.1.
type signedData struct {
	Version          int
	DigestAlgorithms asn1.RawValue
	Encapsulated     struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"explicit,tag:0"`
	}
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version   int
	Signer    asn1.RawValue
	Digest    pkix.AlgorithmIdentifier
	Signed    asn1.RawValue `asn1:"optional,tag:0"`
	Algorithm pkix.AlgorithmIdentifier
	Signature []byte
	Unsigned  asn1.RawValue `asn1:"optional,tag:1"`
}

// A tstInfo is what the authority signs; RFC 3161, 2.4.2.
type tstInfo struct {
	Version  int
	Policy   asn1.ObjectIdentifier
	Imprint  imprint
	Serial   *big.Int
	Time     time.Time `asn1:"generalized"`
	Accuracy struct {
		Seconds int `asn1:"optional"`
		Millis  int `asn1:"optional,tag:0"`
		Micros  int `asn1:"optional,tag:1"`
	} `asn1:"optional"`
	Ordering   bool          `asn1:"optional"`
	Nonce      *big.Int      `asn1:"optional"`
	TSA        asn1.RawValue `asn1:"optional,tag:0"`
	Extensions asn1.RawValue `asn1:"optional,tag:1"`
}

// A parsed token: nothing of it is known to be true yet.
type parsed struct {
	info         tstInfo
	content      []byte // the octets of info
	certificates []*x509.Certificate
	signer       signerInfo
	hash         crypto.Hash
	signature    x509.SignatureAlgorithm
}

// parse reads a token. It is total: hostile input ends in an error that wraps
// ErrMalformed or ErrWeak.
func parse(der []byte) (*parsed, error) {
	if len(der) > MaxToken {
		return nil, fmt.Errorf("%w: a token of more than %d octets", ErrMalformed, MaxToken)
	}
	p, err := parseToken(der)
	if err != nil && !errors.Is(err, ErrWeak) {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, err
}

func parseToken(der []byte) (*parsed, error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if err := unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("not a ContentInfo: %w", err)
	}
	if !outer.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("content of type %s, not signed data", outer.Type)
	}
	var sd signedData
	if err := unmarshal(outer.Content.Bytes, &sd); err != nil {
		return nil, fmt.Errorf("not a SignedData: %w", err)
	}
	if !sd.Encapsulated.Type.Equal(oidTSTInfo) {
		return nil, fmt.Errorf("what is signed is of type %s, not a time stamp", sd.Encapsulated.Type)
	}
	if len(sd.Signers) != 1 {
		return nil, fmt.Errorf("%d signers, one expected", len(sd.Signers))
	}
	p := &parsed{content: sd.Encapsulated.Content, signer: sd.Signers[0]}
	if err := unmarshal(p.content, &p.info); err != nil {
		return nil, fmt.Errorf("not a TSTInfo: %w", err)
	}
	if p.info.Version != 1 {
		return nil, fmt.Errorf("a TSTInfo of version %d", p.info.Version)
	}
	if err := p.readCertificates(sd.Certificates.Bytes); err != nil {
		return nil, err
	}
	return p, p.readAlgorithms()
}

// readCertificates reads the certificates that come along. What crypto/x509
// cannot read is left out: it cannot be the authority's then.
func (p *parsed) readCertificates(set []byte) error {
	for n := 0; len(set) > 0; n++ {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(set, &v)
		if err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
		if n == maxCertificates {
			return fmt.Errorf("more than %d certificates", maxCertificates)
		}
		set = rest
		c, err := x509.ParseCertificate(v.FullBytes)
		if err != nil {
			continue
		}
		if err := checkKey(c); err != nil {
			return err
		}
		p.certificates = append(p.certificates, c)
	}
	return nil
}

// authority returns the certificate that the token names as its signer's, nil if
// it does not come along.
func (p *parsed) authority() *x509.Certificate {
	v := p.signer.Signer
	if v.Class == asn1.ClassContextSpecific && v.Tag == 0 {
		for _, c := range p.certificates {
			if len(c.SubjectKeyId) > 0 && bytes.Equal(c.SubjectKeyId, v.Bytes) {
				return c
			}
		}
		return nil
	}
	var id struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	if unmarshal(v.FullBytes, &id) != nil {
		return nil
	}
	for _, c := range p.certificates {
		if c.SerialNumber.Cmp(id.Serial) == 0 && bytes.Equal(c.RawIssuer, id.Issuer.FullBytes) {
			return c
		}
	}
	return nil
}

// attributes are the values of the signed attributes that matter.
type attributes struct {
	contentType   asn1.ObjectIdentifier
	messageDigest []byte
	references    []reference
}

// A reference is the digest of the signer's certificate; RFC 5035.
type reference struct {
	hash   crypto.Hash
	digest []byte
}

// readAttributes reads the signed attributes. Each that matters stands once with
// one value (RFC 5652, 11), and one that names the certificate must be there
// (RFC 3161, 2.4.2).
func (p *parsed) readAttributes() (a attributes, err error) {
	seen := map[string]bool{}
	for set := p.signer.Signed.Bytes; len(set) > 0; {
		var attr struct {
			Type   asn1.ObjectIdentifier
			Values []asn1.RawValue `asn1:"set"`
		}
		if set, err = asn1.Unmarshal(set, &attr); err != nil {
			return a, fmt.Errorf("signed attribute: %w", err)
		}
		read := a.reader(attr.Type)
		if read == nil {
			continue
		}
		if name := attr.Type.String(); seen[name] || len(attr.Values) != 1 {
			return a, fmt.Errorf("signed attribute %s stands more than once", name)
		}
		seen[attr.Type.String()] = true
		if err := read(attr.Values[0].FullBytes); err != nil {
			return a, fmt.Errorf("signed attribute %s: %w", attr.Type, err)
		}
	}
	if a.contentType == nil || a.messageDigest == nil || len(a.references) == 0 {
		return a, errors.New("signed attributes without content type, message digest or signing certificate")
	}
	return a, nil
}

func (a *attributes) reader(of asn1.ObjectIdentifier) func(der []byte) error {
	switch {
	case of.Equal(oidContentType):
		return func(der []byte) error { return unmarshal(der, &a.contentType) }
	case of.Equal(oidMessageDigest):
		return func(der []byte) error { return unmarshal(der, &a.messageDigest) }
	case of.Equal(oidSigningCert):
		return a.readSigningCert
	case of.Equal(oidSigningCertV2):
		return a.readSigningCertV2
	}
	return nil
}

// readSigningCert reads the first certificate's digest, which is the signer's,
// always in SHA-1; RFC 5035, 5.4.
func (a *attributes) readSigningCert(der []byte) error {
	var v struct {
		Certs []struct {
			Hash   []byte
			Issuer asn1.RawValue `asn1:"optional"`
		}
		Policies asn1.RawValue `asn1:"optional"`
	}
	if err := unmarshal(der, &v); err != nil {
		return err
	}
	if len(v.Certs) == 0 {
		return errors.New("it names none")
	}
	a.references = append(a.references, reference{crypto.SHA1, v.Certs[0].Hash})
	return nil
}

// readSigningCertV2 does the same where the digest is of any kind, SHA-256
// unless it says so; RFC 5035, 4.
func (a *attributes) readSigningCertV2(der []byte) error {
	var v struct {
		Certs    []asn1.RawValue
		Policies asn1.RawValue `asn1:"optional"`
	}
	if err := unmarshal(der, &v); err != nil {
		return err
	}
	if len(v.Certs) == 0 {
		return errors.New("it names none")
	}
	rest := v.Certs[0].Bytes
	r := reference{hash: crypto.SHA256}
	if len(rest) > 0 && rest[0] == 0x30 { // an algorithm stands before the OCTET STRING
		var algorithm pkix.AlgorithmIdentifier
		var err error
		if rest, err = asn1.Unmarshal(rest, &algorithm); err != nil {
			return err
		}
		var known bool
		if r.hash, known = digestOf(algorithm.Algorithm); !known {
			return fmt.Errorf("digest algorithm %s is not supported", algorithm.Algorithm)
		}
	}
	if _, err := asn1.Unmarshal(rest, &r.digest); err != nil {
		return err
	}
	a.references = append(a.references, r)
	return nil
}
