package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/issue"
	"pecd/points/access"
	"pecd/signer"
)

// An installation is all that the configuration names, read and checked. It is
// not changed after it was loaded; a reload makes a new one.
type installation struct {
	config    *config.Config
	location  *time.Location
	identity  *signer.Identity
	verifier  *signer.Verifier
	directory *directory.Directory
	provider  *directory.Provider // our own record
	issuer    issue.Issuer
}

// load reads what file names. It refuses whatever would later certify wrongly:
// an error names file, line and key where the cause was set.
func load(file string, now time.Time) (*installation, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	in := &installation{config: cfg}
	if in.location, err = time.LoadLocation(cfg.Provider.Timezone); err != nil {
		return nil, cfg.Problem("provider.timezone", err, "")
	}
	if err := in.loadIdentity(now); err != nil {
		return nil, err
	}
	anchors, _, err := signer.LoadAnchors(cfg.Trust.Anchors)
	if err != nil {
		return nil, cfg.Problem("trust.anchors", err, "name a PEM file with the CAs of providers' certificates")
	}
	var crls []*x509.RevocationList
	for _, file := range cfg.Trust.CRLs {
		list, err := signer.LoadCRL(file)
		if err != nil {
			return nil, cfg.Problem("trust.crls", err, "name files with revocation lists, PEM or DER")
		}
		crls = append(crls, list)
	}
	in.verifier = signer.NewVerifier(anchors).WithCRLs(crls)
	if err := in.loadDirectory(now); err != nil {
		return nil, err
	}
	in.issuer = issue.Issuer{Name: cfg.Provider.Name, Address: in.identity.Address(), ItalianOnly: !*cfg.Provider.English}
	return in, nil
}

func (in *installation) loadIdentity(now time.Time) error {
	cfg := in.config
	id, err := signer.LoadPEM(cfg.Signer.Key, cfg.Signer.Certificate, now)
	if err != nil {
		key := "signer.certificate"
		if strings.Contains(err.Error(), cfg.Signer.Key) {
			key = "signer.key"
		}
		return cfg.Problem(key, err, "")
	}
	if !id.Address().Same(pec.Address(cfg.Provider.Address())) {
		return cfg.Problem("signer.certificate", fmt.Errorf("%s: the certificate is for %s, the provider's address is %s",
			cfg.Signer.Certificate, id.Address(), cfg.Provider.Address()), "correct provider.domain, or name the right certificate")
	}
	in.identity = id
	return nil
}

// loadDirectory reads the directory and finds our own record in it: other
// providers will look us up there.
func (in *installation) loadDirectory(now time.Time) error {
	cfg := in.config
	anchors, _, err := signer.LoadAnchors(cfg.Directory.Anchors)
	if err != nil {
		return cfg.Problem("directory.anchors", err, "name a PEM file with the CAs of whoever signs the directory")
	}
	if in.directory, err = loadDirectory(cfg.Directory.File, anchors, now); err != nil {
		return cfg.Problem("directory.file", err, "fetch the directory again; the last good one stays in use only while the daemon runs")
	}
	cert := in.identity.Certificate().Raw
	if _, ok := in.directory.ByCertificate(cert); !ok {
		return cfg.Problem("signer.certificate", fmt.Errorf("the certificate is not in the directory %s: nobody would believe our signatures", cfg.Directory.File),
			"have the directory updated with the certificate, or name the certificate that is in it")
	}
	p, ok := in.directory.Signer(cert, cfg.Provider.Domain)
	if !ok {
		return cfg.Problem("provider.domain", fmt.Errorf("the directory does not give the domain %s to the provider with our certificate", cfg.Provider.Domain),
			"write a domain of our record in the directory")
	}
	if p.Name != cfg.Provider.Name {
		return cfg.Problem("provider.name", fmt.Errorf("%q; the directory calls the provider with our certificate %q", cfg.Provider.Name, p.Name),
			"write the name as the directory has it")
	}
	in.provider = p
	return nil
}

// maxDirectory bounds the signed directory, in octets.
const maxDirectory = 64 << 20

func loadDirectory(file string, anchors *x509.CertPool, now time.Time) (*directory.Directory, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxDirectory {
		return nil, fmt.Errorf("%s: %d octets, more than the %d that a directory may have", file, st.Size(), maxDirectory)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ldif, _, err := signer.OpenSignedData(data, anchors, now)
	if err != nil {
		return nil, fmt.Errorf("%s: the signature of the directory does not hold: %w", file, err)
	}
	d, err := directory.Parse(ldif)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// rules are the access point's.
func (in *installation) rules() access.Rules {
	a := in.config.Access
	return access.Rules{Directory: in.directory, Provider: in.provider, MaxSize: a.MaxSize,
		MaxRecipients: a.MaxRecipients, MaxTotal: a.MaxTotal, TrustMTA: a.SenderLogin == "mta"}
}

// configCheckCmd is pecd config check.
type configCheckCmd struct{ configFlag }

// Run loads everything that the configuration names, as serve would.
func (c *configCheckCmd) Run(std streams) error {
	in, err := load(c.Config, time.Now())
	if err != nil {
		return err
	}
	if st, err := os.Stat(in.config.Store.Path); err == nil && !st.IsDir() {
		return in.config.Problem("store.path", errors.New("not a directory"), "name a directory")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in.config.Problem("store.path", err, "")
	}
	cert := in.identity.Certificate()
	_, err = fmt.Fprintf(std.out, "%s: good\n  provider     %s\n  issues from  %s\n  certificate  valid until %s\n  directory    %d providers\n",
		c.Config, in.provider.Name, in.issuer.Address, cert.NotAfter.Format(time.DateOnly), len(in.directory.Providers()))
	return err
}

// briefHash is the hash function of a name that the configuration has checked.
func briefHash(name string) func() hash.Hash {
	if name == "sha256" {
		return sha256.New
	}
	return sha1.New
}

func newSigner(in *installation) *signer.Signer { return signer.NewSigner(in.identity) }

// needsRestart reports whether something changed that is opened only at start.
func needsRestart(old, now *config.Config) bool {
	return old.Access.Milter != now.Access.Milter || old.Access.SocketGroup != now.Access.SocketGroup || old.Access.SocketMode != now.Access.SocketMode ||
		old.Access.MaxSize != now.Access.MaxSize || old.Access.NoticeSize != now.Access.NoticeSize || old.Gate.Milter != now.Gate.Milter || old.Reception != now.Reception || old.Delivery != now.Delivery ||
		old.Courier != now.Courier || old.Store != now.Store || old.Metrics != now.Metrics
}
