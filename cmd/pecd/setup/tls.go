package setup

import (
	"context"
	"maps"
	"strings"
)

// TLSPolicies returns Postfix's TLS level towards each of many domains.
func (p *Postfix) TLSPolicies(ctx context.Context, domains []string) map[string]string {
	levels := p.policies(ctx, p.Get("smtp_tls_policy_maps"), domains)
	for _, d := range domains {
		if _, ok := levels[d]; !ok {
			levels[d] = p.Get("smtp_tls_security_level")
		}
	}
	return levels
}

// policies are the levels of those domains that the tables of a list have. Postfix looks
// for the next hop, as the transport has it, and then for the domains above.
func (p *Postfix) policies(ctx context.Context, list string, domains []string) map[string]string {
	levels := map[string]string{}
	if list == "" {
		return levels
	}
	keys := p.hops(ctx, domains)
	for len(keys) > 0 {
		answers := p.Answers(ctx, list, distinct(maps.Values(keys)))
		for d, key := range keys {
			if f := strings.Fields(answers[key]); len(f) > 0 {
				levels[d] = f[0]
				delete(keys, d)
			} else if _, parent, ok := strings.Cut(strings.TrimPrefix(key, "."), "."); ok && !strings.HasPrefix(key, "[") {
				keys[d] = "." + parent
			} else {
				delete(keys, d)
			}
		}
	}
	return levels
}

// hops are where Postfix sends what is for each domain.
func (p *Postfix) hops(ctx context.Context, domains []string) map[string]string {
	answers := p.Answers(ctx, p.Get("transport_maps"), domains)
	relay := p.Get("relayhost")
	hops := map[string]string{}
	for _, d := range domains {
		hops[d] = d
		if _, hop, _ := strings.Cut(answers[d], ":"); hop != "" {
			hops[d] = hop
		} else if relay != "" {
			hops[d] = relay
		}
	}
	return hops
}
