package setup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Lines of ours in Sendmail's files.
const (
	mcMark     = "dnl pecd: from here to the next such line, written by pecd setup sendmail (docs/sendmail.md)"
	mcMarkEnd  = "dnl pecd: the end of that"
	mcMarkTail = "dnl pecd: written by pecd setup sendmail (docs/sendmail.md)"
	tableMark  = "# pecd: from here to the next such line, written by pecd setup sendmail"
	tableEnd   = "# pecd: the end of that"
)

// An mcEdit is a sendmail.mc under way.
type mcEdit struct {
	lines   []string
	added   []string // macros of ours, before the mailers
	tail    []string // and after all else
	reasons map[string]string
}

func editMC(mc []byte) *mcEdit {
	return &mcEdit{lines: lines(mc), reasons: map[string]string{}}
}

// active reports whether m4 sees anything in a line.
func active(line string) bool {
	line = strings.TrimSpace(line)
	return line != "" && !strings.HasPrefix(line, "dnl") && line[0] != '#'
}

// replace puts a line in the place of the only one that has old in it. false: there is
// none, or there are several.
func (e *mcEdit) replace(old, new, reason string) bool {
	at := -1
	for i, line := range e.lines {
		if active(line) && strings.Contains(line, old) {
			if at >= 0 {
				return false
			}
			at = i
		}
	}
	if at < 0 {
		return false
	}
	e.lines[at] = strings.Replace(e.lines[at], old, new, 1)
	e.reasons[e.lines[at]] = reason
	return true
}

// define sets a value of m4: where the file sets it on one line, there, else in a line
// of ours. false: it is so already.
func (e *mcEdit) define(name, value, reason string) bool {
	one := regexp.MustCompile("^\\s*define\\(`" + regexp.QuoteMeta(name) + "',\\s*`[^`']*'\\)")
	text := fmt.Sprintf("define(`%s', `%s')", name, value)
	at := -1
	for i, line := range e.lines {
		if active(line) && strings.Contains(line, "define(`"+name+"'") {
			if at >= 0 || !one.MatchString(line) {
				at = -2
				break
			}
			at = i
		}
	}
	if at < 0 {
		e.add(text+"dnl", reason)
		return true
	}
	old := e.lines[at]
	e.lines[at] = one.ReplaceAllLiteralString(old, text)
	e.reasons[e.lines[at]] = reason
	return e.lines[at] != old
}

// add adds a line of ours before the mailers.
func (e *mcEdit) add(line, reason string) {
	e.added = append(e.added, line)
	e.reasons[line] = reason
}

// append adds lines of sendmail.cf after all else.
func (e *mcEdit) append(reason string, text ...string) {
	e.tail = append(e.tail, text...)
	for _, line := range text {
		e.reasons[line] = reason
	}
}

// bytes is the file as it shall be.
func (e *mcEdit) bytes() ([]byte, error) {
	out := e.lines
	if len(e.added) > 0 {
		at := e.place()
		if at < 0 {
			return nil, fmt.Errorf("%w: %s has no MAILER line before which the lines for pecd could stand", ErrSendmail, MCFile)
		}
		out = splice(out, at, e.added)
	}
	if len(e.tail) > 0 {
		out = append(append(out[:len(out):len(out)], mcMarkTail, "MAILER_DEFINITIONS"), e.tail...)
	}
	return []byte(strings.Join(out, "\n") + "\n"), nil
}

// place is where lines of ours go: at the end of those that are there, or before the
// first mailer.
func (e *mcEdit) place() int {
	for i, line := range e.lines {
		if line == mcMarkEnd {
			return i
		}
	}
	for i, line := range e.lines {
		if active(line) && (strings.HasPrefix(line, "MAILER(") || strings.HasPrefix(line, "MAILER_DEFINITIONS")) {
			return i
		}
	}
	return -1
}

// splice puts ours at a place, between marks unless it stands between them already.
func splice(all []string, at int, ours []string) []string {
	if all[at] != mcMarkEnd {
		ours = append(append([]string{mcMark}, ours...), mcMarkEnd)
	}
	return append(append(all[:at:at], ours...), all[at:]...)
}

// A tableEdit is a table under way: its lines, and some of ours between marks.
type tableEdit struct {
	lines, ours []string
	reasons     map[string]string
}

func editTable(text []byte) *tableEdit {
	t := &tableEdit{reasons: map[string]string{}}
	inside := false
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimRight(line, "\r\n"); {
		case line == tableMark:
			inside = true
		case line == tableEnd:
			inside = false
		case inside:
			t.ours = append(t.ours, line)
		default:
			t.lines = append(t.lines, line)
		}
	}
	return t
}

// all is every line of the table, but for the marks.
func (t *tableEdit) all() []string { return slices.Concat(t.lines, t.ours) }

// key is what a line of a table is about.
func key(line string) string {
	if f := strings.Fields(line); len(f) > 0 && f[0][0] != '#' {
		return strings.ToLower(f[0])
	}
	return ""
}

// has reports whether a table says something of a key.
func (t *tableEdit) has(k string) bool {
	return slices.ContainsFunc(t.all(), func(line string) bool { return key(line) == strings.ToLower(k) })
}

// set says something of each key, in place of what was said.
func (t *tableEdit) set(keys []string, value func(k string) string, reason string) {
	gone := map[string]bool{}
	for _, k := range keys {
		gone[strings.ToLower(k)] = true
	}
	t.lines, t.ours = without(t.lines, gone), without(t.ours, gone)
	for _, k := range keys {
		line := k + "\t" + value(k)
		t.ours = append(t.ours, line)
		t.reasons[line] = reason
	}
}

// without leaves out the lines about some keys.
func without(lines []string, gone map[string]bool) (list []string) {
	for _, line := range lines {
		if !gone[key(line)] {
			list = append(list, line)
		}
	}
	return list
}

// bytes is the table as it shall be.
func (t *tableEdit) bytes() []byte {
	all := t.lines
	if len(t.ours) > 0 {
		all = append(append(append(all[:len(all):len(all)], tableMark), t.ours...), tableEnd)
	}
	if len(all) == 0 {
		return nil
	}
	return []byte(strings.Join(all, "\n") + "\n")
}
