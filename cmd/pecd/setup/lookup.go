package setup

import (
	"context"
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
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	table = strings.TrimPrefix(table, "proxy:") // the proxy answers only while Postfix runs
	out, err := run(ctx, "postmap", "-c", p.Dir, "-q", key, table)
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(out), true
}

// Broken returns the error of a table that cannot be read; nil if it can be.
func (p *Postfix) Broken(ctx context.Context, table string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := run(ctx, "postmap", "-c", p.Dir, "-q", "pecd-doctor.invalid", strings.TrimPrefix(table, "proxy:"))
	if err != nil && strings.Contains(err.Error(), "fatal") {
		return err
	}
	return nil // exit code 1 alone says that there is no such key
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

// Class returns the list in which a domain stands; "" if Postfix does not take mail
// for it.
func (p *Postfix) Class(ctx context.Context, domain string) string {
	for _, c := range classes {
		if p.Lists(ctx, p.Get(c.domains), domain) {
			return c.domains
		}
	}
	return ""
}

// Route returns the transport that delivers to a domain.
func (p *Postfix) Route(ctx context.Context, domain string) string {
	if v, ok := p.Lookup(ctx, p.Get("transport_maps"), domain); ok && v != ":" && v != "" {
		return v
	}
	class := p.Class(ctx, domain)
	for _, c := range classes {
		if c.domains == class {
			return p.Get(c.transport)
		}
	}
	return p.Get("default_transport")
}

// RoutesTo reports whether a domain's mail goes to pecd's LMTP socket.
func (p *Postfix) RoutesTo(ctx context.Context, domain, lmtp string) bool {
	name, hop, _ := strings.Cut(p.Route(ctx, domain), ":")
	s := p.Service(name, "unix")
	if s == nil || s.Program != "lmtp" {
		return false
	}
	return p.Reaches(s, hop, lmtp) || p.Reaches(s, "inet:"+strings.NewReplacer("[", "", "]", "").Replace(strings.TrimPrefix(hop, "inet:")), lmtp)
}

// TLSPolicy returns Postfix's TLS level towards a domain. Postfix looks for the next
// hop, as the transport has it, and then for the domains above.
func (p *Postfix) TLSPolicy(ctx context.Context, domain string) string {
	maps, key := p.Get("smtp_tls_policy_maps"), domain
	if _, hop, _ := strings.Cut(p.Route(ctx, domain), ":"); hop != "" {
		key = hop
	} else if relay := p.Get("relayhost"); relay != "" {
		key = relay
	}
	for key != "" && maps != "" {
		if v, ok := p.Lookup(ctx, maps, key); ok {
			if f := strings.Fields(v); len(f) > 0 {
				return f[0]
			}
		}
		_, parent, ok := strings.Cut(strings.TrimPrefix(key, "."), ".")
		if !ok || strings.HasPrefix(key, "[") {
			break
		}
		key = "." + parent
	}
	return p.Get("smtp_tls_security_level")
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
