package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// plan decides names, paths, ports and passwords; it writes nothing.
func plan(dir, root string, o Options) (*Stage, error) {
	ports, claim, err := freePorts(24)
	if err != nil {
		return nil, err
	}
	next := func() string {
		p := ports[0]
		ports = ports[1:]
		return fmt.Sprintf("127.0.0.1:%d", p)
	}
	bin := o.PecdBinary
	if bin != "" {
		if bin, err = filepath.Abs(bin); err != nil {
			return nil, errors.Join(err, claim.Close())
		}
	}
	s := &Stage{
		Dir: dir, Root: root, log: o.Log, ports: claim,
		CA: filepath.Join(root, "ca", "ca.pem"), TLSCA: filepath.Join(root, "ca", "tls-ca.pem"),
		Directory: filepath.Join(root, "igpec.ldif.p7m"),
	}
	s.Alfa = planProvider(s, "alfa", "Alfa PEC S.p.A.", []string{"alice", "anna"}, next)
	s.Beta = planProvider(s, "beta", "Beta PEC S.p.A.", []string{"bob", "bruna"}, next)
	for _, p := range s.Providers() {
		if o.MTA == MTASendmail {
			p.planSendmail(next)
			p.Pecd.Config.Access.Milter, p.Pecd.Config.Access.SocketGroup, p.Pecd.Config.Access.SocketMode = "inet:"+p.Sendmail.Access, "", ""
			p.Pecd.Config.Gate.Milter, p.Pecd.Config.Gate.SocketGroup, p.Pecd.Config.Gate.SocketMode = "inet:"+p.Sendmail.Gate, "", ""
			p.Pecd.Config.Reception.LMTP, p.Pecd.Config.Reception.SocketGroup, p.Pecd.Config.Reception.SocketMode = "inet:"+p.Sendmail.LMTP, "", ""
		}
		p.Pecd.Bin, p.Pecd.Env = bin, slices.Clone(o.PecdEnv)
		if o.Configure != nil {
			o.Configure(p.Domain, &p.Pecd.Config)
		}
	}
	for i := range o.People {
		for _, p := range s.Providers() {
			p.Users = append(p.Users, newUser(fmt.Sprintf("p%d", i+1), p.Domain))
		}
	}
	s.Ordinary = &Ordinary{planServer(root, "ordinary", []string{"mario"}, next)}
	return s, nil
}

func planServer(root, label string, people []string, next func() string) MailServer {
	dir := filepath.Join(root, label)
	m := MailServer{
		Label: label, Domain: label + ".example", Dir: dir,
		SMTP: next(), Submission: next(), Reinject: next(), IMAP: next(),
		PostfixDir: filepath.Join(dir, "postfix", "etc"),
		Maillog:    filepath.Join(dir, "postfix", "maillog"),
		DovecotLog: filepath.Join(dir, "dovecot", "dovecot.log"),
	}
	for _, name := range people {
		m.Users = append(m.Users, newUser(name, m.Domain))
	}
	return m
}

func planProvider(s *Stage, label, name string, people []string, next func() string) *Provider {
	p := &Provider{MailServer: planServer(s.Root, label, people, next), Name: name}
	// The mailbox of take-charge receipts is the first; see env.
	p.Service = []User{newUser("ricevute", p.Domain), newUser("posta-certificata", p.Domain)}
	p.Certificate = filepath.Join(p.Dir, "certificate.pem")
	p.Key = filepath.Join(p.Dir, "key.pem")
	p.Pecd = &Pecd{
		ConfigFile: filepath.Join(p.Dir, "pecd.toml"),
		Log:        filepath.Join(p.Dir, "pecd.log"),
		PIDFile:    filepath.Join(p.Dir, "pecd.pid"),
		Config:     p.pecdConfig(s, next()),
	}
	return p
}

// newUser gives a user a password that is good for one demo.
func newUser(name, domain string) User {
	return User{Address: name + "@" + domain, Password: name + "-" + rand.Text()[:12]}
}

// layOut writes everything that plan decided.
func (s *Stage) layOut(ctx context.Context, o Options) error {
	if err := s.makeKeys(); err != nil {
		return fmt.Errorf("stage: keys: %w", err)
	}
	for _, p := range s.Providers() {
		if err := p.keepKey(ctx, o.Keys); err != nil {
			return fmt.Errorf("stage: key of %s: %w", p.Domain, err)
		}
	}
	if err := s.SignDirectory(ctx, s.LDIF()); err != nil {
		return fmt.Errorf("stage: directory: %w", err)
	}
	for _, m := range s.servers() {
		if m.Sendmail != nil {
			if err := s.writeSendmail(ctx, m, o); err != nil {
				return fmt.Errorf("stage: Sendmail of %s: %w", m.Domain, err)
			}
		} else if err := s.writePostfix(m, o); err != nil {
			return fmt.Errorf("stage: Postfix of %s: %w", m.Domain, err)
		}
		if err := writeDovecot(m); err != nil {
			return fmt.Errorf("stage: Dovecot of %s: %w", m.Domain, err)
		}
	}
	for _, p := range s.Providers() {
		if err := p.writePecd(); err != nil {
			return fmt.Errorf("stage: pecd of %s: %w", p.Domain, err)
		}
	}
	return nil
}

// makeDir makes dir with exactly this mode, whatever the umask.
func makeDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// writeFile writes a file with exactly this mode, whatever the umask.
func writeFile(name string, content []byte, mode os.FileMode) error {
	if err := os.WriteFile(name, content, mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}
