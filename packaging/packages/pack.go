package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// A manifest is nfpm's description of a package; JSON is YAML.
type manifest struct {
	Name          string         `json:"name"`
	Arch          string         `json:"arch"`
	Platform      string         `json:"platform"`
	Version       string         `json:"version"`
	VersionSchema string         `json:"version_schema"`
	Release       string         `json:"release"`
	Section       string         `json:"section"`
	Priority      string         `json:"priority"`
	Maintainer    string         `json:"maintainer"`
	Description   string         `json:"description"`
	Homepage      string         `json:"homepage,omitempty"`
	License       string         `json:"license"`
	MTime         time.Time      `json:"mtime"`
	Depends       []string       `json:"depends,omitempty"`
	Recommends    []string       `json:"recommends,omitempty"`
	Suggests      []string       `json:"suggests,omitempty"`
	Contents      []content      `json:"contents"`
	Scripts       map[string]any `json:"scripts,omitempty"`
	RPM           map[string]any `json:"rpm,omitempty"`
	Deb           map[string]any `json:"deb,omitempty"`
}

// A content is a file or a directory of a package.
type content struct {
	Src      string    `json:"src,omitempty"`
	Dst      string    `json:"dst"`
	Type     string    `json:"type,omitempty"`
	FileInfo *fileInfo `json:"file_info,omitempty"`
}

type fileInfo struct {
	Mode  int       `json:"mode"`
	MTime time.Time `json:"mtime"`
}

// pack writes the manifests and has nfpm make the packages.
func (j *job) pack(ctx context.Context) error {
	var names []string
	for name := range carries {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, format := range j.formats {
			m, err := j.manifest(name, format)
			if err != nil {
				return err
			}
			if err := j.nfpm(ctx, m, format); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func (j *job) nfpm(ctx context.Context, m *manifest, format string) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	file := filepath.Join(j.work, m.Name+"."+format+".json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	// The module of tools is another one: Go must stand in its folder.
	cmd := j.golang(ctx, []string{"GOFLAGS="}, "-C", "packaging/tools", "tool", "nfpm", "package", "-f", file, "-p", format, "-t", j.out)
	cmd.Stderr = nil
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nfpm: %w\n%s", err, b)
	}
	return nil
}

// texts describe the packages: the first line, and the rest.
var texts = map[string]string{
	"pecd": `certified mail (PEC) for Postfix and Sendmail
pecd makes an ordinary mail server a provider of Italian certified mail
(posta elettronica certificata), after RFC 6109. It takes the messages of
its users from the mail server, issues acceptance and delivery receipts
with the provider's signature, delivers what other providers send, and
keeps the register that the law demands.
.
Installing it changes nothing of the mail server and starts nothing.`,
	"pecd-plugin-attachments": `refuses certified mail with unwanted attachments
A plugin of pecd that refuses messages by the types and names of their
attachments, those in archives and attached messages too.`,
	"pecd-plugin-clamav": `has ClamAV look at certified mail
A plugin of pecd that shows messages to clamd of ClamAV, as the rules of
certified mail demand of every provider. Doubt puts a message off.`,
	"pecd-plugin-limits": `limits how much certified mail a user may send
A plugin of pecd that bounds how many messages a user sends in an hour and a
day, and to how many recipients, against mailboxes whose password was stolen.`,
}

// manifest describes one package.
func (j *job) manifest(name, format string) (*manifest, error) {
	program := strings.TrimPrefix(name, "pecd-plugin-")
	libc, err := needs(j.bin(program))
	if err != nil {
		return nil, err
	}
	m := &manifest{Name: name, Arch: j.arch, Platform: "linux", Version: j.version, VersionSchema: "none", Release: "1", Section: "mail", Priority: "optional",
		Maintainer: maintainer, Description: texts[name], License: "see copyright", MTime: j.at}
	c := &contents{j: j, format: format}
	if name == "pecd" {
		j.service(c)
		m.Scripts = scripts(format)
	} else {
		c.file(j.bin(program), "/usr/lib/pecd/plugins/"+program, 0o755)
		m.Depends = []string{"pecd"}
	}
	if name == "pecd-plugin-clamav" && format == "deb" {
		m.Recommends = []string{"clamav-daemon"}
	}
	c.doc(j.doc(name+".copyright"), "/usr/share/doc/"+name+"/copyright")
	switch format {
	case "deb":
		c.file(j.doc(name+".changelog.gz"), "/usr/share/doc/"+name+"/changelog.Debian.gz", 0o644)
		m.Depends = append([]string{fmt.Sprintf("libc6 (>= %v)", libc)}, m.Depends...)
		m.Deb = map[string]any{"compression": "gzip"}
		if err := j.overrides(c, name); err != nil {
			return nil, err
		}
	case "rpm":
		m.Depends = append([]string{fmt.Sprintf("libc.so.6(GLIBC_%v)(64bit)", libc)}, m.Depends...)
		summary, _, _ := strings.Cut(texts[name], "\n")
		m.RPM = map[string]any{"buildhost": "localhost", "summary": summary, "packager": maintainer, "group": "System Environment/Daemons", "compression": "gzip"}
	}
	if name == "pecd" && format == "deb" {
		m.Depends = append(m.Depends, "passwd")
		m.Recommends = []string{"libssl3 | libssl3t64"} // opened at run time, for speed
		m.Suggests = []string{"postfix | sendmail-bin", "dovecot-lmtpd", "pecd-plugin-clamav", "apparmor"}
	} else if name == "pecd" {
		m.Depends = append(m.Depends, "shadow-utils")
		m.Recommends = []string{"libcrypto.so.3()(64bit)"}
	}
	m.Contents = c.list
	return m, nil
}

// service is what package pecd has.
func (j *job) service(c *contents) {
	c.file(j.bin("pecd"), "/usr/sbin/pecd", 0o755)
	c.list = append(c.list, content{Src: j.doc("pecd.toml"), Dst: "/etc/pecd/pecd.toml", Type: "config|noreplace", FileInfo: &fileInfo{0o644, j.at}})
	c.dir("/etc/pecd/conf.d")
	c.dir("/usr/lib/pecd/plugins")
	c.file("packaging/systemd/pecd.service", unitDir+"/pecd.service", 0o644)
	c.file("packaging/systemd/pecd.socket", unitDir+"/pecd.socket", 0o644)
	c.file("packaging/systemd/sysusers.conf", "/usr/lib/sysusers.d/pecd.conf", 0o644)
	c.file("packaging/systemd/tmpfiles.conf", "/usr/lib/tmpfiles.d/pecd.conf", 0o644)
	c.file("packaging/apparmor/pecd", "/usr/share/apparmor/extra-profiles/pecd", 0o644)
	examples := "/usr/share/doc/pecd/examples/"
	c.doc("packaging/pecd.toml", examples+"pecd.toml")
	for _, name := range []string{"postfix.conf", "postfix-chroot.conf", "hsm.conf"} {
		c.doc("packaging/systemd/"+name, examples+"systemd/"+name)
	}
	for _, name := range []string{"pecd.rules.yml", "pecd-dashboard.json"} {
		c.doc("packaging/monitoring/"+name, examples+"monitoring/"+name)
	}
	for _, doc := range documentation() {
		c.doc(doc, "/usr/share/doc/pecd/"+filepath.Base(doc))
	}
	c.doc(j.doc("changes.gz"), "/usr/share/doc/pecd/changelog.gz")
	pages, _ := filepath.Glob(j.doc("gz/*")) // the pattern is right
	for _, page := range pages {
		section := strings.TrimSuffix(page, ".gz")
		c.doc(page, "/usr/share/man/man"+section[len(section)-1:]+"/"+filepath.Base(page))
	}
	c.file(j.doc("completion/pecd.bash"), "/usr/share/bash-completion/completions/pecd", 0o644)
	zsh := "/usr/share/zsh/vendor-completions/_pecd"
	if c.format == "rpm" {
		zsh = "/usr/share/zsh/site-functions/_pecd"
	}
	c.file(j.doc("completion/_pecd"), zsh, 0o644)
	c.file(j.doc("completion/pecd.fish"), "/usr/share/fish/vendor_completions.d/pecd.fish", 0o644)
}

// unitDir is where units are, on both.
const unitDir = "/usr/lib/systemd/system"

// documentation are the pages that come along.
func documentation() []string {
	pages, _ := filepath.Glob("docs/*.md") // the pattern is right
	return append(pages, "README.md")
}

// overrides takes along why lintian may say what it says about a package.
func (j *job) overrides(c *contents, name string) error {
	all, err := os.ReadFile("packaging/packages/lintian-overrides")
	if err != nil {
		return err
	}
	var b strings.Builder
	comment := ""
	for l := range strings.Lines(string(all)) {
		switch {
		case strings.HasPrefix(l, "#"):
			comment += l
		case strings.HasPrefix(l, name+": "):
			b.WriteString(comment + l)
			comment = ""
		default:
			comment = ""
		}
	}
	if b.Len() == 0 {
		return nil
	}
	file := j.doc(name + ".overrides")
	c.file(file, "/usr/share/lintian/overrides/"+name, 0o644)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

func scripts(format string) map[string]any {
	path := func(name string) string {
		abs, err := filepath.Abs("packaging/packages/scripts/" + format + "." + name)
		if err != nil {
			return name // nfpm says that it is not there
		}
		return abs
	}
	if format == "deb" {
		return map[string]any{"postinstall": path("postinst"), "preremove": path("prerm"), "postremove": path("postrm")}
	}
	return map[string]any{"preinstall": path("pre"), "postinstall": path("post"), "preremove": path("preun"), "postremove": path("postun")}
}

// contents collects what is in a package.
type contents struct {
	j      *job
	format string
	list   []content
}

// doc is a file of documentation, which an .rpm marks.
func (c *contents) doc(src, dst string) {
	c.file(src, dst, 0o644)
	if c.format == "rpm" {
		c.list[len(c.list)-1].Type = "doc"
	}
}

func (c *contents) file(src, dst string, mode int) {
	if abs, err := filepath.Abs(src); err == nil {
		src = abs
	}
	c.list = append(c.list, content{Src: src, Dst: dst, FileInfo: &fileInfo{mode, c.j.at}})
}

func (c *contents) dir(dst string) {
	c.list = append(c.list, content{Dst: dst, Type: "dir", FileInfo: &fileInfo{0o755, c.j.at}})
}
