//go:build installation

package installation

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where the parts of the test find each other, and which MTA it is about.
const (
	rootVariable = "PECD_INSTALLATION_ROOT"
	mtaVariable  = "PECD_INSTALLATION_MTA"
)

func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestInstall and TestInstallSendmail make a Debian with an MTA, Dovecot and two
// versions of the package, and start TestInside in it.
func TestInstall(t *testing.T)         { install(t, postfix) }
func TestInstallSendmail(t *testing.T) { install(t, sendmail) }

func install(t *testing.T, a mta) {
	if os.Getenv(rootVariable) != "" {
		return
	}
	root, debs := filepath.Join(t.TempDir(), "debian"), t.TempDir()
	mirror := strings.Fields(sh(t, "sh", "-c", `apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk '$2 == "bookworm" {print $1; exit}'`))
	if len(mirror) != 1 {
		t.Fatal("apt knows no mirror of Debian 12")
	}
	sh(t, "debootstrap", "--variant=minbase", "--include=ca-certificates,tzdata,openssl", "bookworm", root, mirror[0])
	for i, version := range []string{"0.0.1", "0.0.2"} {
		cmd := exec.Command("go", "run", "./packaging/packages", "-out", debs, "-version", version, "-at", fmt.Sprint(1700000000+i), "-formats", "deb")
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("packages: %v\n%s", err, out)
		}
	}
	prepare(t, a, root, debs)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc="+root+"/proc", self, "-test.run", "TestInside", "-test.v")
	cmd.Env = append(os.Environ(), rootVariable+"="+root, mtaVariable+"="+a.name)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// prepare installs the servers, and writes what an administrator has before pecd
// comes: users, a submission service, a certificate.
func prepare(t *testing.T, a mta, root, debs string) {
	t.Helper()
	files := map[string]string{
		"usr/sbin/policy-rc.d":   "#!/bin/sh\nexit 101\n",
		"etc/dovecot/local.conf": dovecotConf + a.dovecot,
		"etc/dovecot/users":      "alice@example.test:{PLAIN}secret\nbob@example.test:{PLAIN}secret\nricevute@example.test:{PLAIN}secret\nposta-certificata@example.test:{PLAIN}secret\n",
		"root/prepare":           prepareScript + a.prepare,
		"root/packages":          a.packages,
	}
	maps.Copy(files, a.files)
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	found, err := filepath.Glob(filepath.Join(debs, "pecd_*.deb"))
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	for _, f := range found {
		sh(t, "cp", f, filepath.Join(root, "root"))
	}
	// A host of its own: the packages of servers ask for its name.
	sh(t, "unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc="+root+"/proc", "sh", "-e", "-c",
		`hostname mail.example.test; mount --bind /dev "$1/dev"; exec chroot "$1" sh -e /root/prepare`, "sh", root)
}

const prepareScript = `
export DEBIAN_FRONTEND=noninteractive
[ ! -e /root/debconf-selections ] || debconf-set-selections /root/debconf-selections
apt-get -q update
apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-confold $(cat /root/packages) dovecot-core dovecot-lmtpd dovecot-imapd
useradd -r -d /var/vmail -m vmail
chgrp dovecot /etc/dovecot/users
sed -i 's/^!include auth-system/#&/' /etc/dovecot/conf.d/10-auth.conf
mkdir -p /etc/ssl/private
openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=mail.example.test -keyout /etc/ssl/private/t.key -out /etc/ssl/certs/t.pem
chmod 600 /etc/ssl/private/t.key
`

const dovecotConf = `
protocols = imap lmtp
mail_location = maildir:/var/vmail/%d/%n
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=vmail gid=vmail home=/var/vmail/%d/%n
}
service lmtp {
  unix_listener lmtp {
    mode = 0660
    group = pecd
  }
}
`

// A machine is the Debian in which the test runs.
type machine struct {
	*testing.T
	mta  mta
	root string
	pecd *exec.Cmd
}

// run runs a command there and returns its exit code and what it printed.
func (m *machine) run(args ...string) (int, string) {
	m.Helper()
	// A file and no pipe: daemons that a command starts keep it open.
	out, err := os.CreateTemp(m.TempDir(), "out")
	if err != nil {
		m.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("chroot", append([]string{m.root}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		m.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// must is run for what must end well.
func (m *machine) must(args ...string) string {
	m.Helper()
	code, out := m.run(args...)
	if code != 0 {
		m.Fatalf("%s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// serve starts pecd as its unit does: as its user, with that user's groups.
func (m *machine) serve() {
	m.Helper()
	log, err := os.OpenFile(filepath.Join(m.root, "var/log/pecd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.Fatal(err)
	}
	defer log.Close()
	before, err := os.ReadFile(log.Name())
	if err != nil {
		m.Fatal(err)
	}
	m.pecd = exec.Command("chroot", m.root, "setpriv", "--reuid", "pecd", "--regid", "pecd", "--init-groups", "/usr/sbin/pecd", "serve")
	m.pecd.Stdout, m.pecd.Stderr = log, log
	if err := m.pecd.Start(); err != nil {
		m.Fatal(err)
	}
	m.await("pecd is ready", func() bool {
		now, err := os.ReadFile(log.Name())
		return err == nil && bytes.Contains(now[len(before):], []byte("msg=ready"))
	})
}

func (m *machine) end() {
	m.Helper()
	if err := errors.Join(m.pecd.Process.Signal(syscall.SIGTERM), m.pecd.Wait()); err != nil {
		m.Errorf("pecd ended with %v", err)
	}
}

func (m *machine) await(what string, is func() bool) {
	m.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(m.root, "var/log/pecd.log"))
			m.Fatalf("it does not come true: %s\n%s", what, log)
		}
	}
}

// send submits a message, and again for as long as the server says "later".
func (m *machine) send(subject string) {
	m.Helper()
	text := "From: alice@example.test\r\nTo: bob@example.test\r\nSubject: " + subject + "\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@client.example>\r\n\r\nCiao\r\n"
	m.await(subject+" is accepted", func() bool {
		c, err := smtp.Dial("127.0.0.1:587")
		if err != nil {
			m.Fatal(err)
		}
		defer c.Close()
		// Sendmail says "later" from STARTTLS on while a filter is away.
		err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
		if err == nil {
			err = c.Auth(smtp.PlainAuth("", "alice@example.test", "secret", "127.0.0.1"))
		}
		if err == nil {
			err = c.Mail("alice@example.test")
		}
		if err == nil {
			err = c.Rcpt("bob@example.test")
		}
		if err == nil {
			w, derr := c.Data()
			if err = derr; err == nil {
				_, werr := w.Write([]byte(text))
				err = errors.Join(werr, w.Close())
			}
		}
		var reply *textproto.Error
		if err != nil && (!errors.As(err, &reply) || reply.Code/100 != 4) {
			m.Fatal(err)
		}
		return err == nil
	})
}

// count counts the messages of a mailbox whose subject is prefix and one of ours.
func (m *machine) count(user, prefix string) (n int) {
	m.Helper()
	err := filepath.WalkDir(filepath.Join(m.root, "var/vmail/example.test", user), func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (e.IsDir() || filepath.Base(filepath.Dir(p)) == "tmp" || strings.HasPrefix(e.Name(), "dovecot")) {
			return nil
		}
		data, rerr := os.ReadFile(p)
		if errors.Is(rerr, fs.ErrNotExist) {
			return nil // from new to cur
		}
		if bytes.Contains(data, []byte("\nSubject: "+prefix+": msg ")) {
			n++
		}
		return errors.Join(err, rerr)
	})
	if err != nil {
		m.Fatal(err)
	}
	return n
}

// TestInside installs, sets up, sends, upgrades with messages in flight, removes and
// purges. It runs in namespaces of its own.
func TestInside(t *testing.T) {
	root := os.Getenv(rootVariable)
	if root == "" {
		return // TestInstall starts it, with a machine
	}
	m := &machine{T: t, root: root, mta: postfix}
	if os.Getenv(mtaVariable) == sendmail.name {
		m.mta = sendmail
	}
	sh(t, "ip", "link", "set", "lo", "up")
	sh(t, "hostname", "mail.example.test")
	sh(t, "mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", filepath.Join(root, "run"))
	sh(t, "mount", "--bind", "/dev", filepath.Join(root, "dev"))

	out := m.must("dpkg", "-i", "/root/pecd_0.0.1-1_amd64.deb")
	if !strings.Contains(out, "does not run yet") {
		t.Errorf("the package does not say what comes next:\n%s", out)
	}
	m.same("the installation changed the MTA's files")
	m.must("dovecot")
	if next := m.must("pecd", "quickstart", "example.test"); !strings.Contains(next, "pecd setup "+m.mta.name) {
		t.Errorf("quickstart names another MTA:\n%s", next)
	}
	if m.mta.group != "" {
		m.must("usermod", "-aG", m.mta.group, "pecd")
	}
	m.must("pecd", "config", "check")
	if plan := m.must("pecd", "setup", m.mta.name); !strings.Contains(plan, m.mta.planned) {
		t.Errorf("the plan lacks the milter:\n%s", plan)
	}
	m.same("a plan changed the MTA's files")
	m.must("pecd", "setup", m.mta.name, "--apply")
	if out := m.must("pecd", "setup", m.mta.name); !strings.Contains(out, "nothing to do") {
		t.Errorf("a second time:\n%s", out)
	}
	m.must("install", "-d", "-o", "pecd", "-g", "pecd", "/run/pecd")
	m.must(m.mta.start...)
	m.await("the MTA listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:587")
		return err == nil && c.Close() == nil
	})
	m.serve()
	m.send("msg first")
	m.await("the delivery receipt", func() bool { return m.count("alice", "CONSEGNA") == 1 })
	m.doctor()

	const flight = 40
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range flight {
			m.send(fmt.Sprint("msg flight ", i))
		}
	}()
	m.await("messages are in flight", func() bool { return m.count("alice", "ACCETTAZIONE") > 5 })
	m.must("dpkg", "-i", "/root/pecd_0.0.2-1_amd64.deb")
	m.end()
	m.serve()
	<-done
	m.must(m.mta.flush...)
	m.await("all is delivered", func() bool { return m.count("alice", "CONSEGNA") == flight+1 })
	if a, e := m.count("alice", "ACCETTAZIONE"), m.count("bob", "POSTA CERTIFICATA"); a != flight+1 || e != flight+1 {
		t.Errorf("%d acceptance receipts and %d envelopes, want %d of each", a, e, flight+1)
	}
	if out := m.must("pecd", "version"); !strings.Contains(out, "0.0.2") {
		t.Errorf("after the upgrade: %s", out)
	}
	m.must("pecd", "log", "verify")
	m.must("pecd", "log", "check")
	t.Logf("%d messages, the last %d over an upgrade: each accepted, delivered and certified once", flight+1, flight)
	m.remove()
}

// doctor wants nothing wrong but what this machine lacks: a kept clock, DNS, an
// authority for time stamps, a certificate with legal value.
func (m *machine) doctor() {
	m.Helper()
	code, out := m.run("pecd", "doctor")
	if wrong := unlike(code, out); len(wrong) > 0 {
		m.Errorf("pecd doctor: exit %d: %s\n%s", code, strings.Join(wrong, "; "), out)
	}
}

// lacking are the findings of a machine without a network whose provider quickstart has
// made. Those that are true are found on each; the kernel's clock may be kept, and the
// certificate may be as the rules want it.
var lacking = []struct {
	ids    []string
	always bool
}{{[]string{"[seal-none]"}, true}, {[]string{"[dns]", "[mx]"}, true}, {[]string{"[clock]"}, false}, {[]string{"[certificate-profile]"}, false}}

// unlike tells in what an exit code of the doctor and what he printed are not those of
// such a machine. A doctor who does not come to his end says nothing wrong either.
func unlike(code int, out string) (wrong []string) {
	found, count := map[int]bool{}, map[string]int{}
	for line := range strings.Lines(out) {
		severity, _, _ := strings.Cut(line, ": ")
		if severity != "error" && severity != "warning" {
			continue
		}
		count[severity]++
		known := false
		for i, l := range lacking {
			if slices.ContainsFunc(l.ids, func(id string) bool { return strings.Contains(line, id) }) {
				found[i], known = true, true
			}
		}
		if !known {
			wrong = append(wrong, "unexpected: "+strings.TrimSpace(line))
		}
	}
	for i, l := range lacking {
		if l.always && !found[i] {
			wrong = append(wrong, "nothing of "+strings.Join(l.ids, " or "))
		}
	}
	if end := fmt.Sprintf("\n%d errors, %d warnings", count["error"], count["warning"]); !strings.Contains(out, end) {
		wrong = append(wrong, "it does not end with the count of what it found")
	}
	if want := min(1, count["error"]); code != want {
		wrong = append(wrong, fmt.Sprintf("exit %d with %d errors", code, count["error"]))
	}
	return wrong
}

// TestUnlike: what a doctor says who looked at nothing does not pass.
func TestUnlike(t *testing.T) {
	const (
		clock = "error: nothing keeps the clock of this machine right [clock]\n  why: x\n  fix: y\n"
		dns   = "warning: example.test: network is unreachable [dns]\n"
		seal  = "warning: seal.tsa names no authority [seal-none]\n"
		key   = "error: the key cannot be used [key]\n"
		docs  = "; docs/troubleshooting.md has a section for each\n"
	)
	for _, c := range []struct {
		what string
		code int
		out  string
		says string // empty: nothing
	}{
		{"as it should be", 1, clock + dns + seal + "1 errors, 2 warnings" + docs, ""},
		{"a clock that is kept", 0, dns + seal + "0 errors, 2 warnings" + docs, ""},
		{"nothing at all", 0, "", "[seal-none]"},
		{"wrong use", 2, "pecd: unknown flag\n", "exit 2"},
		{"all well", 0, "nothing is wrong\n", "[dns] or [mx]"},
		{"an error, and the answer is yes", 0, clock + dns + seal + "1 errors, 2 warnings" + docs, "exit 0 with 1 errors"},
		{"no error, and the answer is no", 1, dns + seal + "0 errors, 2 warnings" + docs, "exit 1 with 0 errors"},
		{"killed", -1, clock + dns + seal, "does not end"},
		{"something else", 1, key + dns + seal + "1 errors, 2 warnings" + docs, "unexpected: " + strings.TrimSpace(key)},
	} {
		wrong := strings.Join(unlike(c.code, c.out), "; ")
		if c.says == "" && wrong != "" || !strings.Contains(wrong, c.says) {
			t.Errorf("%s: %q, want %q", c.what, wrong, c.says)
		}
	}
}

// same wants the MTA's configuration to be what it was before pecd came, with its modes
// and owners.
func (m *machine) same(what string) {
	m.Helper()
	script := `dir=$1; shift; list() { cd $1; find . -name 'pecd-backup*' -prune -o -printf '%P %y %m %u %g\n' | sort; }
		list $dir >/tmp/now; list /root/before >/tmp/before; diff /tmp/before /tmp/now && diff -r --no-dereference -x 'pecd-backup*' "$@" /root/before $dir`
	args := []string{"sh", "-c", script, "sh", m.mta.dir}
	for _, name := range m.mta.generated {
		args = append(args, "-x", name)
	}
	if code, out := m.run(args...); code != 0 {
		m.Errorf("%s:\n%s", what, out)
	}
}

// remove takes pecd out of the MTA, removes the package and purges it. The register
// stays.
func (m *machine) remove() {
	m.Helper()
	m.must("pecd", "setup", m.mta.name, "--undo")
	m.same("undone, and yet")
	m.end()
	m.must("dpkg", "-r", "pecd")
	if out := m.must("dpkg", "-P", "pecd"); !strings.Contains(out, "/var/lib/pecd stays") {
		m.Errorf("purge does not say that the register stays:\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(m.root, "var/lib/pecd/pecd.db")); err != nil {
		m.Error(err)
	}
}
