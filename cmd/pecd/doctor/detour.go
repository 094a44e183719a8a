package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pecd/cmd/pecd/setup"
	"pecd/logstore"
	"pecd/pec"
)

const (
	maxKnown   = 50                 // mailboxes that are tried
	maxEntries = 2000               // of the register that are read for them
	knownSince = 7 * 24 * time.Hour // how far back
	maxNamed   = 3                  // addresses that a finding names
)

// errEnough ends a search.
var errEnough = errors.New("enough")

// mailboxes are addresses of ours that exist or must exist: Postfix can be asked for
// them only one by one.
func (v *visit) mailboxes() []string {
	own := strings.ToLower(v.Config.Provider.Domain)
	list := []string{v.Config.Provider.Address(), "ricevute@" + own}
	for _, d := range sample(v.want.Domains) {
		list = append(list, "postmaster@"+d)
	}
	list = append(list, v.known...)
	slices.Sort(list)
	return slices.Compact(list)
}

// meetMailboxes learns mailboxes from the store: those with settings, and who has
// written or received lately.
func (v *visit) meetMailboxes(ctx context.Context, r *logstore.Reader) error {
	add := func(a pec.Address) {
		if k := strings.ToLower(string(a)); len(v.known) < maxKnown && slices.Contains(v.want.Domains, a.Domain()) && !slices.Contains(v.known, k) {
			v.known = append(v.known, k)
		}
	}
	set, err := r.Policies(ctx)
	if err != nil {
		return err
	}
	for _, p := range set {
		if strings.Contains(p.Subject, "@") {
			add(pec.Address(p.Subject))
		}
	}
	n := 0
	err = r.Search(ctx, logstore.Query{Since: v.Now.Add(-knownSince)}, func(e logstore.Entry) error {
		add(e.Sender)
		for _, to := range e.Recipients {
			add(to.Address)
		}
		if n++; n >= maxEntries || len(v.known) >= maxKnown {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// detours looks for mailboxes whose mail goes past pecd, though that for their domain
// goes there.
func (v *visit) detours(ctx context.Context) {
	var domains []string // those that go past pecd altogether are told already
	for _, d := range v.want.Domains {
		if v.Postfix.RoutesTo(ctx, d, v.want.LMTP) {
			domains = append(domains, d)
		}
	}
	type place struct{ table, domain string }
	var order []place
	ways := map[place][]setup.Detour{}
	for _, d := range v.Postfix.Detours(ctx, domains, v.mailboxes(), v.want.LMTP) {
		at := place{d.Table, d.Domain}
		if len(ways[at]) == 0 {
			order = append(order, at)
		}
		ways[at] = append(ways[at], d)
	}
	for _, at := range order {
		list := ways[at]
		if list[0].Address == "" {
			v.add("route-unknown", "transport_maps: %s may have transports for single mailboxes of %s, and does not say for which", at.table, at.domain)
			continue
		}
		var named []string
		for _, d := range list[:min(maxNamed, len(list))] {
			named = append(named, d.Address+" goes to "+d.To)
		}
		v.add("route-user", "transport_maps: by %s mail for %s%s", at.table, strings.Join(named, ", "), more(len(list)-maxNamed))
	}
}

// more says how many are not named.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}
