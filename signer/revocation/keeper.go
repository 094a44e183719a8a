// Package revocation knows which certificates were revoked. Its Keeper is a
// signer.Revoker: it reads revocation lists (RFC 5280, 5) from the distribution
// points of the certificates that it is asked about, from configured URLs and
// from files, and asks OCSP responders (RFC 6960) where that is wanted. Lists and
// answers stay in memory and on disk and are renewed before they end, so that a
// message waits for the network only when nothing is known yet, and then not
// long.
//
// A list counts only if the authority signed it, only if it is complete (delta
// lists, indirect lists and lists for some reasons are refused), and never
// replaces a newer one.
package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"pecd/signer"
	"pecd/signer/fetch"
)

// Missing says what happens to a certificate about which nothing can be had.
type Missing string

// The values of Missing. The zero value is Defer.
const (
	Defer  Missing = "defer"  // signer.ErrRevocationUnknown: the message waits
	Accept Missing = "accept" // as if it were not revoked
)

// OCSP says when a responder is asked. The zero value is OCSPOff.
type OCSP string

// The values of OCSP.
const (
	OCSPOff      OCSP = "off"
	OCSPFallback OCSP = "fallback" // if no list can answer
	OCSPFirst    OCSP = "first"    // before the lists
)

// A Policy says what is done in doubt; docs/rules.md, W10. What is known to be
// revoked is refused under every policy, and a certificate for which neither
// its authority nor the configuration names any source is accepted: no waiting
// would bring an answer.
type Policy struct {
	Missing Missing
	Grace   time.Duration // for how long a list or an answer counts after its end
}

// Defaults of Options.
const (
	DefaultWait = 5 * time.Second
	DefaultMin  = 10 * time.Minute
	DefaultMax  = 4 * time.Hour
)

// Options are what a Keeper works with.
type Options struct {
	URLs   []string // lists that are kept from the start
	Files  []string // lists, PEM or DER; read again at each Refresh
	OCSP   OCSP
	Policy Policy

	Client *fetch.Client // best with a MaxSize of MaxList
	Cache  *fetch.Cache  // nil: nothing is kept on disk

	Wait     time.Duration // of one question for the network; 0: DefaultWait
	Min, Max time.Duration // between two fetches of a list; 0: DefaultMin, DefaultMax

	Now    func() time.Time
	After  func(time.Duration) <-chan time.Time // for Run; nil: time.After
	Random io.Reader                            // spreads the fetches of many providers; nil: none
}

// A Keeper keeps what is known about revocation. It may be used concurrently.
// Close ends it.
type Keeper struct {
	o    Options
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup // the fetches that run
	wake chan struct{}  // tells Run of a new source

	saves sync.Mutex // held while something is written to the cache

	mu      sync.Mutex // guards all below, and the sources but for their names
	closed  bool
	sources map[string]*source
	order   []*source // as they were added
}

var _ signer.Revoker = (*Keeper)(nil)

// New returns a keeper that has read the files and what the cache has of the
// URLs. It fetches nothing yet. A file that cannot be read is an error, and so is
// a URL that would not be fetched.
func New(o Options) (*Keeper, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	k := &Keeper{o: o, wake: make(chan struct{}, 1), sources: make(map[string]*source)}
	k.ctx, k.stop = context.WithCancel(context.Background())
	for _, file := range o.Files {
		s := k.add(&source{name: file, kind: KindFile, kept: true}, nil)
		if err := k.renew(k.ctx, s); err != nil {
			k.stop()
			return nil, err
		}
	}
	for _, url := range o.URLs {
		k.add(&source{name: url, kind: KindList, kept: true}, nil)
	}
	return k, nil
}

func (o *Options) check() error {
	switch o.Policy.Missing {
	case "", Defer, Accept:
	default:
		return fmt.Errorf("revocation: policy %q; write defer or accept", o.Policy.Missing)
	}
	switch o.OCSP {
	case "", OCSPOff, OCSPFallback, OCSPFirst:
	default:
		return fmt.Errorf("revocation: OCSP %q; write off, fallback or first", o.OCSP)
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&o.Wait, DefaultWait}, {&o.Min, DefaultMin}, {&o.Max, DefaultMax}} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	switch {
	case o.Client == nil || o.Now == nil:
		return errors.New("revocation: no client or no clock")
	case o.Wait < 0 || o.Min < 0 || o.Max < o.Min || o.Policy.Grace < 0:
		return errors.New("revocation: a duration below zero, or the longest pause shorter than the shortest")
	}
	if o.After == nil {
		o.After = time.After
	}
	for _, url := range o.URLs {
		if err := o.Client.Check(url); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the fetches that run and waits for them. Questions are answered
// afterwards from what is known.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop()
	k.work.Wait()
}

// Revoked implements signer.Revoker. It answers from memory; if nothing usable
// is there it fetches what cert names, once for all who ask, and waits no longer
// than ctx and Options.Wait. A source that failed is not tried again by
// questions before a pause that grows. cert must be of a chain that holds:
// what it names is fetched.
func (k *Keeper) Revoked(ctx context.Context, cert, issuer *x509.Certificate, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, k.o.Wait)
	defer cancel()
	groups, named := k.groups(cert, issuer)
	why := errNothing
	for i := range groups {
		decided, err := k.ask(ctx, groups, i, cert, issuer, at)
		if decided {
			return err
		}
		if err != nil {
			why = err
		}
	}
	if !named || k.o.Policy.Missing == Accept {
		return nil
	}
	return fmt.Errorf("%w: %w", signer.ErrRevocationUnknown, why)
}

var errNothing = errors.New("revocation: nothing can be had about the certificate")

// ask looks for the answer in the group i, and fetches what is missing in it.
func (k *Keeper) ask(ctx context.Context, groups [][]*source, i int, cert, issuer *x509.Certificate, at time.Time) (decided bool, err error) {
	if decided, err = k.look(groups, i, cert, issuer, at); decided {
		return true, err
	}
	for _, s := range groups[i] {
		if failed := k.fetch(ctx, s, issuer); failed != nil {
			err = failed
			continue
		}
		if decided, err = k.look(groups, i, cert, issuer, at); decided {
			return true, err
		}
	}
	return false, err
}

// look answers from memory. Revoked it is by whatever is known; not revoked only
// if something in the group i can say so.
func (k *Keeper) look(groups [][]*source, i int, cert, issuer *x509.Certificate, at time.Time) (decided bool, err error) {
	var all, group []*evidence
	for n, sources := range groups {
		for _, s := range sources {
			e, failed := k.evidence(s, cert, issuer)
			if e != nil {
				all = append(all, e)
			}
			if n != i {
				continue
			}
			if e != nil {
				group = append(group, e)
			}
			if failed != nil {
				err = failed
			}
		}
	}
	if since, revoked := judge(all, cert, at); revoked {
		return true, fmt.Errorf("%w on %s", signer.ErrRevoked, stamp(since))
	}
	now := k.o.Now()
	for _, e := range group {
		if failed := e.answers(cert, at, now, k.o.Policy.Grace); failed != nil {
			err = failed
			continue
		}
		return true, nil
	}
	return false, err
}

// evidence returns what s has about cert, nil if nothing. A list that turns out
// not to be the authority's is dropped, to be fetched again.
func (k *Keeper) evidence(s *source, cert, issuer *x509.Certificate) (*evidence, error) {
	k.mu.Lock()
	e, failed := s.evidence, s.err
	k.mu.Unlock()
	if e == nil {
		return nil, failed
	}
	if !e.covers(cert) {
		return nil, nil
	}
	first := !e.proved()
	if err := e.signedBy(issuer); err != nil {
		if first {
			k.drop(s, e, err)
		}
		return nil, err
	}
	if first {
		k.confirm(s, e, issuer)
	}
	return e, nil
}
