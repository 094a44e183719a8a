package stage

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func planned(t *testing.T, o Options) *Stage {
	t.Helper()
	dir := t.TempDir()
	s, err := plan(dir, filepath.Join(dir, "run"), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rendered(t *testing.T, name string, view any) string {
	t.Helper()
	b, err := render(name, view)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// postconf lets Postfix itself read a rendered configuration.
func postconf(t *testing.T, s *Stage, m *MailServer, plain bool, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(rendered(t, name, s.postfixView(m, Options{WithoutPecd: plain}))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("postconf", append([]string{"-c", dir}, args...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "warning") {
		t.Fatalf("postconf %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestPostfixOfAProvider(t *testing.T) {
	s := planned(t, Options{})
	main := postconf(t, s, &s.Alfa.MailServer, false, "-nx")
	for _, want := range []string{
		"virtual_transport = lmtp:unix:" + s.Alfa.Dir + "/sock/lmtp.sock",
		"beta.example = smtp:" + hop(s.Beta.SMTP),
		"ordinary.example = smtp:" + hop(s.Ordinary.SMTP),
		"smtp_tls_policy_maps = inline:{ { " + hop(s.Beta.SMTP) + " = encrypt",
		"disable_mime_output_conversion = yes",
		"maximal_queue_lifetime = 1d",
		"local_header_rewrite_clients =\n",
		"smtpd_relay_restrictions = reject_unauth_destination",
	} {
		if !strings.Contains(main, want) {
			t.Errorf("main.cf lacks %q\n%s", want, main)
		}
	}
	if strings.Contains(main, hop(s.Ordinary.SMTP)+" = encrypt") {
		t.Error("TLS is compulsory towards the ordinary server")
	}
	if strings.Contains(main, "alfa.example = smtp:") {
		t.Error("own mail has a way out")
	}
}

func TestServicesOfAProvider(t *testing.T) {
	s := planned(t, Options{})
	params := postconf(t, s, &s.Alfa.MailServer, false, "-P")
	for _, want := range []string{
		s.Alfa.Submission + "/inet/smtpd_milters = { unix:" + s.Alfa.Dir + "/sock/access.sock, default_action=tempfail }",
		s.Alfa.SMTP + "/inet/smtpd_milters = { unix:" + s.Alfa.Dir + "/sock/gate.sock, default_action=tempfail }",
		s.Alfa.Submission + "/inet/smtpd_tls_auth_only = yes",
		s.Alfa.Submission + "/inet/cleanup_service_name = subcleanup",
		"subcleanup/unix/message_drop_headers =",
		s.Alfa.Reinject + "/inet/smtpd_milters =\n",
		s.Alfa.Reinject + "/inet/cleanup_service_name = recleanup",
	} {
		if !strings.Contains(params, want) {
			t.Errorf("master.cf lacks %q\n%s", want, params)
		}
	}
	for _, l := range strings.Split(postconf(t, s, &s.Alfa.MailServer, false, "-M"), "\n") {
		if f := strings.Fields(l); len(f) > 4 && f[4] != "n" {
			t.Errorf("chrooted, where no socket of ours is: %s", l)
		}
	}
}

// TestClientsAreNotSlowed: test/bench compares servers with and without pecd by how
// fast they take mail, so none may slow its clients down.
func TestClientsAreNotSlowed(t *testing.T) {
	s := planned(t, Options{})
	for _, c := range []struct {
		what  string
		m     *MailServer
		plain bool
	}{{"provider", &s.Alfa.MailServer, false}, {"plain provider", &s.Alfa.MailServer, true}, {"ordinary", &s.Ordinary.MailServer, false}} {
		if params := postconf(t, s, c.m, c.plain, "-P"); !strings.Contains(params, "subcleanup/unix/in_flow_delay = 0\n") {
			t.Errorf("%s: submission slows its clients down:\n%s", c.what, params)
		}
	}
}

func TestMainCF(t *testing.T) {
	s := planned(t, Options{})
	plain := rendered(t, "main.cf", s.postfixView(&s.Alfa.MailServer, Options{}))
	more := rendered(t, "main.cf", s.postfixView(&s.Alfa.MailServer, Options{MainCF: []string{"a = 1", "b = 2"}}))
	if more != plain+"a = 1\nb = 2\n" {
		t.Errorf("two more lines make of\n%s\n%s", plain, more)
	}
}

func TestWithoutPecdNothingLeadsToPecd(t *testing.T) {
	s := planned(t, Options{})
	for name, m := range map[string]*MailServer{"plain provider": &s.Alfa.MailServer, "ordinary": &s.Ordinary.MailServer} {
		for _, file := range []string{"main.cf", "master.cf"} {
			text := rendered(t, file, s.postfixView(m, Options{WithoutPecd: m == &s.Alfa.MailServer}))
			if strings.Contains(text, "access.sock") || strings.Contains(text, "gate.sock") || strings.Contains(text, "lmtp.sock") {
				t.Errorf("%s of %s leads to pecd:\n%s", file, name, text)
			}
		}
	}
}

func TestPecdConfig(t *testing.T) {
	s := planned(t, Options{Configure: func(domain string, c *PecdConfig) {
		if domain == "beta.example" {
			c.Access.MaxSize = 4096
		}
	}})
	for _, p := range s.Providers() {
		p.Pecd.ConfigFile = filepath.Join(t.TempDir(), "pecd.toml")
		if err := p.Pecd.WriteConfig(); err != nil {
			t.Fatal(err)
		}
	}
	var got map[string]map[string]any
	if _, err := toml.DecodeFile(s.Beta.Pecd.ConfigFile, &got); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ section, key, want string }{
		{"provider", "name", "Beta PEC S.p.A."},
		{"provider", "domain", "beta.example"},
		{"access", "milter", "unix:" + s.Beta.Dir + "/sock/access.sock"},
		{"reception", "lmtp", "unix:" + s.Beta.Dir + "/sock/lmtp.sock"},
		{"delivery", "store", "unix:" + s.Beta.Dir + "/sock/store.sock"},
		{"courier", "mta", "inet:" + s.Beta.Reinject},
	} {
		if got[c.section][c.key] != c.want {
			t.Errorf("[%s] %s = %v, want %s", c.section, c.key, got[c.section][c.key], c.want)
		}
	}
	if got["access"]["max_size"] != int64(4096) {
		t.Errorf("Configure had no effect: %v", got["access"])
	}
	if _, ok := got["reception"]["max_size"]; ok {
		t.Error("a zero value was written; pecd's default would not hold")
	}
}

// The keys are a contract with people and programs outside.
func TestEnvKeys(t *testing.T) {
	s := planned(t, Options{PecdBinary: "bin/pecd"})
	file := filepath.Join(t.TempDir(), "env.json")
	if err := s.WriteEnv(file); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("passwords for everybody to read: %v %v", fi.Mode(), err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	provider := e["providers"].([]any)[0].(map[string]any)
	for _, c := range []struct {
		what string
		in   any
		keys string
	}{
		{"env.json", e, "ca directory ordinary providers tls_ca"},
		{"provider", provider, "certificate config domain imap metrics name pecd postfix_config_dir service_mailbox smtp submission submission_tls users"},
		{"pecd", provider["pecd"], "bin log pid start store"},
		{"user", provider["users"].([]any)[0], "address password"},
		{"service_mailbox", provider["service_mailbox"], "address password"},
		{"ordinary", e["ordinary"], "domain imap smtp users"},
	} {
		if got := keys(c.in.(map[string]any)); got != c.keys {
			t.Errorf("%s has the keys %s, want %s", c.what, got, c.keys)
		}
	}
	if got := s.Env(); got.Providers[0].Users[0].Address != "alice@alfa.example" || got.Providers[1].Users[1].Address != "bruna@beta.example" ||
		got.Ordinary.Users[0].Address != "mario@ordinary.example" || got.Providers[0].ServiceMailbox.Address != "ricevute@alfa.example" {
		t.Errorf("the cast is wrong: %+v", got)
	}
	if start := s.Env().Providers[0].Pecd.Start; len(start) != 4 || !filepath.IsAbs(start[0]) || start[1] != "serve" || start[2] != "--config" {
		t.Errorf("pecd starts with %q", start)
	}
}

func keys(m map[string]any) string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

func TestOpenReadsWhatWasSaved(t *testing.T) {
	s := planned(t, Options{PecdBinary: "/bin/true", PecdEnv: []string{"A=b"}})
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	got, err := Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Env(), s.Env()) {
		t.Errorf("opened:\n%+v\nsaved:\n%+v", got.Env(), s.Env())
	}
	if got.Alive() {
		t.Error("a stage that was never started is alive")
	}
	if _, err := got.Authority(); err == nil {
		t.Error("an opened stage has the authority's key")
	}
	if err := os.WriteFile(filepath.Join(s.Dir, stateFile), []byte(`{"Root":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Dir); err == nil {
		t.Error("a broken state was opened")
	}
	if err := Clean(context.Background(), t.TempDir()); err != nil {
		t.Errorf("cleaning where nothing is: %v", err)
	}
}

func TestTemplateFor(t *testing.T) {
	s := planned(t, Options{})
	for version, want := range map[string]string{
		"2.3.19.1 (9b53102964)\n": "dovecot-2.3.conf",
		"2.4.1-4 (7d8c0e5759)\n":  "dovecot-2.4.conf",
		"2.30.1\n":                "",
		"":                        "",
	} {
		got, err := templateFor(version)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", version, got, err)
		}
		if want == "" {
			continue
		}
		conf := rendered(t, got, dovecotView{MailServer: &s.Alfa.MailServer, MailUID: 8, MailGID: 8, IMAPPort: "143"})
		for _, line := range []string{"unix_listener " + s.Alfa.Dir + "/sock/store.sock {", "port = 143\n", "mail_uid = 8\n", s.Alfa.Dir + "/dovecot/users\n"} {
			if !strings.Contains(conf, line) {
				t.Errorf("%s lacks %q:\n%s", got, line, conf)
			}
		}
	}
}
