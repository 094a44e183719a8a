package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Names of the tables that pecd setup writes beside main.cf.
const (
	TransportFile = "pecd_transport"
	UsersFile     = "pecd_users_transport" // the undo removes pecd_transport*
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
	pl.pf.Learn(pl.ctx, pl.want.Domains)
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
	hop := "lmtp:" + lmtpHop(pl.pf.Address(pl.want.LMTP))
	if len(lost) > 0 || err == nil {
		content := "# Written by pecd setup postfix: what goes to pecd.\n"
		for _, d := range pl.want.Domains {
			content += d + " " + hop + "\n"
		}
		t := table{name: TransportFile, content: content, param: "transport_maps", lead: len(lost) > 0, reason: "mail for certified domains goes to pecd, and from there to the mailboxes"}
		if err := pl.table(t); err != nil {
			return err
		}
	}
	return pl.users(hop)
}

// users plans that nobody in a certified domain has a transport of his own: Postfix asks
// all tables for the whole address before it asks any for the domain.
func (pl *planner) users(hop string) error {
	_, err := os.Stat(filepath.Join(pl.pf.Dir, UsersFile))
	detours := pl.pf.Detours(pl.ctx, pl.want.Domains, nil, pl.want.LMTP)
	if len(detours) == 0 && err != nil {
		return nil
	}
	content := "# Written by pecd setup postfix: every address of a certified domain goes to pecd.\n"
	for _, d := range pl.want.Domains {
		content += "/@" + regexp.QuoteMeta(d) + "$/ " + strings.ReplaceAll(hop, "$", "$$") + "\n"
	}
	return pl.table(table{name: UsersFile, kind: "regexp", content: content, param: "transport_maps", lead: len(detours) > 0,
		reason: "Postfix asks for the whole address first: no mailbox of a certified domain may have a transport of its own, or its mail goes past pecd"})
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

// policy plans compulsory TLS towards other providers. Domains for which another table
// asks for it already, and maybe for more, are left to that.
func (pl *planner) policy() error {
	file := filepath.Join(pl.pf.Dir, PolicyFile)
	list := Words(pl.pf.Get("smtp_tls_policy_maps"))
	weak := slices.ContainsFunc(pl.want.Peers, weakIn(pl.pf.TLSPolicies(pl.ctx, pl.want.Peers)))
	if _, err := os.Stat(file); !weak && err != nil {
		return nil
	}
	others := slices.DeleteFunc(list, func(t string) bool { return strings.HasSuffix(t, ":"+file) })
	theirs := pl.pf.policies(pl.ctx, strings.Join(others, ", "), pl.want.Peers)
	var b strings.Builder
	b.WriteString("# Written by pecd setup postfix: the domains of the directory of providers.\n")
	for _, d := range pl.want.Peers {
		if !Compulsory(theirs[d]) {
			b.WriteString(d + " encrypt\n")
		}
	}
	return pl.table(table{name: PolicyFile, content: b.String(), param: "smtp_tls_policy_maps", lead: weak, reason: "between providers nothing travels in clear (RFC 6109, 5.3)"})
}

// weakIn reports of a domain whether mail for it may go in clear.
func weakIn(levels map[string]string) func(string) bool {
	return func(d string) bool { return !Compulsory(levels[d]) }
}

// A table is one that pecd setup writes, and its place in a list of tables.
type table struct {
	name, content string
	kind          string // empty: Postfix's default
	param         string // the list
	lead          bool   // another table answers before ours now
	reason        string
}

// table plans a table of ours. It comes first in the list: the first answer counts.
func (pl *planner) table(t table) error {
	file := filepath.Join(pl.pf.Dir, t.name)
	if t.kind == "" {
		t.kind = pl.pf.Get("default_database_type")
	}
	if t.kind == "" || !available("postmap") {
		return fmt.Errorf("%w: there is no postmap", ErrPostfix)
	}
	entry := t.kind + ":" + file
	old, err := os.ReadFile(file)
	// Postfix reads what postmap(1) makes of the text; for this type there may be nothing
	// yet. Postfix's programs take a second to say that something is not there.
	made := err == nil && (t.kind == "regexp" || pl.pf.Broken(pl.ctx, entry) == nil)
	if there := err == nil; there && pl.want.Partial {
		// It has domains that we do not know now; without them their mail goes past pecd.
		if line, ok := lacks(old, t.content); ok {
			return fmt.Errorf("%w: %s must have the line %q", ErrPartial, file, line)
		}
		t.content = string(old)
	}
	if err != nil || string(old) != t.content || !made {
		pl.plan.Files = append(pl.plan.Files, File{Name: t.name, Content: t.content, Type: t.kind, Reason: t.reason})
	}
	list := Words(pl.pending(t.param))
	rest := slices.DeleteFunc(slices.Clone(list), func(w string) bool { return strings.HasSuffix(w, ":"+file) }) // of whatever type
	if len(list) == len(rest)+1 && slices.Contains(list, entry) && (!t.lead || list[0] == entry) {
		return nil
	}
	pl.param(t.param, join(entry, rest...), t.reason)
	return nil
}

// lacks returns the first line of want that a table has not.
func lacks(table []byte, want string) (string, bool) {
	have := lines(table)
	for _, line := range lines([]byte(want)) {
		if !strings.HasPrefix(line, "#") && !slices.Contains(have, line) {
			return line, true
		}
	}
	return "", false
}

// pending is a setting of main.cf as it stands there or is planned.
func (pl *planner) pending(name string) string {
	for _, q := range pl.plan.Params {
		if q.Name == name {
			return q.New
		}
	}
	return pl.pf.raw[name]
}

// join appends to a list of Postfix's.
func join(list string, more ...string) string {
	if list != "" {
		more = append([]string{list}, more...)
	}
	return strings.Join(more, ", ")
}
