package setup

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Param is a setting of main.cf that changes.
type Param struct {
	Name   string `json:"name"`
	Old    string `json:"old"`
	Had    bool   `json:"had"` // main.cf set it before
	New    string `json:"new"`
	Reason string `json:"reason"`
}

// An Edit is a service of master.cf that changes, or a new one.
type Edit struct {
	Key     string            `json:"key"`
	Old     string            `json:"old"` // empty: there was none
	New     string            `json:"new"`
	Reasons map[string]string `json:"reasons"` // by setting; "" is the service itself
	service *Service
}

// A File is a table that is written beside main.cf.
type File struct {
	Name    string `json:"name"` // in Postfix's directory
	Content string `json:"-"`
	Type    string `json:"type"` // of the table; one that postmap(1) must make
	Reason  string `json:"reason"`
}

// A Plan is what must change.
type Plan struct {
	Params   []Param
	Services []*Edit
	Files    []File
	// Notes are what pecd setup leaves to the administrator.
	Notes []string

	after map[string][]byte // main.cf and master.cf with it, once it was rehearsed
}

// Empty reports whether nothing must change.
func (p *Plan) Empty() bool { return len(p.Params)+len(p.Services)+len(p.Files) == 0 }

// planner is a plan under way.
type planner struct {
	ctx  context.Context
	pf   *Postfix
	want Wants
	plan Plan
}

// Plan says what must change for pecd. It is empty where all is as it should be.
func (p *Postfix) Plan(ctx context.Context, want Wants) (*Plan, error) {
	pl := &planner{ctx: ctx, pf: p, want: want}
	dkim, err := pl.submissions()
	if err != nil {
		return nil, err
	}
	if want.Gate != "" {
		pl.gates()
	}
	pl.logins()
	pl.strays()
	if err := pl.listener(dkim); err != nil {
		return nil, err
	}
	pl.settings()
	if err := pl.arrival(); err != nil {
		return nil, err
	}
	if err := pl.policy(); err != nil {
		return nil, err
	}
	return &pl.plan, pl.doubt()
}

// doubt refuses a plan that was made of what a table did not say: a domain that is not
// found because an SQL server is away looks like one that must be added.
func (pl *planner) doubt() error {
	ours := []string{TransportFile, UsersFile, PolicyFile} // those are written anew
	tables := slices.DeleteFunc(pl.pf.InDoubt(pl.ctx, "transport_maps", "mydestination", "virtual_mailbox_domains", "relay_domains", "smtp_tls_policy_maps"), func(t string) bool {
		return slices.ContainsFunc(ours, func(name string) bool { return strings.HasSuffix(t, ":"+filepath.Join(pl.pf.Dir, name)) })
	})
	if len(tables) > 0 {
		return fmt.Errorf("%w: what is set up cannot be told while these tables cannot be read (postmap -q says why): %s", ErrPostfix, strings.Join(tables, ", "))
	}
	return nil
}

// param plans a setting of main.cf.
func (pl *planner) param(name, value, reason string) {
	for i := range pl.plan.Params {
		if q := &pl.plan.Params[i]; q.Name == name {
			q.New, q.Reason = value, q.Reason+"; "+reason
			return
		}
	}
	pl.plan.Params = append(pl.plan.Params, Param{Name: name, Old: pl.pf.raw[name], Had: pl.pf.set[name], New: value, Reason: reason})
}

// edit is the edit of a service, with a copy that may be changed.
func (pl *planner) edit(s *Service, isNew bool) *Edit {
	for _, e := range pl.plan.Services {
		if e.Key == s.Key() {
			return e
		}
	}
	e := &Edit{Key: s.Key(), Reasons: map[string]string{}, service: s.clone()}
	if !isNew {
		e.Old = s.Line()
	}
	pl.plan.Services = append(pl.plan.Services, e)
	return e
}

// option plans a setting of one service.
func (pl *planner) option(s *Service, name, value, reason string) {
	e := pl.edit(s, false)
	e.service.setOption(name, value)
	e.New, e.Reasons[name] = e.service.Line(), reason
}

// ensure plans a setting unless it holds already.
func (pl *planner) ensure(s *Service, name, value, reason string) {
	if strings.Join(Words(pl.pf.In(s, name)), ",") != strings.Join(Words(value), ",") {
		pl.option(s, name, value, reason)
	}
}

// unjail plans that a service leaves the chroot, where it could not reach a socket.
func (pl *planner) unjail(s *Service, addr string) {
	if pl.pf.Reachable(s, addr) {
		return
	}
	e := pl.edit(s, false)
	e.service.Chroot = "n"
	e.New = e.service.Line()
	e.Reasons[""] = fmt.Sprintf("in its chroot %s the service cannot reach %s; to keep the chroot, have pecd open its sockets below that directory", pl.pf.QueueDir(), addr)
}

// add plans a new service; one of that name that is there is only completed.
func (pl *planner) add(name, kind, program, maxproc, reason string) *Service {
	if s := pl.pf.Service(name, kind); s != nil {
		return s
	}
	s := &Service{Name: name, Type: kind, Private: "-", Unprivileged: "-", Chroot: "n", Wakeup: "-", MaxProc: maxproc, Program: program, expanded: map[string]string{}}
	if kind == "inet" || program == "cleanup" {
		s.Private = "n"
	}
	e := pl.edit(s, true)
	e.New, e.Reasons[""] = s.Line(), reason
	return e.service
}

// milter plans pecd's milter as the last of a service, and returns the DKIM signers
// that were taken out.
func (pl *planner) milter(s *Service, want string, takeSigners bool, reason string) (signers []string) {
	pl.unjail(s, want)
	if pl.pf.Silenced(s) {
		rest := slices.DeleteFunc(Words(pl.pf.In(s, "receive_override_options")), func(o string) bool { return o == "no_milters" })
		pl.option(s, "receive_override_options", strings.Join(rest, ","), "with no_milters no milter is called")
	}
	var keep []string
	all := Milters(pl.pf.In(s, "smtpd_milters"))
	for _, m := range all {
		switch {
		case pl.pf.calls(s, m, pl.want.Access), pl.pf.calls(s, m, pl.want.Gate):
		case takeSigners && m.Signs():
			signers = append(signers, m.Text)
		default:
			keep = append(keep, m.Text)
		}
	}
	ours, at := pl.pf.FindMilter(s, want)
	if at == len(keep) && len(all) == len(keep)+1 && len(signers) == 0 && ours.Options["default_action"] == "tempfail" {
		return nil
	}
	value := strings.Join(append(keep, "{ "+pl.pf.Address(want)+", default_action=tempfail }"), ", ")
	pl.option(s, "smtpd_milters", value, reason)
	return signers
}

// submissions plans the access point. It returns the DKIM signers that must move.
func (pl *planner) submissions() (dkim []string, err error) {
	list := pl.pf.Submissions(pl.want.Reinject)
	if len(list) == 0 {
		pl.plan.Notes = append(pl.plan.Notes, "No service for users to log in was found, so a submission service is added. See that Postfix can check passwords (smtpd_sasl_type, smtpd_sasl_path) and has a TLS certificate.")
		s := pl.add("submission", "inet", "smtpd", "-", "the service at which users log in")
		pl.option(s, "smtpd_tls_security_level", "encrypt", "passwords do not travel in clear (RFC 6109, 5.3)")
		pl.option(s, "smtpd_sasl_auth_enable", "yes", "only users who log in submit certified mail")
		pl.option(s, "smtpd_client_restrictions", "permit_sasl_authenticated,reject", "only users who log in submit certified mail")
		list = []*Service{s}
	}
	for _, s := range list {
		signers := pl.milter(s, pl.want.Access, true, "pecd's access point, the last milter: it takes the message over; while it is away clients hear 451 instead of sending uncertified")
		for _, d := range signers {
			if !slices.Contains(dkim, d) {
				dkim = append(dkim, d)
			}
		}
		if err := pl.submission(s); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(list, func(s *Service) bool {
		return slices.ContainsFunc(Milters(pl.pf.In(s, "smtpd_milters")), Milter.RunsHandlers)
	}) {
		pl.plan.Notes = append(pl.plan.Notes, "Plesk's mail handlers come before pecd, and one of them signs by DKIM where Plesk is told to: what the user sent, not what leaves. Switch that off for certified domains (Mail Settings of the domain: \"Use DKIM spam protection system to sign outgoing email messages\"), and sign at the listener for signed messages, with an OpenDKIM of its own.")
	}
	c := pl.add("subcleanup", "unix", "cleanup", "0", "pecd must see every octet as the user sent it")
	for _, o := range []struct{ name, value, reason string }{
		{"message_drop_headers", "", "pecd must see Bcc, to refuse it"},
		{"cleanup_replace_stray_cr_lf", "no", "a lone CR stays as it came"},
		{"in_flow_delay", "0", "what pecd takes leaves this queue at once: Postfix must not slow its clients down for it"},
		{"disable_mime_input_processing", "yes", "MIME header fields stay as they came"},
		{"message_reject_characters", `\0`, "a NUL in a header field would cut it"},
		{"header_checks", "", "nothing is changed before pecd has seen it"},
	} {
		if pl.pf.Knows(o.name) {
			pl.ensure(c, o.name, o.value, o.reason)
		}
	}
	return dkim, nil
}

// submission plans what a submission service needs beside the milter.
func (pl *planner) submission(s *Service) error {
	pl.ensure(s, "cleanup_service_name", "subcleanup", "its own cleanup keeps every octet as it came")
	pl.ensure(s, "smtpd_proxy_filter", "", "before a proxy a milter sees no message, and nothing would be certified; against viruses pecd has plugins")
	if pl.pf.Knows("smtpd_forbid_bare_newline") && pl.pf.In(s, "smtpd_forbid_bare_newline") != "reject" {
		pl.option(s, "smtpd_forbid_bare_newline", "reject", "a lone LF would become CRLF before pecd sees it; the client is refused instead")
	}
	if pl.pf.Knows("smtpd_forbid_bare_newline_exclusions") {
		pl.ensure(s, "smtpd_forbid_bare_newline_exclusions", "", "no client is excepted from that")
	}
	return pl.senders(s)
}

// gates plans the gate at port 25.
func (pl *planner) gates() {
	list := pl.pf.Port25(pl.want.Reinject)
	if len(list) == 0 {
		pl.plan.Notes = append(pl.plan.Notes, "No service for port 25 was found: other providers cannot reach this server.")
	}
	for _, s := range list {
		pl.milter(s, pl.want.Gate, false, "pecd's gate, after the filters: it refuses ordinary mail while the sender's server still listens")
	}
}

// logins tells of logins at port 25. They are left to the administrator: users of his
// domains that are not certified may send there, and it is theirs to change port first.
func (pl *planner) logins() {
	var where, set []string
	for _, s := range pl.pf.Port25Logins(pl.want.Reinject) {
		where = append(where, s.Key())
		set = append(set, `"`+s.Key()+`/smtpd_sasl_auth_enable=no"`)
	}
	if len(where) > 0 {
		pl.plan.Notes = append(pl.plan.Notes, fmt.Sprintf("Users can log in at port 25 (%s), and what they send there leaves uncertified, also from certified addresses. Have them send by a submission port, then: postconf -c %s -P %s", strings.Join(where, ", "), pl.pf.Dir, strings.Join(set, " ")))
	}
}

// strays plans that no other service calls pecd.
func (pl *planner) strays() {
	served := pl.pf.Submissions(pl.want.Reinject)
	if pl.want.Gate != "" {
		served = append(served, pl.pf.Port25(pl.want.Reinject)...)
	}
	for _, s := range pl.pf.Strays(pl.want) {
		if slices.Contains(served, s) {
			continue // their lists are right by now
		}
		var keep []string
		for _, m := range Milters(pl.pf.In(s, "smtpd_milters")) {
			if !pl.pf.calls(s, m, pl.want.Access) && !pl.pf.calls(s, m, pl.want.Gate) {
				keep = append(keep, m.Text)
			}
		}
		pl.option(s, "smtpd_milters", strings.Join(keep, ", "), "mail passes pecd once: not on a filter's way back, and not where nobody logs in")
	}
}

// reinjectOverrides are what is switched off where signed messages come back.
const reinjectOverrides = "no_unknown_recipient_checks,no_header_body_checks,no_address_mappings"

// listener plans where signed messages come back.
func (pl *planner) listener(dkim []string) error {
	addr, ok := strings.CutPrefix(pl.want.Reinject, "inet:")
	if !ok {
		pl.plan.Notes = append(pl.plan.Notes, "courier.mta is "+pl.want.Reinject+": write that listener by hand (docs/postfix.md), or use inet:127.0.0.1:10033.")
		return nil
	}
	s := pl.pf.Listener(pl.want.Reinject)
	if !loopback(addr) && (s == nil || !hosts(pl.pf.In(s, "mynetworks"))) {
		// Its mynetworks must have the address that pecd calls from, which we do not know.
		return fmt.Errorf("%w: %s: write that listener into master.cf by hand, with -o mynetworks= of nothing but the address that pecd calls from, and run this again (docs/panels.md)", ErrRemote, pl.want.Reinject)
	}
	if s == nil {
		s = pl.add(addr, "inet", "smtpd", "-", "where pecd hands in signed messages")
		pl.option(s, "syslog_name", "postfix/pecd", "its own name in the log")
	}
	if pl.pf.DemandsTLS(s) {
		pl.option(s, "smtpd_tls_security_level", "may", "pecd hands in without TLS")
	}
	milters, overrides := strings.Join(dkim, ", "), reinjectOverrides+",no_milters"
	if len(dkim) > 0 {
		overrides = reinjectOverrides
	}
	if pl.stays(s) { // DKIM signers stand here already
		milters, overrides = s.expanded["smtpd_milters"], reinjectOverrides
	}
	for _, o := range []struct{ name, value, reason string }{
		{"mynetworks", "127.0.0.0/8 [::1]/128", "only this machine hands in"},
		{"smtpd_client_restrictions", "permit_mynetworks,reject", "only this machine hands in"},
		{"smtpd_relay_restrictions", "permit_mynetworks,reject", "messages go to everywhere from here"},
		{"smtpd_recipient_restrictions", "", "what is signed is not refused any more"},
		{"smtpd_sender_restrictions", "", "what is signed is not refused any more"},
		{"smtpd_helo_restrictions", "", "what is signed is not refused any more"},
		{"smtpd_data_restrictions", "", "what is signed is not refused any more"},
		{"smtpd_end_of_data_restrictions", "", "what is signed is not refused any more"},
		{"smtpd_milters", milters, "no milter changes what is signed; a DKIM signer adds to it"},
		{"content_filter", "", "no filter changes what is signed"},
		{"smtpd_proxy_filter", "", "no filter changes what is signed"},
		{"receive_override_options", overrides, "no checks inside of messages, no rewriting of addresses"},
		{"cleanup_service_name", "recleanup", "its own cleanup drops no header field"},
	} {
		if o.name == "smtpd_relay_restrictions" && pl.pf.In(s, o.name) == "permit_mynetworks,reject" || o.name == "mynetworks" && ForPecd(pl.pf.In(s, o.name), pl.want.Reinject) ||
			o.name == "receive_override_options" && sameWords(pl.pf.In(s, o.name), o.value) {
			continue
		}
		if _, own := s.Option(o.name); o.name == "smtpd_milters" && o.value != "" && !own {
			pl.option(s, o.name, o.value, o.reason) // its own, also where main.cf says the same now
		}
		pl.ensure(s, o.name, o.value, o.reason)
	}
	c := pl.add("recleanup", "unix", "cleanup", "0", "signed messages keep every header field")
	pl.ensure(c, "message_drop_headers", "", "signed messages keep every header field")
	return nil
}

// stays reports whether the listener's milters are DKIM signers only.
func (pl *planner) stays(s *Service) bool {
	list := Milters(s.expanded["smtpd_milters"])
	return len(list) > 0 && !slices.ContainsFunc(list, func(m Milter) bool { return !m.Signs() })
}

// Local reports whether a list of networks is this machine alone.
func Local(networks string) bool {
	list := Words(networks)
	return len(list) > 0 && !slices.ContainsFunc(list, func(n string) bool {
		return !strings.HasPrefix(n, "127.") && n != "[::1]/128" && n != "[::1]" && n != "[::ffff:127.0.0.0]/104"
	})
}

// ForPecd reports whether a list of networks lets in nobody but pecd: this machine, and
// single hosts where pecd hands messages in (courier.mta) from another one.
func ForPecd(networks, courier string) bool {
	return Local(networks) || !loopback(strings.TrimPrefix(courier, "inet:")) && hosts(networks)
}

// hosts reports whether a list of networks is single addresses, others than this machine's
// among them.
func hosts(networks string) bool {
	list := Words(networks)
	return !Local(networks) && !slices.ContainsFunc(list, func(n string) bool {
		n = strings.NewReplacer("[", "", "]", "").Replace(n)
		if ip, bits, ok := strings.Cut(n, "/"); ok && (bits == "32" || bits == "128") {
			n = ip
		}
		return net.ParseIP(n) == nil && !Local(n)
	}) && len(list) > 0
}

// sameWords reports whether two lists hold the same.
func sameWords(a, b string) bool {
	set := func(s string) map[string]bool {
		m := map[string]bool{}
		for _, w := range Words(s) {
			m[w] = true
		}
		return m
	}
	return maps.Equal(set(a), set(b))
}

// settings plans main.cf.
func (pl *planner) settings() {
	for _, s := range []struct{ name, value, reason string }{
		{"smtp_line_length_limit", "0", "folding a long line inside of a signed message breaks the signature"},
		{"lmtp_line_length_limit", "0", "folding a long line inside of a signed message breaks the signature"},
		{"disable_mime_output_conversion", "yes", "converting an 8-bit part inside of a signed message breaks the signature"},
		{"header_checks", "", "nothing may change a signed message"},
		{"mime_header_checks", "", "nothing may change a signed message"},
		{"nested_header_checks", "", "nothing may change a signed message"},
		{"body_checks", "", "nothing may change a signed message"},
		{"smtp_header_checks", "", "nothing may change a signed message"},
		{"smtp_body_checks", "", "nothing may change a signed message"},
		{"local_header_rewrite_clients", "", "addresses must not be completed before pecd sees them"},
	} {
		if pl.pf.Get(s.name) != s.value {
			pl.param(s.name, s.value, s.reason)
		}
	}
	if n := pl.pf.Int("message_size_limit"); n != 0 && n < pl.want.MinSize() {
		pl.param("message_size_limit", strconv.FormatInt(pl.want.Size, 10), "the envelope and the receipts of the largest original must fit")
	}
	for _, m := range pl.pf.SmallMailboxes(number(pl.pending("message_size_limit"))) {
		const reason = "no mailbox may hold less than the largest message: otherwise the service that delivers ends with an error, and all ordinary mail for it waits"
		if _, own := m.Service.Option(m.Name); own {
			pl.option(m.Service, m.Name, "0", reason)
		} else {
			pl.param(m.Name, "0", reason)
		}
	}
	if pl.pf.Int("header_size_limit") < MinHeaders {
		pl.param("header_size_limit", strconv.Itoa(MinHeaders), "a longer header field would be cut")
	}
	if pl.pf.Int("lmtp_destination_recipient_limit") < MinRecipients && pl.pf.Get("lmtp_destination_recipient_limit") != "0" {
		pl.param("lmtp_destination_recipient_limit", strconv.Itoa(MinRecipients), "one take-charge receipt for all recipients of a message")
	}
	for _, s := range []struct {
		name   string
		unit   time.Duration
		most   time.Duration
		value  string
		reason string
	}{
		{"maximal_queue_lifetime", 24 * time.Hour, QueueLife, "1d", "the queue lives 24 hours (RFC 6109, 2.2.2)"},
		{"bounce_queue_lifetime", 24 * time.Hour, QueueLife, "1d", "the queue lives 24 hours (RFC 6109, 2.2.2)"},
		{"maximal_backoff_time", time.Second, MaxPause, "50m", "within the 24 hours the last word must be pecd's notice, not Postfix's bounce"},
	} {
		if Duration(pl.pf.Get(s.name), s.unit) > s.most {
			pl.param(s.name, s.value, s.reason)
		}
	}
	pl.serverTLS()
	if v := pl.pf.raw["milter_mail_macros"]; !strings.Contains(v, "{auth_authen}") {
		pl.param("milter_mail_macros", strings.TrimSpace(v+" {auth_authen}"), "pecd must hear who has logged in")
	}
}

// serverTLS plans that port 25 offers TLS.
func (pl *planner) serverTLS() {
	if pl.pf.Get("smtpd_tls_security_level") != "" && pl.pf.Get("smtpd_tls_security_level") != "none" || pl.pf.Get("smtpd_use_tls") == "yes" {
		return
	}
	if pl.pf.Get("smtpd_tls_cert_file") == "" && pl.pf.Get("smtpd_tls_chain_files") == "" {
		pl.plan.Notes = append(pl.plan.Notes, "Postfix has no TLS certificate: give it one (smtpd_tls_chain_files) and run this again; providers talk over TLS (RFC 6109, 5.3).")
		return
	}
	pl.param("smtpd_tls_security_level", "may", "other providers send over TLS (RFC 6109, 5.3)")
}
