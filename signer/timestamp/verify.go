package timestamp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"pecd/signer"
)

// A Verifier verifies tokens. It does not change and may be used concurrently.
type Verifier struct {
	anchors *x509.CertPool
	revoker signer.Revoker
}

// NewVerifier returns a verifier that trusts the authorities that anchors vouch
// for; nil: none.
func NewVerifier(anchors *x509.CertPool) *Verifier {
	if anchors == nil {
		anchors = x509.NewCertPool() // for crypto/x509 nil would be the system's
	}
	return &Verifier{anchors: anchors}
}

// WithRevoker returns a verifier that also asks r whether a certificate was
// revoked at the token's time. Its errors come out of Verify.
func (v *Verifier) WithRevoker(r signer.Revoker) *Verifier {
	w := *v
	w.revoker = r
	return &w
}

// Verify returns what the token in der says if everything holds and it is about
// what has the given digest. Certificates are judged at the token's own time, so
// that it counts as long as its signature cannot be forged. The token must bring
// the authority's certificate.
func (v *Verifier) Verify(ctx context.Context, der []byte, digest [sha256.Size]byte) (*Token, error) {
	p, err := parse(der)
	if err != nil {
		return nil, err
	}
	return v.verify(ctx, der, p, digest)
}

func (v *Verifier) verify(ctx context.Context, der []byte, p *parsed, digest [sha256.Size]byte) (*Token, error) {
	if !p.info.Imprint.Algorithm.Algorithm.Equal(oidSHA256) || !bytes.Equal(p.info.Imprint.Digest, digest[:]) {
		return nil, ErrImprint
	}
	cert := p.authority()
	if cert == nil {
		return nil, fmt.Errorf("%w: the authority's certificate is not in it", ErrMalformed)
	}
	if err := p.checkSignature(cert); err != nil {
		return nil, err
	}
	if err := checkUsage(cert); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if err := v.checkChain(ctx, cert, p.certificates, p.info.Time); err != nil {
		return nil, err
	}
	a := p.info.Accuracy
	return &Token{
		Raw:       slices.Clone(der),
		Time:      p.info.Time.UTC(),
		Accuracy:  time.Duration(a.Seconds)*time.Second + time.Duration(a.Millis)*time.Millisecond + time.Duration(a.Micros)*time.Microsecond,
		Serial:    p.info.Serial,
		Policy:    p.info.Policy.String(),
		Authority: cert,
	}, nil
}

// checkSignature checks that cert's key signed the attributes, they the content,
// and that they name cert.
func (p *parsed) checkSignature(cert *x509.Certificate) error {
	if len(p.signer.Signed.FullBytes) == 0 {
		return fmt.Errorf("%w: no signed attributes", ErrMalformed)
	}
	a, err := p.readAttributes()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// The attributes stand under [0] and are signed under SET; RFC 5652, 5.4.
	signed := slices.Clone(p.signer.Signed.FullBytes)
	signed[0] = 0x31
	if err := cert.CheckSignature(p.signature, signed, p.signer.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	h := p.hash.New()
	h.Write(p.content)
	if !a.contentType.Equal(oidTSTInfo) || !bytes.Equal(h.Sum(nil), a.messageDigest) {
		return fmt.Errorf("%w: it is over another content", ErrSignature)
	}
	for _, r := range a.references {
		h := r.hash.New()
		h.Write(cert.Raw)
		if !bytes.Equal(h.Sum(nil), r.digest) {
			return fmt.Errorf("%w: it names another certificate", ErrSignature)
		}
	}
	return nil
}

// checkUsage checks that cert is for time stamps and nothing else, and says so as
// critical; RFC 3161, 2.3.
func checkUsage(cert *x509.Certificate) error {
	if cert.KeyUsage != 0 && cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return errors.New("it is not for signatures")
	}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var usages []asn1.ObjectIdentifier
		if err := unmarshal(e.Value, &usages); err != nil {
			return err
		}
		if !e.Critical || len(usages) != 1 || !usages[0].Equal(oidTimeStamping) {
			break
		}
		return nil
	}
	return errors.New("it is not for time stamps alone")
}

// checkChain checks the way to an anchor at the instant at.
func (v *Verifier) checkChain(ctx context.Context, cert *x509.Certificate, others []*x509.Certificate, at time.Time) error {
	intermediates := x509.NewCertPool()
	for _, c := range others {
		intermediates.AddCert(c)
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots:         v.anchors,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: %w", ErrExpired, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return v.checkRevoked(ctx, chains[0], at)
}

func (v *Verifier) checkRevoked(ctx context.Context, chain []*x509.Certificate, at time.Time) error {
	if v.revoker == nil {
		return nil
	}
	for i := 0; i+1 < len(chain); i++ {
		if err := v.revoker.Revoked(ctx, chain[i], chain[i+1], at); err != nil {
			return fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
	}
	return nil
}
