package roff_test

import (
	"os/exec"
	"strings"
	"testing"

	"pecd/cmd/pecd/roff"
)

// show is the page as man shows it, and what groff complains about.
func show(t testing.TB, page string) string {
	t.Helper()
	cmd := exec.Command("groff", "-man", "-Tascii", "-ww", "-P-cbou", "-rLL=200n", "-")
	cmd.Stdin = strings.NewReader(page)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("groff: %v\n%s", err, out)
	}
	if strings.Contains(string(out), "warning") || strings.Contains(string(out), "error:") {
		t.Errorf("groff complains:\n%s\n%s", out, page)
	}
	return string(out)
}

func TestPage(t *testing.T) {
	p := roff.New("pecd-x", "8", "2026-01-02", "1.0", "does this - and that.")
	p.Section("HOW")
	p.Paragraph(`.not a request \fInor an escape\fR, "quoted" it's ~/^ a-b`)
	p.Item("`--flag`=VALUE", "Says `what` it is.")
	p.Item("empty", "")
	p.Bullet("first")
	p.Verbatim("'not a request\n\tindented  twice\n.either\n")
	p.Paragraph("one ` alone")
	got := show(t, p.String())
	for _, want := range []string{
		"PECD-X(8)", "pecd-x - does this - and that\n", `.not a request \fInor an escape\fR, "quoted" it's ~/^ a-b`,
		"--flag=VALUE", "Says what it is.", "first", "'not a request\n", "    indented  twice\n", ".either\n", "one ` alone", "2026-01-02", "pecd 1.0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s\n%s", want, got, p)
		}
	}
}

func TestMarkdown(t *testing.T) {
	p := roff.New("pecd-x", "7", "2026-01-02", "1.0", "x")
	p.Markdown("# Title\n\nA *soft* and **hard** word,\n[here](x.md) or [there](https://there.example/).\n\n## Part\n* one\n  goes on\n- two\n\n" +
		"| key | what |\n|---|---|\n| `k` | it is |\n\n| a | b | c |\n|---|---|---|\n| x | y | |\n| z | | w |\n\n### Sub\n```sh\nls | wc # not a heading\n```\nend\n")
	got := show(t, p.String())
	for _, want := range []string{"A soft and hard word, here or there (https://there.example/).", "PART\n", "one goes on", "two", "k", "it is", "b: y\n", "c: w\n", "Sub", "ls | wc # not a heading\n", "end"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s\n%s", want, got, p)
		}
	}
	if strings.Contains(got, "Title") {
		t.Errorf("the title is in:\n%s", got)
	}
}

// FuzzPage: whatever the texts are, groff has nothing to complain about and runs
// no request of theirs.
func FuzzPage(f *testing.F) {
	for _, s := range []string{".so /etc/passwd", `\*[x] \n(.H`, "`", "a`b`c`d", "* x\n| y |\n|--|\n|\n```", "\x00\xff\u202e", "'\\\"", "|"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := roff.New("x", "8", s, s, s)
		p.Section(s)
		p.Item(s, s)
		p.Verbatim(s)
		p.Markdown(s)
		requests := []string{".TH ", ".SH ", ".SS ", ".PP", ".TP", ".IP ", ".nf", ".fi", ".RS ", ".RE", ".nh", ".ad l"}
	next:
		for l := range strings.Lines(p.String()) {
			if !strings.HasPrefix(l, ".") && !strings.HasPrefix(l, "'") {
				continue
			}
			for _, r := range requests {
				if strings.HasPrefix(l, r) {
					continue next
				}
			}
			t.Errorf("a request: %q", l)
		}
	})
}
