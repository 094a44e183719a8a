package setup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Routes asks Sendmail by which mailer it sends to each domain.
func (s *Sendmail) Routes(ctx context.Context, domains []string) (map[string]string, error) {
	routes := map[string]string{}
	return routes, s.parse(ctx, s.path(CFFile), domains, routes)
}

// RoutesTo reports whether a mailer is one that goes to a socket of pecd's.
func (s *Sendmail) RoutesTo(mailer, lmtp string) bool {
	m, ok := s.said.mailers[mailer]
	return ok && m.reaches(lmtp) && strings.Contains(m.Flags, "z")
}

// Relays reports whether Sendmail takes mail for a domain from others: it is in its
// class R, or below a name there, or its access table says so.
func (s *Sendmail) Relays(domain string) bool {
	if s.Local(domain) {
		return true
	}
	access := map[string]bool{}
	if file, ok := s.accessFile(); ok {
		if t, err := s.edit(file); err == nil {
			for _, line := range t.all() {
				if f := strings.Fields(line); len(f) > 1 && strings.EqualFold(f[1], "RELAY") {
					access[strings.TrimPrefix(key(line), "to:")] = true
				}
			}
		}
	}
	for name, ok := domain, true; ok; _, name, ok = strings.Cut(name, ".") {
		if slices.Contains(s.said.relayed, name) || access[name] {
			return true
		}
	}
	return false
}

// accessFile is the text of the access table.
func (s *Sendmail) accessFile() (string, bool) {
	words := strings.Fields(s.cf.tables["access"])
	if len(words) == 0 {
		return "", false
	}
	return strings.TrimSuffix(words[len(words)-1], ".db"), true
}

// Local reports whether Sendmail takes a domain for a name of this machine.
func (s *Sendmail) Local(domain string) bool { return slices.Contains(s.said.local, domain) }

// arrival plans that mail for our domains goes to the LMTP door.
func (pl *sendmailPlanner) arrival(routes map[string]string) error {
	var lost []string
	for _, d := range pl.want.Domains {
		if err := pl.stranger(d); err != nil {
			return err
		}
		if pl.s.Local(d) || !pl.s.Relays(d) {
			pl.mc.add("RELAY_DOMAIN(`"+d+"')dnl", "Sendmail takes mail for the certified domains")
		}
		if !pl.s.RoutesTo(routes[d], pl.want.LMTP) {
			lost = append(lost, d)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	file, kind, err := pl.table("mailertable", "hash -o ")
	if err != nil {
		return err
	}
	t, err := pl.s.edit(file)
	if err != nil {
		return err
	}
	t.set(lost, func(d string) string { return pecdMailer + ":" + d }, "mail for certified domains goes to pecd, and from there to the mailboxes")
	pl.rewrite(file, t.bytes(), kind, t.reasons)
	return nil
}

// stranger plans that a domain is none of this machine's own: their mail never gets to
// the mailertable.
func (pl *sendmailPlanner) stranger(domain string) error {
	if !pl.s.Local(domain) {
		return nil
	}
	file, ok := pl.localFile(domain)
	if !ok {
		return fmt.Errorf("%w: Sendmail takes %s for a name of this machine ($=w), and it stands in none of its files of names: take it out of LOCAL_DOMAIN or Cw in %s, or give the machine another name", ErrSendmail, domain, pl.s.path(MCFile))
	}
	old := lines(pl.s.files[file])
	gone, why := map[string]bool{}, map[string]string{}
	for _, line := range old {
		if slices.Contains(pl.want.Domains, key(line)) {
			gone[key(line)] = true
			why[line] = "mail for names in this file is delivered by Sendmail itself, without any receipt"
		}
	}
	if !slices.ContainsFunc(pl.plan.Files, func(f Rewrite) bool { return f.Name == file }) { // once for all domains
		rest := without(old, gone)
		pl.rewrite(file, []byte(strings.Join(append(rest, ""), "\n")), "", why)
	}
	return nil
}

// table returns the file and type of a table of Sendmail's, and plans it where there is
// none.
func (pl *sendmailPlanner) table(name, standard string) (file, kind string, err error) {
	what, ok := pl.s.cf.tables[name]
	if !ok {
		file = pl.s.path(name)
		feature := map[string]string{"access": "access_db"}[name]
		if feature == "" {
			feature = name
		}
		pl.mc.add(fmt.Sprintf("FEATURE(`%s', `%s%s')dnl", feature, standard, file), "the table "+name)
		what = standard + file
	}
	words := strings.Fields(what)
	file = strings.TrimSuffix(words[len(words)-1], ".db")
	if !slices.Contains([]string{"hash", "btree"}, words[0]) || !filepath.IsAbs(file) || slices.ContainsFunc(words[1:len(words)-1], func(w string) bool { return w[0] != '-' }) {
		return "", "", fmt.Errorf("%w: the table %s is %q; pecd setup understands hash and btree tables only. docs/sendmail.md has the lines that must be in it", ErrSendmail, name, what)
	}
	return file, words[0], nil
}

// edit reads a table.
func (s *Sendmail) edit(file string) (*tableEdit, error) {
	b, err := s.file(file)
	return editTable(b), err
}

// Unprotected are the domains of peers towards which TLS is not compulsory.
func (s *Sendmail) Unprotected(peers []string) ([]string, error) {
	file, ok := s.accessFile()
	if !ok {
		return slices.Clone(peers), nil
	}
	t, err := s.edit(file)
	if err != nil {
		return nil, err
	}
	said := map[string]string{}
	for _, line := range t.all() {
		if k := key(line); k != "" {
			said[k] = line
		}
	}
	var weak []string
	for _, d := range peers {
		if line := strings.ToUpper(said["tls_rcpt:"+d]); !strings.Contains(line, "ENCR") && !strings.Contains(line, "VERIFY") {
			weak = append(weak, d)
		}
	}
	return weak, nil
}

// policy plans compulsory TLS towards other providers, and that the limits to clients
// do not hold for pecd.
func (pl *sendmailPlanner) policy() error {
	weak, err := pl.s.Unprotected(pl.want.Peers)
	if err != nil {
		return err
	}
	limits := pl.limits()
	if len(weak) == 0 && len(limits) == 0 {
		return nil
	}
	file, kind, err := pl.table("access", "hash -T<TMPF> ")
	if err != nil {
		return err
	}
	t, err := pl.s.edit(file)
	if err != nil {
		return err
	}
	for i, d := range weak {
		weak[i] = "TLS_Rcpt:" + d
	}
	t.set(weak, func(string) string { return "ENCR:128" }, "between providers nothing travels in clear (RFC 6109, 5.3)")
	for i, name := range limits {
		limits[i] = name + ":127.0.0.1"
	}
	t.set(limits, func(string) string { return "0" }, "pecd's own deliveries are not held up")
	pl.rewrite(file, t.bytes(), kind, t.reasons)
	return nil
}

// limits are the limits to clients that Sendmail looks up in the access table.
func (pl *sendmailPlanner) limits() (list []string) {
	for _, name := range []string{"GreetPause", "ClientRate", "ClientConn"} {
		if strings.Contains(pl.s.cf.text, "! "+name+">") {
			list = append(list, name)
		}
	}
	file, ok := pl.s.accessFile()
	if !ok {
		return nil // then there is nothing in it, either
	}
	t, err := pl.s.edit(file)
	if err != nil {
		return nil // policy meets the same error
	}
	return slices.DeleteFunc(list, func(name string) bool { return t.exempts(name) })
}

// exempts reports whether clients on this machine have a limit of their own.
func (t *tableEdit) exempts(name string) bool {
	return slices.ContainsFunc([]string{"127.0.0.1", "127.0.0", "127.0", "127", "localhost"}, func(client string) bool {
		return t.has(name + ":" + client)
	})
}

// StaleTables are the tables whose text is newer than what makemap(8) made of it, and
// those of which it made nothing.
func (s *Sendmail) StaleTables() (list []string) {
	for _, what := range s.cf.tables {
		words := strings.Fields(what)
		if len(words) < 2 || !slices.Contains([]string{"hash", "btree"}, words[0]) {
			continue
		}
		file := strings.TrimSuffix(words[len(words)-1], ".db")
		if stale(file) {
			list = append(list, file)
		}
	}
	slices.Sort(list)
	return list
}

// stale reports whether what makemap(8) made of a file is older than that, or missing.
func stale(file string) bool {
	text, err := os.Stat(file)
	if err != nil {
		return false // made of something else
	}
	made, err := os.Stat(file + ".db")
	return err != nil || made.ModTime().Before(text.ModTime())
}
