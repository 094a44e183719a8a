package signer

import (
	"fmt"
	"time"
)

// A Term is an identity and the instant from which it is used.
type Term struct {
	Identity *Identity
	From     time.Time
}

// NewRenewal returns a signer that signs with current what happens before from,
// and with next what happens from then on, so that a renewed certificate can be
// put in place before the old one ends. Both must have the same address, next
// must be valid at from, and current until then; errors wrap ErrIdentity.
func NewRenewal(current, next *Identity, from time.Time) (*Signer, error) {
	switch {
	case !next.address.Same(current.address):
		return nil, fmt.Errorf("%w: the next certificate is for %s, the current one for %s; have it issued for the same address",
			ErrIdentity, next.address, current.address)
	case from.Before(next.leaf.NotBefore) || from.After(next.leaf.NotAfter):
		return nil, fmt.Errorf("%w: the next certificate is not valid on the date of the change, %s; it is from %s to %s", ErrIdentity,
			from.UTC().Format(time.RFC3339), next.leaf.NotBefore.UTC().Format(time.RFC3339), next.leaf.NotAfter.UTC().Format(time.RFC3339))
	case from.After(current.leaf.NotAfter):
		return nil, fmt.Errorf("%w: the current certificate ends on %s, before the date of the change, %s; set the change before it", ErrIdentity,
			current.leaf.NotAfter.UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339))
	}
	return &Signer{terms: []term{newTerm(current, time.Time{}), newTerm(next, from)}}, nil
}

// at returns the term in force at the instant t: the last that has begun.
func (s *Signer) at(t time.Time) *term {
	for i := len(s.terms) - 1; i > 0; i-- {
		if !t.Before(s.terms[i].from) {
			return &s.terms[i]
		}
	}
	return &s.terms[0]
}

// Identity returns the identity that signs now, or did before a renewal.
func (s *Signer) Identity() *Identity { return s.terms[0].id }

// IdentityAt returns the identity that signs what happens at the instant t.
func (s *Signer) IdentityAt(t time.Time) *Identity { return s.at(t).id }

// Terms returns all identities in the order of their use. The first is used from
// the zero time.
func (s *Signer) Terms() []Term {
	var terms []Term
	for _, t := range s.terms {
		terms = append(terms, Term{t.id, t.from})
	}
	return terms
}
