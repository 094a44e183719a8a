package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
)

// quickstartCmd is pecd quickstart.
type quickstartCmd struct {
	Domain      string `arg:"" help:"Certified domain; messages come from posta-certificata@DOMAIN."`
	Name        string `help:"Name of the provider. Default: one that says that it is a test." placeholder:"NAME"`
	Dir         string `help:"Directory of pecd.toml." default:"/etc/pecd" placeholder:"DIR"`
	Store       string `help:"Directory of register and outbox." default:"/var/lib/pecd" placeholder:"DIR"`
	Mailboxes   string `help:"LMTP socket of the mailbox store. Default: Dovecot's, where it is found." placeholder:"ADDRESS"`
	Key         string `help:"The provider's key, PEM. Without it a test CA without legal value is made." placeholder:"FILE"`
	Certificate string `help:"The provider's certificate, PEM." placeholder:"FILE"`
	Anchors     string `help:"CAs of the providers, PEM." placeholder:"FILE"`
	Directory   string `help:"The signed directory of providers." placeholder:"FILE"`
	DryRun      bool   `help:"Only say what would be written."`
}

// Run writes the first configuration of an installation, all of it or nothing.
func (c *quickstartCmd) Run(ctx context.Context, std streams) error {
	q := setup.Quickstart{Domain: c.Domain, Name: c.Name, Mailboxes: c.Mailboxes, Now: time.Now(), Rand: rand.Reader, Sendmail: sendmailAlone()}
	if q.Name == "" {
		q.Name = "TEST " + c.Domain
	}
	for _, p := range []struct {
		to   *string
		from string
	}{{&q.Dir, c.Dir}, {&q.Store, c.Store}, {&q.Key, c.Key}, {&q.Certificate, c.Certificate}, {&q.Anchors, c.Anchors}, {&q.Directory, c.Directory}} {
		if p.from == "" {
			continue
		}
		abs, err := filepath.Abs(p.from)
		if err != nil {
			return err
		}
		*p.to = abs
	}
	if q.Mailboxes == "" {
		var found bool
		if q.Mailboxes, found = setup.FindMailboxes(ctx); !found {
			fmt.Fprintf(std.err, "note: no LMTP socket of Dovecot answers; the configuration names %s\n", q.Mailboxes)
		}
	}
	files, err := q.Files(ctx)
	if errors.Is(err, setup.ErrUsage) {
		return fmt.Errorf("%w: %s", errUsage, strings.TrimPrefix(err.Error(), setup.ErrUsage.Error()+": "))
	}
	if err != nil {
		return err
	}
	if err := setup.CheckNew(files); err != nil {
		return err
	}
	if c.DryRun {
		for _, f := range files {
			fmt.Fprintf(std.out, "would write %s (%#o, %d octets)\n", f.Path, f.Mode, len(f.Content))
		}
		_, err := fmt.Fprintf(std.out, "\n%s", files[len(files)-1].Content)
		return err
	}
	uid, gid := daemonUser()
	if err := setup.WriteNew(files, uid, gid); err != nil {
		return err
	}
	for _, f := range files {
		fmt.Fprintln(std.out, "wrote", f.Path)
	}
	if c.Key == "" {
		fmt.Fprintln(std.out, "The key is for tests: what it signs has no legal value, and no other provider believes it.")
	}
	if c.Key != "" {
		if err := tellOwner(std.out, q.Key, uid); err != nil {
			return err
		}
	}
	file := filepath.Join(q.Dir, "pecd.toml")
	groups, mta, name := "  usermod -aG postfix pecd       # pecd gives its sockets to Postfix's group\n", "postfix", "Postfix"
	if q.Sendmail {
		groups, mta, name = "", "sendmail", "Sendmail"
	}
	if under, err := filepath.Rel(unitStore, q.Store); err != nil || under == ".." || strings.HasPrefix(under, "../") {
		groups += "  install -d -o pecd -g pecd -m 0700 " + q.Store + "    # before the next line: the unit does not start if it is not there\n"
		groups += "  systemctl edit pecd            # write: [Service], and below it ReadWritePaths=" + q.Store + "; elsewhere than below " + unitStore + " the unit may not write\n"
	}
	_, err = fmt.Fprintf(std.out, `next:
%[3]s  pecd config check --config %[1]s
  pecd setup %[4]s --config %[1]s            # shows what changes in %[5]s; --apply makes it
  systemctl enable --now pecd
  pecd doctor --config %[1]s
Make the mailboxes posta-certificata@%[2]s and ricevute@%[2]s.
`, file, c.Domain, groups, mta, name)
	return err
}

// tellOwner tells of a key that the daemon, which runs as the user uid, cannot read.
// Nothing is known of a user below 0.
func tellOwner(to io.Writer, key string, uid int) error {
	st, err := os.Stat(key)
	if err != nil || uid < 0 || config.Owner(st) == uint32(uid) {
		return nil // pecd config check tells of a key that is not there
	}
	f := config.Foreign{File: key, Owner: config.UserName(config.Owner(st)), Daemon: config.UserName(uint32(uid))}
	_, err = fmt.Fprintf(to, "%s; run:\n  %s\n", f.What(), f.Fix())
	return err
}

// unitStore is where the package's unit may write.
const unitStore = "/var/lib/pecd"

// daemonUser is who runs the daemon, if root writes for that user; -1 otherwise.
func daemonUser() (uid, gid int) {
	u, err := user.Lookup("pecd")
	me, merr := user.Current()
	if err != nil || merr != nil || me.Uid != "0" {
		return -1, -1
	}
	uid, err = strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if err != nil || gerr != nil {
		return -1, -1
	}
	return uid, gid
}
