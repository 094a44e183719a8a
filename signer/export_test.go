package signer

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"
)

// WithPolicy returns a verifier with the same anchors and another policy.
func (v *Verifier) WithPolicy(p Policy) *Verifier {
	w := *v
	w.policy = p
	return &w
}

// Issuers returns the certificates sent beside that of the signer.
func (id *Identity) Issuers() []*x509.Certificate { return id.issuers }

// WithCRLs returns a verifier that also refuses certificates that one of lists
// revokes.
func (v *Verifier) WithCRLs(lists []*x509.RevocationList) *Verifier {
	return v.WithRevoker(CRLs(lists))
}

// CRLs returns a Revoker that looks into lists. Each counts for certificates of
// the authority that signed it, whatever its age; what is in none of them was
// not revoked.
func CRLs(lists []*x509.RevocationList) Revoker {
	r := make(crlRevoker)
	for _, list := range lists {
		issuer := string(list.RawIssuer)
		r[issuer] = append(r[issuer], IndexCRL(list))
	}
	return r
}

// A crlRevoker has the lists of each issuer by its name in DER.
type crlRevoker map[string][]*CRLIndex

func (r crlRevoker) Revoked(_ context.Context, cert, issuer *x509.Certificate, at time.Time) error {
	for _, x := range r[string(cert.RawIssuer)] {
		if x.SignedBy(issuer) != nil {
			continue
		}
		if on, revoked := x.Find(cert.SerialNumber); revoked && !on.After(at) {
			return fmt.Errorf("%w on %s", ErrRevoked, on.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
