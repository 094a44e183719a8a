package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

const referenceFile = "../../docs/reference.md"

// TestReference holds docs/reference.md against the commands, the example
// configuration and the figures.
func TestReference(t *testing.T) {
	want := reference(t)
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/reference.md is not what the code says: go test ./cmd/pecd -run TestReference -update")
	}
}

// reference is the page.
func reference(t *testing.T) string {
	var b strings.Builder
	b.WriteString("# Reference\n\nMade from the code: `go test ./cmd/pecd -run TestReference -update`.\n\n## Commands\n\n" +
		fmt.Sprintf("Exit status of each: 0 done, or yes; %d no, or failed; %d wrong command line; %d wrong configuration.\n", exitNo, exitUsage, exitConfig))
	walkCommands(model(t), func(n *kong.Node) {
		if !n.Leaf() {
			return
		}
		fmt.Fprintf(&b, "\n### %s\n\n`%s%s`\n\n%s\n", commandLine(n), commandLine(n), strings.ReplaceAll(synopsis(n), "`", ""), n.Help)
		if n.Detail != "" {
			b.WriteString("\n" + n.Detail + "\n")
		}
		b.WriteString("\n")
		for _, a := range n.Positional {
			fmt.Fprintf(&b, "- `%s`: %s\n", a.Summary(), a.Help)
		}
		for _, f := range flagsOf(n) {
			fmt.Fprintf(&b, "- `%s`: %s\n", strings.ReplaceAll(flagTerm(f), "`", ""), f.Help)
		}
	})
	example, err := os.ReadFile("../../packaging/pecd.toml")
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n## pecd.toml\n\nAll keys, with the defaults where there are such; `packaging/pecd.toml`.\n\n```toml\n" + string(example) + "```\n")
	b.WriteString("\n## Figures\n\nAt `metrics.listen`, in the format of Prometheus.\n\n| name | labels | what |\n| --- | --- | --- |\n")
	for _, line := range figures() {
		b.WriteString(line)
	}
	return b.String()
}

// figures are the rows about pecd's own figures.
func figures() (rows []string) {
	parts := regexp.MustCompile(`fqName: "(pecd_[a-z_]+)", help: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	for _, desc := range described() {
		if m := parts.FindStringSubmatch(desc); m != nil {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], m[3], m[2]))
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

// understood parses the command line before a comment, another command or a
// redirection, and does not run it.
func understood(line string) error {
	parser, err := kong.New(&commands{}, kong.Name("pecd"), kong.Vars{"config": "x"})
	if err != nil {
		return err
	}
	line = regexp.MustCompile(`\s+(#|&&|\||>|<).*|;.*`).ReplaceAllString(line, "")
	var args []string
	for _, m := range regexp.MustCompile(`"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1)[1:] {
		args = append(args, m[1]+m[2])
	}
	_, err = parser.Parse(args)
	return err
}
