package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// What is wrong with a list or an answer that came. Status carries the text.
var (
	ErrMalformed = errors.New("revocation: malformed")
	ErrScope     = errors.New("revocation: a list of a kind that is not used")
	ErrSigner    = errors.New("revocation: not signed by the authority")
	ErrOlder     = errors.New("revocation: older than what is here already")
	ErrOutdated  = errors.New("revocation: not of this time")
)

// MaxList bounds a revocation list, in octets; MaxEntries what stands in it. Most
// lists come by plain HTTP, so that anybody on the way can send a large one; in
// memory it takes some twenty times as much while it is read.
const (
	MaxList    = 16 << 20
	MaxEntries = 1_000_000
)

// skew is how far the clock of an authority may be before ours.
const skew = 10 * time.Minute

// An entry says since when a certificate has been revoked, in seconds of Unix
// time, and whether that may be taken back (certificateHold).
type entry struct {
	since int64
	hold  bool
}

// An evidence is a revocation list, or the answer of an OCSP responder, which
// is like a list for one serial number. It does not change but for the memory
// of who signed it.
type evidence struct {
	issuer     []byte // Name in DER
	number     *big.Int
	thisUpdate time.Time
	nextUpdate time.Time
	entries    map[string]entry // by serialKey
	scope      scope
	only       string // serialKey of the one certificate that an answer is about

	// expired is since when certificates that expired are kept in the list;
	// zero: they may have been taken out.
	expired time.Time

	mu       sync.Mutex
	unproved *x509.RevocationList // until the signature was found good
	key      [sha256.Size]byte    // digest of the public key that it was good for
}

// serialKey is a serial number as a key of a map. A negative one, which some
// authority may have made, is not that of its absolute value.
func serialKey(n *big.Int) string {
	if n.Sign() < 0 {
		return "\x00" + string(n.Bytes())
	}
	return string(n.Bytes())
}

// parseList reads a complete revocation list (RFC 5280, 5), PEM or DER. It
// refuses delta lists, indirect lists, lists for some reasons or for attribute
// certificates, those with a critical extension that is not known, and those
// that do not say when the next one comes. The signature is not checked yet.
func parseList(data []byte) (*evidence, error) {
	if len(data) > MaxList {
		return nil, fmt.Errorf("%w: larger than %d octets", ErrMalformed, MaxList)
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	l, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("%w: not a revocation list: %w", ErrMalformed, err)
	}
	switch {
	case l.NextUpdate.IsZero():
		return nil, fmt.Errorf("%w: the list does not say when the next one comes", ErrMalformed)
	case l.NextUpdate.Before(l.ThisUpdate):
		return nil, fmt.Errorf("%w: the list ends before it begins", ErrMalformed)
	case len(l.RevokedCertificateEntries) > MaxEntries:
		return nil, fmt.Errorf("%w: more than %d entries", ErrMalformed, MaxEntries)
	}
	e := &evidence{issuer: l.RawIssuer, number: l.Number, thisUpdate: l.ThisUpdate, nextUpdate: l.NextUpdate}
	if err := e.readExtensions(l.Extensions); err != nil {
		return nil, err
	}
	if err := e.index(l.RevokedCertificateEntries); err != nil {
		return nil, err
	}
	l.RevokedCertificateEntries = nil // the index is all that is asked
	e.unproved = l
	return e, nil
}

// index enters the revoked certificates by serial number. Where one stands
// twice the first revocation that cannot be taken back counts.
func (e *evidence) index(revoked []x509.RevocationListEntry) error {
	e.entries = make(map[string]entry, len(revoked))
	for i := range revoked {
		r := &revoked[i]
		for _, x := range r.Extensions {
			if x.Critical && !x.Id.Equal(oidReason) {
				return fmt.Errorf("%w: an entry has the critical extension %s", ErrScope, x.Id)
			}
		}
		if r.ReasonCode == reasonRemove {
			continue // as OpenSSL does: not revoked any longer
		}
		n := entry{r.RevocationTime.Unix(), r.ReasonCode == reasonHold}
		key := serialKey(r.SerialNumber)
		if old, twice := e.entries[key]; !twice || old.hold && !n.hold || old.hold == n.hold && n.since < old.since {
			e.entries[key] = n
		}
	}
	return nil
}

// Reason codes of RFC 5280, 5.3.1 that are not final.
const (
	reasonHold   = 6
	reasonRemove = 8
)

// signedBy reports whether issuer, the authority of the certificate asked
// about, signed the list. It is computed once: a list stays with its first key.
func (e *evidence) signedBy(issuer *x509.Certificate) error {
	if !bytes.Equal(issuer.RawSubject, e.issuer) {
		return fmt.Errorf("%w: it is of %.200q", ErrSigner, nameOf(e.issuer))
	}
	if issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0 && e.only == "" {
		return fmt.Errorf("%w: the authority's certificate does not allow it to sign lists", ErrSigner)
	}
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unproved == nil {
		if key != e.key {
			return fmt.Errorf("%w: another key of the authority signed it", ErrSigner)
		}
		return nil
	}
	if err := e.unproved.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("%w: %w", ErrSigner, err)
	}
	e.key, e.unproved = key, nil
	return nil
}

// proved reports whether somebody's signature was found good.
func (e *evidence) proved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unproved == nil
}

// covers reports whether the list would name cert if it were revoked.
func (e *evidence) covers(cert *x509.Certificate) bool {
	if e.only != "" {
		return e.only == serialKey(cert.SerialNumber)
	}
	return bytes.Equal(e.issuer, cert.RawIssuer) && e.scope.covers(cert)
}

// answers reports whether e can say that cert was not revoked at the instant
// at. It can until grace after its end, and for ever about instants before it
// was made: a revocation does not begin before the list that first names it. It
// cannot if cert had expired by then, since lists drop what has expired (RFC
// 5280, 3.3).
func (e *evidence) answers(cert *x509.Certificate, at, now time.Time, grace time.Duration) error {
	switch {
	case at.After(e.thisUpdate) && now.After(e.nextUpdate.Add(grace)):
		return fmt.Errorf("%w: it ended at %s", ErrOutdated, stamp(e.nextUpdate))
	case e.thisUpdate.After(cert.NotAfter) && (e.expired.IsZero() || e.expired.After(cert.NotAfter)):
		return fmt.Errorf("%w: the certificate expired at %s, before it was made", ErrOutdated, stamp(cert.NotAfter))
	}
	return nil
}

// replaces returns nil if e may stand in the place of old: it is not older,
// neither by its number nor by its time. Otherwise somebody plays back a list
// from before a revocation.
func (e *evidence) replaces(old *evidence) error {
	switch {
	case e.number != nil && old.number != nil && e.number.Cmp(old.number) < 0:
		return fmt.Errorf("%w: number %s after %s", ErrOlder, e.number, old.number)
	case e.thisUpdate.Before(old.thisUpdate):
		return fmt.Errorf("%w: made at %s, ours at %s", ErrOlder, stamp(e.thisUpdate), stamp(old.thisUpdate))
	}
	return nil
}

// judge asks all of what is known about cert, and returns since when it has
// been revoked, if it has at the instant at. What cannot be taken back counts
// wherever it stands, a hold only in the newest.
func judge(known []*evidence, cert *x509.Certificate, at time.Time) (since time.Time, revoked bool) {
	var newest *evidence
	key := serialKey(cert.SerialNumber)
	for _, e := range known {
		if n, ok := e.entries[key]; ok && !n.hold && n.since <= at.Unix() {
			return time.Unix(n.since, 0), true
		}
		if newest == nil || e.thisUpdate.After(newest.thisUpdate) {
			newest = e
		}
	}
	if newest != nil {
		if n, ok := newest.entries[key]; ok && n.since <= at.Unix() {
			return time.Unix(n.since, 0), true
		}
	}
	return time.Time{}, false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// A scope is what a list is limited to by its issuing distribution point; RFC
// 5280, 5.2.5. An authority may split its list, and one part says nothing about
// the certificates of another.
type scope struct {
	points             []string // URLs; empty: all
	onlyUser, onlyAuth bool
}

func (s *scope) covers(cert *x509.Certificate) bool {
	authority := cert.BasicConstraintsValid && cert.IsCA
	if s.onlyUser && authority || s.onlyAuth && !authority {
		return false
	}
	return len(s.points) == 0 ||
		slices.ContainsFunc(cert.CRLDistributionPoints, func(p string) bool { return slices.Contains(s.points, p) })
}
