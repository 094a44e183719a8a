package doctor

import (
	"context"
	"maps"
	"slices"
	"strings"

	"pecd/cmd/pecd/setup"
)

// bypass looks for what Postfix is told to do with mail on its way and does not do with
// certified mail within the provider: that goes from pecd straight to the mailbox store,
// or comes in at the listener for signed messages, which maps nothing and filters nothing.
func (v *visit) bypass(ctx context.Context) {
	v.copies(ctx)
	v.rewritten(ctx)
	if len(v.Config.Plugins) > 0 {
		return // they see what users send, wherever it goes
	}
	told := map[string]bool{}
	for _, s := range v.Postfix.Port25(v.want.Reinject) {
		if f := v.Postfix.In(s, "content_filter"); f != "" && !told[f] {
			told[f] = true
			v.add("filter-skipped", "content_filter is %q: certified mail between our own users does not pass it, and pecd has no plugin", f)
		}
	}
}

// copies looks for settings that have mail copied.
func (v *visit) copies(ctx context.Context) {
	if to := v.Postfix.Get("always_bcc"); to != "" {
		v.add("copies-skipped", "always_bcc is %q: of certified mail between our own users no copy is made", to)
	}
	for _, name := range []string{"recipient_bcc_maps", "sender_bcc_maps"} {
		if who := v.named(ctx, name); who != "" {
			v.add("copies-skipped", "%s has %s: of certified mail between our own users no copy is made", name, who)
		}
	}
}

// named says for whom of ours a list of tables has an answer; "" where for nobody.
func (v *visit) named(ctx context.Context, name string) string {
	var keys, closed []string
	for _, t := range setup.Words(v.Postfix.Get(name)) {
		answers, all := v.ours(ctx, t)
		keys = append(keys, slices.Collect(maps.Keys(answers))...)
		if !all && len(answers) == 0 {
			closed = append(closed, t)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(keys) > 0 {
		return strings.Join(keys[:min(maxNamed, len(keys))], ", ") + more(len(keys)-maxNamed)
	}
	if len(closed) > 0 {
		return strings.Join(closed, ", ") + ", which does not say for whom"
	}
	return ""
}

// ours is what a table has about certified domains, and whether that is all.
func (v *visit) ours(ctx context.Context, table string) (map[string]string, bool) {
	keys := v.mailboxes()
	for _, d := range v.want.Domains {
		keys = append(keys, "@"+d, d)
	}
	listed, all := v.Postfix.List(ctx, table)
	answers := v.Postfix.Answers(ctx, table, keys)
	for k, value := range listed {
		if slices.Contains(v.want.Domains, k[strings.LastIndexByte(k, '@')+1:]) {
			answers[k] = value
		}
	}
	return answers, all
}

// rewritten looks for tables that give certified mail another recipient.
func (v *visit) rewritten(ctx context.Context) {
	for _, name := range []string{"virtual_alias_maps", "canonical_maps", "recipient_canonical_maps"} {
		var lost, copied []string
		for _, t := range setup.Words(v.Postfix.Get(name)) {
			answers, _ := v.ours(ctx, t)
			for _, from := range slices.Sorted(maps.Keys(answers)) {
				to := setup.Words(answers[from])
				switch same := slices.ContainsFunc(to, func(a string) bool { return strings.EqualFold(a, from) }); {
				case strings.HasPrefix(from, "@") && !slices.ContainsFunc(to, func(a string) bool { return !strings.EqualFold(a, from) }):
				case strings.HasPrefix(from, "@"):
					v.add("aliases", "%s sends all of %s to %s", name, from[1:], answers[from])
				case roles(from):
				case !same && strings.Contains(from, "@"):
					lost = append(lost, from+" becomes "+answers[from])
				case same && len(to) > 1:
					copied = append(copied, from)
				}
			}
		}
		if len(lost) > 0 {
			v.add("aliases", "%s: %s%s", name, strings.Join(lost[:min(maxNamed, len(lost))], ", "), more(len(lost)-maxNamed))
		}
		if len(copied) > 0 {
			v.add("copies-skipped", "%s copies what is for %s%s: of certified mail between our own users no copy is made", name,
				strings.Join(copied[:min(maxNamed, len(copied))], ", "), more(len(copied)-maxNamed))
		}
	}
}

// roles reports whether an address is one that each domain must have, whoever reads it.
func roles(address string) bool {
	return strings.HasPrefix(address, "postmaster@") || strings.HasPrefix(address, "abuse@")
}
