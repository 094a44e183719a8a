package doctor

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/setup"
	"pecd/packaging/demo/stage"
)

// hosting is a panel's Postfix, of the fixtures that pecd setup is tried with, with the
// domain of the demo.
func hosting(t *testing.T, panel string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) { // Postfix's own user must get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := strings.NewReplacer("DIR", dir).Replace("queue_directory = DIR/queue\ndata_directory = DIR/data\nmaillog_file = DIR/maillog\nmaillog_file_prefixes = DIR\nmyhostname = mail.alfa.example\nalias_maps =\nsmtpd_sender_login_maps = static:all\n") // the panels' tables are in databases
	for name, more := range map[string]string{"main.cf": own, "master.cf": "postlog unix-dgram n - n - 1 postlogd\n"} {
		b, err := os.ReadFile(filepath.Join("..", "setup", "testdata", "panels", panel, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), more+strings.ReplaceAll(string(b), "DOMAIN", "alfa.example"))
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// postconf edits as a panel's installer does.
func postconf(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("postconf", append([]string{"-c", dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A loss is what a panel does to its Postfix after pecd was set up, and what must be
// found then: that and nothing else.
type loss struct {
	name  string
	do    func(t *testing.T, dir string, panel func(name string) string) // panel is a file as the panel writes it
	words []string
	ids   []string
}

// rewrite has the panel write files anew.
func rewrite(names ...string) func(*testing.T, string, func(string) string) {
	return func(t *testing.T, dir string, panel func(string) string) {
		for _, name := range names {
			write(t, filepath.Join(dir, name), panel(name))
		}
	}
}

// set has the panel set what it always sets.
func set(settings ...string) func(*testing.T, string, func(string) string) {
	return func(t *testing.T, dir string, _ func(string) string) {
		postconf(t, dir, append([]string{"-e"}, settings...)...)
	}
}

// all does one thing after the other.
func all(steps ...func(*testing.T, string, func(string) string)) func(*testing.T, string, func(string) string) {
	return func(t *testing.T, dir string, panel func(string) string) {
		for _, do := range steps {
			do(t, dir, panel)
		}
	}
}

// What is found where a panel has written main.cf, or master.cf, anew.
var (
	lostMain   = []string{"size-limit", "header-limit", "line-limit", "mime-conversion", "header-rewrite", "queue-lifetime", "backoff", "recipient-limit", "route", "tls-policy"}
	lostMaster = []string{"submission-milter", "bare-newline", "headers-dropped", "original-changed", "listener-missing"}
)

// hostings are the panels, and how each loses what pecd setup has made.
var hostings = []struct {
	name   string
	panel  string
	site   func(*testing.T, *Site)
	stays  []string // what is found before and after, because the panel has it so
	losses []loss
}{
	{name: "ISPConfig", panel: "ispconfig", stays: []string{"port25-login"}, losses: []loss{
		{name: "update", do: ispconfigUpdate,
			words: []string{"mail for alfa.example goes to lmtp:unix:private/dovecot-lmtp", "header_checks is"}, ids: []string{"route", "content-checks"}},
		{name: "update with postfix_custom.conf.master", do: func(t *testing.T, dir string, panel func(string) string) {
			custom := []string{"transport_maps=" + value(t, dir, "transport_maps")}
			for _, checks := range []string{"header_checks", "mime_header_checks", "nested_header_checks", "body_checks"} {
				custom = append(custom, checks+"=")
			}
			ispconfigUpdate(t, dir, panel)
			set(custom...)(t, dir, panel)
		}},
		{name: "the milter without its own default action", do: all(
			func(t *testing.T, dir string, _ func(string) string) {
				postconf(t, dir, "-P", "submission/inet/smtpd_milters="+value(t, dir, "smtpd_milters")+",unix:"+accessOf(t, dir))
			}, set("milter_default_action=accept")),
			words: []string{`submission/inet: milter_default_action says "accept" for when pecd is away`}, ids: []string{"submission-accept"}},
		{name: "an old master.cf put back", do: rewrite("master.cf"),
			words: []string{`submission/inet runs in the chroot`, `submission/inet: smtpd_milters is "inet:localhost:11332", without`},
			ids:   []string{"socket-chroot", "submission-milter", "bare-newline", "headers-dropped", "original-changed", "listener-missing", "route"}},
	}},
	{name: "ISPConfig with amavis", panel: "ispconfig-amavis", stays: []string{"filter-skipped", "port25-login"}, losses: []loss{
		{name: "update", do: all(ispconfigUpdate, set("content_filter=lmtp:[127.0.0.1]:10024", "receive_override_options=no_address_mappings")),
			words: []string{"goes to lmtp:unix:private/dovecot-lmtp"}, ids: []string{"route", "content-checks"}},
		{name: "the listener without its own settings", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-PX", listenerOf(t, dir)+"/content_filter", listenerOf(t, dir)+"/receive_override_options")
		}, words: []string{"sends signed messages through lmtp:[127.0.0.1]:10024"}, ids: []string{"listener-filter", "listener-checks"}},
	}},
	{name: "iRedMail", panel: "iredmail", stays: []string{"filter-skipped"}, losses: []loss{
		{name: "both files written anew", do: rewrite("main.cf", "master.cf"),
			words: []string{`submission/inet: smtpd_milters is "", without`, "smtpd/pass: smtpd_milters", "mail for alfa.example goes to dovecot, not to"},
			ids:   append(slices.Concat(lostMain, lostMaster), "gate-milter", "content-checks")},
		{name: "milters written into main.cf", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-e", "smtpd_milters=unix:"+accessOf(t, dir), "milter_default_action=tempfail")
		}, words: []string{"127.0.0.1:10025/inet calls pecd: smtpd_milters is", "127.0.0.1:10028/inet calls pecd"}, ids: []string{"milter-stray"}},
		{name: "the access point at port 25", do: func(t *testing.T, dir string, _ func(string) string) {
			p := readPostfix(t, dir)
			postconf(t, dir, "-P", "smtpd/pass/smtpd_milters=unix:"+accessOf(t, dir)+","+setup.Milters(p.In(p.Service("smtpd", "pass"), "smtpd_milters"))[0].Address, "smtpd/pass/milter_default_action=tempfail")
		}, words: []string{"smtpd/pass calls pecd"}, ids: []string{"milter-stray"}},
		{name: "milters switched off for a content filter", do: set("receive_override_options=no_milters"),
			words: []string{`submission/inet: receive_override_options is "no_milters"; no milter is called`, `smtpd/pass: receive_override_options`},
			ids:   []string{"submission-milter", "gate-milter"}},
		{name: "a transport before ours", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-e", "transport_maps=inline:{ { alfa.example = dovecot } }, "+value(t, dir, "transport_maps"))
		}, words: []string{"mail for alfa.example goes to dovecot"}, ids: []string{"route"}},
		{name: "a mailbox gets a transport in the panel", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-e", "transport_maps=inline:{ { anna@alfa.example = dovecot } }, "+value(t, dir, "transport_maps"))
		}, words: []string{"mail for anna@alfa.example goes to dovecot"}, ids: []string{"route-user"}},
		{name: "weak TLS of the panel before ours", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-e", "smtp_tls_policy_maps=inline:{ { beta.example = may } }, "+value(t, dir, "smtp_tls_policy_maps"))
		}, words: []string{"beta.example (may)"}, ids: []string{"tls-policy"}},
	}},
	{name: "Plesk", panel: "plesk", stays: []string{"port25-login"}, losses: []loss{
		{name: "main.cf written anew", do: rewrite("main.cf"), words: []string{"mail for alfa.example goes to plesk_virtual, not to"}, ids: lostMain},
		{name: "both files written anew", do: rewrite("main.cf", "master.cf"),
			words: []string{`submission/inet: smtpd_milters is ", inet:127.0.0.1:12768", without`}, ids: append(slices.Concat(lostMain, lostMaster), "gate-milter")},
		{name: "Plesk's milter behind pecd", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-P", "submission/inet/smtpd_milters=unix:"+accessOf(t, dir)+",inet:127.0.0.1:12768")
		}, words: []string{"submission/inet: inet:127.0.0.1:12768 comes after pecd"}, ids: []string{"milter-order", "submission-accept"}},
	}},
	{name: "Modoboa", panel: "modoboa", stays: []string{"port25-login"}, losses: []loss{
		{name: "updater", do: rewrite("main.cf", "master.cf"),
			words: []string{`submission/inet: smtpd_milters is "inet:localhost:11332", without`, "submission/inet runs in the chroot", "submission/inet uses ascleanup/unix"},
			ids:   append(slices.Concat(lostMain, lostMaster), "socket-chroot")},
		{name: "accept", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-P", "submission/inet/smtpd_milters=inet:localhost:11332,unix:"+accessOf(t, dir))
		}, words: []string{`submission/inet: milter_default_action says "accept"`}, ids: []string{"submission-accept"}},
	}},
	{name: "Modoboa with amavis", panel: "modoboa-amavis", stays: []string{"port25-login"}, losses: []loss{
		{name: "updater", do: rewrite("main.cf", "master.cf"),
			words: []string{`submission/inet: smtpd_milters is "inet:127.0.0.1:12345", without`}, ids: append(slices.Concat(lostMain, lostMaster), "socket-chroot")},
		{name: "the proxy again", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-P", "submission/inet/smtpd_proxy_filter=inet:[127.0.0.1]:10026")
		}, words: []string{"before a proxy pecd's milter sees no message"}, ids: []string{"submission-milter"}},
	}},
	{name: "mailcow", panel: "mailcow", site: overTCP, losses: []loss{
		{name: "the container starts again", do: mailcowStart(""), words: []string{"smtp_line_length_limit is 998"},
			ids: []string{"header-limit", "line-limit", "mime-conversion", "header-rewrite"}},
		{name: "it starts with our settings in extra.cf", do: func(t *testing.T, dir string, panel func(string) string) {
			mailcowStart(added(panel("main.cf"), moved(t, dir, dir, "main.cf")))(t, dir, panel)
		}},
		{name: "an update wins over local changes", do: rewrite("main.cf", "master.cf"),
			words: []string{`588/inet: smtpd_milters is "inet:rspamd:9900", without inet:127.0.0.1:`, `10465/inet: smtpd_milters is`, "smtp_header_checks is"},
			ids: append(slices.Concat(slices.DeleteFunc(slices.Clone(lostMain), func(id string) bool { return id == "backoff" }), lostMaster),
				"gate-milter", "content-checks")}, // the pauses are right as mailcow has them
		{name: "the webmail's port alone", do: func(t *testing.T, dir string, _ func(string) string) {
			postconf(t, dir, "-PX", "588/inet/smtpd_milters")
		}, words: []string{"588/inet: smtpd_milters is"}, ids: []string{"submission-milter"}},
		{name: "milters again at a port of the panel", do: func(t *testing.T, dir string, _ func(string) string) {
			p := readPostfix(t, dir)
			postconf(t, dir, "-P", "590/inet/smtpd_milters="+setup.Milters(p.In(p.Service("588", "inet"), "smtpd_milters"))[1].Address)
		}, words: []string{"590/inet calls pecd"}, ids: []string{"milter-stray"}},
	}},
}

// overTCP has pecd's doors at ports, as in the network of mailcow's containers.
func overTCP(t *testing.T, s *Site) {
	c := *s.Config
	for _, door := range []*string{&c.Access.Milter, &c.Gate.Milter, &c.Reception.LMTP} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		*door = "inet:" + l.Addr().String()
	}
	s.Config = &c
}

// mailcowStart is what the container does to main.cf when it starts: what stands below
// the mark goes, and extra.cf comes.
func mailcowStart(extra string) func(*testing.T, string, func(string) string) {
	return func(t *testing.T, dir string, _ func(string) string) {
		const mark = "# Overrides #\n"
		kept, _, ok := strings.Cut(moved(t, dir, dir, "main.cf"), mark)
		if !ok {
			t.Fatal("no mark in main.cf")
		}
		write(t, filepath.Join(dir, "main.cf"), kept+mark+"\n# User Overrides\nmyhostname = mail.alfa.example\n"+extra)
	}
}

// added is what a file has that it had not before.
func added(before, now string) (lines string) {
	old := strings.Split(before, "\n")
	for line := range strings.Lines(now) {
		if !slices.Contains(old, strings.TrimSuffix(line, "\n")) {
			lines += line
		}
	}
	return lines
}

// ispconfigUpdate is what ISPConfig's update sets, in its order.
func ispconfigUpdate(t *testing.T, dir string, _ func(string) string) {
	checks := "inline:{ { x = DUNNO } }"
	postconf(t, dir, "-e", "transport_maps=inline:{ { lists.example = mailman: } }, inline:{ { relayed.example = smtp:[192.0.2.1] } }",
		"virtual_transport=lmtp:unix:private/dovecot-lmtp", "header_checks="+checks, "mime_header_checks="+checks, "nested_header_checks="+checks, "body_checks="+checks)
}

// value is a setting of main.cf.
func value(t *testing.T, dir, name string) string {
	t.Helper()
	return readPostfix(t, dir).Get(name)
}

// accessOf is the path of the access point that submission calls.
func accessOf(t *testing.T, dir string) string {
	t.Helper()
	p := readPostfix(t, dir)
	list := setup.Milters(p.In(p.Service("submission", "inet"), "smtpd_milters"))
	return strings.TrimPrefix(list[len(list)-1].Address, "unix:")
}

// listenerOf is the service that pecd setup has added for signed messages.
func listenerOf(t *testing.T, dir string) string {
	t.Helper()
	p := readPostfix(t, dir)
	for i := range p.Services {
		if s := &p.Services[i]; p.In(s, "syslog_name") == "postfix/pecd" {
			return s.Key()
		}
	}
	t.Fatal("no listener")
	return ""
}

// TestHosting: beside each panel pecd setup leaves nothing to find, and the doctor finds
// what the panel takes away later.
func TestHosting(t *testing.T) {
	_, site := healthy(t, stage.MTAPostfix)
	for _, h := range hostings {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			site := site
			if h.site != nil {
				h.site(t, &site)
			}
			want := setup.WantsOf(site.Config, site.Loaded.Directory)
			fresh, done := hosting(t, h.panel), applied(t, h.panel, want)
			t.Run("set up", func(t *testing.T) { judge(t, look(t, site, done), broken{ids: h.stays}) })
			for _, l := range h.losses {
				t.Run(l.name, func(t *testing.T) {
					dir := t.TempDir()
					duplicate(t, done, dir)
					l.do(t, dir, func(name string) string { return moved(t, fresh, dir, name) })
					found := look(t, site, dir)
					judge(t, found, broken{ids: append(slices.Clone(l.ids), h.stays...)})
					for _, w := range l.words {
						if !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.What, w) }) {
							t.Errorf("nothing found says %q", w)
						}
					}
					mended(t, site, dir, want, found)
				})
			}
		})
	}
}

// mended does what the doctor says: what pecd setup is to mend must be gone then.
func mended(t *testing.T, site Site, dir string, want setup.Wants, found []Finding) {
	t.Helper()
	bySetup := func(f Finding) bool { return strings.HasPrefix(f.Fix, "pecd setup postfix") }
	if !slices.ContainsFunc(found, bySetup) {
		return
	}
	for _, d := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := readPostfix(t, dir)
	pl, err := p.Plan(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), pl, want, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, f := range look(t, site, dir) {
		if bySetup(f) {
			t.Errorf("still there after %q: %s: %s", f.Fix, f.ID, f.What)
		}
	}
}

// applied is a panel's Postfix with pecd set up.
func applied(t *testing.T, panel string, want setup.Wants) string {
	t.Helper()
	dir := hosting(t, panel)
	p := readPostfix(t, dir)
	pl, err := p.Plan(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), pl, want, time.Now()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// duplicate copies a configuration; it does not run, and needs no queue.
func duplicate(t *testing.T, from, to string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "pecd_*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, "main.cf", "master.cf") {
		write(t, filepath.Join(to, filepath.Base(f)), moved(t, from, to, filepath.Base(f)))
	}
}

// moved is a file as it reads in another directory.
func moved(t *testing.T, from, to, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".db") {
		return string(b)
	}
	return strings.ReplaceAll(string(b), from, to)
}

// look examines it. Its ports are closed: it does not run.
func look(t *testing.T, site Site, dir string) []Finding {
	t.Helper()
	site.Postfix = readPostfix(t, dir)
	return slices.DeleteFunc(Examine(t.Context(), site), func(f Finding) bool { return f.ID == "port-closed" })
}
