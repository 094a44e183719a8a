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
		"1: at least one. `--json` is for monitoring. Where Sendmail is the MTA the doctor says what mends it there: in place of `pecd setup postfix … --apply && postfix … reload`\nit is `pecd setup sendmail --config /etc/pecd/pecd.toml --apply && systemctl restart sendmail`. What a line of\nthe log means is in [log-lines.md](log-lines.md). This page is made from the doctor's own texts:\n`go test ./cmd/pecd/doctor -run TestPage -update`.\n")
	for _, id := range slices.Sorted(maps.Keys(catalogue)) {
		e := catalogue[id]
		names := strings.NewReplacer("{config}", "/etc/pecd/pecd.toml", "{postfix}", "/etc/postfix", "{sendmail}", "/etc/mail", "{store}", "/var/lib/pecd", "{mailboxes}", "unix:/run/dovecot/lmtp", "{seals}", "/var/lib/pecd/seals")
		fmt.Fprintf(&b, "\n## %s\n\n**%s** (%s). %s\n\n```\n%s\n```\n", id, e.Title, e.Severity, e.Why, names.Replace(e.Fix))
		if fix, ok := sendmailFixes[id]; ok {
			fmt.Fprintf(&b, "\nWith Sendmail:\n\n```\n%s\n```\n", names.Replace(fix))
		}
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
		if strings.HasSuffix(f.Name(), "_test.go") || f.Name() == "catalogue.go" || f.Name() == "sendmailfix.go" || !strings.HasSuffix(f.Name(), ".go") {
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
	demands, err := os.ReadFile("../setup/sendmail_settings.go") // a Demand has an ID of ours
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Demand\{"([^"]+)"`).FindAllStringSubmatch(string(demands), -1) {
		used[m[1]] = true
		if _, ok := catalogue[m[1]]; !ok {
			t.Errorf("%s is not in the catalogue", m[1])
		}
	}
	for id := range sendmailFixes {
		if _, ok := catalogue[id]; !ok {
			t.Errorf("%s is not in the catalogue", id)
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
	var text []byte
	for _, file := range []string{"doctor_test.go", "canary_test.go", "sendmail_test.go", "panels_test.go", "dovecot_test.go"} {
		more, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, more...)
	}
	for id := range catalogue {
		if !strings.Contains(string(text), `"`+id+`"`) {
			t.Errorf("no broken installation shows %s", id)
		}
	}
}
