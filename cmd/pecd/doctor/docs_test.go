package doctor

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/troubleshooting.md anew")

const page = "../../../docs/troubleshooting.md"

// TestPage holds docs/troubleshooting.md against the catalogue.
func TestPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Troubleshooting\n\n`pecd doctor` looks for what is described here and names the section in brackets. It changes nothing; exit code 0: no error,\n" +
		"1: at least one. `--json` is for monitoring. This page is made from the doctor's own texts:\n`go test ./cmd/pecd/doctor -run TestPage -update`.\n")
	for _, id := range slices.Sorted(maps.Keys(catalogue)) {
		e := catalogue[id]
		fix := strings.NewReplacer("{config}", "/etc/pecd/pecd.toml", "{postfix}", "/etc/postfix", "{store}", "/var/lib/pecd", "{mailboxes}", "unix:/run/dovecot/lmtp").Replace(e.Fix)
		fmt.Fprintf(&b, "\n## %s\n\n**%s** (%s). %s\n\n```\n%s\n```\n", id, e.Title, e.Severity, e.Why, fix)
	}
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/troubleshooting.md is not what the catalogue says: go test ./cmd/pecd/doctor -run TestPage -update")
	}
}

// TestCatalogue: what the code finds is in the catalogue, and the other way round.
func TestCatalogue(t *testing.T) {
	used := map[string]bool{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`"([a-z0-9]+(?:-[a-z0-9]+)*)"`)
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "_test.go") || f.Name() == "catalogue.go" || !strings.HasSuffix(f.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range word.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
		}
		for _, m := range regexp.MustCompile(`v\.add\("([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			if _, ok := catalogue[m[1]]; !ok {
				t.Errorf("%s: %s is not in the catalogue", f.Name(), m[1])
			}
		}
	}
	for id, e := range catalogue {
		if !used[id] {
			t.Errorf("nothing finds %s", id)
		}
		if e.Title == "" || e.Why == "" || e.Fix == "" || e.Severity == "" {
			t.Errorf("%s lacks a text", id)
		}
	}
}

// TestBrokenAll: each finding of the catalogue has a broken installation that shows it.
func TestBrokenAll(t *testing.T) {
	text, err := os.ReadFile("doctor_test.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("canary_test.go")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, more...)
	for id := range catalogue {
		if !strings.Contains(string(text), `"`+id+`"`) {
			t.Errorf("no broken installation shows %s", id)
		}
	}
}
