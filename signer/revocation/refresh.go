package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/signer/fetch"
)

// errPause says that a source failed and is not tried again yet.
var errPause = errors.New("revocation: the source failed and is tried again later")

// fetch renews s for a question, unless it failed just now, and waits for it
// until ctx ends. Who asks second waits for the first.
func (k *Keeper) fetch(ctx context.Context, s *source, issuer *x509.Certificate) error {
	k.mu.Lock()
	s.authority(issuer)
	f := s.flight
	if f == nil {
		if err := k.pause(s); err != nil {
			k.mu.Unlock()
			return err
		}
		f = k.launch(s, k.o.Wait)
	}
	k.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("revocation: %s: %w", s.name, ctx.Err())
	}
}

// pause returns why s is not to be fetched by a question. Keeper.mu is held.
func (k *Keeper) pause(s *source) error {
	switch {
	case k.closed:
		return errNothing
	case s.ahead(k.o.Now()):
		return nil
	case s.failures > 0 && k.o.Now().Before(s.due):
		return fmt.Errorf("%w: %w", errPause, s.err)
	case s.evidence != nil && k.o.Now().Before(s.tried.Add(k.o.Min)):
		return errNothing // it is as new as it can be
	}
	return nil
}

// ahead reports whether the last fetch was made while the clock showed more than
// now: what was planned then would hold up the next until it is that late. After
// the next nothing is ahead any more. Keeper.mu is held, or s is new.
func (s *source) ahead(now time.Time) bool {
	last := s.tried
	if last.IsZero() {
		last = s.good // by the daemon that ran before
	}
	return now.Before(last)
}

// launch starts a fetch of s that ends after limit. Keeper.mu is held, and the
// keeper is not closed.
func (k *Keeper) launch(s *source, limit time.Duration) *flight {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	k.work.Add(1)
	go func() {
		defer k.work.Done()
		ctx, cancel := context.WithTimeout(k.ctx, limit)
		defer cancel()
		err := k.renew(ctx, s)
		k.mu.Lock()
		s.flight, f.err = nil, err
		k.mu.Unlock()
		close(f.done)
	}()
	return f
}

// renew fetches s and takes what came if it is good. Whatever happens, what was
// good before stays until something better is here.
func (k *Keeper) renew(ctx context.Context, s *source) error {
	k.mu.Lock()
	have, issuers := s.validators, slices.Clone(s.authorities)
	s.tried = k.o.Now()
	k.mu.Unlock()
	a, err := k.get(ctx, s, have, issuers)
	var e *evidence
	if err == nil && !a.NotModified {
		if e, err = k.parse(s, issuers, a.Body); err == nil && k.o.Now().Add(skew).Before(e.thisUpdate) {
			err = fmt.Errorf("%w: made at %s", ErrOutdated, stamp(e.thisUpdate))
		}
	}
	return k.settle(s, a, e, err)
}

// settle enters the result of a fetch: e, or that nothing changed, or err.
func (k *Keeper) settle(s *source, a *fetch.Answer, e *evidence, err error) error {
	k.mu.Lock()
	switch old := s.evidence; {
	case err != nil || old == nil && e != nil:
	case old == nil:
		err = fmt.Errorf("%w: nothing here that it could be", fetch.ErrStatus) // dropped meanwhile
	case e != nil && (old.proved() || s.restored):
		// Only what was proved genuine holds up what comes: a forgery must not.
		err = e.replaces(old)
	}
	now := k.o.Now()
	s.err = err
	if err != nil {
		s.failures++
		s.due = now.Add(k.spread(k.retry(s.failures)))
		k.mu.Unlock()
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.failures, s.good = 0, now
	if e != nil {
		s.take(e, a.Body)
		s.validators = a.Validators
	}
	s.due = k.next(s, now)
	fresh := e != nil && e.proved()
	k.mu.Unlock()
	if fresh {
		k.save(s, e, &fetch.Item{Key: s.key, Fetched: now, Validators: a.Validators, Body: a.Body})
	}
	return nil
}

// next returns when s is fetched again: when three quarters of the time that is
// left have passed, within the bounds. Keeper.mu is held, or s is new.
func (k *Keeper) next(s *source, now time.Time) time.Time {
	if s.kind == KindFile {
		return now.Add(k.o.Min)
	}
	left := s.evidence.nextUpdate.Sub(now) / 4 * 3
	return now.Add(k.spread(min(max(left, k.o.Min), k.o.Max)))
}

// retry is the pause after the nth failure: a minute, then twice as long each
// time up to Max.
func (k *Keeper) retry(n int) time.Duration {
	return min(time.Minute<<min(n-1, 10), k.o.Max)
}

// spread makes d up to a tenth shorter, so that the providers of the country do
// not all come at once.
func (k *Keeper) spread(d time.Duration) time.Duration {
	var b [1]byte
	if k.o.Random == nil {
		return d
	}
	if _, err := io.ReadFull(k.o.Random, b[:]); err != nil {
		return d // spreading is a courtesy
	}
	return d - d/10*time.Duration(b[0])/256
}

// Run renews what is due until ctx ends. It returns the cause of that.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		k.refresh(ctx, false)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.o.After(k.untilDue()):
		case <-k.wake:
		}
	}
}

// Refresh renews every source now, due or not, and returns what failed, joined.
func (k *Keeper) Refresh(ctx context.Context) error { return k.refresh(ctx, true) }

// parallel is how many sources are fetched at a time.
const parallel = 4

func (k *Keeper) refresh(ctx context.Context, all bool) error {
	sources := k.dueSources(all)
	errs := make([]error, len(sources))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, s := range sources {
		g.Go(func() error {
			errs[i] = k.renewOnce(ctx, s)
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	return errors.Join(errs...)
}

// dueSources returns what is to be renewed, and forgets sources that nobody has
// asked for in a long time.
func (k *Keeper) dueSources(all bool) (due []*source) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Now()
	k.order = slices.DeleteFunc(k.order, func(s *source) bool {
		old := !s.kept && s.flight == nil && now.Sub(s.used) > idle
		if old {
			delete(k.sources, s.key)
		}
		return old
	})
	for _, s := range k.order {
		if !s.waits() && (all || !now.Before(s.due) || s.ahead(now)) {
			due = append(due, s)
		}
	}
	return due
}

// renewOnce renews s unless that is being done, in which case it waits.
func (k *Keeper) renewOnce(ctx context.Context, s *source) error {
	k.mu.Lock()
	f := s.flight
	if f == nil && !k.closed {
		f = k.launch(s, fetch.DefaultTimeout)
	}
	k.mu.Unlock()
	if f == nil {
		return errNothing
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("revocation: %s: %w", s.name, ctx.Err())
	}
}

// untilDue returns how long nothing is due.
func (k *Keeper) untilDue() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait, now := k.o.Max, k.o.Now()
	for _, s := range k.order {
		if s.ahead(now) && !s.waits() {
			return time.Second
		}
		if !s.waits() {
			wait = min(wait, s.due.Sub(now))
		}
	}
	return max(wait, time.Second)
}

// A Status says how it stands with one source.
type Status struct {
	Source     string // URL or file
	Kind       Kind
	Authority  string    // whose list it is; "" if there is none yet
	Proved     bool      // its signature was found good
	Number     string    // of the list; "" if it has none
	ThisUpdate time.Time // zero if there is no list yet
	NextUpdate time.Time
	Entries    int       // revoked certificates
	Good       time.Time // last fetch that succeeded, zero if none did
	Tried      time.Time // last fetch
	Due        time.Time // next fetch
	Failures   int       // since then
	Err        error     // of the last fetch, nil if it was good
}

// Status returns how it stands with each source, configured ones first.
func (k *Keeper) Status() []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Status, 0, len(k.order))
	for _, s := range k.order {
		st := Status{Source: s.name, Kind: s.kind, Good: s.good, Tried: s.tried, Due: s.due, Failures: s.failures, Err: s.err}
		if e := s.evidence; e != nil {
			st.Authority, st.Proved = nameOf(e.issuer), e.proved()
			st.ThisUpdate, st.NextUpdate, st.Entries = e.thisUpdate, e.nextUpdate, len(e.entries)
			if e.number != nil {
				st.Number = e.number.String()
			}
		}
		all = append(all, st)
	}
	return all
}
