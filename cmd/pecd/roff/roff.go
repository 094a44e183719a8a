// Package roff writes manual pages in the macros of man(7). A text is plain but
// for backquotes, which make a word bold; everything else in it stands in the
// page as it is written, whatever it means to roff.
package roff

import (
	"fmt"
	"strings"
)

// A Page is a manual page that grows from its top.
type Page struct{ b strings.Builder }

// New begins a page: its name and section, the day of its source as YYYY-MM-DD,
// the program's version, and one line that says what it is about.
func New(name, section, day, version, about string) *Page {
	p := &Page{}
	fmt.Fprintf(&p.b, ".TH %s %s %s %s %s\n", quote(strings.ToUpper(name)), section, quote(day), quote("pecd "+version), quote("pecd manual"))
	p.b.WriteString(".nh\n.ad l\n")
	p.Section("NAME")
	fmt.Fprintf(&p.b, "%s \\- %s\n", escape(name), escape(strings.TrimSuffix(about, ".")))
	return p
}

// String is the page as it stands.
func (p *Page) String() string { return p.b.String() }

// Section begins a section.
func (p *Page) Section(title string) { fmt.Fprintf(&p.b, ".SH %s\n", quote(title)) }

// Subsection begins a part of a section.
func (p *Page) Subsection(title string) { fmt.Fprintf(&p.b, ".SS %s\n", quote(title)) }

// Paragraph adds a paragraph.
func (p *Page) Paragraph(text string) { fmt.Fprintf(&p.b, ".PP\n%s\n", line(text)) }

// Item adds what is said about a term: an option, a key.
func (p *Page) Item(term, text string) {
	if text == "" {
		text = "\u00a0" // an item needs a body
	}
	fmt.Fprintf(&p.b, ".TP\n%s\n%s\n", line(term), line(text))
}

// Bullet adds an item of a list.
func (p *Page) Bullet(text string) { fmt.Fprintf(&p.b, ".IP \\(bu 2\n%s\n", line(text)) }

// Verbatim adds lines as they are.
func (p *Page) Verbatim(text string) {
	p.b.WriteString(".PP\n.RS 4\n.nf\n")
	for l := range strings.Lines(text) {
		p.b.WriteString(guard(escape(strings.TrimRight(l, "\n"))) + "\n")
	}
	p.b.WriteString(".fi\n.RE\n")
}

// line is a text on one line of roff, with what stands between backquotes in
// bold.
func line(text string) string {
	parts := strings.Split(strings.Join(strings.Fields(text), " "), "`")
	for i := range parts {
		parts[i] = escape(parts[i])
		if i%2 == 1 && i < len(parts)-1 {
			parts[i] = `\fB` + parts[i] + `\fR`
		} else if i%2 == 1 {
			parts[i] = "`" + parts[i]
		}
	}
	return guard(strings.Join(parts, ""))
}

// guard keeps a line from being taken for a request.
func guard(s string) string {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

// escape writes a text so that roff shows just that.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`) // a plain one becomes a hyphen, which cannot be copied to a shell
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString("\\`")
		case r == '\t':
			b.WriteString("    ")
		case r > 126:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		case r >= ' ':
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quote is an argument of a macro.
func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }
