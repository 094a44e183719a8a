package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pagesRoot tells the inner test where its root file system is.
const pagesRoot = "PECD_TEST_PAGES_ROOT"

// runs are the first words of the lines that TestPagesRun runs beside pecd's own.
var runs = map[string]bool{"pecd": true, "openssl": true, "usermod": true, "systemctl": true, "install": true, "chmod": true, "df": true}

// A deviation is a line that is not simply run and wanted to end with 0. Nothing is
// left out that only pecd would do. Lines that begin otherwise (apt-get, journalctl)
// are the system's; pecd serve is run by what stands for systemctl.
type deviation struct {
	line   string // as shown
	code   int
	skip   bool
	reason string
}

var deviations = []deviation{
	{line: "pecd quickstart DOMAIN", code: exitNo, reason: "quickstart replaces no configuration, and install.md has made one before"},
	{line: "pecd quickstart DOMINIO", code: exitNo, reason: "as above"},
	{line: "pecd doctor --sendmail-config-dir /etc/mail", code: exitNo, reason: "the Sendmail here is not started, and has no TLS certificate"},
	{line: "make test", skip: true, reason: "plugins/scaffold runs it; it takes long"},
	{line: "make build", skip: true, reason: "as above; TestPagesRun has built the same project, where there is a network"},
	{line: "make check", skip: true, reason: "as above; pecd plugin check is run"},
	{line: "systemctl stop pecd", skip: true, reason: "what stands for systemd opens no sockets; systemctl start pecd starts it anew"},
	{line: "systemctl edit pecd.socket      # [Socket] SocketGroup=postfix", skip: true, reason: "it opens an editor, and no systemd runs here"},
	{line: "systemctl enable --now pecd.socket", skip: true, reason: "no systemd runs here; test/restart_test.go passes sockets"},
}

// TestPagesRun installs pecd after docs/install.md beside a Postfix, a Dovecot and a
// Sendmail, on a file system, network and process space of its own, and runs there
// every command line of pecd that README.md and docs show, as it stands.
func TestPagesRun(t *testing.T) {
	if os.Getenv(pagesRoot) != "" {
		return // the inner one is TestPagesInside
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts, and starts servers")
	}
	root, err := os.MkdirTemp("/var/tmp", "pecd-pages-") // users of the servers must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, d := range []string{"memory", "bin"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside := func(dir, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	pecd := filepath.Join(root, "bin", "pecd")
	outside("../..", "go", "build", "-buildvcs=false", "-tags", "faultdrill", "-o", pecd, "./cmd/pecd")
	outside(root, pecd, "plugin", "new", "subjects")
	outside(filepath.Join(root, "subjects"), "make", "build")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount",
		// The shell is the first process and reaps those that have lost their parent.
		"sh", "-c", `"$@"; exit $?`, "sh", self, "-test.run", "^TestPagesInside$", "-test.v", "-test.timeout=9m")
	cmd.Env = append(os.Environ(), pagesRoot+"="+root)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// A pagesMachine is where the lines run.
type pagesMachine struct {
	*testing.T
	outside string // what TestPagesRun has built
	dir     string // of the page's lines
	files   *strings.Replacer
}

// TestPagesInside is started by TestPagesRun.
func TestPagesInside(t *testing.T) {
	root := os.Getenv(pagesRoot)
	if root == "" {
		return
	}
	lines := shownLines(t)
	m := &pagesMachine{T: t, outside: root}
	m.enter(root)
	m.servers()
	m.placeholders()
	known, page, seen := map[string]bool{}, "", map[string]bool{}
	for _, l := range lines {
		if l.page != page {
			page = l.page
			m.begin(page)
		}
		if !m.complete(l) || seen[l.text] && (!l.sh || page == "troubleshooting.md") {
			continue // many sentences, and many of the doctor's fixes, name the same
		}
		seen[l.text] = true
		d := deviation{}
		for _, k := range deviations {
			if k.line == l.text {
				d, known[k.line] = k, true
			}
		}
		if !d.skip {
			m.line(l, d)
		}
	}
	for _, d := range deviations {
		if !known[d.line] {
			t.Errorf("no page shows %q any more, of which the table knows something", d.line)
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d lines were run", len(seen))
	}
}

// complete reports whether a line is a command that can be run as it stands, or with a
// name in place of a word in capitals.
func (m *pagesMachine) complete(l shownLine) bool {
	word, _, _ := strings.Cut(l.text, " ")
	switch {
	case !l.sh:
		return word == "pecd" && (!strings.Contains(l.text, "…") || strings.HasSuffix(l.text, " PACKAGE…")) && understood(l.text) == nil
	case l.page == "plugins.md":
		return l.text != ""
	case l.page == "verify.md" || l.page == "evidence.md":
		return word == "pecd" // tests of their own run all
	}
	return runs[word]
}

// placeholders says what stands for the names that the pages give to files and words.
func (m *pagesMachine) placeholders() {
	m.files = strings.NewReplacer(
		"--days DIR", "--days /var/lib/pecd/seals", "--tsa-ca FILE", "--tsa-ca /etc/pecd/tsa.pem", "--ca FILE", "--ca /etc/pecd/test-anchors.pem",
		"--heads FILE", "--heads /root/heads", "--canary FILE", "--canary "+canaryFile, "plugin check FILE", "plugin check /usr/lib/pecd/plugins/subjects",
		"-attime SECONDS", "-attime $(date +%s)", "backup DIR", "backup /var/lib/pecd/one", "PACKAGE…", "2026-03.tar", "DOMAIN", "example.it", "DOMINIO", "example.it",
		"IDENTIFICATIVO", "IDENTIFIER", "ricevuta.eml", "receipt.eml", "autorita.pem", "authorities.pem")
	if err := os.Setenv("PECD_CLOCK", clockFile); err != nil {
		m.Fatal(err)
	}
}

// clockFile moves the clock of pecd there.
const clockFile = "/etc/pecd.clock" // the daemon reads it too

// begin makes the directory in which a page's lines are run, with the files that they
// name.
func (m *pagesMachine) begin(page string) {
	m.Helper()
	m.dir = filepath.Join("/root/pages", page)
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		m.Fatal(err)
	}
	switch page {
	case "README.md":
		m.mail()
	case "verify.md":
		s := newSite(m.T)
		s.papers(m.T)
		m.sh(m.dir, "cp "+s.dir+"/*.eml "+s.dir+"/*.mbox "+s.dir+"/*.pem "+s.directory+" .")
		return
	case "install.md":
		return
	}
	m.sh(m.dir, `cp /etc/pecd/test-anchors.pem authorities.pem
cp /etc/pecd/test-igpec.ldif.p7m igpec.ldif.p7m
sed 's/$/\r/' "$(grep -l '^X-Ricevuta: avvenuta-consegna' /var/vmail/example.it/alice/new/* | head -n 1)" >receipt.eml`)
}

// line runs one line, and wants the exit code that the page implies.
func (m *pagesMachine) line(l shownLine, d deviation) {
	m.Helper()
	text := m.files.Replace(l.text)
	if strings.Contains(text, "IDENTIFIER") {
		text = strings.ReplaceAll(text, "IDENTIFIER", m.output("pecd log search --address anna@example.it | sed -n 's/.* \\([^ ]*@example.it\\).*/\\1/p' | head -n 1"))
	}
	switch {
	case text == "pecd serve": // it does not end; what stands for systemd runs just this
		text = "systemctl restart pecd"
	case l.page == "plugins.md" && strings.HasPrefix(text, "cd "):
		m.dir = filepath.Join(m.dir, strings.TrimPrefix(text, "cd "))
		m.sh(m.dir, "cp "+m.outside+"/subjects/subjects .")
		return
	case strings.HasPrefix(text, "pecd log purge"): // "After 30 months"
		m.write(clockFile, (32 * 31 * 24 * time.Hour).String())
		defer m.today()
	case strings.HasSuffix(text, "--heads /root/heads"):
		m.sh("/", `pecd log export --format json 2>/dev/null | tail -n 1 | sed 's/{"chain":"\([0-9a-f]*\)","entry":{"seq":\([0-9]*\),.*/seq=\2; chain=\1/' >/root/heads`)
	}
	begin := time.Now()
	code, out := m.run(m.dir, text)
	m.Logf("%s: %s: exit %d, %.1f s", l.page, text, code, time.Since(begin).Seconds())
	if strings.HasPrefix(text, "pecd doctor") && d.line == "" {
		d.code = m.healthy(l, out)
	}
	if code != d.code {
		m.Errorf("%s: %s: exit %d, want %d\n%s", l.page, l.text, code, d.code, out)
	}
	m.after(l)
}

// today puts the clock right again, and waits until the daemon no longer says what it
// may have found by the other one: that its certificate has ended.
func (m *pagesMachine) today() {
	m.Helper()
	m.write(clockFile, "0s")
	m.sh("/", "for i in $(seq 100); do pecd doctor | grep -q '\\[daemon-unready\\]' || exit 0; sleep 0.2; done; exit 1")
}

// healthy wants a doctor that finds no error but in what this machine shares with the
// real one, its clock, and returns the exit code that goes with that.
func (m *pagesMachine) healthy(l shownLine, out string) (code int) {
	m.Helper()
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "error: ") {
			continue
		}
		code = exitNo
		if !strings.Contains(line, "[clock]") {
			m.Errorf("%s: %s: %s", l.page, l.text, line)
		}
	}
	return code
}

// after brings the machine where the next lines of a page want it.
func (m *pagesMachine) after(l shownLine) {
	m.Helper()
	switch l.text {
	case "pecd quickstart example.it":
		m.history()
	case "systemctl enable --now pecd":
		m.sh("/", "for i in $(seq 600); do pecd log seal && exit 0; sleep 0.2; done; exit 1") // it does so by itself, and that takes a little
	case "pecd setup postfix --undo": // the other pages need it
		m.sh("/", "pecd setup postfix --apply && postfix reload")
	}
}
