package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The MTAs of Options.MTA.
const (
	MTAPostfix  = "postfix"
	MTASendmail = "sendmail"
)

// sendmailRoot is where packaging/prerequisites unpacks Debian's Sendmail: as a
// package it cannot stand beside Postfix.
const sendmailRoot = "/var/cache/pecd-demo/sendmail"

// sendmailProgram is a program of Sendmail.
func sendmailProgram(name string) string {
	return filepath.Join(sendmailRoot, "usr/libexec/sendmail", name)
}

// A Sendmail is what a MailServer has if Sendmail is its MTA.
type Sendmail struct {
	Home string // its folder: sendmail.cf and the maps
	// Where pecd listens: Sendmail refuses sockets in folders below one that all may
	// write to, so these are ports.
	Access, Gate, LMTP string // host:port
}

// planSendmail makes m's MTA a Sendmail.
func (m *MailServer) planSendmail(next func() string) {
	m.Sendmail = &Sendmail{Home: filepath.Join(m.Dir, "sendmail"), Access: next(), Gate: next(), LMTP: next()}
	m.PostfixDir, m.Maillog = "", filepath.Join(m.Dir, "sendmail", "maillog")
}

// An endpoint is a host:port for templates.
type endpoint struct{ Label, Host, Port string }

func endpointOf(label, addr string) endpoint {
	host, port, _ := net.SplitHostPort(addr) // of ours: it has both
	return endpoint{label, host, port}
}

// sendmailView is what the template of Sendmail sees.
type sendmailView struct {
	*MailServer
	CF, Home, Queue, PIDFile, TLSCA string
	Plain                           bool // no pecd
	AccessMilter, GateMilter        string
	MTA, MSA, Back, LMTP            endpoint
	Hops                            []endpoint
	SizeLimit                       int
}

func (s *Stage) writeSendmail(ctx context.Context, m *MailServer, o Options) error {
	if _, err := os.Stat(sendmailProgram("sendmail")); err != nil {
		return fmt.Errorf("%w; packaging/prerequisites sendmail unpacks it", err)
	}
	home := m.Sendmail.Home
	for _, d := range []string{home, m.sendmailQueue(), filepath.Join(m.Dir, "sock")} {
		if err := makeDir(d, 0o755); err != nil {
			return err
		}
	}
	milter := func(addr string) string {
		e := endpointOf("", addr)
		return "inet:" + e.Port + "@" + e.Host
	}
	v := sendmailView{MailServer: m, CF: filepath.Join(sendmailRoot, "usr/share/sendmail/cf"), Home: home, Queue: m.sendmailQueue(), PIDFile: m.sendmailPIDFile(),
		TLSCA: s.TLSCA, Plain: o.WithoutPecd, AccessMilter: milter(m.Sendmail.Access), GateMilter: milter(m.Sendmail.Gate),
		MTA: endpointOf("", m.SMTP), MSA: endpointOf("", m.Submission), Back: endpointOf("", m.Reinject), LMTP: endpointOf("", m.Sendmail.LMTP), SizeLimit: sizeLimit}
	ways := fmt.Sprintf("%s\tlmtpin:%s\n", m.Domain, m.Domain)
	access := "Connect:127.0.0.1\tRELAY\n"
	for _, other := range s.servers() {
		if other == m {
			continue
		}
		addr := other.SMTP
		if o.Way != nil {
			addr = o.Way(m.Domain, other.Domain, addr)
		}
		v.Hops = append(v.Hops, endpointOf(other.Label, addr))
		ways += fmt.Sprintf("%s\tto%s:%s\n", other.Domain, other.Label, other.Domain)
		if other != &s.Ordinary.MailServer {
			access += "TLS_Rcpt:" + other.Domain + "\tENCR:128\n" // between providers nothing travels in clear
		}
	}
	ways += fmt.Sprintf(".\tto%s:%s\n", s.Ordinary.Label, s.Ordinary.Domain) // the wide world refuses what it does not know
	mc, err := render("sendmail.mc", v)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"sendmail.mc": string(mc), "mailertable": ways, "access": access,
		"maillog": "", "service.switch": "hosts\tfiles\naliases\tfiles\n", "hosts": "127.0.0.1 localhost mail." + m.Domain + "\n",
		"Sendmail.conf": "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: " + m.sasldb() + "\n"} {
		if err := writeFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	cf, err := command(ctx, filepath.Join(v.CF, "cf"), nil, "m4", filepath.Join(home, "sendmail.mc"))
	if err != nil {
		return err
	}
	if err := writeFile(m.sendmailCF(), cf, 0o644); err != nil {
		return err
	}
	for _, name := range []string{"mailertable", "access"} {
		text, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			return err
		}
		if _, err := command(ctx, home, text, sendmailProgram("makemap"), "-C", m.sendmailCF(), "hash", name); err != nil {
			return err
		}
	}
	for _, u := range m.mailboxes() {
		user, realm, _ := strings.Cut(u.Address, "@")
		if _, err := command(ctx, home, []byte(u.Password), "saslpasswd2", "-f", m.sasldb(), "-p", "-c", "-u", realm, user); err != nil {
			return err
		}
	}
	return nil
}

func (m *MailServer) sendmailQueue() string { return filepath.Join(m.Sendmail.Home, "queue") }
func (m *MailServer) sendmailCF() string    { return filepath.Join(m.Sendmail.Home, "sendmail.cf") }

// endSessions ends the sessions of clients that outlive Sendmail's daemon. They would
// go on taking mail, by the configuration of before.
func (m *MailServer) endSessions(ctx context.Context) error {
	var left []process
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := until(ctx, func() bool {
		left = slices.DeleteFunc(leftovers(m.Dir), func(p process) bool { return !strings.HasPrefix(p.argv[0], "sendmail: server ") })
		for _, p := range left { // one may have ended its message only now
			_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may be gone by now, which is what we want
		}
		return len(left) == 0
	})
	if err != nil {
		return fmt.Errorf("sessions of the Sendmail of %s: %v: %w", m.Domain, left, err)
	}
	return nil
}

func (m *MailServer) sendmailPIDFile() string { return filepath.Join(m.Sendmail.Home, "sendmail.pid") }
func (m *MailServer) sasldb() string          { return filepath.Join(m.Sendmail.Home, "sasldb2") }

// command runs a program that should succeed and returns what it wrote.
func command(ctx context.Context, dir string, input []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

func (s *Stage) startSendmail(ctx context.Context, m *MailServer) error {
	if m.mtaPID() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	out := filepath.Join(m.Sendmail.Home, "start.log")
	err := launch(ctx, out, "unshare", m.asHost("-bd", "-q1s")...)
	if err != nil {
		return fmt.Errorf("Sendmail of %s: %w", m.Domain, err)
	}
	for _, addr := range []string{m.SMTP, m.Submission, m.Reinject} {
		if err := answers(ctx, addr, "220 mail."+m.Domain); err != nil {
			return fmt.Errorf("Sendmail of %s: %w%s", m.Domain, err, tail(out, 10))
		}
	}
	s.logf("%s: Sendmail runs, pid %d", m.Domain, m.mtaPID())
	return nil
}

// asHost are the arguments of unshare with which sendmail runs on a host of its own:
// it waits a minute for a host whose name has a dot.
func (m *MailServer) asHost(args ...string) []string {
	return append([]string{"--uts", "sh", "-c", `hostname "$1"; shift; exec "$@"`, "sh", "mail." + m.Domain, sendmailProgram("sendmail"), "-C", m.sendmailCF()}, args...)
}

// sendmailMessages are the control files in the queue: one for each message.
func (m *MailServer) sendmailMessages() ([]string, error) {
	var list []string
	for _, kind := range []string{"qf*", "hf*", "Qf*"} {
		files, err := filepath.Glob(filepath.Join(m.sendmailQueue(), kind))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			switch {
			case errors.Is(err, os.ErrNotExist): // it has just left
			case err != nil:
				return nil, err
			default:
				list = append(list, string(text))
			}
		}
	}
	return list, nil
}
