package setup

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
)

// wants are those of a plain installation with one peer.
func wants() Wants {
	return Wants{Access: "unix:/run/pecd/access.sock", Gate: "unix:/run/pecd/gate.sock", LMTP: "unix:/run/pecd/lmtp.sock", Reinject: "inet:127.0.0.1:10033",
		MaxSize: 100 << 20, Size: 300 << 20, Domains: []string{"pec.example"}, Peers: []string{"beta.example"}}
}

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// panels are main.cf and master.cf in the manner of hosting panels, written by us.
var panels = map[string]struct{ main, master string }{
	"plain": {"smtpd_tls_cert_file = /etc/x.pem\n", "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n" + base},
	"bare":  {"", "smtp inet n - n - - smtpd\n" + base},
	"ISPConfig": {"smtpd_milters = inet:localhost:11332\nnon_smtpd_milters = inet:localhost:11332\nmilter_default_action = accept\nmilter_protocol = 6\n" +
		"virtual_transport = lmtp:unix:private/dovecot-lmtp\nvirtual_mailbox_domains = inline:{ { pec.example = x } }\nheader_checks = inline:{ { x = DUNNO } }\n",
		"smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd\n  -o syslog_name=postfix/submission\n  -o smtpd_sasl_auth_enable=yes\nsmtps inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n" + base},
	"Plesk": {"smtpd_milters = , inet:127.0.0.1:12768\nmessage_size_limit = 10240000\nvirtual_transport = plesk_virtual\n",
		"smtp inet n - n - - smtpd -o smtpd_proxy_filter=\nsubmission inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=may\n" + base},
	"Modoboa": {"smtpd_milters = inet:127.0.0.1:11332, inet:127.0.0.1:12345\nmilter_default_action = accept\nmilter_content_timeout = 30s\nmilter_mail_macros = i {mail_addr}\n",
		"smtp inet n - - - 1 postscreen\nsmtpd pass - - - - - smtpd\nsubmission inet n - - - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o cleanup_service_name=ascleanup\nascleanup unix n - - - 0 cleanup\n  -o header_checks=\n" + base},
	"iRedMail": {"content_filter = smtp-amavis:[127.0.0.1]:10024\nmaximal_queue_lifetime = 4h\n",
		"smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\nsubmission inet n - n - - smtpd\n  -o content_filter=smtp-amavis:[127.0.0.1]:10026\n" +
			"127.0.0.1:10025 inet n - n - - smtpd\n  -o content_filter=\n  -o mynetworks=127.0.0.0/8\n" + base},
	"mailcow": {"smtpd_milters = inet:rspamd:9900\nmilter_default_action = tempfail\nmessage_size_limit = 104857600\n",
		"smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\nsubmission inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n588 inet n - n - - smtpd\n  -o smtpd_milters=\n  -o smtpd_sasl_auth_enable=yes\n" + base},
}

const base = "postlog unix-dgram n - n - 1 postlogd\ncleanup unix n - y - 0 cleanup\nlmtp unix - - y - - lmtp\nsmtp unix - - y - - smtp\n"

// instance writes a private configuration. The other directories of its Postfix are
// beside it: within it, each check would complain of their owners.
func instance(t *testing.T, main, master string) string {
	t.Helper()
	// Not t.TempDir: Postfix's own user must get there.
	root, err := os.MkdirTemp("", "pecd-setup-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "etc")
	if err := errors.Join(os.Mkdir(dir, 0o755), stage.Spool(filepath.Join(root, "queue"), filepath.Join(root, "data"))); err != nil {
		t.Fatal(err)
	}
	main = "compatibility_level = 3.6\n" + places(dir) + "myhostname = mail.pec.example\nmydestination =\nalias_maps =\n# kept\n" + main
	for name, text := range map[string]string{"main.cf": main, "master.cf": "# kept too\n" + master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// places are the settings that say where the directories of an instance are.
func places(dir string) string {
	root := filepath.Dir(dir)
	return "queue_directory = " + root + "/queue\ndata_directory = " + root + "/data\nmaillog_file = " + root + "/maillog\nmaillog_file_prefixes = " + root + "\n"
}

func read(t *testing.T, dir string) *Postfix {
	t.Helper()
	if err := stage.Settle(dir); err != nil {
		t.Fatal(err)
	}
	p, err := Read(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wantFiles holds main.cf and master.cf against what they shall be.
func wantFiles(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	got, err := contents(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%s is not what it should be:\n%s", name, got[name])
		}
	}
}

func plan(t *testing.T, p *Postfix) *Plan {
	t.Helper()
	pl, err := p.Plan(t.Context(), wants())
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

func apply(t *testing.T, p *Postfix) {
	t.Helper()
	if _, err := p.Apply(t.Context(), plan(t, p), wants(), noon); err != nil {
		t.Fatal(err)
	}
}

// TestPanels sets pecd up in each panel's Postfix, looks at the result through
// postconf, finds nothing more to do, and gets every octet back.
func TestPanels(t *testing.T) {
	for name, f := range panels {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := instance(t, f.main, f.master)
			before, err := contents(dir)
			if err != nil {
				t.Fatal(err)
			}
			p := read(t, dir)
			pl := plan(t, p)
			var diff bytes.Buffer
			if err := p.Diff(t.Context(), pl, &diff); err != nil {
				t.Fatal(err)
			}
			t.Log(diff.String())
			if _, err := p.Apply(t.Context(), pl, wants(), noon); err != nil {
				t.Fatal(err)
			}
			now := read(t, dir)
			for _, s := range now.Submissions(wants().Reinject) {
				list := Milters(now.In(s, "smtpd_milters"))
				if _, i := now.FindMilter(s, wants().Access); i < 0 || i != len(list)-1 || list[i].Options["default_action"] != "tempfail" {
					t.Errorf("%s: milters %v", s.Key(), list)
				}
			}
			if !now.RoutesTo(t.Context(), "pec.example", wants().LMTP) {
				t.Errorf("route: %s", now.Route(t.Context(), "pec.example"))
			}
			if got := plan(t, now); !got.Empty() {
				t.Errorf("a second run would change %v", got.Names())
			}
			if _, left, err := now.Undo(t.Context()); err != nil || len(left) > 0 {
				t.Fatal(left, err)
			}
			wantFiles(t, dir, before)
		})
	}
}

// TestPutBack: what Postfix does not like is put back, and so is a change that is not
// enough.
func TestPutBack(t *testing.T) {
	f := panels["plain"]
	dir := instance(t, f.main, f.master)
	before, err := contents(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := read(t, dir)
	pl := plan(t, p)
	pl.Services[0].New = strings.Replace(pl.Services[0].New, " n ", " maybe ", 1) // no such column
	if _, err := p.Apply(t.Context(), pl, wants(), noon); !errors.Is(err, ErrPostfix) {
		t.Errorf("a broken service: %v", err)
	}
	pl = plan(t, p)
	pl.Params = pl.Params[1:]
	if _, err := p.Apply(t.Context(), pl, wants(), noon); !errors.Is(err, ErrPostfix) || !strings.Contains(err.Error(), "still be due") {
		t.Errorf("half a plan: %v", err)
	}
	wantFiles(t, dir, before)
	if left, err := filepath.Glob(filepath.Join(dir, "pecd*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, _, err := p.Undo(t.Context()); !errors.Is(err, ErrNothing) {
		t.Errorf("undo: %v", err)
	}
}

// TestDKIM: a signer moves from before pecd to where signed messages come back.
func TestDKIM(t *testing.T) {
	f := panels["Modoboa"]
	dir := instance(t, f.main, f.master)
	apply(t, read(t, dir))
	now := read(t, dir)
	s := now.Service("submission", "inet")
	if got := now.In(s, "smtpd_milters"); got != "inet:127.0.0.1:11332, { unix:/run/pecd/access.sock, default_action=tempfail }" {
		t.Errorf("submission: %q", got)
	}
	l := now.Listener(wants().Reinject)
	if got := now.In(l, "smtpd_milters"); got != "inet:127.0.0.1:12345" || strings.Contains(now.In(l, "receive_override_options"), "no_milters") {
		t.Errorf("listener: %q, %q", got, now.In(l, "receive_override_options"))
	}
	if now.Service("smtpd", "pass") == nil || len(Milters(now.In(now.Service("smtpd", "pass"), "smtpd_milters"))) != 3 {
		t.Error("the smtpd behind postscreen has not got the gate after the filters")
	}
}

// TestChroot: sockets in the queue directory are named so that a chroot stays.
func TestChroot(t *testing.T) {
	f := panels["plain"]
	dir := instance(t, f.main, f.master)
	w, queue := wants(), "unix:"+filepath.Dir(dir)+"/queue/pecd/"
	w.Access, w.Gate, w.LMTP = queue+"access.sock", queue+"gate.sock", queue+"lmtp.sock"
	p := read(t, dir)
	pl, err := p.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), pl, w, noon); err != nil {
		t.Fatal(err)
	}
	now := read(t, dir)
	s := now.Service("submission", "inet")
	if !now.Chrooted(s) || now.In(s, "smtpd_milters") != "{ unix:pecd/access.sock, default_action=tempfail }" || !now.RoutesTo(t.Context(), "pec.example", w.LMTP) {
		t.Errorf("%s; route %s", s.Line(), now.Route(t.Context(), "pec.example"))
	}
}

// TestInstances: with several instances one must be named.
func TestInstances(t *testing.T) {
	f := panels["bare"]
	dir := instance(t, f.main+"multi_instance_directories = /etc/postfix-out\n", f.master)
	if _, err := onlyInstance(t.Context(), "-c", dir); !errors.Is(err, ErrInstances) || !strings.Contains(err.Error(), "/etc/postfix-out") {
		t.Errorf("%v", err)
	}
}

// TestOrder: what main.cf gets stands behind what it had, in the plan's order.
func TestOrder(t *testing.T) {
	for _, end := range []string{"\n", ""} {
		dir := instance(t, "# the last line"+end, panels["plain"].master)
		p := read(t, dir)
		pl := plan(t, p)
		after, err := p.rehearse(t.Context(), pl)
		if err != nil {
			t.Fatal(err)
		}
		_, added, ok := strings.Cut(string(after["main.cf"]), "# the last line\n")
		var got, want []string
		for line := range strings.Lines(added) {
			name, _, _ := strings.Cut(line, " = ")
			got = append(got, name)
		}
		for _, c := range pl.Params {
			if !c.Had {
				want = append(want, c.Name)
			}
		}
		if !ok || len(want) < 5 || !slices.Equal(got, want) {
			t.Errorf("main.cf that ends with %q: added %q, planned %q", end, got, want)
		}
	}
}

// TestNoEnd: a main.cf and master.cf whose last lines do not end come back as they were.
func TestNoEnd(t *testing.T) {
	t.Parallel()
	dir := instance(t, "relayhost = mail.example", strings.TrimSuffix(panels["plain"].master, "\n"))
	before, err := contents(dir)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, read(t, dir))
	if got := read(t, dir).Get("relayhost"); got != "mail.example" {
		t.Errorf("relayhost is %q", got)
	}
	undo(t, dir)
	wantFiles(t, dir, before)
}

// TestDiffApplies: patch(1) makes of the old files what Apply makes of them.
func TestDiffApplies(t *testing.T) {
	for _, end := range []string{"", "# the last line, without an end"} {
		f := panels["iRedMail"]
		diffApplies(t, instance(t, f.main+end, f.master+end))
	}
}

func diffApplies(t *testing.T, dir string) {
	t.Helper()
	p := read(t, dir)
	pl := plan(t, p)
	var diff bytes.Buffer
	if err := p.Diff(t.Context(), pl, &diff); err != nil {
		t.Fatal(err)
	}
	want, err := p.rehearse(t.Context(), pl)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("patch", "-p0", "--unified")
	cmd.Stdin, cmd.Dir = &diff, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantFiles(t, dir, want)
}

// FuzzWords: whatever stands in a list, reading it ends and loses nothing but blanks
// and commas.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"", "a, b", "{ unix:/x, default_action=tempfail }, inet:y:1", "{{}", "}a{", "a{b c}d"} {
		f.Add(s)
	}
	strip := strings.NewReplacer(" ", "", ",", "", "\t", "", "\r", "", "\n", "")
	f.Fuzz(func(t *testing.T, s string) {
		if got := strings.Join(Words(s), ""); strip.Replace(got) != strip.Replace(s) {
			t.Errorf("%q became %q", s, got)
		}
		Milters(s)
	})
}

// TestSystemInstance: without a directory it is the system's Postfix that is read,
// whatever instance the environment names.
func TestSystemInstance(t *testing.T) {
	for _, env := range []string{"", "/nonexistent"} {
		t.Setenv("MAIL_CONFIG", env)
		if dir, err := onlyInstance(t.Context()); err != nil || dir != "/etc/postfix" {
			t.Errorf("MAIL_CONFIG=%q: %q, %v", env, dir, err)
		}
	}
}

// TestPartial: where the directory cannot be had, the tables of an earlier application keep
// the domains that are not known now, and what else a panel took away comes back.
func TestPartial(t *testing.T) {
	f := panels["plain"]
	dir := instance(t, f.main+"virtual_mailbox_domains = pec.example, second.example\ntransport_maps = inline:{ { anna@second.example = smtp:[192.0.2.1] } }\n", f.master)
	w := wants()
	w.Domains = []string{"pec.example", "second.example"}
	p := read(t, dir)
	pl, err := p.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), pl, w, noon); err != nil {
		t.Fatal(err)
	}
	part := wants()
	part.Partial, part.Peers = true, nil
	p = read(t, dir)
	if pl, err = p.Plan(t.Context(), part); err != nil || !pl.Empty() {
		t.Fatalf("%v, %v", pl, err)
	}
	for _, args := range [][]string{{"-e", "transport_maps=", "smtp_tls_policy_maps="}, {"-PX", "submission/inet/smtpd_milters"}} {
		if _, err := run(t.Context(), "postconf", append([]string{"-c", dir}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	p = read(t, dir)
	if pl, err = p.Plan(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), pl, part, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	now := read(t, dir)
	if !now.RoutesTo(t.Context(), "second.example", w.LMTP) || now.TLSPolicies(t.Context(), w.Peers)["beta.example"] != "encrypt" {
		t.Errorf("second.example goes to %s, TLS %v", now.Route(t.Context(), "second.example"), now.TLSPolicies(t.Context(), w.Peers))
	}
	if _, at := now.FindMilter(now.Service("submission", "inet"), w.Access); at < 0 {
		t.Error("the milter did not come back")
	}
	part.LMTP = "unix:/run/pecd/other.sock" // all lines of the table must change
	if _, err := now.Plan(t.Context(), part); !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "other.sock") {
		t.Errorf("pecd has moved: %v", err)
	}
}

// TestSmallMailboxes: with the larger message_size_limit the limits of mailboxes go, or what
// delivers to them would not start.
func TestSmallMailboxes(t *testing.T) {
	t.Parallel()
	dir := instance(t, "", "smtp inet n - n - - smtpd\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\n  -o virtual_mailbox_limit=20000000\n"+base)
	if got := read(t, dir).SmallMailboxes(10240000); len(got) > 0 {
		t.Errorf("before: %+v", got)
	}
	apply(t, read(t, dir))
	now := read(t, dir)
	if got := now.In(now.Service("virtual", "unix"), "virtual_mailbox_limit"); now.Get("mailbox_size_limit") != "0" || got != "0" {
		t.Errorf("mailbox_size_limit is %s, virtual_mailbox_limit %s", now.Get("mailbox_size_limit"), got)
	}
	if got := now.SmallMailboxes(now.Int("message_size_limit")); len(got) > 0 {
		t.Errorf("after: %+v", got)
	}
}

// TestListenerTLS: the listener takes what comes without TLS, whatever main.cf demands of
// others.
func TestListenerTLS(t *testing.T) {
	t.Parallel()
	for _, demand := range []string{"smtpd_tls_security_level = encrypt\n", "smtpd_enforce_tls = yes\n"} {
		dir := instance(t, "smtpd_tls_cert_file = /etc/x.pem\n"+demand, panels["bare"].master)
		apply(t, read(t, dir))
		now := read(t, dir)
		l := now.Listener(wants().Reinject)
		if got := now.In(l, "smtpd_tls_security_level"); got != "may" || now.DemandsTLS(l) {
			t.Errorf("%s: the listener has %q", strings.TrimSpace(demand), got)
		}
	}
}

// TestSubdomains: relay_domains takes what is below its domains, unless Postfix is told that
// a dot says so; the other lists do not.
func TestSubdomains(t *testing.T) {
	t.Parallel()
	for main, want := range map[string]string{
		"relay_domains = pec.example\n":                                      "relay_domains",
		"relay_domains = pec.example\nparent_domain_matches_subdomains =\n":  "",
		"relay_domains = .pec.example\nparent_domain_matches_subdomains =\n": "relay_domains",
		"relay_domains = other.example\n":                                    "",
		"virtual_mailbox_domains = pec.example\n":                            "",
	} {
		if got := read(t, instance(t, main, base)).Class(t.Context(), "sub.pec.example"); got != want {
			t.Errorf("%s is %q, want %q", main, got, want)
		}
	}
}

// TestMeanwhile: what somebody has written between the plan and its application stays.
func TestMeanwhile(t *testing.T) {
	t.Parallel()
	dir := instance(t, panels["plain"].main, panels["plain"].master)
	p := read(t, dir)
	pl := plan(t, p)
	for _, late := range []bool{false, true} {
		theirs := filepath.Join(dir, "master.cf")
		if late {
			p = read(t, dir)
			pl = plan(t, p)
			// Installing begins with the tables; by then somebody has changed master.cf.
			after, err := p.rehearse(t.Context(), pl)
			if err != nil {
				t.Fatal(err)
			}
			appendTo(t, theirs, "# late\n")
			if err := p.install(t.Context(), pl, after); !errors.Is(err, ErrMeanwhile) {
				t.Errorf("%v", err)
			}
		} else {
			appendTo(t, theirs, "# early\n")
			if _, err := p.Apply(t.Context(), pl, wants(), noon); !errors.Is(err, ErrMeanwhile) {
				t.Errorf("%v", err)
			}
		}
		if b, err := os.ReadFile(theirs); err != nil || !bytes.Contains(b, []byte("# early\n")) || bytes.Contains(b, []byte("pecd")) || bytes.Contains(b, []byte("# late\n")) != late {
			t.Errorf("%s, %v", b, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, backupPrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("backups: %v, %v", left, err)
		}
	}
}

// TestHalfBackup: a backup that was not finished is not there for undo, and none is left
// where keeping it fails.
func TestHalfBackup(t *testing.T) {
	t.Parallel()
	dir := instance(t, panels["plain"].main, panels["plain"].master)
	apply(t, read(t, dir))
	if err := os.Mkdir(filepath.Join(dir, backupPrefix+"20990101T000000Z"), 0o700); err != nil { // as pecd once left it
		t.Fatal(err)
	}
	if _, left, err := read(t, dir).Undo(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	p := read(t, dir)
	pl := plan(t, p)
	if err := os.Mkdir(filepath.Join(dir, TransportFile), 0o755); err != nil { // cannot be copied
		t.Fatal(err)
	}
	pl.Files = append(pl.Files, File{Name: TransportFile, Type: "hash"})
	if _, err := p.Apply(t.Context(), pl, wants(), noon.Add(time.Hour)); err == nil {
		t.Error("applied")
	}
	if half, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(half) > 0 {
		t.Errorf("left behind: %v, %v", half, err)
	}
}
