package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pecd/cmd/pecd/roff"
)

// doc is a file that documents makes.
func (j *job) doc(name string) string { return filepath.Join(j.work, "doc", name) }

// documents makes all that the packages carry beside programs.
func (j *job) documents(ctx context.Context) error {
	cmd := j.command(ctx, nil, j.tool(), "manual", "--dir", j.doc(""), "--day", j.now)
	if b, err := cmd.Output(); err != nil {
		return fmt.Errorf("pecd manual: %w\n%s", err, b)
	}
	if err := os.MkdirAll(j.doc("gz"), 0o755); err != nil {
		return err
	}
	keys, err := configPage("cmd/pecd/config", j.now, j.version)
	if err != nil {
		return err
	}
	guide, err := os.ReadFile("docs/plugins.md")
	if err != nil {
		return err
	}
	plugin := roff.New("pecd-plugin", "7", j.now, j.version, "programs that check certified mail, and how to write them")
	plugin.Section("DESCRIPTION")
	plugin.Markdown(string(guide))
	for name, text := range map[string]string{"pecd.toml.5": keys, "pecd-plugin.7": plugin.String()} {
		if err := os.WriteFile(j.doc("man/"+name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	example, err := os.ReadFile("packaging/pecd.toml")
	if err != nil {
		return err
	}
	if err := os.WriteFile(j.doc("pecd.toml"), startConfig(example), 0o644); err != nil {
		return err
	}
	return j.papers(ctx)
}

// papers are what each package must have: who made it, and what changed.
func (j *job) papers(ctx context.Context) error {
	changes, err := os.ReadFile("CHANGES.md")
	if err != nil {
		return err
	}
	if err := os.WriteFile(j.doc("changes.gz"), zipped(changes), 0o644); err != nil {
		return err
	}
	for name, pkgs := range carries {
		text, err := j.copyright(ctx, pkgs)
		if err != nil {
			return err
		}
		if err := os.WriteFile(j.doc(name+".copyright"), text, 0o644); err != nil {
			return err
		}
		log := debianChangelog(name, j.version, string(changes), j.at)
		if err := os.WriteFile(j.doc(name+".changelog.gz"), zipped([]byte(log)), 0o644); err != nil {
			return err
		}
	}
	pages, err := filepath.Glob(j.doc("man/*"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if err := os.WriteFile(j.doc("gz/"+filepath.Base(page)+".gz"), zipped(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// zipped is b as gzip -9n writes it: without a time.
func zipped(b []byte) []byte {
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is right
	if _, err := z.Write(b); err != nil {
		return nil // a buffer takes everything
	}
	if err := z.Close(); err != nil {
		return nil
	}
	return buf.Bytes()
}

// startHead stands above the configuration that is installed.
const startHead = `# pecd.toml: the configuration of pecd. Nothing is set here yet, so pecd does not
# start. What each key means is in pecd.toml(5); this file shows them all, with the
# values of an example. Files conf.d/*.toml beside it are read too. Try it with:
#   pecd config check

`

// startConfig is the example with all of it commented out, so that nothing starts
// with it.
func startConfig(example []byte) []byte {
	_, body, _ := bytes.Cut(example, []byte("\n\n")) // its own head goes
	out := []byte(startHead)
	for l := range bytes.Lines(body) {
		if t := bytes.TrimSpace(l); len(t) > 0 && t[0] != '#' {
			out = append(out, '#')
		}
		out = append(out, l...)
	}
	return out
}

// maintainer stands in the packages.
const maintainer = "The pecd authors <pecd@pecd.example>"

// debianChangelog is CHANGES.md as Debian writes it: the newest part only, since a
// package has one version.
func debianChangelog(name, version, changes string, at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s-1) unstable; urgency=medium\n\n", name, version)
	for _, item := range newest(changes) {
		for i, l := range wrap(item, 74) {
			b.WriteString([]string{"  * ", "    "}[min(i, 1)] + l + "\n")
		}
	}
	fmt.Fprintf(&b, "\n -- %s  %s\n", maintainer, at.Format(time.RFC1123Z))
	return b.String()
}

// newest are the items of the first part of CHANGES.md: paragraphs and what is
// listed.
func newest(changes string) (items []string) {
	part, open := 0, false
	for l := range strings.Lines(changes) {
		t := strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(l, "## "):
			part++
		case part != 1 || strings.HasPrefix(l, "#"):
		case t == "":
			open = false
		case strings.HasPrefix(t, "- "), strings.HasPrefix(t, "* "):
			items, open = append(items, t[2:]), true
		case open:
			items[len(items)-1] += " " + t
		default:
			items, open = append(items, t), true
		}
	}
	for i := range items {
		items[i] = strings.ReplaceAll(items[i], "`", "")
	}
	return items
}

// wrap breaks a text into lines of at most width octets, where it can.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len(line)+1+len(w) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + w)
	}
	return append(lines, line)
}
