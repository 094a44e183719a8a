package setup

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tree is where packaging/prerequisites unpacks Debian's Sendmail.
const tree = "/var/cache/pecd-demo/sendmail"

// debianMC is Debian's sendmail.mc, moved: its own files from the system's directories
// to dir and to the tree.
func debianMC(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(tree + "/usr/share/sendmail/cf/debian/sendmail.mc")
	if err != nil {
		t.Fatalf("%v; packaging/prerequisites test brings it", err)
	}
	mc := strings.NewReplacer("/usr/share/sendmail/", tree+"/usr/share/sendmail/", "/etc/mail/", dir+"/").Replace(string(b))
	return strings.Replace(mc, "OSTYPE(`debian')", "include(`"+tree+"/usr/share/sendmail/cf/debian/autoconf.m4')dnl\n"+
		"define(`MAIL_SETTINGS_DIR', `"+dir+"/')dnl\ndefine(`confTRUSTED_USER', `root')dnl\nOSTYPE(`debian')", 1)
}

// minimalMC is the least from which m4 makes a configuration: default daemons, no
// tables.
const minimalMC = "include(`" + tree + "/usr/share/sendmail/cf/m4/cf.m4')dnl\nOSTYPE(`linux')dnl\ndefine(`confTRUSTED_USER', `root')dnl\n" +
	"define(`confPRIVACY_FLAGS', `goaway,noreceipts')dnl\nMAILER(`local')dnl\nMAILER(`smtp')dnl\n"

// mail writes a Sendmail's directory and returns it, with a program that runs Sendmail
// under a host name of its own and where no name server is.
func mail(t *testing.T, mc func(dir string) string, more map[string]string) (dir, program string) {
	t.Helper()
	// Not in /tmp: Sendmail trusts no folder below one that all may write to.
	dir, err := os.MkdirTemp("/var/lib", "pecd-setup-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program = filepath.Join(dir, "program")
	files := map[string]string{MCFile: mc(dir), "m4/dialup.m4": "", "m4/provider.m4": "", "local-host-names": "localhost\n",
		"program": "#!/bin/sh\nexec unshare --uts --net sh -c 'hostname mail.pec.example; exec " + tree + "/usr/libexec/sendmail/sendmail \"$@\"' sh \"$@\"\n"}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(tree+"/usr/libexec/sendmail/makemap", filepath.Join(dir, "makemap")); err != nil {
		t.Fatal(err)
	}
	rebuildCF(t, dir)
	return dir, program
}

// rebuildCF makes sendmail.cf as the administrator does.
func rebuildCF(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("m4", filepath.Join(dir, MCFile))
	cmd.Dir = dir
	cf, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, CFFile), cf, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readSendmail(t *testing.T, dir, program string) *Sendmail {
	t.Helper()
	s, err := ReadSendmail(t.Context(), dir, program)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func planSendmail(t *testing.T, s *Sendmail) *SendmailPlan {
	t.Helper()
	p, err := s.Plan(t.Context(), wants())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func applySendmail(t *testing.T, s *Sendmail, at time.Time) {
	t.Helper()
	if _, err := s.Apply(t.Context(), planSendmail(t, s), wants(), at); err != nil {
		t.Fatal(err)
	}
}

// snapshot is all files of a directory, but for the comments that tell when a
// sendmail.cf was built, and for backups.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, backupPrefix) || strings.HasSuffix(path, ".db") {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.HasSuffix(path, ".cf") {
			b = []byte(strings.Join(meaning(b), "\n"))
		}
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s was not there", name)
		}
	}
	for name := range before {
		if before[name] != after[name] {
			t.Errorf("%s is not what it was:\n%s", name, after[name])
		}
	}
}

// sendmails are configurations as administrators have them.
var sendmails = map[string]struct {
	mc      func(t *testing.T, dir string) string
	more    map[string]string
	filters map[string]string // by daemon, once pecd is set up
}{
	"Debian": {mc: debianMC, filters: map[string]string{"MTA-v4": "pecdgate", "MSP-v4": "pecdaccess", "pecd": ""}},
	"Debian in use": {func(t *testing.T, dir string) string {
		mc := strings.Replace(debianMC(t, dir), "MAILER_DEFINITIONS\n",
			"FEATURE(`mailertable')dnl\ndefine(`confMAX_MESSAGE_SIZE', `20000000')dnl\n"+
				"INPUT_MAIL_FILTER(`spamassassin', `S=local:/run/spamass.sock, F=, T=C:15m')dnl\nINPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')dnl\nMAILER_DEFINITIONS\n", 1)
		return mc + "LOCAL_RULESETS\nSLocal_check_mail\nR$*\t\t$@ OK\n"
	}, map[string]string{"local-host-names": "localhost\npec.example\nother.example\n", "mailertable": "# ways\nPEC.example\tsmtp:[192.0.2.1]\nx.example\tsmtp:[192.0.2.2]\n",
		"access": "Connect:127\tRELAY\nGreetPause:127\t0\nTLS_Rcpt:gamma.example\tVERIFY\n"},
		// The signer of DKIM goes to where signed messages leave.
		map[string]string{"MTA-v4": "spamassassin;opendkim;pecdgate", "MSP-v4": "spamassassin;pecdaccess", "pecd": "opendkim"}},
	"minimal": {func(*testing.T, string) string { return minimalMC }, nil, map[string]string{"MTA": "pecdgate", "MSA": "pecdaccess", "pecd": ""}},
}

// TestSendmails sets pecd up in each Sendmail, looks at the result through Sendmail
// itself, finds nothing more to do, and gets everything back.
func TestSendmails(t *testing.T) {
	for name, f := range sendmails {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, program := mail(t, func(dir string) string { return f.mc(t, dir) }, f.more)
			before := snapshot(t, dir)
			s := readSendmail(t, dir, program)
			var diff bytes.Buffer
			if err := s.Diff(planSendmail(t, s), &diff); err != nil {
				t.Fatal(err)
			}
			t.Log(diff.String())
			applySendmail(t, s, noon)
			now := readSendmail(t, dir, program)
			wired(t, now)
			for daemon, filters := range f.filters {
				if i := slices.IndexFunc(now.Daemons(), func(d Daemon) bool { return d.Name == daemon }); i < 0 || strings.Join(now.Daemons()[i].Filters, ";") != filters {
					t.Errorf("%s does not ask %s: %+v", daemon, filters, now.Daemons())
				}
			}
			if got := planSendmail(t, now); !got.Empty() {
				t.Errorf("a second run would change %v", got.Names())
			}
			_, left, err := UndoSendmail(t.Context(), dir, program)
			if err != nil || len(left) > 0 {
				t.Fatal(left, err)
			}
			same(t, before, snapshot(t, dir))
		})
	}
}

// wired looks at what matters through what Sendmail says.
func wired(t *testing.T, s *Sendmail) {
	t.Helper()
	routes, err := s.Routes(t.Context(), []string{"pec.example", "x.example"})
	if err != nil || !s.RoutesTo(routes["pec.example"], wants().LMTP) || s.RoutesTo(routes["x.example"], wants().LMTP) {
		t.Errorf("routes: %v, %v", routes, err)
	}
	if !s.Relays("pec.example") || s.Local("pec.example") {
		t.Error("pec.example is not one of the domains for which others may send")
	}
	for _, d := range s.Daemons() {
		addr := map[bool]string{true: wants().Access, false: wants().Gate}[d.Submission()]
		if d.is(wants().Reinject) {
			for _, name := range d.Filters {
				if !s.cf.filters[name].Signs() {
					t.Errorf("the listener calls %s", name)
				}
			}
			if !d.Own || !d.Loopback() {
				t.Errorf("the listener: %s", d.text)
			}
			continue
		}
		if x, i := s.Filter(d, addr); i < 0 || i != len(d.Filters)-1 || x.Flags != "T" {
			t.Errorf("%s: filters %v", d.text, d.Filters)
		}
	}
	if _, ok := s.Listener(wants().Reinject); !ok {
		t.Error("no listener for signed messages")
	}
	for _, name := range []string{"smtp", "esmtp", "smtp8", "dsmtp", "relay", pecdMailer} {
		if m := s.Mailers()[name]; m.Program != "[IPC]" || m.Converts() || m.Cuts() {
			t.Errorf("mailer %s: %+v", name, m)
		}
	}
	if weak, err := s.Unprotected(wants().Peers); err != nil || len(weak) > 0 {
		t.Errorf("in clear: %v, %v", weak, err)
	}
	if d := s.Demands(wants()); len(d) > 0 {
		t.Errorf("not as it should be: %+v", d)
	}
}

// TestSendmailRelays: there are several ways to say for whom mail is taken.
func TestSendmailRelays(t *testing.T) {
	dir, program := mail(t, func(dir string) string {
		return strings.Replace(minimalMC, "MAILER(`local')", "RELAY_DOMAIN(`r.example')dnl\nFEATURE(`access_db', `hash "+dir+"/access')dnl\nMAILER(`local')", 1)
	}, map[string]string{"access": "To:a.example RELAY\nB.example\tRELAY\nTo:c.example REJECT\nConnect:127 RELAY\n"})
	s := readSendmail(t, dir, program)
	for domain, want := range map[string]bool{"a.example": true, "b.example": true, "c.example": false, "r.example": true, "sub.r.example": true, "other.example": false, "localhost": true} {
		if s.Relays(domain) != want {
			t.Errorf("%s: relayed is %v", domain, !want)
		}
	}
}
