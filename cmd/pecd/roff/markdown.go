package roff

import (
	"regexp"
	"strings"
)

var (
	link   = regexp.MustCompile(`\[([^]]+)\]\(([^)]+)\)`)
	strong = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	stress = regexp.MustCompile(`(^|[\s(])\*([^*\s][^*]*)\*`)
	rule   = regexp.MustCompile(`^[-| :]+$`)
)

// Markdown adds a document to the page, in the Markdown that docs/ is written in:
// headings, paragraphs, lists of one level, tables and code between fences. Its
// title is left out, since the page has one.
func (p *Page) Markdown(text string) {
	m := &markdown{page: p}
	for l := range strings.Lines(text) {
		m.line(strings.TrimRight(l, " \r\n"))
	}
	m.flush()
}

// markdown is the state between two lines.
type markdown struct {
	page   *Page
	fenced bool
	code   strings.Builder
	block  []string // the paragraph or the list item under way
	bullet bool     // the block is a list item
	head   []string // the columns of the table under way
}

func (m *markdown) line(l string) {
	switch {
	case strings.HasPrefix(l, "```"):
		m.fence()
	case m.fenced:
		m.code.WriteString(l + "\n")
	case l == "":
		m.flush()
	case strings.HasPrefix(l, "#"):
		m.flush()
		m.heading(l)
	case strings.HasPrefix(l, "|"):
		m.row(l)
	case strings.HasPrefix(l, "* "), strings.HasPrefix(l, "- "):
		m.flush()
		m.block, m.bullet = []string{l[2:]}, true
	default:
		m.block = append(m.block, l)
	}
}

func (m *markdown) fence() {
	if m.fenced {
		m.page.Verbatim(m.code.String())
		m.code.Reset()
	} else {
		m.flush()
	}
	m.fenced = !m.fenced
}

func (m *markdown) heading(l string) {
	title := strings.TrimSpace(strings.TrimLeft(l, "#"))
	switch len(l) - len(strings.TrimLeft(l, "#")) {
	case 1:
	case 2:
		m.page.Section(strings.ToUpper(title))
	default:
		m.page.Subsection(title)
	}
}

// row makes each row of a table an item: its first cell is the term, the others
// stand behind it, under the name of their column where there are several.
func (m *markdown) row(l string) {
	var cells []string
	for _, c := range strings.Split(strings.Trim(l, "|"), "|") {
		cells = append(cells, strings.TrimSpace(c))
	}
	switch {
	case m.head == nil:
		m.flush()
		m.head = cells
		return
	case rule.MatchString(l):
		return
	}
	var said []string
	for i, c := range cells[1:] {
		if c != "" && len(cells) > 2 && i+1 < len(m.head) {
			c = m.head[i+1] + ": " + c
		}
		if c != "" {
			said = append(said, c)
		}
	}
	m.page.Item(bold(plain(cells[0])), plain(strings.Join(said, "; ")))
}

// flush ends the block under way.
func (m *markdown) flush() {
	if text := plain(strings.Join(m.block, " ")); text != "" && m.bullet {
		m.page.Bullet(text)
	} else if text != "" {
		m.page.Paragraph(text)
	}
	m.block, m.bullet, m.head = nil, false, nil
}

// plain leaves of the marks in a text the backquotes only.
func plain(s string) string {
	s = link.ReplaceAllStringFunc(s, func(l string) string {
		part := link.FindStringSubmatch(l)
		if !strings.Contains(part[2], "://") || part[1] == part[2] {
			return part[1]
		}
		return part[1] + " (" + part[2] + ")"
	})
	s = strong.ReplaceAllString(s, "`$1`")
	return stress.ReplaceAllString(s, "${1}$2")
}

// bold is a term in bold as a whole, if it has no marks of its own.
func bold(s string) string {
	if s == "" || strings.Contains(s, "`") {
		return s
	}
	return "`" + s + "`"
}
