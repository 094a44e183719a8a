// Package doctor looks for the ways in which an installation silently stops being a
// provider of certified mail: a milter that a panel has taken away, a socket that the
// MTA cannot reach, a disk that loses what it synced, a certificate that ends. Each
// finding says what is wrong, why it matters, and the command that mends it.
//
// It changes nothing. What it cannot find out it says, and never calls it good.
package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
	"pecd/pec/directory"
	"pecd/signer/index"
	"pecd/signer/revocation"
)

// A Severity says how bad a finding is.
type Severity string

const (
	Error   Severity = "error"   // mail is lost, delayed, or leaves uncertified
	Warning Severity = "warning" // it will be so, or a rule is not kept
	Advice  Severity = "advice"  // it would be better otherwise
)

// A Finding is one thing that is wrong. ID is stable; docs/troubleshooting.md has a
// section for each.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	What     string   `json:"what"` // what is wrong, here
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // the command that mends it, or what to do
}

// A Site is an installation as the doctor finds it. Fields may be nil where something
// could not be read; the error beside them says why.
type Site struct {
	ConfigFile string
	Config     *config.Config
	ConfigErr  error
	Loaded     *Loaded
	LoadErr    error
	Postfix    *setup.Postfix // nil without an error: not looked at
	PostfixErr error
	// Sendmail is looked at instead where it is the MTA.
	Sendmail    *setup.Sendmail
	SendmailErr error

	Now time.Time
	// Control asks the running daemon; see the control socket.
	Control func(ctx context.Context, path string, out any) error
	// Daemonless is what Control's error wraps when no daemon runs.
	Daemonless error
	// Resolver is asked for MX records; nil: DNS is left out.
	Resolver interface {
		LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	}
	// Dovecot returns what doveconf -n prints; nil: the mailbox store is none of this
	// machine.
	Dovecot func(ctx context.Context) (string, error)
	// Clock says how good the machine's clock is; nil: it is left out.
	Clock func() (Clock, error)
	// HandlerKeys is where Plesk keeps DKIM keys, by domain. Default: /etc/domainkeys.
	HandlerKeys string
	// Statfs asks about a filesystem. Default: statfs(2).
	Statfs func(dir string, fs *unix.Statfs_t) error
}

// Loaded is what the configuration names, as far as it could be read.
type Loaded struct {
	Certificates []*x509.Certificate // in force and to come
	Directory    *directory.Directory
	Index        index.Status
	Revocation   []revocation.Status
}

// A visit is a look at a site under way.
type visit struct {
	Site
	want  setup.Wants
	known []string // mailboxes of ours
	found []Finding
}

// Examine looks at everything and returns what is wrong, in the order in which it
// should be mended. ctx bounds all of it.
func Examine(ctx context.Context, s Site) []Finding {
	if s.Statfs == nil {
		s.Statfs = unix.Statfs
	}
	if s.HandlerKeys == "" {
		s.HandlerKeys = "/etc/domainkeys"
	}
	v := &visit{Site: s}
	if s.ConfigErr != nil {
		v.add("config", text(s.ConfigErr))
		return v.found
	}
	var d *directory.Directory
	if s.Loaded != nil {
		d = s.Loaded.Directory
	}
	v.want = setup.WantsOf(s.Config, d)
	v.keys()
	v.private()
	v.store(ctx)
	v.daemon(ctx)
	if s.PostfixErr != nil {
		v.add("postfix-unreadable", text(s.PostfixErr))
	}
	if s.Postfix != nil {
		v.submission()
		v.gate()
		v.listener()
		v.strays()
		v.settings(ctx)
		v.arrival(ctx)
	}
	if s.SendmailErr != nil {
		v.add("sendmail-unreadable", text(s.SendmailErr))
	}
	if s.Sendmail != nil {
		v.lookAtSendmail(ctx)
	}
	v.sockets(ctx)
	v.dovecot(ctx)
	v.clock()
	v.dns(ctx)
	return v.found
}

// text is an error on one line, as a finding shows it.
func text(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// add notes a finding of the catalogue. what says what is wrong here.
func (v *visit) add(id, what string, args ...any) {
	e := catalogue[id]
	if len(args) > 0 {
		what = fmt.Sprintf(what, args...)
	}
	v.found = append(v.found, Finding{ID: id, Severity: e.Severity, What: what, Why: e.Why, Fix: v.fill(fixOf(id, v.Sendmail != nil))})
}

// fill puts this installation's names into a command.
func (v *visit) fill(fix string) string {
	r := []string{"{config}", v.ConfigFile, "{postfix}", "/etc/postfix", "{store}", "/var/lib/pecd", "{access}", "unix:/run/pecd/access.sock", "{mailboxes}", "unix:/run/dovecot/lmtp", "{sendmail}", "/etc/mail", "{seals}", "/var/lib/pecd/seals"}
	if v.Sendmail != nil {
		r[11] = v.Sendmail.Dir
	}
	if v.Postfix != nil {
		r[3] = v.Postfix.Dir
	}
	if v.Config != nil {
		r[5], r[7], r[9], r[13] = v.Config.Store.Path, v.Config.Access.Milter, v.Config.Delivery.Store, v.Config.Seal.Path
	}
	return strings.NewReplacer(r...).Replace(fix)
}

// Worst is the worst severity among findings; "" if there is none.
func Worst(found []Finding) (worst Severity) {
	for _, f := range found {
		if worst == "" || f.Severity == Error || f.Severity == Warning && worst == Advice {
			worst = f.Severity
		}
	}
	return worst
}
