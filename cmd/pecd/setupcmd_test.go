package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pecd/cmd/pecd/setup"
	"pecd/logstore"
	"pecd/logstore/storetest"
)

// command runs pecd and returns its exit code and what it said.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{&o, &e})
	return code, o.String(), e.String()
}

// plainPostfix is a Postfix as Debian installs it, in a directory of its own.
func plainPostfix(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pecd-setup-test-") // Postfix's user must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"", "queue", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	main := "compatibility_level = 3.6\nqueue_directory = " + dir + "/queue\ndata_directory = " + dir + "/data\nmaillog_file = " + dir + "/maillog\nmaillog_file_prefixes = " + dir +
		"\nmydestination =\nalias_maps =\nsmtpd_tls_security_level = may\n"
	master := "smtp inet n - y - - smtpd\npostlog unix-dgram n - n - 1 postlogd\ncleanup unix n - y - 0 cleanup\nbounce unix - - y - 0 bounce\nlmtp unix - - y - - lmtp\n"
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFirstHour is the way of somebody who adds pecd to a Postfix that runs.
func TestFirstHour(t *testing.T) {
	dir, postfix := filepath.Join(t.TempDir(), "pecd"), plainPostfix(t)
	file := filepath.Join(dir, "pecd.toml")
	quick := []string{"quickstart", "pec.example", "--dir", dir, "--store", filepath.Join(dir, "store")}
	setup := []string{"setup", "postfix", "--config", file, "--postfix-config-dir", postfix}
	for _, step := range []struct {
		args  []string
		code  int
		words string
	}{
		{append(quick, "--dry-run"), 0, "would write " + file},
		{[]string{"config", "check", "--config", file}, exitConfig, "create this one"},
		{quick, 0, "install -d -o pecd -g pecd -m 0700 " + filepath.Join(dir, "store") + "    # before the next line: the unit does not start if it is not there\n  systemctl edit pecd            # write: [Service], and below it ReadWritePaths=" + filepath.Join(dir, "store")},
		{quick, exitNo, "exists already"},
		{[]string{"quickstart", "no domain"}, exitUsage, "is not a domain"},
		{[]string{"config", "check", "--config", file}, 0, "good"},
		{setup, 0, "default_action=tempfail"},
		{append(setup, "--undo"), 0, "nothing to take back"},
		{append(setup, "--apply"), 0, "the old files are in"},
		{setup, 0, "nothing to do"},
		{append(setup, "--undo"), 0, "taken back"},
		{setup, 0, "default_action=tempfail"},
		{append(setup, "--undo", "--apply"), exitUsage, "apply"},
		{[]string{"doctor", "--no-dns", "--config", file, "--postfix-config-dir", postfix}, exitNo, "[submission-missing]"},
		{[]string{"doctor", "--config", filepath.Join(dir, "none")}, exitNo, "[config]"},
	} {
		code, out, errs := command(t, step.args...)
		if code != step.code || !strings.Contains(out+errs, step.words) {
			t.Fatalf("%s: %d, want %d and %q\n%s%s", strings.Join(step.args, " "), code, step.code, step.words, out, errs)
		}
	}
	_, out, _ := command(t, "doctor", "--no-dns", "--json", "--config", file, "--postfix-config-dir", postfix)
	var d diagnosis
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.OK || len(d.Findings) < 10 || d.Findings[0].Fix == "" {
		t.Errorf("%v: %s", err, out)
	}
}

// plainSendmail is a Sendmail with the least of a configuration, in a directory of its
// own, and the program that reads it.
func plainSendmail(t *testing.T) (dir, program string) {
	t.Helper()
	const tree = "/var/cache/pecd-demo/sendmail"
	dir, err := os.MkdirTemp("/var/lib", "pecd-setup-test-") // Sendmail trusts no folder below /tmp
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mc := "include(`" + tree + "/usr/share/sendmail/cf/m4/cf.m4')dnl\nOSTYPE(`linux')dnl\ndefine(`confTRUSTED_USER', `root')dnl\nMAILER(`local')dnl\nMAILER(`smtp')dnl\n"
	program = filepath.Join(dir, "program")
	// Under a host name of its own, and where no name server is.
	script := "#!/bin/sh\nexec unshare --uts --net sh -c 'hostname mail.pec.example; exec " + tree + "/usr/libexec/sendmail/sendmail \"$@\"' sh \"$@\"\n"
	for name, text := range map[string]string{"sendmail.mc": mc, "program": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(tree+"/usr/libexec/sendmail/makemap", filepath.Join(dir, "makemap")); err != nil {
		t.Fatal(err)
	}
	cf, err := exec.Command("m4", filepath.Join(dir, "sendmail.mc")).Output()
	if err != nil {
		t.Fatalf("m4: %v; packaging/prerequisites test brings Sendmail", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sendmail.cf"), cf, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

// TestSetupSendmail is the way of somebody who adds pecd to a Sendmail that runs.
func TestSetupSendmail(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "pecd")
	file := filepath.Join(etc, "pecd.toml")
	dir, program := plainSendmail(t)
	setup := []string{"setup", "sendmail", "--config", file, "--sendmail-config-dir", dir, "--sendmail", program}
	for _, step := range []struct {
		args  []string
		code  int
		words []string
	}{
		{[]string{"quickstart", "pec.example", "--dir", etc, "--store", filepath.Join(etc, "store")}, 0, nil},
		{setup, 0, []string{"note: Sendmail has no TLS certificate", "# pecd's access point; F=T", "+MAIL_FILTER(`pecdaccess'", "nothing was changed yet", "--apply"}},
		{append(setup, "--undo"), 0, []string{"nothing to take back"}},
		{[]string{"doctor", "--no-dns", "--config", file, "--sendmail-config-dir", dir, "--sendmail", program}, exitNo, []string{"[submission-milter]", "fix: pecd setup sendmail --config " + file + " --sendmail-config-dir " + dir + " --apply"}},
		{append(setup, "--apply"), 0, []string{"the old files are in", "systemctl restart sendmail"}},
		{setup, 0, []string{"nothing to do: Sendmail in " + dir}},
		{append(setup, "--undo"), 0, []string{"taken back", "systemctl restart sendmail"}},
		{setup, 0, []string{"+MAIL_FILTER(`pecdaccess'"}},
		{append(setup, "--undo", "--apply"), exitUsage, []string{"apply"}},
		{append(setup[:6:6], "--sendmail", "/usr/sbin/postfix"), exitNo, []string{"no Sendmail at /usr/sbin/postfix"}},
	} {
		code, out, errs := command(t, step.args...)
		if code != step.code {
			t.Fatalf("%s: %d, want %d\n%s%s", strings.Join(step.args, " "), code, step.code, out, errs)
		}
		for _, w := range step.words {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%s: no %q in\n%s%s", strings.Join(step.args, " "), w, out, errs)
			}
		}
	}
}

// TestSetupWithoutKey: what Postfix needs does not hang on the key, and where the
// directory cannot be had nothing that was set up is taken away.
func TestSetupWithoutKey(t *testing.T) {
	dir, postfix := filepath.Join(t.TempDir(), "pecd"), plainPostfix(t)
	file := filepath.Join(dir, "pecd.toml")
	setup := []string{"setup", "postfix", "--config", file, "--postfix-config-dir", postfix}
	must := func(words string, args ...string) {
		t.Helper()
		if code, out, errs := command(t, args...); code != 0 || !strings.Contains(out+errs, words) {
			t.Fatalf("%s: %d, no %q\n%s%s", strings.Join(args, " "), code, words, out, errs)
		}
	}
	broken := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must("no legal value", "quickstart", "pec.example", "--dir", dir, "--store", filepath.Join(dir, "store"))
	broken("test-key.pem")
	if code, out, errs := command(t, append(setup, "--apply")...); code != 0 || strings.Contains(errs, "provider.domain") {
		t.Fatalf("without the key: %d\n%s%s", code, out, errs)
	}
	table := filepath.Join(postfix, "pecd_transport")
	before, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	more := string(before) + "second.example lmtp:unix:/run/pecd/lmtp.sock\n" // as with a larger directory
	if err := os.WriteFile(table, []byte(more), 0o644); err != nil {
		t.Fatal(err)
	}
	broken("test-igpec.ldif.p7m")
	must("nothing to do", append(setup, "--apply")...)
	must("tables of an earlier --apply stay", setup...)
	if after, err := os.ReadFile(table); err != nil || string(after) != more {
		t.Errorf("%q, %v", after, err)
	}
}

// TestUndoTells: undo says what is left of earlier applications, what it could not take
// back, and that accepted messages have not left.
func TestUndoTells(t *testing.T) {
	dir, postfix := filepath.Join(t.TempDir(), "pecd"), plainPostfix(t)
	file, storeDir := filepath.Join(dir, "pecd.toml"), filepath.Join(dir, "store")
	setup := []string{"setup", "postfix", "--config", file, "--postfix-config-dir", postfix}
	if code, out, errs := command(t, "quickstart", "pec.example", "--dir", dir, "--store", storeDir); code != 0 {
		t.Fatal(out, errs)
	}
	if code, out, errs := command(t, append(setup, "--apply")...); code != 0 {
		t.Fatal(out, errs)
	}
	first, err := filepath.Glob(filepath.Join(postfix, "pecd-backup-*Z"))
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	earlier := filepath.Join(postfix, "pecd-backup-20200101T000000Z") // an application of long ago
	if err := os.CopyFS(earlier, os.DirFS(first[0])); err != nil {
		t.Fatal(err)
	}
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: storeDir, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	p := storetest.NewProvider(t)
	if _, err := store.Commit(t.Context(), logstore.Tx{At: storetest.At, Acts: []logstore.Act{storetest.ActOf(p.Acceptance(t, p.NewEvent(t, "bob@beta.example")))}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		change string // by somebody, before the undo
		words  []string
	}{
		{"submission/inet/smtpd_tls_auth_only=yes", []string{"submission/inet, 127.0.0.1:10033/inet", "take pecd out there by hand", "run --undo again for the rest", "note: 1 signed messages wait to go out"}},
		{"submission/inet/smtpd_milters=", []string{"1 earlier applications are left; run --undo again", "left alone: submission/inet, subcleanup/unix"}},
	} {
		if out, err := exec.Command("postconf", "-c", postfix, "-P", step.change).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
		code, out, errs := command(t, append(setup, "--undo")...)
		for _, words := range step.words {
			if !strings.Contains(out+errs, words) {
				t.Errorf("%s: no %q in\n%s%s", step.change, words, out, errs)
			}
		}
		if code != exitNo {
			t.Errorf("%s: exit code %d", step.change, code)
		}
	}
}

// TestUndoneInPart: an undo after which something still calls pecd says that it must be
// run again, and is no success.
func TestUndoneInPart(t *testing.T) {
	for backup, again := range map[string]bool{"/x/pecd-backup-1Z": true, "/x/pecd-backup-1Z" + setup.UndoneSuffix: false} {
		var out strings.Builder
		err := undone(&out, t.TempDir(), backup, []string{"smtps/inet"}, nil, "postfix reload")
		if !errors.Is(err, errNo) || strings.Contains(out.String(), "run --undo again for the rest") != again || !strings.Contains(out.String(), "smtps/inet") {
			t.Errorf("%s: %v: %s", backup, err, out.String())
		}
	}
}
