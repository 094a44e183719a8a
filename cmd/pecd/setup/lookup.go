package setup

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Lookup asks the tables of a Postfix list, such as transport_maps, in their order.
func (p *Postfix) Lookup(ctx context.Context, list, key string) (string, bool) {
	for _, table := range Words(list) {
		if v, ok := p.ask(ctx, table, key); ok {
			return v, true
		}
	}
	return "", false
}

// ask asks one table by postmap(1). A table that cannot be read has no answer: the
// doctor says so elsewhere.
func (p *Postfix) ask(ctx context.Context, table, key string) (string, bool) {
	v, ok := p.askAll(ctx, table, []string{key})[key]
	return v, ok
}

// Answers asks the tables of a list for many keys. For each the first table that has it
// counts.
func (p *Postfix) Answers(ctx context.Context, list string, keys []string) map[string]string {
	all := map[string]string{}
	for _, table := range Words(list) {
		rest := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { _, ok := all[k]; return ok })
		maps.Copy(all, p.askAll(ctx, table, rest))
	}
	return all
}

// A question is what a table was asked, and an answer what it said. A Postfix is what it
// was when it was read: nothing is asked twice.
type (
	question struct{ table, key string }
	answer   struct {
		value string
		found bool
	}
)

// askAll asks one table for many keys, in one process.
func (p *Postfix) askAll(ctx context.Context, table string, keys []string) map[string]string {
	answers := map[string]string{}
	var open []string
	p.mu.Lock()
	for _, k := range keys {
		if a, ok := p.asked[question{table, k}]; !ok {
			open = append(open, k)
		} else if a.found {
			answers[k] = a.value
		}
	}
	p.mu.Unlock()
	if len(open) == 0 {
		return answers
	}
	said := p.postmap(ctx, table, open)
	if ctx.Err() != nil {
		return answers
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried[table] = true
	for _, k := range open {
		v, ok := said[k]
		p.asked[question{table, k}] = answer{v, ok}
		if ok {
			answers[k] = v
		}
	}
	return answers
}

// postmap has postmap(1) ask a table.
func (p *Postfix) postmap(ctx context.Context, table string, keys []string) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+time.Duration(len(keys))*10*time.Millisecond)
	defer cancel()
	answers := map[string]string{}
	out, err := runWith(ctx, strings.NewReader(strings.Join(keys, "\n")+"\n"), "postmap", "-c", p.Dir, "-q", "-", unproxied(table))
	if err != nil {
		// Exit code 1 alone says that there is no such key.
		var exit *exec.ExitError
		if strings.Contains(err.Error(), "fatal") || !errors.As(err, &exit) || exit.ExitCode() != 1 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.broken[table] = err
		}
		return answers
	}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			answers[key] = strings.TrimSpace(value)
		}
	}
	return answers
}

// unproxied is a table as postmap(1) reads it: the proxy answers only while Postfix runs.
func unproxied(table string) string { return strings.TrimPrefix(table, "proxy:") }

// Broken returns the error of a table that cannot be read; nil if it can be.
func (p *Postfix) Broken(ctx context.Context, table string) error {
	p.mu.Lock()
	asked := p.tried[table]
	p.mu.Unlock()
	if !asked {
		p.ask(ctx, table, "pecd-doctor.invalid")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken[table]
}

// Lists reports whether a domain is in a list of domains: by name, in a file, or in a
// table.
func (p *Postfix) Lists(ctx context.Context, list, domain string) bool {
	for _, w := range Words(list) {
		switch {
		case strings.EqualFold(w, domain):
			return true
		case filepath.IsAbs(w):
			if b, err := os.ReadFile(w); err == nil && slices.Contains(strings.Fields(string(b)), domain) {
				return true
			}
		case strings.Contains(w, ":"):
			if _, ok := p.ask(ctx, w, domain); ok {
				return true
			}
		}
	}
	return false
}

// classes are Postfix's address classes: the lists of domains, and what delivers to
// each.
var classes = []struct{ domains, transport string }{
	{"mydestination", "local_transport"},
	{"virtual_mailbox_domains", "virtual_transport"},
	{"relay_domains", "relay_transport"},
}

// Learn asks the tables for all of these domains at once: Class and Route then know what
// they say, and need not start a program for each domain.
func (p *Postfix) Learn(ctx context.Context, domains []string) {
	var routes []string
	for _, d := range domains {
		routes = append(routes, above(d)...)
	}
	p.Answers(ctx, p.Get("transport_maps"), distinct(slices.Values(append(routes, "*"))))
	for _, c := range classes {
		var names []string
		for _, d := range domains {
			names = append(names, p.namesIn(c.domains, d)...)
		}
		for _, w := range Words(p.Get(c.domains)) {
			if strings.Contains(w, ":") && !filepath.IsAbs(w) {
				p.askAll(ctx, w, distinct(slices.Values(names)))
			}
		}
	}
}

// distinct are the names of a list, each once.
func distinct(names iter.Seq[string]) []string { return slices.Compact(slices.Sorted(names)) }

// Class returns the list in which a domain stands; "" if Postfix does not take mail
// for it.
func (p *Postfix) Class(ctx context.Context, domain string) string {
	for _, c := range classes {
		if slices.ContainsFunc(p.namesIn(c.domains, domain), func(n string) bool { return p.Lists(ctx, p.Get(c.domains), n) }) {
			return c.domains
		}
	}
	return ""
}

// namesIn are the names under which the list of a class may have a domain.
func (p *Postfix) namesIn(list, domain string) []string {
	if list == "relay_domains" { // the only one of them that knows subdomains
		return p.parents(domain, list)
	}
	return []string{domain}
}

// parents are the names under which a list may have a domain: its own, and those above,
// which stand there with a dot before or, for the lists of
// parent_domain_matches_subdomains, without.
func (p *Postfix) parents(domain, list string) []string {
	names := above(domain)
	if slices.Contains(Words(p.Get("parent_domain_matches_subdomains")), list) {
		for i := range names {
			names[i] = strings.TrimPrefix(names[i], ".")
		}
	}
	return names
}

// InDoubt returns those tables of some settings that cannot be read: what was asked for in
// them is not known, and must not be taken for missing.
func (p *Postfix) InDoubt(ctx context.Context, settings ...string) (tables []string) {
	for _, name := range settings {
		for _, t := range Words(p.Get(name)) {
			if kind, _, ok := strings.Cut(t, ":"); ok && !strings.Contains(kind, "/") && p.Broken(ctx, t) != nil {
				tables = append(tables, name+": "+t)
			}
		}
	}
	return tables
}

// Route returns the transport that delivers to a domain.
func (p *Postfix) Route(ctx context.Context, domain string) string {
	keys := append(above(domain), "*") // transport(5): the domain, those above, and the wild card
	answers := p.Answers(ctx, p.Get("transport_maps"), keys)
	for _, k := range keys {
		if v, ok := answers[k]; ok {
			return p.transport(ctx, domain, v)
		}
	}
	return p.standard(ctx, domain)
}

// standard is the transport of a domain without transport_maps.
func (p *Postfix) standard(ctx context.Context, domain string) string {
	class := p.Class(ctx, domain)
	for _, c := range classes {
		if c.domains == class {
			return p.Get(c.transport)
		}
	}
	return p.Get("default_transport")
}

// transport is the transport that an answer of transport_maps means. What is empty in it
// is as it would be without those tables; transport(5).
func (p *Postfix) transport(ctx context.Context, domain, answer string) string {
	name, hop, _ := strings.Cut(answer, ":")
	if name != "" {
		return answer
	}
	standard := p.standard(ctx, domain)
	if hop == "" {
		return standard
	}
	name, _, _ = strings.Cut(standard, ":")
	return name + ":" + hop
}

// RoutesTo reports whether a domain's mail goes to pecd's LMTP socket.
func (p *Postfix) RoutesTo(ctx context.Context, domain, lmtp string) bool {
	return p.leadsTo(p.Route(ctx, domain), lmtp)
}

// leadsTo reports whether a transport delivers to pecd's LMTP socket.
func (p *Postfix) leadsTo(transport, lmtp string) bool {
	name, hop, _ := strings.Cut(transport, ":")
	s := p.Service(name, "unix")
	if s == nil || s.Program != "lmtp" {
		return false
	}
	return p.Reaches(s, hop, lmtp) || p.Reaches(s, "inet:"+strings.NewReplacer("[", "", "]", "").Replace(strings.TrimPrefix(hop, "inet:")), lmtp)
}

// Compulsory reports whether a TLS level never sends in clear.
func Compulsory(level string) bool {
	return slices.Contains([]string{"encrypt", "dane-only", "fingerprint", "verify", "secure"}, level)
}

// available reports whether a command is there.
func available(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
