package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"pecd/signer/fetch"
)

// A Kind says what a source is.
type Kind string

// The kinds of sources.
const (
	KindList Kind = "crl"  // a list by URL
	KindFile Kind = "file" // a list in a file
	KindOCSP Kind = "ocsp" // a responder, asked about one certificate
)

// Limits on what certificates can make a keeper remember.
const (
	maxSources   = 4096
	maxPoints    = 4 // URLs of one certificate that are used, of each kind
	maxAuthority = 4 // certificates of authorities that a source is checked with
	idle         = 7 * 24 * time.Hour
)

// A source is where a list or an answer comes from. Keeper.mu guards what
// changes.
type source struct {
	name string // URL or file
	key  string // in the cache and in Keeper.sources
	kind Kind
	kept bool // configured; not forgotten when nobody asks

	cert *x509.Certificate // that a responder is asked about

	authorities []*x509.Certificate // of whom the list may be; from chains that held
	evidence    *evidence
	validators  fetch.Validators
	raw         []byte // of a list that nobody's signature was found on yet
	restored    bool   // the list is from the cache: it was proved before it went there
	used        time.Time
	tried, good time.Time
	due         time.Time // when it is fetched next
	failures    int
	err         error
	flight      *flight // the fetch that runs
}

// A flight is one fetch that all wait for who want it. err is set before done
// is closed.
type flight struct {
	done chan struct{}
	err  error
}

// groups returns the sources for cert in the order in which they are asked, and
// whether anybody names one.
func (k *Keeper) groups(cert, issuer *x509.Certificate) (groups [][]*source, named bool) {
	var lists, answers []*source
	k.mu.Lock()
	for _, s := range k.order {
		if s.kept && (s.evidence == nil || bytes.Equal(s.evidence.issuer, cert.RawIssuer)) {
			// Whose list it is is not known before it is here.
			lists, named = append(lists, s), true
		}
	}
	k.mu.Unlock()
	for _, url := range pick(cert.CRLDistributionPoints) {
		named = true
		s := k.add(&source{name: url, kind: KindList}, issuer)
		if s != nil && !s.kept {
			lists = append(lists, s)
		}
	}
	if k.o.OCSP == OCSPFallback || k.o.OCSP == OCSPFirst {
		for _, url := range pick(cert.OCSPServer) {
			named = true
			if s := k.add(&source{name: url, kind: KindOCSP, cert: cert}, issuer); s != nil {
				answers = append(answers, s)
			}
		}
	}
	if k.o.OCSP == OCSPFirst {
		return [][]*source{answers, lists}, named
	}
	return [][]*source{lists, answers}, named
}

func pick(urls []string) []string { return urls[:min(len(urls), maxPoints)] }

// add returns the source like s that is known, or makes s known; nil if it
// is not one that is fetched, or if there are too many.
func (k *Keeper) add(s *source, issuer *x509.Certificate) *source {
	s.key = s.name
	if s.kind == KindOCSP {
		id := sha256.Sum256(slices.Concat(issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, []byte(serialKey(s.cert.SerialNumber))))
		s.key = "ocsp " + hex.EncodeToString(id[:16]) + " " + s.name
	}
	k.mu.Lock()
	old := k.sources[s.key]
	if old != nil {
		old.used = k.o.Now()
		old.authority(issuer)
	}
	full := len(k.sources) >= maxSources
	k.mu.Unlock()
	if old != nil {
		return old
	}
	if full || s.kind != KindFile && k.o.Client.Check(s.name) != nil {
		return nil
	}
	s.authority(issuer)
	k.restore(s)
	return k.enter(s)
}

func (k *Keeper) enter(s *source) *source {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.sources[s.key]; old != nil { // somebody else was faster
		return old
	}
	s.used = k.o.Now()
	k.sources[s.key] = s
	k.order = append(k.order, s)
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return s
}

// authority remembers issuer as one of whom s may be.
func (s *source) authority(issuer *x509.Certificate) {
	if issuer == nil || len(s.authorities) >= maxAuthority {
		return
	}
	for _, c := range s.authorities {
		if c.Equal(issuer) {
			return
		}
	}
	s.authorities = append(s.authorities, issuer)
}

// restore takes what the cache has of s, which nobody else knows yet. What is
// damaged there counts as absent.
func (k *Keeper) restore(s *source) {
	if k.o.Cache == nil || s.kind == KindFile {
		return
	}
	it, err := k.o.Cache.Load(s.key, MaxList)
	if err != nil {
		if errors.Is(err, fetch.ErrTorn) {
			s.err = err
		}
		return
	}
	e, err := k.parse(s, s.authorities, it.Body)
	if err != nil {
		s.err = err
		return
	}
	s.take(e, it.Body)
	s.validators, s.good, s.restored = it.Validators, it.Fetched, true
	s.due = k.next(s, it.Fetched)
}

// parse reads and checks what came from s. A list nobody of whom is known is
// taken as it is, to be checked with the first who asks.
func (k *Keeper) parse(s *source, authorities []*x509.Certificate, body []byte) (*evidence, error) {
	if s.kind == KindOCSP {
		return parseAnswer(body, s.cert, authorities[0], k.o.Max)
	}
	e, err := parseList(body)
	if err != nil || len(authorities) == 0 {
		return e, err
	}
	for _, a := range authorities {
		if err = e.signedBy(a); err == nil {
			return e, nil
		}
	}
	return nil, err
}

// take makes e what s knows.
func (s *source) take(e *evidence, raw []byte) {
	s.evidence, s.raw, s.restored = e, nil, false
	if !e.proved() {
		s.raw = raw
	}
}

// waits reports whether s has a list from the cache and knows nobody to check
// another with. What came in its place could be forged, and would make room for
// an older one.
func (s *source) waits() bool { return s.restored && len(s.authorities) == 0 }

// confirm notes that the list e of s was found to be issuer's, and keeps it on
// disk from now on.
func (k *Keeper) confirm(s *source, e *evidence, issuer *x509.Certificate) {
	k.mu.Lock()
	if s.evidence != e || s.raw == nil {
		k.mu.Unlock()
		return
	}
	s.authority(issuer)
	s.restored = false
	it := &fetch.Item{Key: s.key, Fetched: s.good, Validators: s.validators, Body: s.raw}
	s.raw = nil
	k.mu.Unlock()
	k.save(s, e, it)
}

// drop forgets the list e of s, which is not the authority's.
func (k *Keeper) drop(s *source, e *evidence, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.evidence == e && s.kind != KindFile {
		s.evidence, s.raw, s.restored = nil, nil, false
		s.validators, s.due = fetch.Validators{}, time.Time{}
	}
	s.err = err
}

// save keeps the evidence e of s on disk, unless something newer is there by
// now: what is on disk must not go back either.
func (k *Keeper) save(s *source, e *evidence, it *fetch.Item) {
	if k.o.Cache == nil || s.kind == KindFile {
		return
	}
	k.saves.Lock()
	defer k.saves.Unlock()
	k.mu.Lock()
	current := s.evidence == e
	k.mu.Unlock()
	if !current {
		return
	}
	if err := k.o.Cache.Save(it); err != nil {
		k.mu.Lock()
		s.err = err
		k.mu.Unlock()
	}
}

// get returns what s publishes now, nil if that is what is here.
func (k *Keeper) get(ctx context.Context, s *source, have fetch.Validators, issuers []*x509.Certificate) (*fetch.Answer, error) {
	switch s.kind {
	case KindFile:
		return readFile(s.name)
	case KindOCSP:
		q, err := question(s.cert, issuers[0])
		if err != nil {
			return nil, err
		}
		return k.o.Client.Post(ctx, s.name, "application/ocsp-request", q)
	}
	return k.o.Client.Get(ctx, s.name, have)
}

func readFile(name string) (*fetch.Answer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxList+1))
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	return &fetch.Answer{Body: data}, nil
}
