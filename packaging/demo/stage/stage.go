package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ErrNotRoot says that the servers cannot be run by this user.
var ErrNotRoot = errors.New("a private Postfix and Dovecot need root: both start as root and change to their own users")

// Options says what to build. Only Dir is compulsory.
type Options struct {
	// Dir is the stage's own directory. What an earlier stage left there is
	// stopped and removed first.
	Dir string
	// PecdBinary is the pecd to run; made absolute. Empty: pecd is configured
	// and its doors are wired, but it is not started.
	PecdBinary string
	// PecdEnv is added to the environment of every pecd, as "KEY=value".
	PecdEnv []string
	// Keys says where the providers' keys are: KeysPEM, the default, KeysPKCS12 or
	// KeysSoftHSM.
	Keys string
	// MTA is the providers' MTA: MTAPostfix, the default, or MTASendmail. The ordinary
	// server always has Postfix.
	MTA string
	// WithoutPecd builds the same servers as plain mail servers: no milter, and
	// mail goes straight to Dovecot. For measuring what pecd costs.
	WithoutPecd bool
	// Milter, for servers WithoutPecd, is the name of a milter's socket in each
	// provider's folder sock; submission asks it. For measuring what others cost.
	Milter string
	// People is how many more users each provider gets: p1, p2 and so on.
	People int
	// Way, if set, says where a server finds another: an address in place of addr, such
	// as that of a link which can be cut.
	Way func(from, to, addr string) string
	// MainCF are more lines for the main.cf of each server, such as shorter timeouts.
	MainCF []string
	// Configure, if set, may change each provider's pecd configuration before
	// it is written.
	Configure func(domain string, c *PecdConfig)
	// Log receives one line per step; nil: nothing.
	Log io.Writer
}

// A Stage is the whole small world. Its methods may be called concurrently,
// but for Start, Stop and Remove.
type Stage struct {
	Dir        string // where state and env.json lie
	Root       string // where everything else lies: Dir/run, or elsewhere if Dir will not do; see place
	CA         string // PEM: the CA of the providers' certificates and of the directory's signature
	TLSCA      string // PEM: the CA of the servers' TLS certificates
	Directory  string // the signed directory of providers, DER CMS
	Alfa, Beta *Provider
	Ordinary   *Ordinary

	log   io.Writer
	logMu sync.Mutex
	keys  *authorities
	ports io.Closer // the claim on its ports; nil if another process laid it out
}

// A User is a mailbox that can log in to SMTP submission and IMAP.
type User struct {
	Address  string `json:"address"`
	Password string `json:"password"`
}

// A MailServer is a private Postfix and a private Dovecot for one domain.
type MailServer struct {
	Label      string // short name, as in directory names: "alfa"
	Domain     string
	Dir        string
	SMTP       string    // host:port as other servers reach it
	Submission string    // host:port, STARTTLS and AUTH
	Reinject   string    // host:port, the loopback listener without milters
	IMAP       string    // host:port
	Users      []User    // people's mailboxes
	Service    []User    // mailboxes of the provider itself
	PostfixDir string    // Postfix's config_directory, absolute; empty: the MTA is Sendmail
	Maillog    string    // Postfix's log
	Sendmail   *Sendmail // nil: the MTA is Postfix
	DovecotLog string
}

// A Provider is a MailServer that pecd makes a provider of certified mail.
type Provider struct {
	MailServer
	Name        string // providerName of the directory
	Certificate string // PEM, leaf and issuer
	Key         string // PEM
	Pecd        *Pecd
}

// Ordinary is the mail server that knows nothing of certified mail.
type Ordinary struct{ MailServer }

// New lays the stage out on disk: keys, directory, configurations. It starts
// nothing. If Dir holds an earlier stage, that is stopped and removed.
func New(ctx context.Context, o Options) (*Stage, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := Clean(ctx, dir); err != nil {
		return nil, fmt.Errorf("stage: cleaning %s: %w", dir, err)
	}
	root, err := place(dir)
	if err != nil {
		return nil, err
	}
	s, err := plan(dir, root, o)
	if err != nil {
		return nil, err
	}
	// The state is on disk before the first process, so that another process
	// can always stop what this one started.
	if err := s.save(); err != nil {
		return nil, err
	}
	return s, s.layOut(ctx, o)
}

// Start starts whatever does not run and returns when all of it answers. After
// an error nothing of the stage runs.
func (s *Stage) Start(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, m := range s.servers() {
		g.Go(func() error { return s.startDovecot(gctx, m) })
		g.Go(func() error { return s.startMTA(gctx, m) })
	}
	for _, p := range s.Providers() {
		if p.Pecd.Bin != "" {
			g.Go(func() error { return s.startPecd(gctx, p) })
		}
	}
	if err := g.Wait(); err != nil {
		// ctx may be over by now; what runs must end all the same.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return errors.Join(err, s.Stop(stop))
	}
	return nil
}

// Stop stops every process of the stage and leaves its files. It does nothing
// where nothing runs.
func (s *Stage) Stop(ctx context.Context) error {
	var g errgroup.Group
	for _, p := range s.Providers() {
		g.Go(func() error { return p.Pecd.Stop(ctx) })
	}
	for _, m := range s.servers() {
		g.Go(func() error { return s.stopMTA(ctx, m) })
		g.Go(func() error { return stopDovecot(ctx, m) })
	}
	err := g.Wait()
	return errors.Join(err, sweep(ctx, s.Root))
}

// Remove stops the stage and removes its files.
func (s *Stage) Remove(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if s.ports != nil {
		// Removing twice closes twice; that the claim is gone is all that matters.
		_ = s.ports.Close()
	}
	return s.erase()
}

// Alive reports whether every process of the stage runs.
func (s *Stage) Alive() bool {
	for _, m := range s.servers() {
		if m.mtaPID() == 0 || m.dovecotPID() == 0 {
			return false
		}
	}
	for _, p := range s.Providers() {
		if p.Pecd.Bin != "" && p.Pecd.PID() == 0 {
			return false
		}
	}
	return true
}

// Providers returns Alfa and Beta.
func (s *Stage) Providers() []*Provider { return []*Provider{s.Alfa, s.Beta} }

func (s *Stage) servers() []*MailServer {
	return []*MailServer{&s.Alfa.MailServer, &s.Beta.MailServer, &s.Ordinary.MailServer}
}

func (s *Stage) logf(format string, args ...any) {
	if s.log == nil {
		return
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	fmt.Fprintf(s.log, format+"\n", args...)
}
