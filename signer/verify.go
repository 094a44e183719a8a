package signer

import (
	"bytes"
	"context"
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
	// ErrNotYet is an ErrExpired that may be the fault of our own clock.
	ErrNotYet = fmt.Errorf("%w: not yet", ErrExpired)
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
	anchors  *x509.CertPool
	policy   Policy
	revokers []Revoker
}

// NewVerifier returns a verifier with the DefaultPolicy that trusts anchors,
// which may be issuing authorities without their root. With nil it checks no
// chain.
func NewVerifier(anchors *x509.CertPool) *Verifier {
	return &Verifier{anchors: anchors, policy: DefaultPolicy()}
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
	Revocation     bool              // revocation was asked for, and the answer, part of ChainErr, is known
	Entity         *message.Part     // what is signed
}

// Verify verifies the multipart/signed message m as of the instant at; with a
// zero at as of the signing time that the signer claims. It returns nil only if
// everything holds. On failure the report, nil unless the structure of a
// signature could be read, says what does and what does not. Validity and usage
// of the signer's certificate are checked even without anchors. The content is
// streamed. It is VerifyContext without a deadline.
func (v *Verifier) Verify(m *message.Message, at time.Time) (*Report, error) {
	return v.VerifyContext(context.Background(), m, at)
}

// VerifyContext is Verify with a context for those that are asked about
// revocation. They are asked only where all else holds; an error that wraps
// ErrRevocationUnknown says that everything holds but that.
func (v *Verifier) VerifyContext(ctx context.Context, m *message.Message, at time.Time) (*Report, error) {
	entity, signature, ahead, err := signedParts(m)
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
	return r, v.verify(ctx, r, sd, entityDigests{entity.Source, entity.Range(), sd.signer.hash, ahead}, at)
}

// digester computes the digests that stand for the signed content, one after
// the other until accept takes one.
type digester interface {
	digest(accept func(digest []byte) bool) (bool, error)
}

// verify fills in r. The first thing that does not hold decides the error, in
// the order: algorithm, signature, content, certificate, revocation.
func (v *Verifier) verify(ctx context.Context, r *Report, sd *signedData, content digester, at time.Time) error {
	si := &sd.signer
	r.Digest = si.hash.String()
	r.SigningTime = si.signingTime
	if r.Signer = si.certificate(sd.certificates); r.Signer == nil {
		return fmt.Errorf("%w: the signer's certificate is not in it", ErrMalformedSignature)
	}
	if r.Signer.PublicKeyAlgorithm != si.key {
		return fmt.Errorf("%w: a signature by %s with a certificate for %s", ErrMalformedSignature, si.key, r.Signer.PublicKeyAlgorithm)
	}
	at = orSigningTime(at, si)
	var chains [][]*x509.Certificate
	chains, r.ChainErr = v.checkCertificate(r.Signer, sd.certificates, at)
	r.ChainChecked = v.anchors != nil
	if err := v.policy.check(si.hash, r.Signer); err != nil {
		return err
	}
	if err := si.checkContent(r, content); err != nil {
		return err
	}
	if r.ChainErr == nil {
		r.ChainErr = v.checkRevoked(ctx, chains, at)
		r.Revocation = chains != nil && len(v.revokers) > 0 && !errors.Is(r.ChainErr, ErrRevocationUnknown)
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
			return si.checkDigest(r.Signer, d)
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

func validity(cert *x509.Certificate) string {
	return "valid from " + cert.NotBefore.UTC().Format(time.RFC3339) + " to " + cert.NotAfter.UTC().Format(time.RFC3339)
}

// checkCertificate checks validity, usage (RFC 6109, 5.5.2; emailProtection if
// the usage is limited) and, if there are anchors, the chain at the instant at.
// It returns the chains that lead to an anchor.
func (v *Verifier) checkCertificate(cert *x509.Certificate, others []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	switch {
	case at.IsZero():
		return nil, fmt.Errorf("%w: no time to judge it at", ErrUntrusted)
	case at.Before(cert.NotBefore):
		return nil, v.notYet(cert, others)
	case at.After(cert.NotAfter):
		return nil, fmt.Errorf("%w: %s", ErrExpired, validity(cert))
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, fmt.Errorf("%w: it is not for digital signatures", ErrUntrusted)
	case !forMail(cert):
		return nil, fmt.Errorf("%w: it is not for e-mail", ErrUntrusted)
	case v.anchors == nil:
		return nil, nil
	}
	return v.checkChain(cert, others, at)
}

// notYet is why a certificate that begins later does not count. Perhaps our clock is
// behind, and the message must wait; but only if the certificate will be believed once
// it has begun: else anybody could make mail that is never decided about.
func (v *Verifier) notYet(cert *x509.Certificate, others []*x509.Certificate) error {
	if v.anchors != nil {
		if _, err := v.checkChain(cert, others, cert.NotBefore); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w, %s", ErrNotYet, validity(cert))
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
