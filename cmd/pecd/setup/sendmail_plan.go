package setup

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// pecdMailer is the name of the mailer that delivers to pecd.
const pecdMailer = "pecd"

// A Rewrite is a file of Sendmail's that changes.
type Rewrite struct {
	Name     string // absolute
	Old, New []byte // Old nil: there is none
	Type     string // of the table that makemap(8) makes of it; empty: none
	reasons  map[string]string
}

// A SendmailPlan is what must change in Sendmail's files. sendmail.cf and the tables
// follow from them.
type SendmailPlan struct {
	Files []Rewrite
	// Notes are what pecd setup leaves to the administrator.
	Notes []string
}

// Empty reports whether nothing must change.
func (p *SendmailPlan) Empty() bool { return len(p.Files) == 0 }

// Names lists the files that change.
func (p *SendmailPlan) Names() (list []string) {
	for _, f := range p.Files {
		list = append(list, f.Name)
	}
	return list
}

// sendmailPlanner is a plan under way.
type sendmailPlanner struct {
	s    *Sendmail
	want Wants
	mc   *mcEdit
	plan SendmailPlan
}

// Plan says what must change for pecd. It is empty where all is as it should be.
func (s *Sendmail) Plan(ctx context.Context, want Wants) (*SendmailPlan, error) {
	pl := &sendmailPlanner{s: s, want: want, mc: editMC(s.files[s.path(MCFile)])}
	if err := pl.possible(); err != nil {
		return nil, err
	}
	var routes map[string]string
	routes, err := s.Routes(ctx, want.Domains)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{pl.filters, pl.daemons, pl.settings, pl.mailers,
		func() error { return pl.arrival(routes) }, pl.policy} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	mc, err := pl.mc.bytes()
	if err != nil {
		return nil, err
	}
	pl.rewrite(s.path(MCFile), mc, "", pl.mc.reasons)
	return &pl.plan, nil
}

// possible refuses what Sendmail cannot do for pecd.
func (pl *sendmailPlanner) possible() error {
	for _, addr := range []string{pl.want.Access, pl.want.Gate, pl.want.LMTP, pl.want.Reinject} {
		if strings.ContainsAny(addr, "`',; \t$") {
			return fmt.Errorf("%w: the address %q cannot be written in sendmail.mc", ErrSendmail, addr)
		}
	}
	if !strings.HasPrefix(pl.want.Reinject, "inet:") {
		return fmt.Errorf("%w: courier.mta is %q; Sendmail listens for signed messages at inet:host:port only", ErrSendmail, pl.want.Reinject)
	}
	if pl.want.MTAChecksSender {
		return fmt.Errorf("%w: access.sender_login is \"mta\", but Sendmail does not check that users send in their own name; set it to \"match\"", ErrSendmail)
	}
	return nil
}

// rewrite plans the new content of a file.
func (pl *sendmailPlanner) rewrite(name string, content []byte, kind string, reasons map[string]string) {
	if old := pl.s.files[name]; !bytes.Equal(old, content) {
		pl.plan.Files = append(pl.plan.Files, Rewrite{Name: name, Old: old, New: content, Type: kind, reasons: reasons})
	}
}

func (pl *sendmailPlanner) note(format string, args ...any) {
	pl.plan.Notes = append(pl.plan.Notes, fmt.Sprintf(format, args...))
}

// filterTimes are how long Sendmail waits for pecd: for the connection, to send, to
// read an answer, and for the answer to a whole message, which may need a time stamp,
// a virus scan and a hardware module.
const filterTimes = "T=C:30s;S:30s;R:60s;E:300s"

// filters plans that Sendmail knows pecd's two filters.
func (pl *sendmailPlanner) filters() error {
	for _, w := range []struct{ name, addr, reason string }{
		{"pecdaccess", pl.want.Access, "pecd's access point; F=T: while it is away clients hear 451 instead of sending uncertified"},
		{"pecdgate", pl.want.Gate, "pecd's gate; F=T: while it is away other servers come again"},
	} {
		if w.addr == "" {
			continue
		}
		equates := "S=" + sendmailAddress(w.addr) + ", F=T, " + filterTimes
		x, known := pl.filter(w.addr)
		if known && x.Flags == "T" {
			continue
		}
		if !known {
			if x, known = pl.s.cf.filters[w.name]; !known {
				pl.mc.add(fmt.Sprintf("MAIL_FILTER(`%s', `%s')dnl", w.name, equates), w.reason)
				continue
			}
		}
		if !pl.mc.replace("`"+x.equates+"'", "`"+equates+"'", w.reason) {
			return fmt.Errorf("%w: the filter %s (%s) is not written in %s as one line with MAIL_FILTER or INPUT_MAIL_FILTER; pecd changes no other file for it", ErrSendmail, x.Name, x.equates, pl.s.path(MCFile))
		}
	}
	return nil
}

// filter returns the filter with an address of pecd's.
func (pl *sendmailPlanner) filter(addr string) (Filter, bool) {
	for _, x := range pl.s.cf.filters {
		if x.Address == milterAddress(sendmailAddress(addr)) {
			return x, true
		}
	}
	return Filter{}, false
}

// name is what a filter of pecd's is called once the plan is carried out.
func (pl *sendmailPlanner) name(addr, standard string) string {
	if x, ok := pl.filter(addr); ok {
		return x.Name
	}
	return standard
}

// daemons plans which filters Sendmail asks where.
func (pl *sendmailPlanner) daemons() error {
	var signers []string // that move from submission to the listener
	submissions, open := 0, false
	pl.defaults()
	for _, d := range pl.s.cf.daemons {
		if d.is(pl.want.Reinject) {
			continue
		}
		var err error
		if d.Submission() {
			submissions++
			var out []string
			if out, err = pl.ask(d, pl.want.Access, "pecdaccess", true, "pecd's access point, the last filter: it takes the message over"); err == nil {
				signers = append(signers, out...)
			}
		} else if open = open || !d.Loopback(); pl.want.Gate != "" {
			_, err = pl.ask(d, pl.want.Gate, "pecdgate", false, "pecd's gate, after the filters: it refuses ordinary mail while the sender's server still listens")
		}
		if err != nil {
			return err
		}
	}
	if submissions == 0 {
		pl.note("No daemon at which users log in was found, so one is added at port 587. See that Sendmail can check passwords (Cyrus SASL) and has a TLS certificate.")
		pl.mc.add("DAEMON_OPTIONS(`Name=submission, Port=587, M=Ea, InputMailFilters="+pl.name(pl.want.Access, "pecdaccess")+"')dnl", "the service at which users log in")
	}
	if !open {
		pl.note("No daemon listens for other servers at port 25 (one with Addr=127.0.0.1 is for this machine alone): other providers cannot reach this server.")
	}
	slices.Sort(signers)
	return pl.listener(slices.Compact(signers))
}

// defaults writes out the daemons that Sendmail has where none are named.
func (pl *sendmailPlanner) defaults() {
	for _, d := range pl.s.cf.daemons {
		switch {
		case d.text == "Port=587, Name=MSA, M=E" && !pl.mc.has(d.text):
			pl.mc.add("FEATURE(`no_default_msa')dnl", "the submission service is named, so that it can have a filter")
			pl.mc.add("DAEMON_OPTIONS(`"+d.text+"')dnl", "the service at which users log in")
		case strings.HasPrefix(d.text, "Name=MTA") && !pl.mc.has(d.text):
			pl.mc.add("DAEMON_OPTIONS(`"+d.text+"')dnl", "port 25 is named, so that it can have a filter")
		}
	}
}

// ask plans pecd's filter as the last of a daemon, and returns the DKIM signers that
// were taken out.
func (pl *sendmailPlanner) ask(d Daemon, addr, standard string, takeSigners bool, reason string) (signers []string, err error) {
	ours := pl.name(addr, standard)
	var keep []string
	for _, name := range d.Filters {
		switch {
		case name == ours:
		case takeSigners && pl.s.cf.filters[name].Signs():
			signers = append(signers, name)
		default:
			keep = append(keep, name)
		}
	}
	return signers, pl.setFilters(d, append(keep, ours), reason)
}

// setFilters plans a daemon's list of filters.
func (pl *sendmailPlanner) setFilters(d Daemon, filters []string, reason string) error {
	if d.Own && slices.Equal(d.Filters, filters) {
		return nil
	}
	var parts []string
	for part := range strings.SplitSeq(d.text, ",") {
		if k, _, _ := strings.Cut(strings.TrimSpace(part), "="); !strings.HasPrefix(strings.ToUpper(k), "I") {
			parts = append(parts, part)
		}
	}
	// Last, since an empty list is understood there only.
	text := strings.Join(parts, ",") + ", InputMailFilters=" + strings.Join(filters, ";")
	if !pl.mc.replaceDaemon(d.text, text, reason) {
		return fmt.Errorf("%w: %s (%s) is not written in %s as one line with DAEMON_OPTIONS; pecd changes no other file for it", ErrSendmail, d.Key(), d.text, pl.s.path(MCFile))
	}
	return nil
}

// has reports whether the file, or what is planned, names a daemon.
func (e *mcEdit) has(daemon string) bool {
	return slices.ContainsFunc(append(append([]string{}, e.lines...), e.added...), func(line string) bool {
		return active(line) && strings.Contains(line, "DAEMON_OPTIONS(`"+daemon+"')")
	})
}

// replaceDaemon is replace for a daemon's line, which may be a planned one.
func (e *mcEdit) replaceDaemon(old, text, reason string) bool {
	was, now := "DAEMON_OPTIONS(`"+old+"')", "DAEMON_OPTIONS(`"+text+"')"
	for i, line := range e.added {
		if strings.Contains(line, was) {
			e.added[i] = strings.Replace(line, was, now, 1)
			e.reasons[e.added[i]] = e.reasons[line] + "; " + reason
			return true
		}
	}
	return e.replace(was, now, reason)
}

// listener plans where signed messages come back: no filter but DKIM signers.
func (pl *sendmailPlanner) listener(signers []string) error {
	d, ok := pl.s.Listener(pl.want.Reinject)
	if ok {
		for _, name := range d.Filters {
			if pl.s.cf.filters[name].Signs() && !slices.Contains(signers, name) {
				signers = append(signers, name)
			}
		}
		return pl.setFilters(d, signers, "signed messages come back here: no filter may change or refuse them")
	}
	hostport := strings.TrimPrefix(pl.want.Reinject, "inet:")
	at := strings.LastIndexByte(hostport, ':')
	pl.mc.add(fmt.Sprintf("DAEMON_OPTIONS(`Name=pecd, Family=inet, Addr=%s, Port=%s, M=ACES, InputMailFilters=%s')dnl", plainHost(hostport[:at]), hostport[at+1:], strings.Join(signers, ";")),
		"signed messages come back here, on this machine only: no filter, no login, no STARTTLS, no rewriting of host names")
	return nil
}

// filesOfNames are the files from which Sendmail reads the names of this machine.
func (pl *sendmailPlanner) localFile(domain string) (string, bool) {
	for _, name := range pl.s.cf.locals {
		b, err := pl.s.file(name)
		if err == nil && slices.ContainsFunc(lines(b), func(l string) bool { return key(l) == domain }) {
			return filepath.Clean(name), true
		}
	}
	return "", false
}
