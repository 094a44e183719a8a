package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names of the tables that pecd setup writes beside main.cf.
const (
	TransportFile = "pecd_transport"
	PolicyFile    = "pecd_tls_policy"
)

// arrival plans that mail for our domains goes to the LMTP door.
func (pl *planner) arrival() error {
	if l := pl.pf.Service("lmtp", "unix"); l != nil {
		pl.unjail(l, pl.want.LMTP)
	} else {
		pl.add("lmtp", "unix", "lmtp", "-", "delivers to pecd")
	}
	var lost, strange []string
	for _, d := range pl.want.Domains {
		if !pl.routes(d) {
			lost = append(lost, d)
		}
		if pl.pf.Class(pl.ctx, d) == "" {
			strange = append(strange, d)
		}
	}
	if len(strange) > 0 {
		pl.param("virtual_mailbox_domains", join(pl.pf.raw["virtual_mailbox_domains"], strange...), "Postfix takes mail for the certified domains")
	}
	ours := filepath.Join(pl.pf.Dir, TransportFile)
	_, err := os.Stat(ours)
	if len(lost) == 0 && err != nil {
		return nil
	}
	content := "# Written by pecd setup postfix: what goes to pecd.\n"
	for _, d := range pl.want.Domains {
		content += d + " lmtp:" + lmtpHop(pl.pf.Address(pl.want.LMTP)) + "\n"
	}
	return pl.table(TransportFile, content, "transport_maps", true, "mail for certified domains goes to pecd, and from there to the mailboxes")
}

// routes reports whether a domain's mail will get to pecd, also once the lmtp service
// has left its chroot.
func (pl *planner) routes(domain string) bool {
	if pl.pf.RoutesTo(pl.ctx, domain, pl.want.LMTP) {
		return true
	}
	hop, ok := strings.CutPrefix(pl.pf.Route(pl.ctx, domain), "lmtp:")
	return ok && hop == pl.want.LMTP
}

// lmtpHop is how transport tables name a socket.
func lmtpHop(addr string) string {
	if hp, ok := strings.CutPrefix(addr, "inet:"); ok {
		i := strings.LastIndexByte(hp, ':')
		return "inet:[" + hp[:i] + "]" + hp[i:]
	}
	return addr
}

// policy plans compulsory TLS towards other providers.
func (pl *planner) policy() error {
	weak := slices.ContainsFunc(pl.want.Peers, func(d string) bool { return !Compulsory(pl.pf.TLSPolicy(pl.ctx, d)) })
	file := filepath.Join(pl.pf.Dir, PolicyFile)
	if _, err := os.Stat(file); !weak && err != nil {
		return nil
	}
	var b strings.Builder
	b.WriteString("# Written by pecd setup postfix: the domains of the directory of providers.\n")
	for _, d := range pl.want.Peers {
		b.WriteString(d + " encrypt\n")
	}
	return pl.table(PolicyFile, b.String(), "smtp_tls_policy_maps", false, "between providers nothing travels in clear (RFC 6109, 5.3)")
}

// table plans a table of ours and its place in a list of tables.
func (pl *planner) table(name, content, param string, first bool, reason string) error {
	file := filepath.Join(pl.pf.Dir, name)
	kind := pl.pf.Get("default_database_type")
	if kind == "" || !available("postmap") {
		return fmt.Errorf("%w: there is no postmap", ErrPostfix)
	}
	if old, err := os.ReadFile(file); err != nil || string(old) != content {
		pl.plan.Files = append(pl.plan.Files, File{Name: name, Content: content, Type: kind, Reason: reason})
	}
	entry := kind + ":" + file
	if slices.Contains(Words(pl.pf.Get(param)), entry) {
		return nil
	}
	value := join(pl.pf.raw[param], entry)
	if first {
		value = join(entry, Words(pl.pf.raw[param])...)
	}
	pl.param(param, value, reason)
	return nil
}

// join appends to a list of Postfix's.
func join(list string, more ...string) string {
	if list != "" {
		more = append([]string{list}, more...)
	}
	return strings.Join(more, ", ")
}
