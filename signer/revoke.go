package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What is found out about revocation. Revokers wrap one of the two.
var (
	// ErrRevoked says that the signer's certificate, or one that vouches for it,
	// was revoked.
	ErrRevoked = errors.New("signer: the signer's certificate was revoked")
	// ErrRevocationUnknown says that it cannot be told now whether a certificate
	// was revoked: the message is to wait.
	ErrRevocationUnknown = errors.New("signer: revocation cannot be told now")
)

// A Revoker says whether an authority has revoked a certificate. It may be used
// concurrently.
type Revoker interface {
	// Revoked returns nil if cert, issued by issuer, was not revoked at the
	// instant at; an error that wraps ErrRevoked if it was, and one that wraps
	// ErrRevocationUnknown if that cannot be told now. Any other error counts
	// as the latter.
	Revoked(ctx context.Context, cert, issuer *x509.Certificate, at time.Time) error
}

// WithRevoker returns a verifier that also asks r, about each certificate of the
// chain but the anchor. Without anchors there is no chain and nobody is asked.
func (v *Verifier) WithRevoker(r Revoker) *Verifier {
	w := *v
	w.revokers = append(slices.Clone(v.revokers), r)
	return &w
}

// maxChains bounds the chains that are asked about: what a message carries can
// make many, and each may be a wait.
const maxChains = 4

// checkRevoked returns nil if there is a chain of which nothing was revoked, as
// an authority's renewed certificate makes one beside the revoked. If there is
// none, but one about which it cannot be told, that is the answer.
func (v *Verifier) checkRevoked(ctx context.Context, chains [][]*x509.Certificate, at time.Time) error {
	var answer error
	for _, chain := range chains[:min(len(chains), maxChains)] {
		err := v.chainRevoked(ctx, chain, at)
		if err == nil {
			return nil
		}
		if answer == nil || errors.Is(err, ErrRevocationUnknown) {
			answer = err
		}
	}
	return answer
}

// chainRevoked looks at each certificate of chain but the anchor. What is known
// to be revoked outweighs what is not known.
func (v *Verifier) chainRevoked(ctx context.Context, chain []*x509.Certificate, at time.Time) error {
	var unknown error
	for i := 0; i+1 < len(chain); i++ {
		for _, r := range v.revokers {
			err := r.Revoked(ctx, chain[i], chain[i+1], at)
			switch {
			case err == nil:
			case errors.Is(err, ErrRevoked):
				return err
			case errors.Is(err, ErrRevocationUnknown):
				unknown = err
			default:
				unknown = fmt.Errorf("%w: %w", ErrRevocationUnknown, err)
			}
		}
	}
	return unknown
}
