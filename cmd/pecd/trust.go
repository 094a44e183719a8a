package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/cmd/pecd/config"
	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/fetch"
	"pecd/signer/index"
	"pecd/signer/revocation"
)

// trust is what others publish and an installation relies on: the directory of
// the providers and what was revoked.
type trust struct {
	verifier   *signer.Verifier
	revocation *revocation.Keeper
	index      *index.Keeper
	// changed hears of a new directory, once it is set.
	changed atomic.Pointer[func(*directory.Directory)]
}

// published is where the daemon keeps what others publish.
func published(cfg *config.Config) string { return filepath.Join(cfg.Store.Path, "trust") }

// loadTrust sets up what others publish, and gets the directory. Without a signer our own
// record is not looked for.
func (in *installation) loadTrust(ctx context.Context, l loading) error {
	cfg := in.config
	var cache *fetch.Cache
	switch {
	case l.live:
		// The store is not open yet; it is nobody's but ours.
		err := os.MkdirAll(cfg.Store.Path, 0o700)
		if err != nil {
			return cfg.Problem("store.path", err, "make the directory one that pecd can write to")
		}
		if cache, err = fetch.OpenCache(published(cfg), 0o644); err != nil {
			return cfg.Problem("store.path", err, "make the directory one that pecd can write to")
		}
	case !l.fresh:
		cache = fetch.ReadCache(published(cfg))
	}
	in.trust = &trust{}
	if err := in.trust.loadRevocation(cfg, l, cache); err != nil {
		return err
	}
	anchors, _, err := signer.LoadAnchors(cfg.Trust.Anchors)
	if err != nil {
		return cfg.Problem("trust.anchors", err, "name a PEM file with the CAs of providers' certificates")
	}
	in.trust.verifier = signer.NewVerifier(anchors).WithRevoker(in.trust.revocation)
	if err := in.loadIndex(l, cache); err != nil {
		return err
	}
	return in.loadDirectory(ctx, l)
}

func (t *trust) loadRevocation(cfg *config.Config, l loading, cache *fetch.Cache) error {
	client, err := fetchClient(cfg, fetch.Options{MaxSize: revocation.MaxList, Now: l.now})
	if err != nil {
		return err
	}
	o := revocation.Options{URLs: cfg.Trust.CRLURLs, Files: cfg.Trust.CRLs, Client: client, Cache: cache, Now: l.now, Random: rand.Reader,
		OCSP: revocation.OCSP(cfg.Trust.OCSP), Policy: revocation.Policy{Missing: revocation.Missing(cfg.Trust.Unknown), Grace: cfg.Trust.GraceTime()}}
	if !l.live {
		o.Cache = nil // a keeper writes what it fetches
	}
	if t.revocation, err = revocation.New(o); err != nil {
		return cfg.Problem("trust.crls", err, "name files with revocation lists, PEM or DER")
	}
	return nil
}

// fetchClient is a client after the configuration.
func fetchClient(cfg *config.Config, o fetch.Options) (*fetch.Client, error) {
	if cfg.Trust.Proxy != "" {
		u, err := url.Parse(cfg.Trust.Proxy)
		if err != nil {
			return nil, cfg.Problem("trust.proxy", err, "write http://host:port")
		}
		o.Proxy = u
	}
	return fetch.New(o), nil
}

// loadIndex sets up the keeper of the directory.
func (in *installation) loadIndex(l loading, cache *fetch.Cache) error {
	cfg, d := in.config, in.config.Directory
	anchors, _, err := signer.LoadAnchors(d.Anchors)
	if err != nil {
		return cfg.Problem("directory.anchors", err, "name a PEM file with the CAs of whoever signs the directory")
	}
	o := fetch.Options{OnlyHTTPS: true, MaxSize: signer.MaxSignedFile, Now: l.now}
	if d.TLSAnchors != "" {
		if o.Roots, _, err = signer.LoadAnchors(d.TLSAnchors); err != nil {
			return cfg.Problem("directory.tls_anchors", err, "name a PEM file with the CAs of the directory's server")
		}
	}
	if d.ClientCertificate != "" {
		o.Certificate = fetch.Files(d.ClientCertificate, d.ClientKey)
	}
	client, err := fetchClient(cfg, o)
	if err != nil {
		return err
	}
	t := in.trust
	var certificate func(at time.Time) []byte
	var usable func(d *directory.Directory) error
	if in.signer != nil { // pecd setup needs the directory and no key
		certificate = func(at time.Time) []byte { return in.signer.IdentityAt(at).Certificate().Raw }
		usable = func(d *directory.Directory) error { _, err := in.ownRecord(d, l.now()); return err }
	}
	t.index, err = index.New(index.Options{URL: d.URL, File: d.File, Client: client, Cache: cache, Log: l.log,
		Verifier: signer.NewVerifier(anchors).WithRevoker(t.revocation),
		Name:     cfg.Provider.Name, Certificate: certificate, Usable: usable,
		Loss: d.MaxLoss, Interval: d.Every(), Now: l.now, Random: rand.Reader,
		OnChange: func(d *directory.Directory) {
			if f := t.changed.Load(); f != nil {
				(*f)(d)
			}
		}})
	if err != nil {
		return cfg.Problem(directoryKey(cfg), err, "")
	}
	return nil
}

// directoryKey is the key that says where the directory comes from.
func directoryKey(cfg *config.Config) string {
	if cfg.Directory.URL != "" {
		return "directory.url"
	}
	return "directory.file"
}

// loadDirectory gets the directory and finds our own record in it. The daemon
// goes on with the last good one if there is nothing better; commands take what
// the daemon has, unless the directory is a file.
func (in *installation) loadDirectory(ctx context.Context, l loading) error {
	k, cfg := in.trust.index, in.config
	if l.live || !l.fresh && cfg.Directory.URL != "" {
		if err := k.Load(ctx); err != nil && !errors.Is(err, index.ErrNone) {
			return cfg.Problem(directoryKey(cfg), err, "")
		}
	}
	if l.live || k.Directory() == nil {
		uctx, cancel := ctx, context.CancelFunc(func() {})
		if k.Directory() != nil {
			uctx, cancel = context.WithTimeout(ctx, directoryPatience)
		}
		_, err := k.Update(uctx, false)
		cancel()
		switch {
		case err != nil && k.Directory() == nil:
			return cfg.Problem(directoryKey(cfg), fmt.Errorf("%s: not a directory whose signature and records hold: %w", cfg.Directory.File+cfg.Directory.URL, err),
				"have the directory fetched again; pecd cannot start without one")
		case err != nil && l.log != nil:
			l.log.Warn("directory not updated; the last good one stays in use", "err", err)
		}
	}
	if in.signer == nil {
		in.directory = k.Directory()
		return nil
	}
	p, err := in.ownRecord(k.Directory(), l.now())
	if err != nil {
		return err
	}
	in.directory, in.provider = k.Directory(), p
	return nil
}

// directoryPatience is how long the daemon waits for a newer directory when it has
// the last good one: mail should not wait for a server that does not answer.
const directoryPatience = 3 * time.Second

// ownRecord finds our record in a directory: other providers will look us up
// there.
func (in *installation) ownRecord(d *directory.Directory, now time.Time) (*directory.Provider, error) {
	cfg, cert := in.config, in.signer.IdentityAt(now).Certificate()
	if _, ok := d.ByCertificate(cert.Raw); !ok {
		return nil, cfg.Problem("signer.certificate", fmt.Errorf("the certificate is not in the directory %s: nobody would believe our signatures", cfg.Directory.File+cfg.Directory.URL),
			"have the directory updated with the certificate, or name the certificate that is in it")
	}
	p, ok := d.Signer(cert.Raw, cfg.Provider.Domain)
	if !ok {
		return nil, cfg.Problem("provider.domain", fmt.Errorf("the directory does not give the domain %s to the provider with our certificate", cfg.Provider.Domain),
			"write a domain of our record in the directory")
	}
	if p.Name != cfg.Provider.Name {
		return nil, cfg.Problem("provider.name", fmt.Errorf("%q; the directory calls the provider with our certificate %q", cfg.Provider.Name, p.Name),
			"write the name as the directory has it")
	}
	return p, nil
}

// with is the installation with another directory.
func (in *installation) with(d *directory.Directory, now time.Time) (*installation, error) {
	p, err := in.ownRecord(d, now)
	if err != nil {
		return nil, err
	}
	c := *in
	c.directory, c.provider = d, p
	return &c, nil
}

// run looks at all lists anew, and keeps everything up to date until ctx is done.
func (t *trust) run(ctx context.Context, log *slog.Logger) error {
	var g errgroup.Group
	g.Go(func() error {
		if err := t.revocation.Refresh(ctx); err != nil && ctx.Err() == nil {
			log.Warn("revocation lists not fetched; what is known stays in use", "err", err)
		}
		return t.revocation.Run(ctx)
	})
	g.Go(func() error { return t.index.Run(ctx) })
	return g.Wait()
}
