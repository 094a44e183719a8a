package index

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/fetch"
)

// A candidate is a directory whose signature and records are good.
type candidate struct {
	raw       []byte
	digest    [sha256.Size]byte
	directory *directory.Directory
	signed    time.Time
	signer    *x509.Certificate
}

// open verifies and reads a signed directory.
func (k *Keeper) open(ctx context.Context, v *signer.Verifier, p7m []byte, at time.Time) (*candidate, error) {
	ldif, report, err := v.OpenData(ctx, p7m, at)
	if err != nil {
		return nil, err
	}
	d, err := directory.Parse(ldif)
	if err != nil {
		return nil, err
	}
	if len(d.Providers()) == 0 {
		return nil, fmt.Errorf("%w: it holds no provider", directory.ErrSchema)
	}
	return &candidate{p7m, sha256.Sum256(p7m), d, report.SigningTime, report.Signer}, nil
}

// A Change says what an update changed, in domains.
type Change struct {
	Taken   bool // false: the directory in use is the current one
	Added   []string
	Removed []string
	Moved   []string // to another provider or environment
}

// Update gets the directory, and takes it if it is another than the one in use.
// Whatever fails, the one in use stays. With force it is fetched whatever the
// server says about its version, and taken even if it is older, smaller or
// without us: ErrOlder, ErrShrunk, ErrOwn. A signature that does not hold, a record
// that contradicts another, and what Usable refuses cannot be forced.
func (k *Keeper) Update(ctx context.Context, force bool) (*Change, error) {
	k.updates.Lock()
	defer k.updates.Unlock()
	now := k.o.Now()
	change, err := k.update(ctx, force, now)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Tried, k.status.Err = now, err
	if err != nil {
		k.status.Failures++
		return nil, err
	}
	k.status.Failures = 0
	return change, nil
}

func (k *Keeper) update(ctx context.Context, force bool, now time.Time) (*Change, error) {
	a, err := k.get(ctx, force)
	if err != nil {
		return nil, err
	}
	if a.NotModified {
		return new(Change), k.unchanged(ctx, now)
	}
	c, err := k.open(ctx, k.o.Verifier, a.Body, now)
	if err != nil {
		return nil, err
	}
	old := k.Directory()
	if !force && old != nil {
		if err := k.compare(old, c); err != nil {
			return nil, err
		}
	}
	if old != nil && k.o.Usable != nil {
		if err := k.o.Usable(c.directory); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
		}
	}
	if err := k.save(c.raw, now, a.Validators); err != nil {
		return nil, err
	}
	if old != nil && c.digest == k.digest {
		k.validators = a.Validators
		k.checked(k.asOf(a.Validators, now))
		return new(Change), nil
	}
	k.take(c, now, k.asOf(a.Validators, now), a.Validators)
	change := diff(old, c.directory)
	k.o.Log.Info("directory taken", "providers", len(c.directory.Providers()), "domains", c.directory.Domains(),
		"added", len(change.Added), "removed", len(change.Removed), "moved", len(change.Moved), "forced", force)
	return change, nil
}

// unchanged is for a server that says so. What is in the cache is looked at
// again as of now, so that a maker whose certificate ended or was revoked is
// noticed.
func (k *Keeper) unchanged(ctx context.Context, now time.Time) error {
	if k.o.Cache != nil {
		it, err := k.o.Cache.Load(k.o.source(), directoryLimit)
		if err != nil || sha256.Sum256(it.Body) != k.digest {
			k.validators = fetch.Validators{} // the next update brings the file
			return fmt.Errorf("index: the server has nothing new, and the last good one cannot be looked at again: %w", orLost(err))
		}
		if _, _, err := k.o.Verifier.OpenData(ctx, it.Body, now); err != nil {
			return fmt.Errorf("index: the server has nothing new: %w", err)
		}
		if err := k.save(it.Body, now, k.validators); err != nil {
			return err
		}
	}
	k.checked(now)
	return nil
}

func orLost(err error) error {
	if err == nil {
		return ErrNone
	}
	return err
}

// save keeps the file for the next start, before it is used.
func (k *Keeper) save(p7m []byte, now time.Time, v fetch.Validators) error {
	if k.o.Cache == nil {
		return nil
	}
	return k.o.Cache.Save(&fetch.Item{Key: k.o.source(), Fetched: now, Validators: v, Body: p7m})
}

func (k *Keeper) checked(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Checked = at
}

// take makes c, which was last known to be the current one at checked, the directory
// in use.
func (k *Keeper) take(c *candidate, now, checked time.Time, v fetch.Validators) {
	if k.o.OnChange != nil {
		k.o.OnChange(c.directory)
	}
	k.current.Store(c.directory)
	k.validators, k.digest = v, c.digest
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Providers, k.status.Domains = len(c.directory.Providers()), c.directory.Domains()
	k.status.Signed, k.status.Signer = c.signed, c.signer.Subject.String()
	k.status.Changed, k.status.Checked = now, checked
}

// compare returns why c should not follow old.
func (k *Keeper) compare(old *directory.Directory, c *candidate) error {
	was := k.Status().Signed
	if !was.IsZero() && !c.signed.IsZero() && c.signed.Before(was) {
		return fmt.Errorf("%w: at %s, ours at %s", ErrOlder, c.signed.UTC().Format(time.RFC3339), was.UTC().Format(time.RFC3339))
	}
	if err := k.compareOwn(old, c.directory); err != nil {
		return err
	}
	removed := 0
	for _, p := range old.Providers() {
		for _, domain := range p.Domains {
			if _, ok := c.directory.ProviderOf(domain); !ok {
				removed++
			}
		}
	}
	if n := old.Domains(); float64(removed) > k.o.Loss*float64(n) {
		return fmt.Errorf("%w: %d of %d domains", ErrShrunk, removed, n)
	}
	gone := 0
	for _, p := range old.Providers() {
		if !slices.ContainsFunc(c.directory.Named(p.Name), func(q *directory.Provider) bool { return strings.EqualFold(p.Unit, q.Unit) }) {
			gone++
		}
	}
	if n := len(old.Providers()); float64(gone) > k.o.Loss*float64(n) {
		return fmt.Errorf("%w: %d of %d records", ErrShrunk, gone, n)
	}
	return nil
}

// compareOwn looks for what others must find of us. What the directory in use
// lacks too is not asked for.
func (k *Keeper) compareOwn(old, d *directory.Directory) error {
	if k.o.Name != "" && len(old.Named(k.o.Name)) > 0 && len(d.Named(k.o.Name)) == 0 {
		return fmt.Errorf("%w: no record of %q", ErrOwn, k.o.Name)
	}
	if k.o.Certificate == nil {
		return nil
	}
	der := k.o.Certificate(k.o.Now())
	was, had := old.ByCertificate(der)
	p, ok := d.ByCertificate(der)
	// A record that has our certificate and our name is ours, whatever it was called.
	if had && (!ok || !strings.EqualFold(p.Name, was.Name) && p.Name != k.o.Name) {
		return fmt.Errorf("%w: not the certificate that we sign with", ErrOwn)
	}
	return nil
}

// diff lists the domains that d has in another way than old, which may be nil.
func diff(old, d *directory.Directory) *Change {
	c := &Change{Taken: true}
	if old == nil {
		return c
	}
	for _, p := range d.Providers() {
		for _, domain := range p.Domains {
			was, ok := old.ProviderOf(domain)
			switch {
			case !ok:
				c.Added = append(c.Added, domain)
			case was.Name != p.Name || was.Unit != p.Unit:
				c.Moved = append(c.Moved, domain)
			}
		}
	}
	for _, p := range old.Providers() {
		for _, domain := range p.Domains {
			if _, ok := d.ProviderOf(domain); !ok {
				c.Removed = append(c.Removed, domain)
			}
		}
	}
	slices.Sort(c.Added)
	slices.Sort(c.Removed)
	slices.Sort(c.Moved)
	return c
}

// Run updates the directory every Interval, and after a failure every Retry,
// until ctx ends. It returns the cause of that. The first update is due an
// Interval after the one in use was last checked, or was looked for.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.o.After(k.pause()):
		}
		if _, err := k.Update(ctx, false); err != nil && ctx.Err() == nil {
			k.o.Log.Warn("directory not updated; the last good one stays in use", "error", err)
		}
	}
}

// pause returns how long there is nothing to do.
func (k *Keeper) pause() time.Duration {
	st := k.Status()
	if st.Failures > 0 {
		return k.spread(k.o.Retry)
	}
	if st.Checked.IsZero() {
		return 0
	}
	last := st.Checked
	if st.Tried.After(last) { // a file is as old as it is, however often it is read
		last = st.Tried
	}
	return max(k.spread(k.o.Interval)-k.o.Now().Sub(last), 0)
}

// spread makes d up to a tenth shorter, so that the providers do not all come at
// the same minute.
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

// Export returns our own records, those of the main and of the secondary
// environments together, as the file that the authority downloads daily from our
// LDIFLocationURL; RFC 6109, 4.5. It reads its own work back before it gives it
// away.
func Export(ctx context.Context, s *signer.Signer, at time.Time, records ...directory.Provider) ([]byte, error) {
	p7m, err := s.SignRecords(ctx, records, at)
	if err != nil {
		return nil, err
	}
	ldif, _, err := signer.NewVerifier(nil).OpenData(ctx, p7m, at)
	if err != nil {
		return nil, fmt.Errorf("index: the export cannot be read back: %w", err)
	}
	if _, err := directory.Parse(ldif); err != nil {
		return nil, fmt.Errorf("index: the export cannot be read back: %w", err)
	}
	return p7m, nil
}
