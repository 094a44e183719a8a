package main

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"reflect"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/issue"
	"pecd/signer"
	"pecd/signer/libcrypto"
)

// An installation is all that the configuration names, read and checked. It is
// not changed after it was loaded, but for the directory, which is exchanged in a
// copy; a reload makes a new one.
type installation struct {
	config    *config.Config
	location  *time.Location
	signer    *signer.Signer
	trust     *trust
	directory *directory.Directory
	provider  *directory.Provider // our own record
	issuer    issue.Issuer
	sealing   *sealing
}

// A loading says what an installation is loaded for.
type loading struct {
	now func() time.Time
	log *slog.Logger // of what is kept up to date; nil: none
	// live is the daemon: it keeps on disk what others publish. Commands look at
	// that, and fetch only what is not there.
	live bool
	// fresh fetches all anew and keeps nothing: pecd config check.
	fresh bool
}

// look is how commands load an installation.
var look = loading{now: time.Now}

// load reads what file names. It refuses whatever would later certify wrongly:
// an error names file, line and key where the cause was set.
func load(ctx context.Context, file string, l loading) (*installation, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	in := &installation{config: cfg}
	if in.location, err = time.LoadLocation(cfg.Provider.Timezone); err != nil {
		return nil, cfg.Problem("provider.timezone", err, "")
	}
	if err := in.loadSigner(ctx, l.now()); err != nil {
		return nil, err
	}
	if err := in.loadTrust(ctx, l); err != nil {
		return nil, errors.Join(err, in.close())
	}
	if err := in.loadSealing(l.now); err != nil {
		return nil, errors.Join(err, in.close())
	}
	in.issuer = issue.Issuer{Name: cfg.Provider.Name, Address: in.signer.Identity().Address(), ItalianOnly: !*cfg.Provider.English}
	return in, nil
}

// close lets go of what the installation holds: sessions of a hardware module,
// fetches that run.
func (in *installation) close() error { return in.letGo()() }

// letGo returns what close does, to be done later. It keeps that alone, and not the
// directory and the rest, which may be large.
func (in *installation) letGo() func() error {
	stop := func() {}
	if in.trust != nil {
		stop = in.trust.revocation.Close
	}
	terms := in.signer.Terms()
	return func() error {
		stop()
		var errs []error
		for _, t := range terms {
			errs = append(errs, t.Identity.Close())
		}
		return errors.Join(errs...)
	}
}

// loadSigner reads the key and certificate in force and, where one is set, the one
// that follows.
func (in *installation) loadSigner(ctx context.Context, now time.Time) error {
	s := in.config.Signer
	current, err := in.loadIdentity(ctx, "signer", s.Key, now)
	if err != nil {
		return err
	}
	in.signer = signer.NewSigner(current)
	if s.Next == (config.Next{}) {
		return nil
	}
	// It need not be valid before the change.
	next, err := in.loadIdentity(ctx, "signer.next", s.Next.Key, s.Next.From)
	if err != nil {
		return errors.Join(err, current.Close())
	}
	if in.signer, err = signer.NewRenewal(current, next, s.Next.From); err != nil {
		return errors.Join(in.config.Problem("signer.next.from", err, "correct the instant of the change"), current.Close(), next.Close())
	}
	return nil
}

// loadIdentity reads the key of a table from wherever it is.
func (in *installation) loadIdentity(ctx context.Context, table string, k config.Key, now time.Time) (id *signer.Identity, err error) {
	cfg, file := in.config, k.Certificate
	key := table + ".certificate"
	switch {
	case k.PKCS12 != "":
		key, file = table+".pkcs12", k.PKCS12
		id, err = signer.LoadPKCS12(k.PKCS12, k.PasswordFile, now)
	case k.Module != "":
		id, err = signer.LoadPKCS11(ctx, signer.PKCS11{Module: k.Module, Token: k.Token, Serial: k.Serial, Key: k.KeyLabel, KeyID: k.KeyID,
			PINFile: k.PINFile, PINCredential: k.PINCredential}, k.Certificate, now)
		if err != nil && !strings.Contains(err.Error(), k.Certificate) {
			key = table + ".module"
		}
	default:
		id, err = signer.LoadPEM(k.Key, k.Certificate, now)
		if err != nil && saysFirst(err.Error(), k.Key, k.Certificate) {
			key = table + ".key"
		}
	}
	if err != nil {
		return nil, cfg.Problem(key, err, "")
	}
	if !id.Address().Same(pec.Address(cfg.Provider.Address())) {
		return nil, errors.Join(cfg.Problem(key, fmt.Errorf("%s: the certificate is for %s, the provider's address is %s",
			file, id.Address(), cfg.Provider.Address()), "correct provider.domain, or name the right certificate"), id.Close())
	}
	id.Through(libcrypto.Faster)
	return id, nil
}

// saysFirst reports whether text names the file a, and before b; of two names that
// begin alike it is the longer one.
func saysFirst(text, a, b string) bool {
	i, j := strings.Index(text, a), strings.Index(text, b)
	return i >= 0 && (j < 0 || i < j || i == j && len(a) > len(b))
}

// configCheckCmd is pecd config check.
type configCheckCmd struct{ configFlag }

// Run loads everything that the configuration names, as serve would.
func (c *configCheckCmd) Run(ctx context.Context, std streams) (err error) {
	in, err := load(ctx, c.Config, loading{now: time.Now, fresh: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if st, err := os.Stat(in.config.Store.Path); err == nil && !st.IsDir() {
		return in.config.Problem("store.path", errors.New("not a directory"), "name a directory")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in.config.Problem("store.path", err, "")
	}
	if err := in.config.CheckOwners(); err != nil {
		return err
	}
	if err := checkPlugins(ctx, in.config); err != nil {
		return err
	}
	if err := errors.Join(warnOfGroups(in.config, std.err), warnOfTimeouts(in.config, std.err)); err != nil {
		return err
	}
	now := time.Now()
	cert := in.signer.IdentityAt(now).Certificate()
	for _, t := range in.signer.Terms() {
		for _, f := range signer.CheckProfile(t.Identity.Certificate(), now) {
			if f.Severity == signer.SeverityWarning {
				if _, err := fmt.Fprintf(std.err, "warning: %s: %s\n  why: %s\n  fix: %s\n", t.Identity.Certificate().Subject, f.What, f.Why, f.Fix); err != nil {
					return err
				}
			}
		}
	}
	_, err = fmt.Fprintf(std.out, "%s: good\n  provider     %s\n  issues from  %s\n  certificate  valid until %s\n  directory    %d providers\n  plugins      %d\n",
		c.Config, in.provider.Name, in.issuer.Address, cert.NotAfter.Format(time.DateOnly), len(in.directory.Providers()), len(in.config.Plugins))
	return err
}

// warnOfGroups tells of groups that do not exist here: the daemon would not start.
func warnOfGroups(c *config.Config, to io.Writer) error {
	for _, g := range []struct{ key, name string }{{"access", c.Access.SocketGroup}, {"gate", c.Gate.SocketGroup}, {"reception", c.Reception.SocketGroup}} {
		if g.name == "" {
			continue
		}
		if _, err := user.LookupGroup(g.name); err != nil {
			if _, err := fmt.Fprintf(to, "warning: %s.socket_group: this machine has no group %q\n  why: pecd does not start, since it could not let the mail server in\n  fix: write the mail server's group, for example \"postfix\"\n", g.key, g.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// briefHash is the hash function of a name that the configuration has checked.
func briefHash(name string) func() hash.Hash {
	if name == "sha256" {
		return sha256.New
	}
	return sha1.New
}

// atStart is what the daemon reads only when it starts: a key, or all of a table.
var atStart = []struct {
	key string
	of  func(*config.Config) any
}{
	{"provider.domain", func(c *config.Config) any { return c.Provider.Domain }}, // said in greetings
	{"access.milter", func(c *config.Config) any { return c.Access.Milter }},
	{"access.socket_group", func(c *config.Config) any { return c.Access.SocketGroup }},
	{"access.socket_mode", func(c *config.Config) any { return c.Access.SocketMode }},
	{"access.max_size", func(c *config.Config) any { return c.Access.MaxSize }}, // said by the door
	{"access.notice_size", func(c *config.Config) any { return c.Access.NoticeSize }},
	{"gate.milter", func(c *config.Config) any { return c.Gate.Milter }},
	{"gate.socket_group", func(c *config.Config) any { return c.Gate.SocketGroup }},
	{"gate.socket_mode", func(c *config.Config) any { return c.Gate.SocketMode }},
	{"reception", func(c *config.Config) any { return c.Reception }},
	{"delivery.store", func(c *config.Config) any { return c.Delivery.Store }},
	{"courier", func(c *config.Config) any { return c.Courier }},
	{"store", func(c *config.Config) any { return c.Store }},
	{"time", func(c *config.Config) any { return c.Time }},
	{"metrics", func(c *config.Config) any { return c.Metrics }},
	{"log.format", func(c *config.Config) any { return c.Log.Format }},
	{"plugin", func(c *config.Config) any { return specs(c) }},
}

// needsRestart names what changed of atStart.
func needsRestart(old, now *config.Config) (keys []string) {
	for _, s := range atStart {
		if !reflect.DeepEqual(s.of(old), s.of(now)) {
			keys = append(keys, s.key)
		}
	}
	return keys
}
