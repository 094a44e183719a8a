package verify

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.mozilla.org/pkcs7"

	"pecd/pec/message"
	"pecd/signer"
)

// What is known about revocation as of the instant of judgement.
const (
	revocationGood      = "good"      // a list vouches for each certificate of the chain
	revocationRevoked   = "revoked"   //
	revocationUnknown   = "unknown"   // none of the lists can tell
	revocationUnchecked = "unchecked" // no list was given, or something else does not hold
)

// Revocation is what the lists say about the certificates of a chain.
type Revocation struct {
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

// A list is a complete revocation list (RFC 5280, 5) with what limits it.
type list struct {
	*signer.CRLIndex
	name               string   // of the file
	points             []string // only for certificates that name one of these URLs
	onlyUser, onlyAuth bool
	expired            time.Time // since when it keeps certificates that expired; zero: it drops them
}

var errScope = errors.New("a revocation list of a kind that proves nothing alone")

// Extensions of lists; RFC 5280, 5.2.
var (
	oidNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason    = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidDelta     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPoint     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthority = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExpired   = asn1.ObjectIdentifier{2, 5, 29, 60} // expiredCertsOnCRL; X.509, 9.5.2.8
)

// newList refuses delta lists, indirect ones and those for some reasons only:
// they say less than a complete list says.
func newList(name string, crl *x509.RevocationList) (*list, error) {
	l := &list{name: name}
	for _, x := range crl.Extensions {
		switch {
		case x.Id.Equal(oidDelta):
			return nil, fmt.Errorf("%s: %w: a delta list", name, errScope)
		case x.Id.Equal(oidPoint):
			if err := l.readPoint(x.Value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case x.Id.Equal(oidExpired):
			if rest, err := asn1.Unmarshal(x.Value, &l.expired); err != nil || len(rest) > 0 {
				return nil, fmt.Errorf("%s: %w: expiredCertsOnCRL cannot be read", name, errScope)
			}
		case x.Critical && !x.Id.Equal(oidNumber) && !x.Id.Equal(oidAuthority):
			return nil, fmt.Errorf("%s: %w: critical extension %s", name, errScope, x.Id)
		}
	}
	for i := range crl.RevokedCertificateEntries {
		for _, x := range crl.RevokedCertificateEntries[i].Extensions {
			if x.Critical && !x.Id.Equal(oidReason) {
				return nil, fmt.Errorf("%s: %w: an entry has the critical extension %s", name, errScope, x.Id)
			}
		}
	}
	l.CRLIndex = signer.IndexCRL(crl)
	return l, nil
}

// readPoint reads an IssuingDistributionPoint; RFC 5280, 5.2.5.
func (l *list) readPoint(der []byte) error {
	var p struct {
		Name struct {
			Full []asn1.RawValue `asn1:"optional,tag:0"`
		} `asn1:"optional,tag:0"`
		User       bool           `asn1:"optional,tag:1"`
		Authority  bool           `asn1:"optional,tag:2"`
		Reasons    asn1.BitString `asn1:"optional,tag:3"`
		Indirect   bool           `asn1:"optional,tag:4"`
		Attributes bool           `asn1:"optional,tag:5"`
	}
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return fmt.Errorf("%w: its distribution point cannot be read", errScope)
	}
	if p.Indirect || p.Attributes || p.Reasons.BitLength > 0 {
		return fmt.Errorf("%w: indirect, for some reasons, or of attribute certificates", errScope)
	}
	for _, n := range p.Name.Full {
		if n.Class == asn1.ClassContextSpecific && n.Tag == 6 {
			l.points = append(l.points, string(n.Bytes))
		}
	}
	l.onlyUser, l.onlyAuth = p.User, p.Authority
	return nil
}

// covers reports whether the list would name cert if it were revoked.
func (l *list) covers(cert *x509.Certificate) bool {
	if l.onlyUser && cert.IsCA || l.onlyAuth && !cert.IsCA {
		return false
	}
	return len(l.points) == 0 || slices.ContainsFunc(cert.CRLDistributionPoints, func(p string) bool {
		return slices.Contains(l.points, p)
	})
}

// vouches returns nil if it can be told from the list, which does not name cert,
// that cert was not revoked at the instant at. A later list can, since a
// revocation stays in it until the certificate has expired (RFC 5280, 3.3).
func (l *list) vouches(cert *x509.Certificate, at time.Time) error {
	crl := l.List()
	switch {
	case crl.ThisUpdate.After(cert.NotAfter) && (l.expired.IsZero() || l.expired.After(cert.NotAfter)):
		return fmt.Errorf("%s was made on %s, after the certificate had expired; lists drop such certificates", l.name, stamp(crl.ThisUpdate))
	case at.After(crl.ThisUpdate) && (crl.NextUpdate.IsZero() || at.After(crl.NextUpdate)):
		return fmt.Errorf("%s ended on %s, before the instant of judgement", l.name, stamp(crl.NextUpdate))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// lists is the signer.Revoker of one run. It belongs to one goroutine: it
// remembers what it was asked about the message that is judged.
type lists struct {
	given  map[string][]*list // by issuer, Name in DER
	asked  bool               // lists were given, so that not knowing is a problem
	unread func() []*list     // the lists that the message carries, read when asked for
	carry  []*list

	chain []*x509.Certificate // that was asked about last
	state Revocation
	later []string // revocations after the instant of judgement
}

var _ signer.Revoker = (*lists)(nil)

func loadLists(files []string) (*lists, error) {
	r := &lists{given: make(map[string][]*list), asked: len(files) > 0}
	for _, file := range files {
		crl, err := signer.LoadCRL(file)
		if err != nil {
			return nil, err
		}
		l, err := newList(file, crl)
		if err != nil {
			return nil, err
		}
		issuer := string(crl.RawIssuer)
		r.given[issuer] = append(r.given[issuer], l)
	}
	return r, nil
}

// begin forgets the message before.
func (r *lists) begin(m *message.Message) {
	r.chain, r.later, r.carry, r.state = nil, nil, nil, Revocation{State: revocationUnchecked}
	r.unread = func() []*list { return carried(m) }
}

// Revoked implements signer.Revoker.
func (r *lists) Revoked(_ context.Context, cert, issuer *x509.Certificate, at time.Time) error {
	if r.unread != nil {
		r.carry, r.unread = r.unread(), nil
	}
	if n := len(r.chain); n == 0 || !r.chain[n-1].Equal(cert) {
		r.chain, r.later, r.state = []*x509.Certificate{cert}, nil, Revocation{}
	}
	r.chain = append(r.chain, issuer)
	state := r.ask(cert, issuer, at)
	switch {
	case state.State == revocationRevoked:
		r.state = state
		return fmt.Errorf("%w: %s", signer.ErrRevoked, state.Detail)
	case r.state.State == "" || state.State != revocationGood:
		r.state = state
	}
	if state.State == revocationUnknown {
		return fmt.Errorf("%w: %s", signer.ErrRevocationUnknown, state.Detail)
	}
	return nil
}

// ask looks at every list of issuer about cert.
func (r *lists) ask(cert, issuer *x509.Certificate, at time.Time) Revocation {
	good, why := "", ""
	for _, l := range slices.Concat(r.given[string(cert.RawIssuer)], r.carry) {
		if string(l.List().RawIssuer) != string(cert.RawIssuer) || !l.covers(cert) || l.SignedBy(issuer) != nil {
			continue
		}
		on, named := l.Find(cert.SerialNumber)
		switch {
		case named && !on.After(at):
			return Revocation{revocationRevoked, fmt.Sprintf("%s on %s, says %s", cert.Subject, stamp(on), l.name)}
		case named:
			good = l.name
			r.later = append(r.later, fmt.Sprintf("the certificate of %s was revoked later, on %s, says %s", cert.Subject, stamp(on), l.name))
		default:
			if err := l.vouches(cert, at); err != nil {
				why = err.Error()
			} else {
				good = l.name
			}
		}
	}
	switch {
	case good != "":
		return Revocation{revocationGood, fmt.Sprintf("not revoked at that instant, says %s", good)}
	case !r.asked:
		return Revocation{State: revocationUnchecked}
	case why == "":
		why = "no list of " + cert.Issuer.String() + " with its signature was given"
	}
	return Revocation{revocationUnknown, why}
}

// maxCarried bounds the lists that are read from one message.
const maxCarried = 8

// carried returns the revocation lists in the signature of m (RFC 5652, 5.1),
// which is known to be one that package signer reads. What cannot be read is
// not there.
func carried(m *message.Message) (out []*list) {
	root, err := m.Structure()
	if err != nil || len(root.Children) != 2 {
		return nil
	}
	p7s, err := io.ReadAll(io.LimitReader(root.Children[1].Decoded(), signer.MaxSignature))
	if err != nil {
		return nil
	}
	defer func() {
		if recover() != nil { // of pkcs7, on malformed input
			out = nil
		}
	}()
	p7, err := pkcs7.Parse(p7s)
	if err != nil {
		return nil
	}
	for _, c := range p7.CRLs[:min(len(p7.CRLs), maxCarried)] {
		if l := fromMessage(c); l != nil {
			out = append(out, l)
		}
	}
	return out
}

func fromMessage(c pkix.CertificateList) *list {
	der, err := asn1.Marshal(c)
	if err != nil {
		return nil
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil
	}
	l, err := newList("a list in the message", crl)
	if err != nil {
		return nil
	}
	return l
}
