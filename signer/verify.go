package signer

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"pecd/pec/message"
)

// Why a message or a file is not verified. Verify and OpenSignedData wrap one
// of them with the reason; any other error says that the message could not be
// read, and nothing about the message.
var (
	ErrNoSignature        = errors.New("signer: not a signed message")
	ErrMalformedSignature = errors.New("signer: malformed signature")
	ErrAltered            = errors.New("signer: the content was altered after it was signed")
	ErrSignature          = errors.New("signer: the signature is not genuine")
	ErrUntrusted          = errors.New("signer: the signer's certificate is not trusted")
	ErrExpired            = errors.New("signer: the signer's certificate is not valid at that time")
	ErrWeak               = errors.New("signer: algorithm or key too weak")
)

// Limits on what is verified, in octets.
const (
	MaxSignature  = 256 << 10 // smime.p7s in DER; real ones have 2 to 8 KB
	MaxSignedFile = 64 << 20  // .p7m in DER
)

// A Policy says which algorithms are accepted.
type Policy struct {
	Digests []crypto.Hash
	RSABits int // the shortest RSA key
}

// DefaultPolicy accepts SHA-1 beside the SHA-2 family, since providers signed
// with SHA-1 until 2024, and RSA keys of 2048 bits (docs/rules.md, W8).
func DefaultPolicy() Policy {
	return Policy{
		Digests: []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512},
		RSABits: 2048,
	}
}

func (p Policy) check(hash crypto.Hash, cert *x509.Certificate) error {
	if !slices.Contains(p.Digests, hash) {
		return fmt.Errorf("%w: digest %s", ErrWeak, hash)
	}
	if k, ok := cert.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < p.RSABits {
		return fmt.Errorf("%w: RSA key of %d bits", ErrWeak, k.N.BitLen())
	}
	return nil
}

// A Verifier verifies signed messages; RFC 6109, 2.2.2. It does not change and
// may be used concurrently.
type Verifier struct {
	anchors *x509.CertPool
	policy  Policy
	crls    []*x509.RevocationList
}

// NewVerifier returns a verifier with the DefaultPolicy that trusts anchors,
// which may be issuing authorities without their root. With nil it checks no
// chain.
func NewVerifier(anchors *x509.CertPool) *Verifier {
	return &Verifier{anchors: anchors, policy: DefaultPolicy()}
}

// WithPolicy returns a verifier with the same anchors and another policy.
func (v *Verifier) WithPolicy(p Policy) *Verifier {
	w := *v
	w.policy = p
	return &w
}

// A Report says how far a signature holds.
type Report struct {
	Signer         *x509.Certificate // nil if it does not come along
	SigningTime    time.Time         // as the signer claims; zero if it does not
	Digest         string            // algorithm of the content's digest, e.g. "SHA-256"
	ContentDigest  []byte            // what was signed: the digest of the content as the signature has it
	SignatureHolds bool              // the signature is genuine for the signer's certificate
	ContentIntact  bool              // the entity is what was signed
	ChainErr       error             // why Signer is not to be trusted at the time asked for; nil if it is
	ChainChecked   bool              // a chain up to an anchor was asked for
	Entity         *message.Part     // what is signed
}

// Verify verifies the multipart/signed message m as of the instant at; with a
// zero at as of the signing time that the signer claims. It returns nil only if
// everything holds. On failure the report, nil unless the structure of a
// signature could be read, says what does and what does not. Validity and usage
// of the signer's certificate are checked even without anchors. The content is
// streamed. Revocation is not looked at.
func (v *Verifier) Verify(m *message.Message, at time.Time) (*Report, error) {
	entity, signature, err := signedParts(m)
	if err != nil {
		return nil, err
	}
	p7s, err := readSignature(signature)
	if err != nil {
		return nil, err
	}
	sd, err := readSignedData(p7s)
	if err != nil {
		return nil, err
	}
	r := &Report{Entity: entity}
	if len(sd.content) > 0 {
		// Which of the two contents would be shown is anybody's guess.
		return r, fmt.Errorf("%w: it carries a content of its own", ErrMalformedSignature)
	}
	return r, v.verify(r, sd, entityDigests{entity.Source, entity.Range(), sd.signer.hash}, at)
}

// digester computes the digests that stand for the signed content, one after
// the other until accept takes one.
type digester interface {
	digest(accept func(digest []byte) bool) (bool, error)
}

// verify fills in r. The first thing that does not hold decides the error, in
// the order: algorithm, signature, content, certificate.
func (v *Verifier) verify(r *Report, sd *signedData, content digester, at time.Time) error {
	si := &sd.signer
	r.Digest = si.hash.String()
	r.SigningTime = si.signingTime
	if r.Signer = si.certificate(sd.certificates); r.Signer == nil {
		return fmt.Errorf("%w: the signer's certificate is not in it", ErrMalformedSignature)
	}
	if r.Signer.PublicKeyAlgorithm != si.key {
		return fmt.Errorf("%w: a signature by %s with a certificate for %s", ErrMalformedSignature, si.key, r.Signer.PublicKeyAlgorithm)
	}
	r.ChainErr = v.checkCertificate(r.Signer, sd.certificates, orSigningTime(at, si))
	r.ChainChecked = v.anchors != nil
	if err := v.policy.check(si.hash, r.Signer); err != nil {
		return err
	}
	if err := si.checkContent(r, content); err != nil {
		return err
	}
	return r.ChainErr
}

func orSigningTime(at time.Time, si *signerInfo) time.Time {
	if at.IsZero() {
		return si.signingTime
	}
	return at
}

// checkContent decides SignatureHolds and ContentIntact.
func (si *signerInfo) checkContent(r *Report, content digester) (err error) {
	if si.attributes == nil {
		holds, err := content.digest(func(d []byte) bool {
			r.ContentDigest = d
			return checkDigest(r.Signer, si.hash, d, si.signature)
		})
		r.SignatureHolds, r.ContentIntact = holds, holds
		if err == nil && !holds {
			err = fmt.Errorf("%w, or: %w", ErrSignature, ErrAltered)
		}
		return err
	}
	r.ContentDigest = si.messageDigest
	r.SignatureHolds = si.signatureHolds(r.Signer)
	r.ContentIntact, err = content.digest(func(d []byte) bool { return bytes.Equal(d, si.messageDigest) })
	switch {
	case err != nil:
		return err
	case !r.SignatureHolds:
		return ErrSignature
	case !r.ContentIntact:
		return ErrAltered
	}
	return nil
}

// checkCertificate checks validity, usage (RFC 6109, 5.5.2; emailProtection if
// the usage is limited) and, if there are anchors, the chain at the instant at.
func (v *Verifier) checkCertificate(cert *x509.Certificate, others []*x509.Certificate, at time.Time) error {
	switch {
	case at.IsZero():
		return fmt.Errorf("%w: no time to judge it at", ErrUntrusted)
	case at.Before(cert.NotBefore) || at.After(cert.NotAfter):
		return fmt.Errorf("%w: valid from %s to %s", ErrExpired,
			cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("%w: it is not for digital signatures", ErrUntrusted)
	case !forMail(cert):
		return fmt.Errorf("%w: it is not for e-mail", ErrUntrusted)
	case v.anchors == nil:
		return nil
	}
	return v.checkChain(cert, others, at)
}

func (v *Verifier) checkChain(cert *x509.Certificate, others []*x509.Certificate, at time.Time) error {
	intermediates := x509.NewCertPool()
	for _, c := range others {
		intermediates.AddCert(c)
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots:         v.anchors,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return v.checkRevoked(chains[0], at)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: %w", ErrExpired, err)
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, err)
}

// forMail reports whether cert may sign mail: its extended key usage allows it,
// or it has none.
func forMail(cert *x509.Certificate) bool {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageEmailProtection) ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}
