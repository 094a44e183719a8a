package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A shownLine is a command line that a page shows.
type shownLine struct {
	page string // README.md, install.md
	text string
	sh   bool // in a block of commands, not in a sentence
}

// pageNames are the pages, the one that installs first: the others are about an
// installation that runs.
func pageNames(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) < 10 {
		t.Fatal(docs, err)
	}
	const first, second = "../../docs/install.md", "../../README.md"
	rest := slices.DeleteFunc(docs, func(f string) bool { return f == first })
	return append([]string{first, second}, rest...)
}

var (
	blockForm    = regexp.MustCompile("(?ms)^```([a-z0-9]*)\n(.*?)^```")
	inlineForm   = regexp.MustCompile("`((?:pecd|openssl|make) [^`]+)`")
	alternatives = regexp.MustCompile(`\b([a-z]+)\|([a-z]+)$`)
	// A fix of the doctor's may tell what to do by hand before the command.
	afterByHand = regexp.MustCompile(`^.*, then (pecd .*)`)
)

// shownLines are the lines of all blocks and the commands in sentences, in the
// order of the pages. docs/reference.md only repeats --help.
func shownLines(t *testing.T) (lines []shownLine) {
	t.Helper()
	for _, file := range pageNames(t) {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		page := filepath.Base(file)
		if page == "reference.md" {
			continue
		}
		for _, b := range blockForm.FindAllStringSubmatch(string(raw), -1) {
			if b[1] != "" && b[1] != "sh" {
				continue
			}
			for line := range strings.Lines(b[2]) {
				line = strings.TrimSuffix(line, "\n")
				if m := afterByHand.FindStringSubmatch(line); m != nil {
					line = m[1]
				}
				lines = append(lines, shownLine{page, line, true})
			}
		}
		for _, m := range inlineForm.FindAllStringSubmatch(blockForm.ReplaceAllString(string(raw), ""), -1) {
			text := strings.Join(strings.Fields(m[1]), " ")
			if a := alternatives.FindStringSubmatch(text); a != nil {
				lines = append(lines, shownLine{page, alternatives.ReplaceAllString(text, a[1]), false})
				text = alternatives.ReplaceAllString(text, a[2])
			}
			lines = append(lines, shownLine{page, text, false})
		}
	}
	return lines
}

// TestPagesParse: each command line of pecd that a page shows in a block is one that
// pecd understands.
func TestPagesParse(t *testing.T) {
	shown := 0
	for _, l := range shownLines(t) {
		if !l.sh || !strings.HasPrefix(l.text, "pecd ") {
			continue
		}
		shown++
		if err := understood(l.text); err != nil {
			t.Errorf("%s: %s: %v", l.page, l.text, err)
		}
	}
	if shown < 20 {
		t.Errorf("%d command lines in all pages", shown)
	}
	if understood("pecd log sarch") == nil || understood("pecd doctor --colour") == nil {
		t.Error("what pecd does not know is taken for understood")
	}
}

// TestPagesMake: each target of make that a page names is one of the Makefile, or, in
// the page about plugins, of the project's that pecd plugin new writes.
func TestPagesMake(t *testing.T) {
	makefile := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ours, projects := makefile("../../Makefile"), makefile("../../plugins/scaffold/template/all/Makefile.tmpl")
	named := 0
	for _, l := range shownLines(t) {
		command, _, _ := strings.Cut(l.text, "#")
		words := strings.Fields(command)
		if len(words) < 2 || words[0] != "make" {
			continue
		}
		text := ours
		if l.page == "plugins.md" {
			text = projects
		}
		for _, target := range words[1:] {
			if strings.Contains(target, "=") {
				continue
			}
			named++
			if !regexp.MustCompile(`(?m)^([a-z-]+ )*` + regexp.QuoteMeta(target) + `( [a-z-]+)*:`).MatchString(text) {
				t.Errorf("%s: make %s: there is no such target", l.page, target)
			}
		}
	}
	if named < 8 {
		t.Errorf("only %d targets in all pages", named)
	}
}

// TestPagesLinks: what a page links to is there, the heading too.
func TestPagesLinks(t *testing.T) {
	decisions, err := filepath.Glob("../../docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	form, heading := regexp.MustCompile(`\]\(([^)\s]+)\)`), regexp.MustCompile(`(?m)^#+ (.*)$`)
	links := 0
	for _, page := range append(append(pageNames(t), decisions...), "../../SECURITY.md", "../../CHANGES.md") {
		for _, m := range form.FindAllStringSubmatch(blockForm.ReplaceAllString(read(page), ""), -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, ":") {
				continue // elsewhere
			}
			links++
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
				continue
			}
			found := anchor == ""
			if !found {
				for _, h := range heading.FindAllStringSubmatch(read(target), -1) {
					found = found || anchorOf(h[1]) == anchor
				}
			}
			if !found {
				t.Errorf("%s: %s: no such heading", page, m[1])
			}
		}
	}
	if links < 60 {
		t.Errorf("only %d links", links)
	}
}

// anchorOf is the anchor that a heading gets.
func anchorOf(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}
