package signer

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"go.mozilla.org/pkcs7"
)

// A signedData is a SignedData of RFC 5652 with exactly one signer.
type signedData struct {
	content      []byte // what is signed, if it stands inside
	certificates []*x509.Certificate
	signer       signerInfo
}

// A signerInfo says who signed, how and what.
type signerInfo struct {
	issuer    []byte // Name in DER, nil if the signer is given by keyID
	serial    *big.Int
	keyID     []byte
	hash      crypto.Hash
	key       x509.PublicKeyAlgorithm
	pss       *rsa.PSSOptions // nil for PKCS #1 v1.5
	signature []byte

	// attributes are the signed attributes as they stand, without the tag
	// around them; nil if the signature is over the content itself. The next
	// two are their values.
	attributes    [][]byte
	messageDigest []byte
	signingTime   time.Time
}

// rawSignedData and rawSigner read what pkcs7 does not give away: the signed
// attributes as they stand, and a signer given by its key identifier.
type rawSignedData struct {
	Version          int
	DigestAlgorithms asn1.RawValue
	Encapsulated     struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
	}
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      []rawSigner   `asn1:"set"`
}

type rawSigner struct {
	Version   int
	Signer    asn1.RawValue
	Digest    pkix.AlgorithmIdentifier
	Signed    asn1.RawValue `asn1:"optional,tag:0"`
	Algorithm pkix.AlgorithmIdentifier
	Signature []byte
	Unsigned  asn1.RawValue `asn1:"optional,tag:1"`
}

// readSignedData reads a ContentInfo with a SignedData in BER or DER. It is
// total: hostile input ends in an error that wraps ErrMalformedSignature.
func readSignedData(ber []byte) (*signedData, error) {
	sd, err := parseSignedData(ber)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedSignature, err)
	}
	return sd, nil
}

func parseSignedData(ber []byte) (*signedData, error) {
	der, err := toDER(ber)
	if err != nil {
		return nil, err
	}
	raw, err := readRaw(der)
	if err != nil {
		return nil, err
	}
	if !raw.Encapsulated.Type.Equal(oidData) {
		return nil, fmt.Errorf("what is signed is of type %s, not data", raw.Encapsulated.Type)
	}
	if n := len(raw.Signers); n != 1 {
		return nil, fmt.Errorf("%d signers, one expected", n)
	}
	p7, err := parsePKCS7(der)
	if err != nil {
		return nil, err
	}
	if err := checkKeys(p7.Certificates); err != nil {
		return nil, err
	}
	sd := &signedData{content: p7.Content, certificates: p7.Certificates}
	return sd, sd.signer.read(&raw.Signers[0])
}

// maxRSABits is the longest RSA key that is computed with. A modulus as long as
// a certificate can hold would take minutes.
const maxRSABits = 8192

// checkKeys looks at every certificate: issuers are computed with too.
func checkKeys(certs []*x509.Certificate) error {
	for _, c := range certs {
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
			return fmt.Errorf("certificate with an RSA key of %d bits", k.N.BitLen())
		}
	}
	return nil
}

// parsePKCS7 is pkcs7.Parse, whose panics on malformed input (there have been
// some) become errors. What it is given has passed toDER.
func parsePKCS7(der []byte) (p7 *pkcs7.PKCS7, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("pkcs7 panicked: %v", r)
		}
	}()
	return pkcs7.Parse(der)
}

func readRaw(der []byte) (*rawSignedData, error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("not a ContentInfo: %w", orTrailing(err))
	}
	if !outer.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("content of type %s, not signed data", outer.Type)
	}
	raw := new(rawSignedData)
	if rest, err := asn1.Unmarshal(outer.Content.Bytes, raw); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("not a SignedData: %w", orTrailing(err))
	}
	return raw, nil
}

func orTrailing(err error) error {
	if err == nil {
		return errors.New("octets after the end")
	}
	return err
}

func (si *signerInfo) read(raw *rawSigner) error {
	if err := si.readSignerID(raw.Signer); err != nil {
		return err
	}
	var known bool
	if si.hash, known = digestOf(raw.Digest.Algorithm); !known {
		return fmt.Errorf("digest algorithm %s is not supported", raw.Digest.Algorithm)
	}
	var err error
	if si.key, err = signatureOf(raw.Algorithm.Algorithm, si.hash); err != nil {
		return err
	}
	if raw.Algorithm.Algorithm.Equal(oidRSAPSS) {
		if si.pss, err = readPSS(raw.Algorithm.Parameters.FullBytes, si.hash); err != nil {
			return err
		}
	}
	si.signature = raw.Signature
	if len(raw.Signed.FullBytes) == 0 {
		return nil
	}
	return si.readAttributes(raw.Signed.Bytes)
}

func (si *signerInfo) readSignerID(v asn1.RawValue) error {
	if v.Class == asn1.ClassContextSpecific && v.Tag == 0 && !v.IsCompound {
		si.keyID = v.Bytes
		return nil
	}
	var id struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	if rest, err := asn1.Unmarshal(v.FullBytes, &id); err != nil || len(rest) > 0 {
		return fmt.Errorf("signer identifier: %w", orTrailing(err))
	}
	si.issuer, si.serial = id.Issuer.FullBytes, id.Serial
	return nil
}

// readAttributes reads the signed attributes; RFC 5652, 11: content type and
// message digest stand once each with one value, signing time at most once.
func (si *signerInfo) readAttributes(set []byte) error {
	seen := make(map[string]bool)
	for len(set) > 0 {
		var a struct {
			Type   asn1.ObjectIdentifier
			Values []asn1.RawValue `asn1:"set"`
		}
		rest, err := asn1.Unmarshal(set, &a)
		if err != nil {
			return fmt.Errorf("signed attribute: %w", err)
		}
		si.attributes = append(si.attributes, set[:len(set)-len(rest)])
		set = rest
		var into any
		var contentType asn1.ObjectIdentifier
		switch {
		case a.Type.Equal(oidContentType):
			into = &contentType
		case a.Type.Equal(oidMessageDigest):
			into = &si.messageDigest
		case a.Type.Equal(oidSigningTime):
			into = &si.signingTime
		default:
			continue
		}
		if seen[a.Type.String()] || len(a.Values) != 1 {
			return fmt.Errorf("signed attribute %s stands more than once", a.Type)
		}
		seen[a.Type.String()] = true
		if rest, err := asn1.Unmarshal(a.Values[0].FullBytes, into); err != nil || len(rest) > 0 {
			return fmt.Errorf("signed attribute %s: %w", a.Type, orTrailing(err))
		}
		if a.Type.Equal(oidContentType) && !contentType.Equal(oidData) {
			return fmt.Errorf("signed attribute content type is %s, not data", contentType)
		}
	}
	if !seen[oidContentType.String()] || !seen[oidMessageDigest.String()] {
		return errors.New("signed attributes without content type or message digest")
	}
	return nil
}

// certificate returns the signer's certificate among certs, nil if it is not
// there.
func (si *signerInfo) certificate(certs []*x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		if si.keyID != nil {
			if len(c.SubjectKeyId) > 0 && bytes.Equal(c.SubjectKeyId, si.keyID) {
				return c
			}
		} else if c.SerialNumber.Cmp(si.serial) == 0 && bytes.Equal(c.RawIssuer, si.issuer) {
			return c
		}
	}
	return nil
}

// signatureHolds reports whether the signature over the attributes is that of
// cert's key. The attributes are signed in DER order (RFC 5652, 5.4); some
// programs sign them as they stand, and OpenSSL takes that.
func (si *signerInfo) signatureHolds(cert *x509.Certificate) bool {
	sorted := slices.Clone(si.attributes)
	slices.SortFunc(sorted, bytes.Compare)
	for _, order := range [][][]byte{sorted, si.attributes} {
		h := si.hash.New()
		h.Write(tlv(tagSet, order...))
		if si.checkDigest(cert, h.Sum(nil)) {
			return true
		}
	}
	return false
}
