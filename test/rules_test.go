package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	ruleRow    = regexp.MustCompile(`(?m)^\| ([A-Z]?[0-9][0-9.]*|[A-Z][0-9]+) \| .*\|$`)
	namedPlace = regexp.MustCompile("`([a-z0-9/_.]+\\.(?:go|cf)):?([A-Za-z0-9]*)`")
	citedRFC   = regexp.MustCompile(`RFC 6109, ([0-9](?:\.[0-9]+)+)((?:(?:,| and) [0-9](?:\.[0-9]+)+)*)`)
	citedRule  = regexp.MustCompile(`docs/rules\.md, ([A-Z][0-9]+)`)
	section    = regexp.MustCompile(`[0-9](?:\.[0-9]+)+`)
)

// TestRules holds docs/rules.md against the tree, both ways.
func TestRules(t *testing.T) {
	page, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, row := range ruleRow.FindAllStringSubmatch(string(page), -1) {
		if rows[row[1]] {
			t.Errorf("two rows for %s", row[1])
		}
		rows[row[1]] = true
		places := namedPlace.FindAllStringSubmatch(row[0], -1)
		if len(places) < 2 {
			t.Errorf("%s: no code or no test is named", row[1])
		}
		for _, p := range places {
			checkPlace(t, row[1], p[1], p[2])
		}
	}
	if len(rows) < 40 {
		t.Fatalf("only %d rows were found", len(rows))
	}
	citations(t, func(file, id string) {
		if !rows[id] {
			t.Errorf("%s cites %s, which docs/rules.md lacks", file, id)
		}
	})
}

// checkPlace wants the file to define the name.
func checkPlace(t *testing.T, row, file, name string) {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Errorf("%s: %v", row, err)
		return
	}
	defined := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |\t)` + regexp.QuoteMeta(name) + `\b`)
	if name != "" && !defined.Match(src) {
		t.Errorf("%s: %s defines no %s", row, file, name)
	}
}

// citations calls f for each rule that a Go file cites.
func citations(t *testing.T, f func(file, id string)) {
	t.Helper()
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || path == "rules_test.go" {
			return err
		}
		src, err := os.ReadFile(path)
		// Comments are folded: a citation may stand on two lines.
		text := regexp.MustCompile(`\s*\n\s*// ?`).ReplaceAllString(string(src), " ")
		for _, m := range citedRFC.FindAllString(text, -1) {
			for _, s := range section.FindAllString(strings.TrimPrefix(m, "RFC 6109"), -1) {
				found++
				f(path, s)
			}
		}
		for _, m := range citedRule.FindAllStringSubmatch(text, -1) {
			found++
			f(path, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("only %d citations were found", found)
	}
}
