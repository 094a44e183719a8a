package setup

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hosting reads a panel's Postfix of testdata/panels into a private configuration.
func hosting(t *testing.T, panel string) string {
	t.Helper()
	dir := instance(t, "", "")
	own := places(dir) + "myhostname = mail.pec.example\nalias_maps =\nsmtpd_sender_login_maps = static:all\n" // the panels' tables are in databases
	for name, more := range map[string]string{"main.cf": own, "master.cf": "postlog unix-dgram n - n - 1 postlogd\n"} {
		b, err := os.ReadFile(filepath.Join("testdata", "panels", panel, name))
		if err != nil {
			t.Fatal(err)
		}
		text := more + strings.ReplaceAll(string(b), "DOMAIN", "pec.example")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	accessLast = "{ unix:/run/pecd/access.sock, default_action=tempfail }"
	gateLast   = "{ unix:/run/pecd/gate.sock, default_action=tempfail }"
	rspamd     = "inet:localhost:11332"
)

// A hosted is what pecd setup must make of a panel's Postfix.
type hosted struct {
	name    string
	panel   string
	more    string // of main.cf
	service string // of master.cf, as postconf -M takes it
	want    func(*Wants)
	// milters are the services that call pecd, and all their milters in order. No other
	// service calls pecd: a message passes it once.
	milters map[string]string
	// alone are services that stay as the panel wrote them.
	alone []string
	// listener are the milters where signed messages come back.
	listener string
	// notes are words of what is left to the administrator.
	notes []string
	// tls are the levels towards other providers.
	tls map[string]string
	// settings hold afterwards: of main.cf by name, of a service by name/type/name.
	settings map[string]string
	// diff must be told before anything is changed.
	diff []string
}

var hostings = []hosted{
	{
		name: "ISPConfig", panel: "ispconfig",
		milters: map[string]string{
			"smtp/inet":       rspamd + ", " + gateLast,
			"submission/inet": rspamd + ", " + accessLast,
			"smtps/inet":      rspamd + ", " + accessLast,
		},
		alone: []string{"dovecot/unix"},
		settings: map[string]string{
			"smtpd_milters": rspamd, "non_smtpd_milters": rspamd, "milter_default_action": "accept", // the panel's own stays
			"header_checks": "", "mime_header_checks": "", "nested_header_checks": "", "body_checks": "",
			"smtpd_sender_restrictions": "permit_mynetworks, permit_sasl_authenticated",
		},
		notes: []string{"log in at port 25 (smtp"},
		diff:  []string{"in its chroot", "instead of sending uncertified", "mail for certified domains goes to pecd"},
	},
	{
		name: "ISPConfig with amavis", panel: "ispconfig-amavis",
		milters: map[string]string{"smtp/inet": gateLast, "submission/inet": accessLast, "smtps/inet": accessLast},
		alone:   []string{"dovecot/unix", "127.0.0.1:10025/inet", "127.0.0.1:10027/inet"},
		settings: map[string]string{
			"content_filter": "lmtp:[127.0.0.1]:10024", // incoming mail goes there still
			// What comes back signed goes neither there nor where FILTER would send it.
			"127.0.0.1:10033/inet/content_filter": "", "127.0.0.1:10033/inet/smtpd_sender_restrictions": "",
		},
		notes: []string{"log in at port 25 (smtp"},
		diff:  []string{"no filter changes what is signed"},
	},
	{
		name: "iRedMail", panel: "iredmail",
		milters: map[string]string{"smtpd/pass": gateLast, "submission/inet": accessLast, "465/inet": accessLast},
		// The trap: mail passes smtpd twice. What amavis and mlmmj hand back calls no milter.
		alone: []string{"smtp/inet", "127.0.0.1:10025/inet", "127.0.0.1:10028/inet", "smtp-amavis/unix", "dovecot/unix"},
		settings: map[string]string{
			"smtpd_milters": "", "content_filter": "smtp-amavis:[127.0.0.1]:10024", "127.0.0.1:10033/inet/content_filter": "",
			"submission/inet/content_filter": "smtp-amavis:[127.0.0.1]:10026", "message_size_limit": "314572800",
		},
		diff: []string{"no filter changes what is signed", "the envelope and the receipts of the largest original must fit"},
	},
	{
		name: "Plesk", panel: "plesk",
		// Plesk's milter comes first: it hears of the message before pecd takes it over.
		milters: map[string]string{
			"smtp/inet":       "inet:127.0.0.1:12768, " + gateLast,
			"submission/inet": "inet:127.0.0.1:12768, " + accessLast,
			"smtps/inet":      "inet:127.0.0.1:12768, " + accessLast,
		},
		alone: []string{"plesk_virtual/unix", "mailman/unix"},
		settings: map[string]string{
			"smtpd_milters": ", inet:127.0.0.1:12768", "milter_default_action": "accept", "virtual_transport": "plesk_virtual",
			"message_size_limit": "314572800",
		},
		diff:  []string{"mail for certified domains goes to pecd"},
		notes: []string{"DKIM", "log in at port 25 (smtp/inet)"},
	},
	{
		name: "iRedMail, mailboxes with transports", panel: "iredmail",
		more:    "transport_maps = inline:{ { moved@DOMAIN = smtp:[192.0.2.1] } }, inline:{ { DOMAIN = dovecot } { plain.example = dovecot } }\n",
		milters: map[string]string{"smtpd/pass": gateLast, "submission/inet": accessLast, "465/inet": accessLast},
		diff:    []string{"no mailbox of a certified domain may have a transport of its own", `/@pec\.example$/ lmtp:unix:/run/pecd/lmtp.sock`},
	},
	{
		name: "iRedMail, weak TLS of its own", panel: "iredmail",
		more:    "smtp_tls_policy_maps = inline:{ { beta.example = may } { gamma.example = secure } }\n",
		milters: map[string]string{"smtpd/pass": gateLast, "submission/inet": accessLast, "465/inet": accessLast},
		want:    func(w *Wants) { w.Peers = []string{"beta.example", "gamma.example"} },
		tls:     map[string]string{"beta.example": "encrypt", "gamma.example": "secure"},
	},
	{
		name: "Modoboa", panel: "modoboa",
		milters: map[string]string{"smtp/inet": rspamd + ", " + gateLast, "smtpd/pass": rspamd + ", " + gateLast, "submission/inet": rspamd + ", " + accessLast},
		alone:   []string{"ascleanup/unix"},
		settings: map[string]string{
			"smtpd_milters": rspamd, "milter_default_action": "accept", "submission/inet/smtpd_sender_restrictions": "reject_sender_login_mismatch",
			"submission/inet/cleanup_service_name": "subcleanup",
		},
		notes: []string{"log in at port 25 (smtp"},
		diff:  []string{"in its chroot", "instead of sending uncertified"},
	},
	{
		name: "Modoboa with amavis", panel: "modoboa-amavis",
		// A milter before a proxy hears commands and sees no message, so submission gives
		// its proxy up. At port 25 amavis stays: it filters what comes in.
		milters: map[string]string{
			"smtpd/pass":      "inet:127.0.0.1:12345, " + gateLast,
			"submission/inet": accessLast,
		},
		listener: "inet:127.0.0.1:12345", // OpenDKIM signs what leaves
		alone:    []string{"smtp/inet", "127.0.0.1:10025/inet", "ascleanup/unix"},
		settings: map[string]string{
			"submission/inet/smtpd_proxy_filter": "", "smtpd/pass/smtpd_proxy_filter": "inet:[127.0.0.1]:10024",
		},
		notes: []string{"log in at port 25 (smtp"},
		diff:  []string{"before a proxy a milter sees no message"},
	},
	{
		name: "iRedMail, milters in main.cf", panel: "iredmail",
		// Written for all services by hand: then port 25 calls the access point, and what
		// amavis hands back passes pecd again.
		more:    "smtpd_milters = { unix:/run/pecd/gate.sock, default_action=tempfail }, { unix:/run/pecd/access.sock, default_action=tempfail }\n",
		milters: map[string]string{"smtpd/pass": gateLast, "submission/inet": accessLast, "465/inet": accessLast},
		settings: map[string]string{
			"127.0.0.1:10025/inet/smtpd_milters": "", "127.0.0.1:10028/inet/smtpd_milters": "",
		},
		diff: []string{"mail passes pecd once"},
	},
	{
		name: "ISPConfig with amavis, milters off in main.cf", panel: "ispconfig-amavis",
		more:    "receive_override_options = no_address_mappings, no_milters\n",
		milters: map[string]string{"smtp/inet": gateLast, "submission/inet": accessLast, "smtps/inet": accessLast},
		settings: map[string]string{
			"submission/inet/receive_override_options": "no_address_mappings", "smtp/inet/receive_override_options": "no_address_mappings",
			"127.0.0.1:10025/inet/receive_override_options": "no_unknown_recipient_checks,no_header_body_checks",
		},
		notes: []string{"log in at port 25 (smtp"},
		diff:  []string{"no milter is called"},
	},
	{
		name: "mailcow", panel: "mailcow", want: beside,
		// Six ways in for users, the webmail's at 588 too; the login is asked for in main.cf.
		milters: map[string]string{
			"smtpd/pass": "inet:rspamd:9900, { inet:127.0.0.1:10031, default_action=tempfail }", "smtps/inet": mailcowAccess, "10465/inet": mailcowAccess,
			"submission/inet": mailcowAccess, "10587/inet": mailcowAccess, "588/inet": mailcowAccess,
		},
		// The ports whose milters the panel has switched off stay so.
		alone: []string{"smtp/inet", "10025/inet", "589/inet", "590/inet", "591/inet", "smtp_sender_cleanup/unix", "watchdog_cleanup/unix", "lmtp/unix"},
		settings: map[string]string{
			"milter_default_action": "tempfail", "smtp_header_checks": "", "lmtp_destination_recipient_limit": "1000", "maximal_queue_lifetime": "1d",
			"bounce_queue_lifetime": "1d", "maximal_backoff_time": "1800s", "588/inet/cleanup_service_name": "subcleanup", "590/inet/smtpd_milters": "",
		},
		diff: []string{"the queue lives 24 hours", "nothing may change a signed message"},
	},
	{
		name: "mailcow, pecd in a container of its own", panel: "mailcow", want: apart,
		// The listener is written by hand, for pecd's address alone; the rest is completed.
		service: "10033/inet=10033 inet n - n - - smtpd -o mynetworks=172.22.1.50 -o syslog_name=postfix/pecd",
		milters: map[string]string{
			"smtpd/pass": "inet:rspamd:9900, { inet:pecd:10031, default_action=tempfail }", "smtps/inet": mailcowApart, "10465/inet": mailcowApart,
			"submission/inet": mailcowApart, "10587/inet": mailcowApart, "588/inet": mailcowApart,
		},
		settings: map[string]string{
			"10033/inet/mynetworks": "172.22.1.50", "10033/inet/smtpd_client_restrictions": "permit_mynetworks,reject", "10033/inet/smtpd_milters": "",
		},
	},
}

// beside is pecd in the network of Postfix's container.
func beside(w *Wants) {
	w.Access, w.Gate, w.LMTP = "inet:127.0.0.1:10030", "inet:127.0.0.1:10031", "inet:127.0.0.1:10032"
}

// apart is pecd in a container of its own.
func apart(w *Wants) {
	w.Access, w.Gate, w.LMTP, w.Reinject = "inet:pecd:10030", "inet:pecd:10031", "inet:pecd:10032", "inet:postfix:10033"
}

const (
	mailcowAccess = "inet:rspamd:9900, { inet:127.0.0.1:10030, default_action=tempfail }"
	mailcowApart  = "inet:rspamd:9900, { inet:pecd:10030, default_action=tempfail }"
)

// TestHosting sets pecd up beside each panel and looks through postconf at what came of
// it.
func TestHosting(t *testing.T) {
	for _, h := range hostings {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := wants()
			if h.want != nil {
				h.want(&w)
			}
			dir := hosting(t, h.panel)
			appendTo(t, filepath.Join(dir, "main.cf"), strings.ReplaceAll(h.more, "DOMAIN", "pec.example"))
			if h.service != "" {
				if _, err := run(t.Context(), "postconf", "-c", dir, "-M", h.service); err != nil {
					t.Fatal(err)
				}
			}
			before := read(t, dir)
			h.applied(t, before, w)
			now := read(t, dir)
			h.judge(t, before, now, w)
			if again, err := now.Plan(t.Context(), w); err != nil || !again.Empty() {
				t.Errorf("a second run would change %v, %v", again.Names(), err)
			}
			if !now.RoutesTo(t.Context(), "pec.example", w.LMTP) {
				t.Errorf("route: %s", now.Route(t.Context(), "pec.example"))
			}
			if d := now.Detours(t.Context(), w.Domains, []string{"moved@pec.example"}, w.LMTP); len(d) > 0 {
				t.Errorf("past pecd: %+v", d)
			}
			levels := now.TLSPolicies(t.Context(), w.Peers)
			for d, want := range h.tls {
				if levels[d] != want {
					t.Errorf("TLS towards %s: %q, want %q", d, levels[d], want)
				}
			}
			if got, was := now.Route(t.Context(), "plain.example"), before.Route(t.Context(), "plain.example"); got != was {
				t.Errorf("a domain that is not certified went to %s, and goes to %s", was, got)
			}
			if _, left, err := now.Undo(t.Context()); err != nil || len(left) > 0 {
				t.Error(left, err)
			}
		})
	}
}

// applied shows the plan and makes it.
func (h *hosted) applied(t *testing.T, p *Postfix, w Wants) {
	t.Helper()
	pl, err := p.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	var diff bytes.Buffer
	if err := p.Diff(t.Context(), pl, &diff); err != nil {
		t.Fatal(err)
	}
	t.Log(diff.String())
	for _, words := range h.diff {
		if !strings.Contains(diff.String(), words) {
			t.Errorf("the plan does not say %q", words)
		}
	}
	if len(pl.Notes) != len(h.notes) {
		t.Errorf("notes: %q", pl.Notes)
	}
	for i, words := range h.notes {
		if !strings.Contains(strings.Join(pl.Notes, "\n"), words) {
			t.Errorf("note %d does not say %q", i, words)
		}
	}
	if _, err := p.Apply(t.Context(), pl, w, noon); err != nil {
		t.Fatal(err)
	}
}

// judge looks at the services and settings.
func (h *hosted) judge(t *testing.T, before, now *Postfix, w Wants) {
	t.Helper()
	calls := map[string]string{}
	for i := range now.Services {
		s := &now.Services[i]
		if s.Program != "smtpd" {
			continue
		}
		for _, addr := range []string{w.Access, w.Gate, w.LMTP} {
			if _, at := now.FindMilter(s, addr); at >= 0 {
				calls[s.Key()] = now.In(s, "smtpd_milters")
			}
		}
		if strings.Contains(now.In(s, "smtpd_milters"), w.Access) && !now.Reachable(s, w.Access) {
			t.Errorf("%s cannot reach %s", s.Key(), w.Access)
		}
	}
	if !maps.Equal(calls, h.milters) {
		t.Errorf("pecd is called by %q\nand should be by %q", calls, h.milters)
	}
	for _, key := range h.alone {
		was, is := before.serviceOf(key), now.serviceOf(key)
		if was == nil || is == nil || was.Line() != is.Line() {
			t.Errorf("%s was changed", key)
		}
	}
	l := now.Listener(w.Reinject)
	if got := now.In(l, "smtpd_milters"); got != h.listener {
		t.Errorf("the listener has the milters %q, want %q", got, h.listener)
	}
	if none := slices.Contains(Words(now.In(l, "receive_override_options")), "no_milters"); none == (h.listener != "") {
		t.Errorf("the listener's receive_override_options are %q", now.In(l, "receive_override_options"))
	}
	for name, want := range h.settings {
		got := now.Get(name)
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			got = now.In(now.serviceOf(name[:i]), name[i+1:])
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestHostingRefused: where pecd setup cannot know what is right it changes nothing, and
// says what to do.
func TestHostingRefused(t *testing.T) {
	for _, c := range []struct{ name, service string }{
		{"no listener", ""},
		{"a listener for the whole network", "10033/inet=10033 inet n - n - - smtpd -o mynetworks=172.22.1.0/24"},
		{"a listener for this machine alone", "10033/inet=10033 inet n - n - - smtpd -o mynetworks=127.0.0.0/8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := hosting(t, "mailcow")
			if c.service != "" {
				if _, err := run(t.Context(), "postconf", "-c", dir, "-M", c.service); err != nil {
					t.Fatal(err)
				}
			}
			w := wants()
			apart(&w)
			_, err := read(t, dir).Plan(t.Context(), w)
			if !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "inet:postfix:10033") || !strings.Contains(err.Error(), "mynetworks") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestForPecd: which networks a listener may let in, so that nobody but pecd sends there.
func TestForPecd(t *testing.T) {
	for _, c := range []struct {
		networks, courier string
		want              bool
	}{
		{"127.0.0.0/8 [::1]/128", "inet:127.0.0.1:10033", true},
		{"127.0.0.0/8 [::1]/128", "inet:postfix:10033", true},
		{"172.22.1.50", "inet:127.0.0.1:10033", false}, // pecd is here: nobody else needs it
		{"172.22.1.50", "inet:postfix:10033", true},
		{"127.0.0.0/8, 172.22.1.50/32 [fd00::5]/128", "inet:postfix:10033", true},
		{"172.22.1.0/24", "inet:postfix:10033", false},
		{"172.22.1.50 0.0.0.0/0", "inet:postfix:10033", false},
		{"hash:/etc/postfix/networks", "inet:postfix:10033", false},
		{"", "inet:postfix:10033", false},
	} {
		if got := ForPecd(c.networks, c.courier); got != c.want {
			t.Errorf("%q for %s: %v", c.networks, c.courier, got)
		}
	}
}
