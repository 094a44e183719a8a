package setup

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"
)

// A Detour is a table of transport_maps by which mail for an address of a certified
// domain goes past pecd, though the domain goes there. Postfix asks all tables for the
// whole address before it asks any of them for the domain.
type Detour struct {
	Table   string
	Domain  string
	Address string // empty: the table may answer for addresses, and does not say for which
	To      string
}

// somebody is a local part that nobody has: what is answered for it is answered for all.
const somebody = "pecd-asks-for-anybody"

// Detours looks for them in the order in which Postfix asks its tables, until one of
// them leads all of a domain to pecd. addresses are mailboxes that are known.
func (p *Postfix) Detours(ctx context.Context, domains, addresses []string, lmtp string) (found []Detour) {
	open := slices.Clone(domains)
	for _, t := range Words(p.Get("transport_maps")) {
		var asked []string
		for _, d := range open {
			asked = append(asked, somebody+"@"+d)
		}
		for _, a := range addresses {
			if slices.Contains(open, domainOf(a)) {
				asked = append(asked, a)
			}
		}
		answers := p.askAll(ctx, t, asked)
		listed, all := p.List(ctx, t)
		for _, d := range slices.Clone(open) {
			aside := p.aside(ctx, t, d, answers, listed, lmtp)
			found = append(found, aside...)
			if _, everybody := answers[somebody+"@"+d]; everybody {
				open = slices.DeleteFunc(open, func(o string) bool { return o == d })
			} else if len(aside) == 0 && !all && answersUsers(t, d) {
				found = append(found, Detour{Table: t, Domain: d})
			}
		}
	}
	return found
}

// aside are the addresses of a domain that a table leads past pecd.
func (p *Postfix) aside(ctx context.Context, t, domain string, answers, listed map[string]string, lmtp string) (found []Detour) {
	seen := map[string]bool{}
	for _, m := range []map[string]string{answers, listed} {
		for _, a := range sortedKeys(m) {
			if domainOf(a) != domain || strings.HasPrefix(a, "@") || seen[a] {
				continue
			}
			seen[a] = true
			if to := p.transport(ctx, domain, m[a]); !p.leadsTo(to, lmtp) {
				found = append(found, Detour{t, domain, a, to})
			}
		}
	}
	return found
}

// List returns what is in a table, with keys in lower case, and whether that is all. The
// map must not be changed.
func (p *Postfix) List(ctx context.Context, table string) (content map[string]string, all bool) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	table = unproxied(table)
	if kind, _, _ := strings.Cut(table, ":"); !slices.Contains([]string{"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "inline"}, kind) {
		return nil, false
	}
	p.mu.Lock()
	content, known := p.listed[table]
	p.mu.Unlock()
	if known {
		return content, true
	}
	content = map[string]string{}
	out, err := run(ctx, "postmap", "-c", p.Dir, "-s", table)
	if ctx.Err() != nil {
		return content, true
	}
	defer func() {
		p.mu.Lock()
		p.listed[table] = content
		p.mu.Unlock()
	}()
	if err != nil {
		return content, true // one that cannot be read is told elsewhere
	}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			content[strings.ToLower(key)] = strings.TrimSpace(value)
		}
	}
	return content, true
}

// answersUsers reports whether a table that does not list what it has can answer for
// single addresses of a domain. A table of an SQL or LDAP server can, unless its file
// names domains (domain = ...) and not this one.
func answersUsers(table, domain string) bool {
	kind, file, _ := strings.Cut(unproxied(table), ":")
	switch kind {
	case "fail", "static", "cidr", "internal", "environ":
		return false // what static answers was seen
	case "mysql", "pgsql", "sqlite", "ldap":
		b, err := os.ReadFile(file)
		if err != nil {
			return true // also where the name of an LDAP source stands in main.cf
		}
		only := domainsOf(string(b))
		return len(only) == 0 || slices.Contains(only, domain)
	}
	return true
}

// domainsOf are the domains that the file of an SQL or LDAP table names; none where it
// names no domain, or another table.
func domainsOf(text string) (list []string) {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "domain" {
			list = Words(strings.ToLower(strings.TrimSpace(value)))
		}
	}
	if slices.ContainsFunc(list, func(w string) bool { return strings.ContainsAny(w, ":/") }) {
		return nil
	}
	return list
}

// above are a domain and, with a dot before, those above it.
func above(domain string) []string {
	list := []string{domain}
	for rest := domain; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return list
		}
		list = append(list, "."+parent)
		rest = parent
	}
}

func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
