package doctor

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/milter/socket"
	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/plugins/host"
	"pecd/signer"
	"pecd/signer/index"
	"pecd/signer/revocation"
)

var errAway = errors.New("no daemon")

// raise starts the servers of a stage, and stops them when the test ends.
func raise(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	var err error
	if o.Dir, err = os.MkdirTemp("", "pecd-doctor-"); err != nil {
		t.Fatal(err)
	}
	st, err := stage.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := st.Remove(ctx); err != nil {
			t.Error(err)
		}
		os.RemoveAll(o.Dir)
	})
	if err := st.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// healthy is an installation in which nothing is wrong: real servers, and listeners in
// the place of pecd.
func healthy(t *testing.T, mta string) (*stage.Stage, Site) {
	t.Helper()
	st := raise(t, stage.Options{MTA: mta})
	c := st.Alfa.Pecd.Config
	for _, addr := range []string{c.Access.Milter, c.Gate.Milter, c.Reception.LMTP} {
		listenAt(t, addr)
	}
	s := Site{ConfigFile: st.Alfa.Pecd.ConfigFile, Now: time.Now(), Daemonless: errAway,
		Control:  func(_ context.Context, _ string, out any) error { return nil },
		Resolver: names{mx: []*net.MX{{Host: "mail.alfa.example."}}},
		Clock:    func() (Clock, error) { return Clock{Synchronised: true}, nil }}
	var err error
	if s.Config, err = config.Load(s.ConfigFile); err != nil {
		t.Fatal(err)
	}
	d, err := directory.Parse(st.LDIF())
	if err != nil {
		t.Fatal(err)
	}
	s.Loaded = &Loaded{Directory: d, Index: index.Status{Checked: s.Now}}
	if mta == stage.MTASendmail {
		s.Sendmail = readSendmail(t, st.Alfa.Sendmail.Home)
	} else {
		s.Postfix = readPostfix(t, st.Alfa.PostfixDir)
	}
	return st, s
}

func readPostfix(t *testing.T, dir string) *setup.Postfix {
	t.Helper()
	if err := stage.Settle(dir); err != nil {
		t.Fatal(err)
	}
	p, err := setup.Read(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func listenAt(t *testing.T, addr string) {
	t.Helper()
	l, err := socket.Listen(t.Context(), addr, 0o660, "postfix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// names answers for DNS.
type names struct {
	mx  []*net.MX
	err error
}

func (n names) LookupMX(context.Context, string) ([]*net.MX, error) { return n.mx, n.err }

// A broken is one way in which an installation is broken, and what must be found: that
// and nothing else.
type broken struct {
	name  string
	main  string                  // lines after main.cf
	from  string                  // in master.cf, is replaced
	to    string                  // by this
	site  func(*testing.T, *Site) // what else is done
	words string                  // in what is found
	ids   []string                // of the findings
}

const (
	tempfail = "access.sock, default_action=tempfail"
	rspamd   = "inet:localhost:11332"
)

// postfixes are Postfix installations as panels, upgrades and people leave them.
var postfixes = []broken{
	{name: "panel rewrote master.cf", from: "smtpd_milters = { unix:DIR/sock/" + tempfail + " }", to: "smtpd_milters = " + rspamd,
		words: "without unix:", ids: []string{"submission-milter"}},
	{name: "panel rewrote main.cf, accept", main: "milter_default_action = accept", from: "{ unix:DIR/sock/" + tempfail + " }", to: "unix:DIR/sock/access.sock",
		words: `milter_default_action says "accept"`, ids: []string{"submission-accept"}},
	{name: "accept at the milter", from: tempfail, to: "access.sock, default_action=accept", words: `the milter says "accept"`, ids: []string{"submission-accept"}},
	{name: "3.11 shutdown is good", from: tempfail, to: "access.sock, default_action=shutdown"},
	{name: "milter after pecd", from: tempfail + " } }", to: tempfail + " }, " + rspamd + " }", words: rspamd + " comes after pecd", ids: []string{"milter-order"}},
	{name: "filter before pecd is good", from: "{ unix:DIR/sock/access.sock", to: rspamd + ", { unix:DIR/sock/access.sock"},
	{name: "signer before pecd", from: "{ unix:DIR/sock/access.sock", to: "inet:localhost:8891, { unix:DIR/sock/access.sock",
		words: "the DKIM signer inet:localhost:8891 comes before", ids: []string{"signer-before"}},
	{name: "milter maps", main: "smtpd_milter_maps = inline:{ 127.0.0.1=DISABLE }", words: "127.0.0.1=DISABLE", ids: []string{"milter-maps"}},
	{name: "macros", main: "milter_mail_macros = i {mail_addr}", words: "without {auth_authen}", ids: []string{"auth-macro"}},
	{name: "chroot", from: "inet n - n - - smtpd\n  -o syslog_name=alfa/submission", to: "inet n - y - - smtpd\n  -o syslog_name=alfa/submission",
		words: "runs in the chroot", ids: []string{"socket-chroot"}},
	{name: "gate in the chroot", from: "inet n - n - - smtpd\n  -o syslog_name=alfa/smtp", to: "inet n - y - - smtpd\n  -o syslog_name=alfa/smtp",
		words: "gate.sock", ids: []string{"socket-chroot"}},
	{name: "lmtp in the chroot", from: "lmtp       unix  - - n", to: "lmtp       unix  - - y", words: "lmtp.sock", ids: []string{"socket-chroot", "route"}},
	{name: "no login", from: "-o smtpd_sasl_auth_enable=yes", to: "-o smtpd_sasl_auth_enable=no", words: "lets users log in", ids: []string{"submission-missing", "gate-milter", "milter-stray"}},
	{name: "587 without login", from: "pickup ", to: "submission inet n - n - - smtpd\n  -o { smtpd_milters = { unix:DIR/sock/" + tempfail + " } }\n" +
		"  -o cleanup_service_name=subcleanup\n  -o smtpd_forbid_bare_newline=reject\npickup ", words: "smtpd_sasl_auth_enable is", ids: []string{"no-login", "port-closed"}},
	{name: "bare newline", from: "-o smtpd_forbid_bare_newline=reject", to: "-o smtpd_forbid_bare_newline=no", words: `smtpd_forbid_bare_newline is "no"`, ids: []string{"bare-newline"}},
	{name: "sender login", from: "-o smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch", to: "-o smtpd_sender_restrictions=",
		site: senderByMTA, words: "no reject_sender_login_mismatch", ids: []string{"sender-login"}},
	{name: "sender login after a permit", from: "-o smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch", to: "-o smtpd_sender_restrictions=permit_mynetworks,reject_sender_login_mismatch",
		site: senderByMTA, words: "before what permits", ids: []string{"sender-login"}},
	{name: "sender login of those who did not log in", from: "-o smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch", to: "-o smtpd_sender_restrictions=reject_unauthenticated_sender_login_mismatch",
		site: senderByMTA, ids: []string{"sender-login"}},
	{name: "no table of logins", main: "smtpd_sender_login_maps =", words: "smtpd_sender_login_maps is empty", ids: []string{"sender-table"}},
	{name: "plain cleanup", from: "-o cleanup_service_name=subcleanup", to: "-o cleanup_service_name=cleanup", words: "bcc", ids: []string{"headers-dropped", "original-changed"}},
	{name: "no cleanup", from: "-o cleanup_service_name=subcleanup", to: "-o cleanup_service_name=ascleanup", words: `"ascleanup", and there is no such`, ids: []string{"cleanup-missing"}},
	{name: "logins at port 25", main: "smtpd_sasl_auth_enable = yes", words: "what users send there does not pass pecd", ids: []string{"port25-login"}},
	{name: "gate missing", from: "-o { smtpd_milters = { unix:DIR/sock/gate.sock, default_action=tempfail } }", to: "", words: "gate.sock", ids: []string{"gate-milter"}},
	{name: "gate accept", from: "gate.sock, default_action=tempfail", to: "gate.sock, default_action=accept", words: `says "accept"`, ids: []string{"gate-accept"}},
	{name: "no TLS at 25", main: "smtpd_tls_security_level = none", words: "offers no TLS", ids: []string{"server-tls"}},
	{name: "8BITMIME hidden", main: "smtpd_discard_ehlo_keywords = 8bitmime", words: "8bitmime", ids: []string{"ehlo-keywords"}},
	{name: "ENVID hidden", main: "smtpd_discard_ehlo_keywords = dsn", words: "ENVID of envelopes is lost", ids: []string{"bounces"}},
	{name: "soft bounce", main: "soft_bounce = yes", words: "soft_bounce", ids: []string{"bounces"}},
	{name: "no bounce service", from: "bounce     unix  - - n -   0 bounce", to: "bounce     unix  - - n -   0 discard", words: "no bounce service", ids: []string{"bounces"}},
	{name: "listener missing", from: "  -o syslog_name=alfa/reinject\n  -o smtpd_tls_security_level=none",
		site: func(_ *testing.T, s *Site) { s.Config.Courier.MTA = "inet:127.0.0.1:9" }, words: "no smtpd at inet:127.0.0.1:9", ids: []string{"listener-missing", "listener-down"}},
	{name: "milter at the listener", from: "-o smtpd_milters=\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters,",
		to: "-o smtpd_milters=" + rspamd + "\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,", words: rspamd, ids: []string{"listener-milter"}},
	{name: "signer at the listener is good", from: "-o smtpd_milters=\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters,",
		to: "-o smtpd_milters=inet:localhost:8891\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,"},
	{name: "loop", from: "-o smtpd_milters=\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters,",
		to: "-o smtpd_milters=unix:DIR/sock/access.sock\n  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,", words: "calls pecd itself", ids: []string{"listener-loop"}},
	{name: "amavis everywhere", main: "content_filter = smtp-amavis:[127.0.0.1]:10024", words: "smtp-amavis", ids: []string{"listener-filter", "filter-skipped"}},
	{name: "checks at the listener", from: "no_header_body_checks,no_milters,no_address_mappings", to: "no_header_body_checks,no_milters", words: "without no_address_mappings", ids: []string{"listener-checks"}},
	{name: "TLS at the listener", from: "-o syslog_name=alfa/reinject\n  -o smtpd_tls_security_level=none", to: "-o syslog_name=alfa/reinject\n  -o smtpd_tls_security_level=encrypt", words: "hands in without TLS", ids: []string{"listener-tls"}},
	{name: "TLS at the listener, by the old setting", from: "-o syslog_name=alfa/reinject\n  -o smtpd_tls_security_level=none", to: "-o syslog_name=alfa/reinject\n  -o smtpd_tls_security_level=\n  -o smtpd_enforce_tls=yes", words: "hands in without TLS", ids: []string{"listener-tls"}},
	{name: "headers dropped at the listener", from: "-o cleanup_service_name=recleanup", to: "-o cleanup_service_name=cleanup", words: "drops header fields", ids: []string{"listener-headers"}},
	{name: "route away", main: "virtual_transport = lmtp:unix:private/dovecot-lmtp", words: "goes to lmtp:unix:private/dovecot-lmtp", ids: []string{"route"}},
	{name: "domain gone", main: "virtual_mailbox_domains =", words: "takes no mail for alfa.example", ids: []string{"domain-refused"}},
	{name: "a mailbox with a transport", main: "transport_maps = inline:{ { anna@alfa.example = smtp:[192.0.2.1] } { ben@other.example = x: } }, KEEP",
		words: "mail for anna@alfa.example goes to smtp:[192.0.2.1]", ids: []string{"route-user"}},
	{name: "back to virtual_transport is good", main: "transport_maps = inline:{ { anna@alfa.example = : } }, KEEP"},
	{name: "a table that cannot be listed leads a mailbox away", main: "transport_maps = regexp:DIR/away.regexp, KEEP",
		words: "mail for postmaster@alfa.example goes to discard:", ids: []string{"route-user"}},
	{name: "SQL by user", main: "transport_maps = sqlite:DIR/users.cf, KEEP", words: "users.cf may have transports for single mailboxes of alfa.example", ids: []string{"route-unknown", "table"}},
	{name: "SQL for other domains is good", main: "transport_maps = sqlite:DIR/others.cf, KEEP", ids: []string{"table"}},
	{name: "ours before it is good", main: "transport_maps = regexp:DIR/ours.regexp, inline:{ { anna@alfa.example = smtp:[192.0.2.1] } }, sqlite:DIR/users.cf, KEEP", ids: []string{"table"}},
	{name: "a wild card", main: "transport_maps = inline:{ { * = smtp:[192.0.2.1] } }, KEEP", words: "mail for alfa.example goes to smtp:[192.0.2.1]", ids: []string{"route"}},
	{name: "copies of all", main: "always_bcc = archive@alfa.example", words: `always_bcc is "archive@alfa.example"`, ids: []string{"copies-skipped"}},
	{name: "copies for one", main: "recipient_bcc_maps = inline:{ { anna@alfa.example = archive@alfa.example } }", words: "has anna@alfa.example", ids: []string{"copies-skipped"}},
	{name: "copies for others are good", main: "recipient_bcc_maps = inline:{ { anna@plain.example = archive@plain.example } }"},
	{name: "copies by a server", main: "sender_bcc_maps = socketmap:unix:DIR/none:bcc", words: "which does not say for whom", ids: []string{"copies-skipped"}},
	{name: "copies by alias", main: "virtual_alias_maps = inline:{ { anna@alfa.example = anna@alfa.example, archive@alfa.example } }", words: "copies what is for anna@alfa.example", ids: []string{"copies-skipped"}},
	{name: "an alias to itself is good", main: "virtual_alias_maps = inline:{ { anna@alfa.example = anna@alfa.example } { @alfa.example = @alfa.example } { postmaster@alfa.example = root@other.example } }"},
	{name: "an alias", main: "virtual_alias_maps = inline:{ { info@alfa.example = anna@alfa.example } }", words: "info@alfa.example becomes anna@alfa.example", ids: []string{"aliases"}},
	{name: "another name", main: "recipient_canonical_maps = inline:{ { info@alfa.example = anna@alfa.example } }", words: "recipient_canonical_maps: info@", ids: []string{"aliases"}},
	{name: "a filter at port 25 alone", from: "-o syslog_name=alfa/smtp\n", to: "-o syslog_name=alfa/smtp\n  -o content_filter=scan:dummy\n", words: `content_filter is "scan:dummy"`, ids: []string{"filter-skipped"}},
	{name: "OpenDKIM at 12345", from: "{ unix:DIR/sock/access.sock", to: "inet:127.0.0.1:12345, { unix:DIR/sock/access.sock", words: "the DKIM signer inet:127.0.0.1:12345", ids: []string{"signer-before"}},
	{name: "Plesk signs", from: "{ unix:DIR/sock/access.sock", to: "inet:127.0.0.1:12768, { unix:DIR/sock/access.sock",
		site: handlerKeys("alfa.example"), words: "Plesk has a DKIM key of alfa.example", ids: []string{"signer-handlers"}},
	{name: "Plesk signs for others", from: "{ unix:DIR/sock/access.sock", to: "inet:127.0.0.1:12768, { unix:DIR/sock/access.sock", site: handlerKeys("other.example")},
	{name: "weak TLS of a panel's own", main: "smtp_tls_policy_maps = static:may, static:encrypt", words: "beta.example (may)", ids: []string{"tls-policy"}},
	{name: "catch-all alias", main: "virtual_alias_maps = inline:{ { @alfa.example = all@alfa.example } }", words: "sends all of alfa.example to all@", ids: []string{"aliases"}},
	{name: "table gone", main: "virtual_alias_maps = hash:/nonexistent/pecd", words: "/nonexistent/pecd", ids: []string{"table"}},
	{name: "domains in a table that is gone", main: "virtual_mailbox_domains = sqlite:DIR/users.cf", words: "virtual_mailbox_domains: sqlite:", ids: []string{"table"}},
	{name: "TLS policies in a table that is gone", main: "smtp_tls_policy_maps = sqlite:DIR/users.cf", words: "smtp_tls_policy_maps: sqlite:", ids: []string{"table"}},
	{name: "TLS policy gone", main: "smtp_tls_policy_maps =", words: "beta.example (may)", ids: []string{"tls-policy"}},
	{name: "small size", main: "message_size_limit = 10240000", words: "message_size_limit is 10240000 octets", ids: []string{"size-limit"}},
	{name: "small mailboxes", main: "mailbox_size_limit = 51200000", from: "pickup ", to: "local unix - n n - - local\nvirtual unix - n n - - virtual\n  -o virtual_mailbox_limit=0\npickup ",
		words: "local/unix: mailbox_size_limit is 51200000 octets", ids: []string{"mailbox-limit"}},
	{name: "small headers", main: "header_size_limit = 102400", words: "102400", ids: []string{"header-limit"}},
	{name: "line folding", main: "smtp_line_length_limit = 998", words: "smtp_line_length_limit is 998", ids: []string{"line-limit"}},
	{name: "8-bit conversion", main: "disable_mime_output_conversion = no", words: `"no"`, ids: []string{"mime-conversion"}},
	{name: "header checks", main: "smtp_header_checks = inline:{ x=DUNNO }", words: "smtp_header_checks is", ids: []string{"content-checks"}},
	{name: "address completion", main: "local_header_rewrite_clients = permit_inet_interfaces", words: "permit_inet_interfaces", ids: []string{"header-rewrite"}},
	{name: "five days", main: "maximal_queue_lifetime = 5d", words: "maximal_queue_lifetime is 5d", ids: []string{"queue-lifetime"}},
	{name: "bounces live long", main: "bounce_queue_lifetime = 2", words: "bounce_queue_lifetime is 2", ids: []string{"queue-lifetime"}},
	{name: "long pauses", main: "maximal_backoff_time = 4000s", words: "4000s", ids: []string{"backoff"}},
	{name: "few recipients", main: "lmtp_destination_recipient_limit = 50", words: "is 50", ids: []string{"recipient-limit"}},
	{name: "listener open", main: "mynetworks = 0.0.0.0/0", from: "REINJECT inet", to: "REPORT inet", words: "and listens beyond this machine", ids: []string{"listener-open"}},
	{name: "no port 25", from: "SMTP inet n - n - - smtpd", to: "SMTP inet n - n - - spawn", words: "at port 25", ids: []string{"port25-missing"}},
	{name: "no Postfix user", main: "mail_owner = daemon", words: "user daemon may not write", ids: []string{"socket-permission"}},
}

// TestBroken breaks a Postfix that runs in each way: what is found must be that and
// nothing else.
func TestBroken(t *testing.T) {
	st, well := healthy(t, stage.MTAPostfix)
	breakAll(t, well, append(postfixes, sites(st)...), func(t *testing.T, s *Site, b broken) {
		if b.main != "" || b.from != "" {
			s.Postfix = breakPostfix(t, st.Alfa, b)
		} else {
			s.Postfix = nil // the other half is not looked at, which saves many processes
		}
	})
}

// breakAll finds nothing in well, and in each broken one what is broken; mta breaks what
// is the MTA's.
func breakAll(t *testing.T, well Site, list []broken, mta func(*testing.T, *Site, broken)) {
	t.Run("nothing", func(t *testing.T) {
		for _, f := range Examine(t.Context(), well) {
			t.Errorf("%s: %s", f.ID, f.What)
		}
	})
	for _, b := range list {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := well
			c := *well.Config
			s.Config = &c
			mta(t, &s, b)
			if b.site != nil {
				b.site(t, &s)
			}
			judge(t, Examine(t.Context(), s), b)
		})
	}
}

func judge(t *testing.T, found []Finding, b broken) {
	t.Helper()
	var ids, said []string
	for _, f := range found {
		if !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
		said = append(said, f.What)
		if f.Why == "" || f.Fix == "" || f.Severity == "" || strings.Contains(f.Fix, "{") {
			t.Errorf("%s: why %q, fix %q", f.ID, f.Why, f.Fix)
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(ids)), slices.Sorted(slices.Values(b.ids))) {
		t.Errorf("found %v, want %v\n%s", ids, b.ids, strings.Join(said, "\n"))
	}
	if !strings.Contains(strings.Join(said, "\n"), b.words) {
		t.Errorf("no %q in:\n%s", b.words, strings.Join(said, "\n"))
	}
}

// breakPostfix is a copy of the provider's Postfix, broken. The one that runs stays.
func breakPostfix(t *testing.T, p *stage.Provider, b broken) *setup.Postfix {
	t.Helper()
	dir := t.TempDir()
	for name, change := range map[string]func(string) string{
		"main.cf": func(s string) string {
			return s + strings.NewReplacer("DIR", tables(t, p), "KEEP", setting(s, "transport_maps")).Replace(b.main) + "\n"
		},
		"master.cf": func(s string) string {
			names := strings.NewReplacer("DIR", p.Dir, "REINJECT", p.Reinject, "REPORT", p.Reinject[strings.LastIndexByte(p.Reinject, ':')+1:], "SMTP", p.SMTP)
			from, to := names.Replace(b.from), names.Replace(b.to)
			if !strings.Contains(s, from) {
				t.Fatalf("master.cf has no %q", from)
			}
			if b.to == "" && strings.HasPrefix(from, "  -o") {
				return s
			}
			return strings.Replace(s, from, to, 1)
		},
	} {
		text, err := os.ReadFile(filepath.Join(p.PostfixDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(change(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return readPostfix(t, dir)
}

// setting is what a file sets last.
func setting(text, name string) (value string) {
	for line := range strings.Lines(text) {
		if n, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(n) == name {
			value = strings.TrimSpace(v)
		}
	}
	return value
}

// tables are files that transport_maps may name.
func tables(t *testing.T, p *stage.Provider) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"away.regexp": "/^postmaster@/ discard:\n",
		"ours.regexp": `/@alfa\.example$/ lmtp:unix:` + p.Dir + "/sock/lmtp.sock\n",
		"users.cf":    "dbpath = /nonexistent\nquery = SELECT transport FROM mailbox WHERE address = '%s'\n",
		"others.cf":   "dbpath = /nonexistent\nquery = SELECT transport FROM mailbox WHERE address = '%s'\ndomain = plain.example, other.example\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// senderByMTA leaves it to the MTA who may send in whose name.
func senderByMTA(_ *testing.T, s *Site) { s.Config.Access.SenderLogin = "mta" }

// handlerKeys has Plesk sign for a domain.
func handlerKeys(domain string) func(*testing.T, *Site) {
	return func(t *testing.T, s *Site) {
		s.HandlerKeys = t.TempDir()
		if err := os.Mkdir(filepath.Join(s.HandlerKeys, domain), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// sites are installations broken elsewhere.
func sites(st *stage.Stage) []broken {
	free := func(t *testing.T) string { return t.TempDir() }
	return []broken{
		{name: "configuration", site: func(_ *testing.T, s *Site) { s.ConfigErr = errors.New("pecd.toml:3: unknown key") }, words: "pecd.toml:3", ids: []string{"config"}},
		{name: "HSM", site: loadError("a.toml:9: signer.module: no token"), words: "no token", ids: []string{"hsm"}},
		{name: "key", site: loadError("a.toml:9: signer.key: the key is not the one of the certificate"), words: "not the one", ids: []string{"key"}},
		{name: "expired", site: loadError("a.toml:9: signer.certificate: the certificate expired on 2026-01-01"), words: "expired", ids: []string{"certificate-ends"}},
		{name: "not in directory", site: loadError("a.toml:9: signer.certificate: the certificate is not in the directory x"), words: "not in", ids: []string{"not-in-directory"}},
		{name: "directory gone", site: loadError("a.toml:9: directory.url: no answer"), words: "no answer", ids: []string{"directory-unreadable"}},
		{name: "anchors gone", site: loadError("a.toml:9: trust.anchors: empty"), words: "empty", ids: []string{"trust"}},
		{name: "something else", site: loadError("broken"), words: "broken", ids: []string{"load"}},
		{name: "certificate ends soon", site: func(t *testing.T, s *Site) {
			c := *certificateOf(t, st)
			c.NotAfter = s.Now.Add(48 * time.Hour)
			s.Loaded = &Loaded{Directory: s.Loaded.Directory, Certificates: []*x509.Certificate{&c}}
		}, words: "expires on", ids: []string{"certificate-ends", "certificate-profile"}},
		{name: "certificate profile", site: func(t *testing.T, s *Site) {
			c := *certificateOf(t, st)
			c.KeyUsage = x509.KeyUsageKeyEncipherment
			s.Loaded = &Loaded{Directory: s.Loaded.Directory, Certificates: []*x509.Certificate{&c}}
		}, words: "digitalSignature", ids: []string{"certificate-profile"}},
		{name: "directory old", site: directoryAge("", 72*time.Hour), words: "last known to be current", ids: []string{"directory-old"}},
		{name: "directory dead", site: directoryAge("", 8*24*time.Hour), words: "last known to be current", ids: []string{"directory-dead"}},
		{name: "directory file old", site: directoryAge("/srv/igpec.ldif.p7m", 72*time.Hour), words: "/srv/igpec.ldif.p7m was last written on", ids: []string{"directory-file-old"}},
		{name: "directory file dead", site: directoryAge("/srv/igpec.ldif.p7m", 8*24*time.Hour), words: "/srv/igpec.ldif.p7m was last written on", ids: []string{"directory-file-dead"}},
		{name: "CRL missing", site: crl(revocation.Status{Source: "http://ca/x.crl", Err: errors.New("404")}), words: "404", ids: []string{"crl-missing"}},
		{name: "CRL ended", site: crl(revocation.Status{Source: "http://ca/x.crl", ThisUpdate: time.Unix(1, 0), NextUpdate: time.Unix(9, 0)}), words: "1970", ids: []string{"crl-expired"}},
		{name: "CRL fails", site: crl(revocation.Status{Source: "http://ca/x.crl", ThisUpdate: time.Unix(1, 0), NextUpdate: time.Now().Add(time.Hour), Failures: 3, Err: errors.New("no route")}),
			words: "3 fetches failed", ids: []string{"crl-failing"}},
		{name: "store missing", site: func(t *testing.T, s *Site) { s.Config.Store.Path = filepath.Join(free(t), "none") }, words: "is not there", ids: []string{"store-missing"}},
		{name: "store open", site: storeMode(0o755), words: "mode 0755", ids: []string{"store-open"}},
		{name: "store read-only", site: storeMode(0o500), words: "cannot be written", ids: []string{"store-unwritable"}},
		{name: "store with files of root's", site: func(t *testing.T, s *Site) {
			storeMode(0o700)(t, s)
			if err := os.Chown(s.Config.Store.Path, 12345, -1); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(s.Config.Store.Path, "availability"), "")
		}, words: "availability belongs to user 0, the directory to 12345", ids: []string{"store-owner", "private-owner"}}, // the key is root's too
		{name: "key of root's", site: func(t *testing.T, s *Site) {
			storeMode(0o700)(t, s)
			if err := os.Chown(s.Config.Store.Path, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, words: "belongs to root: pecd, which runs as 12345, cannot read it", ids: []string{"private-owner"}},
		{name: "store on tmpfs", site: func(t *testing.T, s *Site) {
			dir, err := os.MkdirTemp("/dev/shm", "pecd-doctor-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			s.Config.Store.Path = dir
		}, words: "is on tmpfs", ids: []string{"store-forgets"}},
		{name: "store on NFS", site: func(_ *testing.T, s *Site) {
			s.Statfs = func(dir string, fs *unix.Statfs_t) error {
				err := unix.Statfs(dir, fs)
				fs.Type = unix.NFS_SUPER_MAGIC
				return err
			}
		}, words: "is on NFS", ids: []string{"store-doubtful"}},
		{name: "no inodes", site: func(_ *testing.T, s *Site) {
			s.Statfs = func(dir string, fs *unix.Statfs_t) error {
				err := unix.Statfs(dir, fs)
				fs.Files, fs.Ffree = 1000, 9
				return err
			}
		}, words: "0 % of the inodes", ids: []string{"disk-full"}},
		{name: "disk full", site: func(_ *testing.T, s *Site) { s.Config.Access.MaxSize = 1 << 50 }, words: "are free on the disk", ids: []string{"disk-full"}},
		{name: "store damaged", site: func(t *testing.T, s *Site) {
			storeMode(0o700)(t, s)
			if err := os.WriteFile(filepath.Join(s.Config.Store.Path, "pecd.db"), []byte("not a database, for sure not a database"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, words: "", ids: []string{"store-unreadable"}},
		{name: "outbox and ledger", site: waitingStore, words: "1 signed messages wait", ids: []string{"outbox-old", "seal-none", "ledger-overdue"}},
		{name: "seal late", site: func(t *testing.T, s *Site) {
			waitingStore(t, s)
			s.Config.Seal.TSA = []string{"http://127.0.0.1:9"}
		}, words: "and is not sealed", ids: []string{"outbox-old", "seal-late", "tsa-down", "ledger-overdue"}},
		{name: "not late by an entry that was written late", site: func(t *testing.T, s *Site) {
			waitingStore(t, s)
			enter(t, s, storetest.At.AddDate(0, 0, -9))
			s.Config.Seal.TSA, s.Now = []string{"http://127.0.0.1:9"}, storetest.At.Add(time.Hour)
		}, ids: []string{"outbox-old", "tsa-down"}},
		{name: "seal late and the directory gone", site: func(t *testing.T, s *Site) {
			waitingStore(t, s)
			s.Config.Seal.TSA, s.Config.Seal.Path = []string{"http://127.0.0.1:9"}, "/nonexistent/seals"
		}, words: "/nonexistent/seals (seal.path) is not there", ids: []string{"outbox-old", "seal-late", "tsa-down", "ledger-overdue"}},
		{name: "sealed days open to others, on the same disk", site: sealedStore(0o755, func(string) error { return nil }), words: "has mode 0755", ids: append([]string{"seal-open"}, sealed...)},
		{name: "sealed days of root's", site: sealedStore(0o700, func(dir string) error { return os.Chown(dir, 12345, -1) }), words: "belongs to user 12345", ids: append([]string{"seal-owner"}, sealed...)},
		{name: "a day of another user's", site: sealedStore(0o700, func(dir string) error { return os.Chown(filepath.Join(dir, "witness"), 12345, -1) }), words: "witness belongs to user 12345", ids: append([]string{"seal-owner"}, sealed...)},
		{name: "sealing fails", site: proofOf(Evidence{SealAttempts: 3, SealError: "no answer"}), words: "3 attempts to seal a day failed: no answer", ids: []string{"seal-failing"}},
		{name: "a witness does not hear", site: proofOf(Evidence{Witnesses: []Witness{{Name: "timestamp", Attested: time.Unix(1, 0)}, {Name: "https://w.example", Error: "refused"}}}),
			words: "the witness https://w.example has not heard since pecd started: refused", ids: []string{"witness-failing"}},
		{name: "seals unreadable", site: func(t *testing.T, s *Site) {
			waitingStore(t, s)
			s.Config.Seal.TSA, s.Config.Seal.Path = []string{"http://127.0.0.1:9"}, s.ConfigFile
		}, words: "not a directory", ids: []string{"outbox-old", "seal-unreadable", "tsa-down", "ledger-overdue"}},
		{name: "no daemon", site: func(_ *testing.T, s *Site) { s.Control = func(context.Context, string, any) error { return errAway } }, words: "no pecd answers", ids: []string{"daemon-down"}},
		{name: "daemon in trouble", site: func(_ *testing.T, s *Site) {
			s.Control = func(context.Context, string, any) error { return errors.New("EOF") }
		}, words: "EOF", ids: []string{"daemon-down"}},
		{name: "plugins", site: func(_ *testing.T, s *Site) {
			s.Config.Plugins = []config.Plugin{{Name: "clamav", Path: "/usr/lib/pecd/plugins/clamav"}}
			s.Control = func(_ context.Context, _ string, out any) error {
				list, ok := out.(*[]host.Status)
				if !ok {
					return nil
				}
				*list = []host.Status{{Plugin: "clamav", State: host.BackingOff, LastError: "clamd is away"}}
				return nil
			}
		}, words: "clamd is away", ids: []string{"plugin-unpinned", "plugin-down"}},
		{name: "the daemon cannot work", site: func(_ *testing.T, s *Site) {
			s.Control = func(_ context.Context, path string, out any) error {
				if checks, ok := out.(*[]Check); ok {
					*checks = []Check{{Name: "mta", OK: true}, {Name: "store", Error: "no space left on device"}}
				}
				return nil
			}
		}, words: "store: no space left", ids: []string{"daemon-unready"}},
		{name: "plugins not in force", site: func(_ *testing.T, s *Site) {
			s.Config.Plugins = []config.Plugin{{Name: "clamav", SHA256: "x"}}
		}, words: "1 plugins are configured, the daemon runs 0", ids: []string{"plugin-restart"}},
		{name: "clock runs free", site: func(_ *testing.T, s *Site) { s.Clock = func() (Clock, error) { return Clock{}, nil } }, words: "nothing keeps the clock", ids: []string{"clock"}},
		{name: "clock off", site: func(_ *testing.T, s *Site) {
			s.Clock = func() (Clock, error) { return Clock{Synchronised: true, Error: 3 * time.Second}, nil }
		}, words: "off by 3s", ids: []string{"clock"}},
		{name: "clock between two questions of timesyncd", site: func(_ *testing.T, s *Site) {
			s.Clock = func() (Clock, error) { return Clock{Synchronised: true, Error: 2200 * time.Millisecond}, nil }
		}},
		{name: "the daemon's clock", site: func(_ *testing.T, s *Site) {
			s.Control = func(_ context.Context, path string, out any) error {
				if c, ok := out.(*WatchedClock); ok {
					*c = WatchedClock{Doubt: true, Offset: -2500 * time.Millisecond, By: "ntp.example"}
				}
				return nil
			}
		}, words: "off by -2.5s, says ntp.example", ids: []string{"clock"}},
		{name: "the daemon's clock jumped between two questions", site: func(_ *testing.T, s *Site) {
			s.Control = func(_ context.Context, path string, out any) error {
				if c, ok := out.(*WatchedClock); ok {
					*c = WatchedClock{Doubt: true, Offset: 2200 * time.Millisecond, By: "kernel"}
				}
				return nil
			}
		}, words: "has jumped", ids: []string{"clock"}},
		{name: "no MX", site: func(_ *testing.T, s *Site) { s.Resolver = names{err: &net.DNSError{IsNotFound: true}} }, words: "alfa.example has no MX", ids: []string{"mx"}},
		{name: "no DNS", site: func(_ *testing.T, s *Site) { s.Resolver = names{err: &net.DNSError{Err: "timeout"}} }, words: "timeout", ids: []string{"dns"}},
		{name: "socket gone", site: func(t *testing.T, s *Site) {
			s.Config.Gate.Milter = ""
			s.Config.Reception.LMTP = "unix:" + st.Alfa.Dir + "/sock/none.sock"
		}, words: "none.sock is not there", ids: []string{"socket-missing"}},
		{name: "socket stale", site: func(t *testing.T, s *Site) {
			s.Config.Reception.LMTP = "unix:" + stale(t, st)
		}, words: "nobody answers at unix:", ids: []string{"socket-stale"}},
		{name: "mailbox store gone", site: func(_ *testing.T, s *Site) { s.Config.Delivery.Store = "unix:/nonexistent/lmtp" }, words: "/nonexistent/lmtp", ids: []string{"mailboxes-down"}},
		{name: "mailbox store refuses", site: func(_ *testing.T, s *Site) { s.Config.Delivery.Store = "inet:" + st.Ordinary.SMTP }, words: "answers, but: 5", ids: []string{"mailboxes-down"}},
		{name: "Postfix unreadable", site: func(t *testing.T, s *Site) {
			s.Postfix, s.PostfixErr = setup.Read(t.Context(), free(t))
		}, words: "No such file or directory", ids: []string{"postfix-unreadable"}},
	}
}

// sealed is what is found in a sealedStore as it is.
var sealed = []string{"outbox-old", "seal-late", "seal-beside", "tsa-down", "ledger-overdue"}

// sealedStore is a waitingStore with a directory of sealed days, to which something is
// done, on the same disk.
func sealedStore(mode os.FileMode, do func(dir string) error) func(*testing.T, *Site) {
	return func(t *testing.T, s *Site) {
		waitingStore(t, s)
		dir := filepath.Join(s.Config.Store.Path, "seals")
		s.Config.Seal.TSA, s.Config.Seal.Path = []string{"http://127.0.0.1:9"}, dir
		if err := errors.Join(os.Mkdir(dir, mode), os.Mkdir(filepath.Join(dir, "witness"), 0o700), do(dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// proofOf has the daemon say how it stands with seals and witnesses.
func proofOf(e Evidence) func(*testing.T, *Site) {
	return func(_ *testing.T, s *Site) {
		s.Control = func(_ context.Context, _ string, out any) error {
			if to, ok := out.(*Evidence); ok {
				*to = e
			}
			return nil
		}
	}
}

// certificateOf is the provider's own, which lacks what only some want: that is told.
func certificateOf(t *testing.T, st *stage.Stage) *x509.Certificate {
	t.Helper()
	id, err := signer.LoadPEM(st.Alfa.Key, st.Alfa.Certificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id.Certificate()
}

func loadError(text string) func(*testing.T, *Site) {
	return func(_ *testing.T, s *Site) {
		d := s.Loaded.Directory
		s.LoadErr, s.Loaded = errors.New("configuration: "+text), &Loaded{Directory: d}
	}
}

// directoryAge is a directory of that age, in a file or, where there is no name, fetched.
func directoryAge(file string, age time.Duration) func(*testing.T, *Site) {
	return func(_ *testing.T, s *Site) {
		l := *s.Loaded
		l.Index.Checked = s.Now.Add(-age)
		s.Loaded, s.Config.Directory.File = &l, file
	}
}

func crl(st revocation.Status) func(*testing.T, *Site) {
	return func(_ *testing.T, s *Site) {
		l := *s.Loaded
		l.Revocation = []revocation.Status{st}
		s.Loaded = &l
	}
}

func storeMode(mode os.FileMode) func(*testing.T, *Site) {
	return func(t *testing.T, s *Site) {
		s.Config.Store.Path = filepath.Join(t.TempDir(), "store")
		if err := os.Mkdir(s.Config.Store.Path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// stale is a socket that nobody serves any more, where Postfix may write.
func stale(t *testing.T, st *stage.Stage) string {
	t.Helper()
	path := filepath.Join(st.Alfa.Dir, "sock", "stale.sock")
	l, err := socket.Listen(t.Context(), "unix:"+path, 0o666, "")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Close(fd), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	return path
}

// waitingStore is a store with an envelope that nobody took for 26 hours.
func waitingStore(t *testing.T, s *Site) {
	storeMode(0o700)(t, s)
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: s.Config.Store.Path, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	p := storetest.NewProvider(t)
	ev := p.NewEvent(t, "bob@beta.example")
	act := storetest.ActOf(p.Acceptance(t, ev))
	act.Await = []pec.Address{"bob@beta.example"}
	if _, err := store.Commit(t.Context(), logstore.Tx{At: storetest.At, Acts: []logstore.Act{act}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	s.Now = storetest.At.Add(26 * time.Hour)
	// The other files are of today.
	s.Config.Directory.File = ""
	l := *s.Loaded
	l.Index.Checked = s.Now
	s.Loaded = &l
}

// enter adds an entry of an instant.
func enter(t *testing.T, s *Site, at time.Time) {
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: s.Config.Store.Path, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Commit(t.Context(), logstore.Tx{At: at, Acts: []logstore.Act{{Entry: logstore.Entry{Type: "prova"}}}})
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestPortsElsewhere: a Postfix that does not listen at this machine's own address is
// called where it does.
func TestPortsElsewhere(t *testing.T) {
	for interfaces, want := range map[string]string{
		"all": "127.0.0.1", "": "127.0.0.1", "loopback-only": "127.0.0.1", "localhost": "127.0.0.1", "192.0.2.1, 127.0.0.1": "127.0.0.1",
		"192.0.2.1": "192.0.2.1", "[2001:db8::1] 192.0.2.1": "2001:db8::1", "mail.pec.example": "mail.pec.example",
	} {
		if got := listens(interfaces); got != want {
			t.Errorf("inet_interfaces = %s: %s, want %s", interfaces, got, want)
		}
	}
}
