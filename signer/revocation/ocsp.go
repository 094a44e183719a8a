package revocation

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // for crypto.SHA1 in identifiers of certificates
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// MaxAnswer bounds the answer of an OCSP responder, in octets.
const MaxAnswer = 64 << 10

// maxRSABits is the longest RSA key that is computed with: what comes by HTTP
// must not cost minutes before it is found false.
const maxRSABits = 8192

// question returns the OCSP request about cert. It has no nonce: responders
// that answer from a store have none either (RFC 5019).
func question(cert, issuer *x509.Certificate) ([]byte, error) {
	der, err := ocsp.CreateRequest(cert, issuer, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return der, nil
}

// parseAnswer reads what an OCSP responder said about cert (RFC 6960), if the
// issuer itself, or whom it delegated to, signed it. An answer that names no end
// counts for life.
func parseAnswer(der []byte, cert, issuer *x509.Certificate, life time.Duration) (*evidence, error) {
	if len(der) > MaxAnswer {
		return nil, fmt.Errorf("%w: larger than %d octets", ErrMalformed, MaxAnswer)
	}
	if err := checkAnswer(der, cert, issuer); err != nil {
		return nil, err
	}
	// Without an issuer, so that the signature is that of the certificate that
	// comes along; with it an issuer that sends its own would be refused.
	r, err := ocsp.ParseResponse(der, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkResponder(r, issuer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSigner, err)
	}
	e, err := answer(r, cert, life)
	if err != nil {
		return nil, err
	}
	e.key = sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	return e, nil
}

func answer(r *ocsp.Response, cert *x509.Certificate, life time.Duration) (*evidence, error) {
	e := &evidence{issuer: cert.RawIssuer, thisUpdate: r.ThisUpdate, nextUpdate: r.NextUpdate, only: serialKey(cert.SerialNumber)}
	if r.NextUpdate.IsZero() {
		e.nextUpdate = r.ThisUpdate.Add(life)
	}
	switch {
	case e.nextUpdate.Before(e.thisUpdate):
		return nil, fmt.Errorf("%w: the answer ends before it begins", ErrMalformed)
	case r.Status == ocsp.Good:
	case r.Status == ocsp.Revoked && r.RevocationReason != reasonRemove:
		e.entries = map[string]entry{e.only: {r.RevokedAt.Unix(), r.RevocationReason == reasonHold}}
	default:
		return nil, fmt.Errorf("%w: the responder does not know the certificate", ErrScope)
	}
	return e, nil
}

// checkResponder checks that issuer signed, or somebody with a certificate of
// issuer for this purpose that was valid then; RFC 6960, 4.2.2.2.
func checkResponder(r *ocsp.Response, issuer *x509.Certificate) error {
	c := r.Certificate
	switch {
	case c == nil:
		return r.CheckSignatureFrom(issuer)
	case c.Equal(issuer):
		return nil
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("the responder's certificate is not for answers")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("the responder's certificate is not for signatures")
	case r.ThisUpdate.Before(c.NotBefore) || r.ThisUpdate.After(c.NotAfter):
		return errors.New("the responder's certificate was not valid then")
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return errors.New("the responder's certificate is of another authority")
	}
	return c.CheckSignatureFrom(issuer)
}

// rawAnswer is what x/crypto/ocsp does not give away of a BasicOCSPResponse.
type rawAnswer struct {
	Data struct {
		Raw       asn1.RawContent
		Version   int `asn1:"optional,default:0,explicit,tag:0"`
		Responder asn1.RawValue
		Produced  time.Time `asn1:"generalized"`
		Answers   []asn1.RawValue
		Extra     asn1.RawValue `asn1:"optional,explicit,tag:1"`
	}
	Algorithm    pkix.AlgorithmIdentifier
	Signature    asn1.BitString
	Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
}

// checkAnswer looks at an answer before anything is computed: it is about cert
// alone, by its issuer's name and key and not only by its number, and no key in
// it is too long.
func checkAnswer(der []byte, cert, issuer *x509.Certificate) error {
	raw, err := readAnswer(der)
	if err != nil {
		return err
	}
	if n := len(raw.Data.Answers); n != 1 {
		return fmt.Errorf("%w: %d answers to one question", ErrMalformed, n)
	}
	for _, c := range raw.Certificates {
		cert, err := x509.ParseCertificate(c.FullBytes)
		if err != nil {
			return fmt.Errorf("%w: certificate of the responder: %w", ErrMalformed, err)
		}
		if k, ok := cert.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
			return fmt.Errorf("%w: certificate with an RSA key of %d bits", ErrMalformed, k.N.BitLen())
		}
	}
	return checkAbout(raw.Data.Answers[0].Bytes, cert, issuer)
}

func readAnswer(der []byte) (*rawAnswer, error) {
	var outer struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type   asn1.ObjectIdentifier
			Answer []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: not an answer of OCSP", ErrMalformed)
	}
	if outer.Status != 0 {
		return nil, fmt.Errorf("%w: the responder refused, status %d", ErrScope, outer.Status)
	}
	raw := new(rawAnswer)
	if rest, err := asn1.Unmarshal(outer.Bytes.Answer, raw); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: not a basic answer of OCSP", ErrMalformed)
	}
	return raw, nil
}

// identifierHashes are the digests that may identify an issuer.
var identifierHashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// checkAbout checks the CertID at the start of a SingleResponse.
func checkAbout(single []byte, cert, issuer *x509.Certificate) error {
	var id struct {
		Hash   pkix.AlgorithmIdentifier
		Name   []byte
		Key    []byte
		Serial *big.Int
	}
	if _, err := asn1.Unmarshal(single, &id); err != nil {
		return fmt.Errorf("%w: identifier of the certificate: %w", ErrMalformed, err)
	}
	key, err := publicKeyBits(issuer)
	if err != nil {
		return err
	}
	for _, h := range identifierHashes {
		if !h.oid.Equal(id.Hash.Algorithm) {
			continue
		}
		if id.Serial.Cmp(cert.SerialNumber) != 0 || !bytes.Equal(id.Name, sum(h.hash, issuer.RawSubject)) || !bytes.Equal(id.Key, sum(h.hash, key)) {
			return fmt.Errorf("%w: the answer is about another certificate", ErrMalformed)
		}
		return nil
	}
	return fmt.Errorf("%w: digest %s in the identifier", ErrMalformed, id.Hash.Algorithm)
}

func sum(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}

// publicKeyBits returns what the key hash of a CertID is computed over.
func publicKeyBits(c *x509.Certificate) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil, fmt.Errorf("%w: key of the authority: %w", ErrMalformed, err)
	}
	return info.Key.RightAlign(), nil
}
