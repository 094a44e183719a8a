package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"pecd/cmd/pecd/config"
)

// The packages are built once for all tests, and in another folder once more.
var built, again string

const testVersion = "0.9~test"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pecd-packages-test-")
	if err == nil {
		built, again = filepath.Join(dir, "one"), filepath.Join(dir, "two", "deeper")
		err = os.Chdir("../..") // the top of the source
	}
	for _, d := range []string{built, again} {
		if err == nil {
			err = start(context.Background(), []string{"-out", d, "-work", d + "-work", "-version", testVersion, "-at", "1767312000"})
		}
	}
	if err != nil {
		os.Stderr.WriteString("the packages cannot be built: " + err.Error() + "\n")
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
	}
	os.Exit(code)
}

// tool runs a program that must do well.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

func packageFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(built, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return files
}

// What is built twice is the same to the last octet.
func TestReproducible(t *testing.T) {
	files := packageFiles(t, "*")
	if len(files) != 2*len(carries) {
		t.Errorf("%d packages: %v", len(files), files)
	}
	for _, f := range files {
		a, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(again, filepath.Base(f)))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v", filepath.Base(f), err)
		}
	}
}

// unpackDeb unpacks a package and returns where.
func unpackDeb(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	tool(t, "dpkg-deb", "-R", packageFiles(t, name+"_*.deb")[0], dir)
	return dir
}

func TestDeb(t *testing.T) {
	dir := unpackDeb(t, "pecd")
	if b, err := os.ReadFile(filepath.Join(dir, "DEBIAN/conffiles")); err != nil || string(b) != "/etc/pecd/pecd.toml\n" {
		t.Errorf("conffiles %q, %v", b, err)
	}
	control, err := os.ReadFile(filepath.Join(dir, "DEBIAN/control"))
	if err != nil {
		t.Fatal(err)
	}
	libc, err := needs(filepath.Join(dir, "usr/sbin/pecd"))
	if err != nil || libc < 17 || libc > 50 {
		t.Errorf("C library %v, %v", libc, err)
	}
	for _, want := range []string{"Version: " + testVersion + "-1\n", "libc6 (>= " + libc.String() + ")", "Architecture: " + runtime.GOARCH + "\n"} {
		if !strings.Contains(string(control), want) {
			t.Errorf("%q is not in\n%s", want, control)
		}
	}
	for _, file := range []string{"usr/sbin/pecd", "usr/lib/systemd/system/pecd.service", "usr/lib/systemd/system/pecd.socket", "usr/lib/sysusers.d/pecd.conf",
		"usr/lib/tmpfiles.d/pecd.conf", "usr/share/man/man8/pecd.8.gz", "usr/share/man/man8/pecd-log-search.8.gz", "usr/share/man/man5/pecd.toml.5.gz",
		"usr/share/man/man7/pecd-plugin.7.gz", "usr/share/doc/pecd/examples/pecd.toml", "usr/share/doc/pecd/copyright", "usr/share/doc/pecd/changelog.Debian.gz",
		"usr/share/doc/pecd/examples/monitoring/pecd.rules.yml", "usr/share/doc/pecd/examples/monitoring/pecd-dashboard.json", "usr/share/doc/pecd/operating.md",
		"usr/share/bash-completion/completions/pecd", "usr/share/zsh/vendor-completions/_pecd", "usr/share/fish/vendor_completions.d/pecd.fish",
		"usr/share/apparmor/extra-profiles/pecd", "usr/lib/pecd/plugins", "etc/pecd/conf.d"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
	// Nothing is written where others have their things.
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err == nil && strings.HasPrefix(rel, "etc/") && rel != "etc/pecd" && !strings.HasPrefix(rel, "etc/pecd/") {
			t.Errorf("%s belongs to somebody else", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The programs are what distributions want: position independent, with the C
// library of the system, stripped, with read-only relocations.
func TestPrograms(t *testing.T) {
	files := map[string]string{"usr/sbin/pecd": "pecd"}
	for _, p := range plugins {
		files["usr/lib/pecd/plugins/"+p] = "pecd-plugin-" + p
	}
	for file, pkg := range files {
		f, err := elf.Open(filepath.Join(unpackDeb(t, pkg), file))
		if err != nil {
			t.Fatal(err)
		}
		libs, err := f.ImportedLibraries()
		if err != nil || f.Type != elf.ET_DYN || !contains(libs, "libc.so.6") || f.Section(".interp") == nil {
			t.Errorf("%s: type %v, libraries %v, %v", file, f.Type, libs, err)
		}
		if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
			t.Errorf("%s is not stripped", file)
		}
		if now, err := f.DynValue(elf.DT_FLAGS); err != nil || len(now) == 0 || now[0]&uint64(elf.DF_BIND_NOW) == 0 {
			t.Errorf("%s: relocations stay writable: %v, %v", file, now, err)
		}
		f.Close()
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// lintian finds no fault; what it is told to overlook has its reason in the
// overrides.
func TestLintian(t *testing.T) {
	args := append([]string{"--allow-root", "--no-cfg", "--tag-display-limit", "0"}, packageFiles(t, "*.deb")...)
	out, err := exec.Command("lintian", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
		if strings.HasPrefix(l, "E: ") || strings.HasPrefix(l, "W: ") || strings.HasPrefix(l, "warning") || strings.Contains(l, "mismatched-override") {
			t.Error(strings.TrimSpace(l))
		}
	}
}

// The .rpm holds the same files as the .deb, but for what is each one's own.
func TestRPM(t *testing.T) {
	own := regexp.MustCompile(`^(/usr/share/(lintian|doc/[a-z-]+/changelog.Debian.gz|zsh)|/usr$|/etc$)`)
	for _, file := range packageFiles(t, "*.rpm") {
		name := regexp.MustCompile(`^(pecd(?:-plugin-[a-z]+)?)-`).FindStringSubmatch(filepath.Base(file))[1]
		dir := t.TempDir()
		tool(t, "sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio -idm --quiet --no-absolute-filenames)`, "sh", file, dir)
		have, want := tree(t, dir, own), tree(t, unpackDeb(t, name), own)
		if !reflect.DeepEqual(have, want) {
			t.Errorf("%s:\n%v\nand the .deb:\n%v", name, have, want)
		}
	}
	about := tool(t, "rpm", "-qp", "--nosignature", "--qf", "%{NAME} %{VERSION} %{RELEASE} %{BUILDHOST} %{BUILDTIME}\n", packageFiles(t, "pecd-0*.rpm")[0])
	if about != "pecd "+testVersion+" 1 localhost 1767312000\n" {
		t.Errorf("%q", about)
	}
	if conf := tool(t, "rpm", "-qpc", "--nosignature", packageFiles(t, "pecd-0*.rpm")[0]); conf != "/etc/pecd/pecd.toml\n" {
		t.Errorf("configuration files: %q", conf)
	}
}

// tree are the files below dir with the checksums of their contents.
func tree(t *testing.T, dir string, but *regexp.Regexp) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, dir)
		if err != nil || d.IsDir() || strings.HasPrefix(rel, "/DEBIAN/") || but.MatchString(rel) {
			return err
		}
		sum := tool(t, "sha256sum", path)
		list = append(list, rel+" "+sum[:16])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(list)
	return list
}

func TestRpmlint(t *testing.T) {
	rc := filepath.Join(t.TempDir(), "rc.toml")
	// Ours is no package of a distribution; what is left out has its reason.
	filters := `Filters = [
 "no-signature", "invalid-license", "no-url-tag", "no-changelogname-tag", "non-standard-group", # not built by a distribution
 "no-binary", # nfpm writes no classes of files
 "no-manual-page-for-binary", # plugins are no commands
 "spelling-error", "explicit-lib-dependency", "position-independent-executable-suggested",
]
`
	if err := os.WriteFile(rc, []byte(filters), 0o644); err != nil {
		t.Fatal(err)
	}
	// The names in nfpm's archives are absolute, and rpmlint unpacks them as they
	// are: over the system, if it runs as root. Its cpio has to stay in its folder.
	bin := t.TempDir()
	cpio := "#!/bin/sh\nexec /usr/bin/cpio --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "cpio"), []byte(cpio), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	out, err := exec.Command("rpmlint", append([]string{"-c", rc}, packageFiles(t, "*.rpm")...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "packages and 0 specfiles checked") {
		t.Errorf("rpmlint did not do its work:\n%s", out)
	}
	for l := range strings.Lines(string(out)) {
		if strings.Contains(l, ": E: ") {
			t.Error(strings.TrimSpace(l))
		}
	}
}

// The installed configuration sets nothing, and shows every key that the example
// has.
func TestStartConfig(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(unpackDeb(t, "pecd"), "etc/pecd/pecd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var set map[string]any
	if err := toml.Unmarshal(text, &set); err != nil || len(set) > 0 {
		t.Errorf("it sets %v, %v", set, err)
	}
	for _, key := range keysOf(reflect.TypeFor[config.Config]()) {
		if !regexp.MustCompile(`(?m)^#(\[+.*\b`+key+`\]+|`+key+` =)`).Match(text) && key != "next" && key != "from" {
			t.Errorf("%s is not in it", key)
		}
	}
}

// keysOf are the keys of a type and of the tables in it.
func keysOf(t reflect.Type) (keys []string) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if key != "" && key != "-" {
			keys = append(keys, key)
		}
		if f.IsExported() && (key != "" || f.Anonymous) {
			keys = append(keys, keysOf(f.Type)...)
		}
	}
	return keys
}

// pecd.toml(5) tells about every key, in words.
func TestConfigPage(t *testing.T) {
	page := tool(t, "man", filepath.Join(built+"-work", "doc/man/pecd.toml.5"))
	keys := keysOf(reflect.TypeFor[config.Config]())
	if len(keys) < 60 {
		t.Errorf("%d keys only", len(keys))
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)(^ +(\[+.*)?|, )\b` + key + `\b`).MatchString(page) {
			t.Errorf("%s is not told about", key)
		}
	}
	for _, want := range []string{"[signer.next]", "[[plugin]]", "is a PEM file with the private key", "token, serial"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
}

// All manual pages show without a warning.
func TestPagesShow(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(built+"-work", "doc/man/*"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, p := range pages {
		if out, err := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z", p).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", p, err, out)
		}
	}
}

// Each module that is compiled in has its terms in the copyright file.
func TestCopyright(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(unpackDeb(t, "pecd"), "usr/share/doc/pecd/copyright"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"github.com/mattn/go-sqlite3 v", "github.com/emersion/go-smtp v", "The Go programming language", "Redistribution and use", "Apache License", "Mozilla Public License"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in it", want)
		}
	}
	dir := t.TempDir()
	if texts, err := licences(dir); err != nil || texts != nil {
		t.Errorf("no licence: %q, %v", texts, err)
	}
}

func TestChangelog(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := debianChangelog("pecd", "1.2", "# Changes\n\n## New\n\nA word\nof it.\n\n- `pecd x` does\n  this.\n- "+strings.Repeat("word ", 20)+"\n\n## Old\n\n- old\n", at)
	want := "pecd (1.2-1) unstable; urgency=medium\n\n  * A word of it.\n  * pecd x does this.\n  * " + strings.TrimSpace(strings.Repeat("word ", 15)) +
		"\n    word word word word word\n\n -- " + maintainer + "  Fri, 02 Jan 2026 03:04:05 +0000\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// Without a compiler for another architecture the recipe says what it needs.
func TestOtherArchitecture(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if _, err := compiler(other); err == nil || !strings.Contains(err.Error(), compilers[other]) || !strings.Contains(err.Error(), "apt-get install") {
		t.Error(err)
	}
	if _, err := compiler("mips"); err == nil {
		t.Error("mips")
	}
	if err := start(context.Background(), []string{"-version", "", "-at", "1"}); err == nil {
		t.Error("without a version")
	}
}

// told are the lines of the scripts that read a mail server's files, and tell of them.
var told = regexp.MustCompile(`(?m)^.* && cat /etc/postfix/main\.cf /etc/postfix/master\.cf /etc/mail/sendmail\.mc 2>/dev/null \|\n\tgrep -Ev .* \| grep -Eq .*\n|^\techo "pecd: .*" >&2\n|^# .*\n`)

// The scripts of the packages touch no mail server, enable nothing, and delete
// nothing.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("packaging/packages/scripts/*")
	if err != nil || len(files) != 7 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tool(t, "sh", "-n", f)
		for _, mta := range []string{"postfix", "sendmail"} { // who is told of one may have the other
			if strings.Contains(string(text), "--undo") && !strings.Contains(string(text), "pecd setup "+mta+" --undo") {
				t.Errorf("%s: nothing of pecd setup %s --undo", f, mta)
			}
		}
		if m := regexp.MustCompile(`(?i)postfix|sendmail|dovecot|systemctl[^\n]* (enable|start)|\brm\b|rmdir`).FindString(told.ReplaceAllString(string(text), "")); m != "" {
			t.Errorf("%s: %s", f, m)
		}
	}
}
