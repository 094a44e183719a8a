package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pecd/cmd/pecd/setup"
)

// submission looks at the services where users log in.
func (v *visit) submission() {
	p := v.Postfix
	list := p.Submissions(v.want.Reinject)
	if len(list) == 0 {
		v.add("submission-missing", "no service of Postfix's lets users log in and send")
	}
	for _, s := range list {
		v.accessMilter(s)
		if m := p.In(s, "milter_mail_macros"); !strings.Contains(m, "{auth_authen}") {
			v.add("auth-macro", "%s: milter_mail_macros is %q, without {auth_authen}", s.Key(), m)
		}
		if t := p.In(s, "smtpd_milter_maps"); t != "" {
			v.add("milter-maps", "%s: smtpd_milter_maps = %s replaces the milters for the clients in it", s.Key(), t)
		}
		if p.Knows("smtpd_forbid_bare_newline") && p.In(s, "smtpd_forbid_bare_newline") != "reject" {
			v.add("bare-newline", "%s: smtpd_forbid_bare_newline is %q", s.Key(), p.In(s, "smtpd_forbid_bare_newline"))
		}
		v.senders(s)
		if p.In(s, "smtpd_sasl_auth_enable") != "yes" {
			v.add("no-login", "%s: smtpd_sasl_auth_enable is %q", s.Key(), p.In(s, "smtpd_sasl_auth_enable"))
		}
		v.cleanup(s)
	}
}

// senders looks whether Postfix holds users to addresses of their own, where that is left
// to it, and whether it has a table to look them up in, also where it is not.
func (v *visit) senders(s *setup.Service) {
	p := v.Postfix
	if checked := p.In(s, "smtpd_sender_restrictions"); v.want.MTAChecksSender && !setup.ChecksSender(checked) {
		v.add("sender-login", "%s: access.sender_login is \"mta\", and smtpd_sender_restrictions is %q, with no reject_sender_login_mismatch before what permits", s.Key(), checked)
	}
	for _, name := range []string{"smtpd_sender_restrictions", "smtpd_relay_restrictions", "smtpd_recipient_restrictions"} {
		if setup.ChecksSender(p.In(s, name)) && p.In(s, "smtpd_sender_login_maps") == "" {
			v.add("sender-table", "%s: %s is %q, and smtpd_sender_login_maps is empty", s.Key(), name, p.In(s, name))
		}
	}
}

// accessMilter looks for the access point in a submission service.
func (v *visit) accessMilter(s *setup.Service) {
	p, all := v.Postfix, setup.Milters(v.Postfix.In(s, "smtpd_milters"))
	m, at := p.FindMilter(s, v.want.Access)
	if !p.Reachable(s, v.want.Access) {
		v.add("socket-chroot", "%s runs in the chroot %s and cannot reach %s", s.Key(), p.QueueDir(), v.want.Access)
		// It is there by name, then, or it is not.
		at = slices.IndexFunc(all, func(m setup.Milter) bool { return m.Address == v.want.Access })
		if at >= 0 {
			m = all[at]
		}
	}
	if at < 0 {
		v.add("submission-milter", "%s: smtpd_milters is %q, without %s", s.Key(), p.In(s, "smtpd_milters"), v.want.Access)
		return
	}
	if v.silenced("submission-milter", s); p.In(s, "smtpd_proxy_filter") != "" {
		v.add("submission-milter", "%s: smtpd_proxy_filter is %q; before a proxy pecd's milter sees no message", s.Key(), p.In(s, "smtpd_proxy_filter"))
	}
	v.defaultAction("submission-accept", s, m)
	if at != len(all)-1 {
		v.add("milter-order", "%s: %s comes after pecd in smtpd_milters", s.Key(), all[at+1].Address)
	}
	for _, other := range all[:at] {
		if other.Signs() {
			v.add("signer-before", "%s: the DKIM signer %s comes before pecd", s.Key(), other.Address)
		}
		if other.RunsHandlers() {
			v.handlers(s, other)
		}
	}
}

// handlers looks whether Plesk's handlers, which come before pecd, sign for a domain of
// ours: Plesk keeps the keys in a folder for each domain that it signs for.
func (v *visit) handlers(s *setup.Service, m setup.Milter) {
	for _, d := range v.want.Domains {
		if _, err := os.Stat(filepath.Join(v.HandlerKeys, d)); err == nil {
			v.add("signer-handlers", "%s: %s comes before pecd, and Plesk has a DKIM key of %s in %s", s.Key(), m.Address, d, v.HandlerKeys)
		}
	}
}

// silenced looks whether a service calls the milters that it lists.
func (v *visit) silenced(id string, s *setup.Service) {
	if v.Postfix.Silenced(s) {
		v.add(id, "%s: receive_override_options is %q; no milter is called", s.Key(), v.Postfix.In(s, "receive_override_options"))
	}
}

// strays looks whether mail passes pecd where it should not.
func (v *visit) strays() {
	for _, s := range v.Postfix.Strays(v.want) {
		v.add("milter-stray", "%s calls pecd: smtpd_milters is %q", s.Key(), v.Postfix.In(s, "smtpd_milters"))
	}
}

// defaultAction looks at what happens while pecd is away. Postfix 3.11 and later
// have shutdown, which delays as well.
func (v *visit) defaultAction(id string, s *setup.Service, m setup.Milter) {
	action, whose := m.Options["default_action"], "the milter"
	if action == "" {
		action, whose = v.Postfix.In(s, "milter_default_action"), "milter_default_action"
	}
	if action != "tempfail" && action != "shutdown" {
		v.add(id, "%s: %s says %q for when pecd is away", s.Key(), whose, action)
	}
}

// cleanup looks at the cleanup service behind a submission service.
func (v *visit) cleanup(s *setup.Service) {
	p := v.Postfix
	name := p.In(s, "cleanup_service_name")
	c := p.Service(name, "unix")
	if c == nil {
		v.add("cleanup-missing", "%s: cleanup_service_name is %q, and there is no such service", s.Key(), name)
		return
	}
	if d := p.In(c, "message_drop_headers"); d != "" {
		v.add("headers-dropped", "%s uses %s, where message_drop_headers is %q", s.Key(), c.Key(), d)
	}
	if p.In(c, "disable_mime_input_processing") != "yes" || p.Knows("cleanup_replace_stray_cr_lf") && p.In(c, "cleanup_replace_stray_cr_lf") != "no" {
		v.add("original-changed", "%s uses %s, which tidies what the user sent", s.Key(), c.Key())
	}
}

// gate looks at port 25.
func (v *visit) gate() {
	p := v.Postfix
	list := p.Port25(v.want.Reinject)
	if len(list) == 0 {
		v.add("port25-missing", "no service of Postfix's listens at port 25")
	}
	for _, s := range p.Port25Logins(v.want.Reinject) {
		v.add("port25-login", "%s: smtpd_sasl_auth_enable is yes; what users send there does not pass pecd", s.Key())
	}
	for _, s := range list {
		if words := strings.ToLower(p.In(s, "smtpd_discard_ehlo_keywords")); strings.Contains(words, "8bitmime") || strings.Contains(words, "starttls") {
			v.add("ehlo-keywords", "%s: smtpd_discard_ehlo_keywords is %q", s.Key(), words)
		}
		if level := p.In(s, "smtpd_tls_security_level"); (level == "" || level == "none") && p.In(s, "smtpd_use_tls") != "yes" {
			v.add("server-tls", "%s offers no TLS", s.Key())
		}
		if v.want.Gate == "" {
			continue
		}
		if !p.Reachable(s, v.want.Gate) {
			v.add("socket-chroot", "%s runs in the chroot %s and cannot reach %s", s.Key(), p.QueueDir(), v.want.Gate)
			continue
		}
		if m, at := p.FindMilter(s, v.want.Gate); at < 0 {
			v.add("gate-milter", "%s: smtpd_milters is %q, without %s", s.Key(), p.In(s, "smtpd_milters"), v.want.Gate)
		} else {
			v.silenced("gate-milter", s)
			v.defaultAction("gate-accept", s, m)
		}
	}
}

// listener looks at where signed messages come back.
func (v *visit) listener() {
	p := v.Postfix
	if !strings.HasPrefix(v.want.Reinject, "inet:") {
		return // whether it answers is seen elsewhere
	}
	s := p.Listener(v.want.Reinject)
	if s == nil {
		v.add("listener-missing", "master.cf has no smtpd at %s (courier.mta)", v.want.Reinject)
		return
	}
	if !setup.Loopback(s) && !setup.ForPecd(p.In(s, "mynetworks"), v.want.Reinject) {
		v.add("listener-open", "%s takes mail from %q, and listens beyond this machine", s.Key(), p.In(s, "mynetworks"))
	}
	if p.DemandsTLS(s) {
		v.add("listener-tls", "%s: smtpd_tls_security_level is %q, smtpd_enforce_tls %q; pecd hands in without TLS", s.Key(), p.In(s, "smtpd_tls_security_level"), p.In(s, "smtpd_enforce_tls"))
	}
	over := setup.Words(p.In(s, "receive_override_options"))
	for _, m := range setup.Milters(p.In(s, "smtpd_milters")) {
		switch {
		case slices.Contains(over, "no_milters") || m.Signs():
		case p.Reaches(s, m.Address, v.want.Access), p.Reaches(s, m.Address, v.want.Gate):
			v.add("listener-loop", "%s calls pecd itself: %s", s.Key(), m.Address)
		default:
			v.add("listener-milter", "%s calls the milter %s", s.Key(), m.Address)
		}
	}
	if f := p.In(s, "content_filter") + p.In(s, "smtpd_proxy_filter"); f != "" {
		v.add("listener-filter", "%s sends signed messages through %s", s.Key(), f)
	}
	for _, o := range []string{"no_header_body_checks", "no_address_mappings", "no_unknown_recipient_checks"} {
		if !slices.Contains(over, o) {
			v.add("listener-checks", "%s: receive_override_options is %q, without %s", s.Key(), strings.Join(over, ","), o)
			break
		}
	}
	if c := p.Service(p.In(s, "cleanup_service_name"), "unix"); c == nil || p.In(c, "message_drop_headers") != "" {
		v.add("listener-headers", "%s uses the cleanup service %s, which drops header fields", s.Key(), p.In(s, "cleanup_service_name"))
	}
}

// settings looks at main.cf.
func (v *visit) settings(ctx context.Context) {
	p := v.Postfix
	if n := p.Int("message_size_limit"); n != 0 && n < v.want.MinSize() {
		v.add("size-limit", "message_size_limit is %d octets; originals of %d octets (access.max_size) need %d", n, v.want.MaxSize, v.want.MinSize())
	}
	for _, m := range p.SmallMailboxes(p.Int("message_size_limit")) {
		v.add("mailbox-limit", "%s: %s is %d octets, and message_size_limit is %s", m.Service.Key(), m.Name, m.Limit, p.Get("message_size_limit"))
	}
	if n := p.Int("header_size_limit"); n < setup.MinHeaders {
		v.add("header-limit", "header_size_limit is %d octets; %d are needed", n, setup.MinHeaders)
	}
	for _, name := range []string{"smtp_line_length_limit", "lmtp_line_length_limit"} {
		if p.Get(name) != "0" {
			v.add("line-limit", "%s is %s", name, p.Get(name))
		}
	}
	if p.Get("disable_mime_output_conversion") != "yes" {
		v.add("mime-conversion", "disable_mime_output_conversion is %q", p.Get("disable_mime_output_conversion"))
	}
	for _, name := range []string{"header_checks", "mime_header_checks", "nested_header_checks", "body_checks", "smtp_header_checks", "smtp_body_checks"} {
		if p.Get(name) != "" {
			v.add("content-checks", "%s is %q", name, p.Get(name))
		}
	}
	if p.Get("local_header_rewrite_clients") != "" {
		v.add("header-rewrite", "local_header_rewrite_clients is %q", p.Get("local_header_rewrite_clients"))
	}
	v.lifetimes()
	v.bounces()
	v.tables(ctx)
}

// lifetimes looks at how long Postfix tries.
func (v *visit) lifetimes() {
	p := v.Postfix
	for _, name := range []string{"maximal_queue_lifetime", "bounce_queue_lifetime"} {
		if d := setup.Duration(p.Get(name), 24*time.Hour); d > setup.QueueLife {
			v.add("queue-lifetime", "%s is %s", name, p.Get(name))
		}
	}
	if d := setup.Duration(p.Get("maximal_backoff_time"), time.Second); d > setup.MaxPause {
		v.add("backoff", "maximal_backoff_time is %s", p.Get("maximal_backoff_time"))
	}
}

// bounces looks at whether bounces come back with what pecd knows them by.
func (v *visit) bounces() {
	p := v.Postfix
	if words := strings.ToLower(p.Get("smtpd_discard_ehlo_keywords")); strings.Contains(words, "dsn") {
		v.add("bounces", "smtpd_discard_ehlo_keywords is %q: the ENVID of envelopes is lost", words)
	}
	if p.Get("soft_bounce") == "yes" {
		v.add("bounces", "soft_bounce is yes: nothing ever comes back")
	}
	if b := p.Service("bounce", "unix"); b == nil || b.Program != "bounce" {
		v.add("bounces", "master.cf has no bounce service: failures are not told")
	}
	if n := p.Int("lmtp_destination_recipient_limit"); n != 0 && n < setup.MinRecipients {
		v.add("recipient-limit", "lmtp_destination_recipient_limit is %s", strconv.FormatInt(n, 10))
	}
}

// tables looks for tables that Postfix cannot read: it defers all mail then.
func (v *visit) tables(ctx context.Context) {
	for _, name := range []string{"transport_maps", "virtual_alias_maps", "mydestination", "virtual_mailbox_domains", "relay_domains", "smtp_tls_policy_maps", "canonical_maps", "recipient_canonical_maps", "recipient_bcc_maps"} {
		for _, t := range setup.Words(v.Postfix.Get(name)) {
			if !strings.Contains(t, ":") {
				continue
			}
			if err := v.Postfix.Broken(ctx, t); err != nil {
				v.add("table", "%s: %s: %s", name, t, text(err))
			}
		}
	}
}

// arrival looks at the way of mail for our domains, and of mail to other providers.
func (v *visit) arrival(ctx context.Context) {
	p := v.Postfix
	if s := p.Service("lmtp", "unix"); s != nil && !p.Reachable(s, v.want.LMTP) {
		v.add("socket-chroot", "%s runs in the chroot %s and cannot reach %s", s.Key(), p.QueueDir(), v.want.LMTP)
	}
	// Of what stands in a table that cannot be read nothing is known: that is told alone.
	domains := len(p.InDoubt(ctx, "mydestination", "virtual_mailbox_domains", "relay_domains")) > 0
	routes := domains || len(p.InDoubt(ctx, "transport_maps")) > 0
	p.Learn(ctx, v.want.Domains)
	for _, d := range v.want.Domains {
		if p.Class(ctx, d) == "" {
			if domains {
				continue
			}
			v.add("domain-refused", "Postfix takes no mail for %s", d)
		} else if !routes && !p.RoutesTo(ctx, d, v.want.LMTP) {
			v.add("route", "mail for %s goes to %s, not to %s", d, p.Route(ctx, d), v.want.LMTP)
		}
	}
	v.detours(ctx)
	v.bypass(ctx)
	var weak []string
	levels := p.TLSPolicies(ctx, v.want.Peers)
	for _, d := range v.want.Peers {
		if level := levels[d]; !setup.Compulsory(level) {
			weak = append(weak, d+" ("+orNone(level)+")")
		}
	}
	if len(weak) > 0 && len(p.InDoubt(ctx, "smtp_tls_policy_maps", "transport_maps")) == 0 {
		v.add("tls-policy", "towards other providers TLS is not compulsory: %s%s", strings.Join(weak[:min(maxNamed, len(weak))], ", "), more(len(weak)-maxNamed))
	}
}

// maxSample is how many domains of other providers are tried: each takes a process.
const maxSample = 20

// sample takes some of a long list, from all over it.
func sample(list []string) (some []string) {
	step := max(1, (len(list)+maxSample-1)/maxSample)
	for i := 0; i < len(list); i += step {
		some = append(some, list[i])
	}
	return some
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
