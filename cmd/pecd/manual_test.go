package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// writeManual runs pecd manual and returns where it wrote.
func writeManual(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if code := run(context.Background(), []string{"manual", "--dir", dir, "--day", "2026-01-02"}, streams{io.Discard, os.Stderr}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	return dir
}

// model is the tree of commands.
func model(t *testing.T) *kong.Node {
	t.Helper()
	parser, err := kong.New(&commands{}, kong.Name("pecd"), kong.Vars{"config": "x"})
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model.Node
}

// Each command has a page, and each page shows the help of command and options.
func TestManualPages(t *testing.T) {
	dir := writeManual(t)
	pages := 0
	for _, n := range allCommands(model(t)) {
		pages++
		path := filepath.Join(dir, "man", pageName(n)+".8")
		out, err := exec.Command("groff", "-man", "-Tascii", "-ww", "-P-cbou", "-rLL=400n", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("%s: %v\n%.500s", path, err, out)
		}
		if n.Parent == nil {
			continue
		}
		want := []string{n.Help}
		for _, f := range flagsOf(n) {
			want = append(want, "--"+f.Name, f.Help)
		}
		for _, a := range n.Positional {
			want = append(want, a.Summary(), a.Help)
		}
		text := strings.Join(strings.Fields(string(out)), " ")
		for _, w := range want {
			if !strings.Contains(text, strings.Join(strings.Fields(w), " ")) {
				t.Errorf("%s does not show %q", pageName(n), w)
			}
		}
	}
	if files, err := os.ReadDir(filepath.Join(dir, "man")); err != nil || len(files) != pages || pages < 20 {
		t.Errorf("%d pages for %d commands, %v", len(files), pages, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "man", "pecd-manual.8")); err == nil {
		t.Error("a hidden command has a page")
	}
}

func TestManualRefuses(t *testing.T) {
	for _, args := range [][]string{{"manual"}, {"manual", "--dir", t.TempDir(), "--day", "today"}} {
		if code := run(context.Background(), args, streams{io.Discard, io.Discard}); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}

// bash itself completes command lines.
func TestBashCompletion(t *testing.T) {
	script := filepath.Join(writeManual(t), "completion", "pecd.bash")
	for line, want := range map[string]string{
		"pecd ve":                                  "verify version",
		"pecd virus ":                              "--help export list",
		"pecd log search --si":                     "--since",
		"pecd plugin new x --kind ":                "access check delivery reception",
		"pecd plugin new --dir y --kind re":        "reception",
		"pecd mailbox set a@b.it --ordinary-mail ": "anomaly default refuse",
		"pecd man":                                 "",
	} {
		words := strings.Split(line, " ")
		code := `. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _pecd; echo "${COMPREPLY[*]}"`
		out, err := exec.Command("bash", append([]string{"-uc", code, script}, words...)...).CombinedOutput()
		got := strings.Fields(string(out))
		sort.Strings(got)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q completes to %q, want %q (%v)", line, got, want, err)
		}
	}
}

// The other shells get the same words.
func TestOtherCompletions(t *testing.T) {
	dir := writeManual(t)
	for _, name := range []string{"_pecd", "pecd.fish"} {
		text, err := os.ReadFile(filepath.Join(dir, "completion", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range allCommands(model(t)) {
			for _, w := range append(words(n), n.Name) {
				if !strings.Contains(string(text), strings.TrimPrefix(w, "--")) {
					t.Errorf("%s does not know %s of %s", name, w, commandLine(n))
				}
			}
		}
		if strings.Contains(string(text), "manual '") {
			t.Errorf("%s knows a hidden command", name)
		}
	}
}
