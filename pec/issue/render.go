package issue

import (
	"fmt"
	"strings"

	"pecd/pec"
)

// A view is an event as the texts show it, every field on one line.
type view struct {
	Day, Hour, Zone string
	Subject         string
	Sender          string
	Recipients      []addressee
	Taken           []string
	Recipient       string
	Detail          string
	Identifier      string
}

type addressee struct{ Address, Italian, English string }

// newView shows addresses and identifiers by exact, and prose by free.
func newView(ev pec.Event, exact, free func(string) string) view {
	v := view{
		Day:        ev.At.Format("02/01/2006"),
		Hour:       ev.At.Format("15:04:05"),
		Zone:       ev.At.Format("-0700"),
		Subject:    free(ev.Subject),
		Sender:     exact(string(ev.Sender)),
		Recipient:  exact(string(ev.Recipient)),
		Detail:     free(ev.Detail),
		Identifier: exact(string(ev.Identifier)),
	}
	for _, r := range ev.Recipients {
		a := addressee{exact(string(r.Address)), certifiedItalian, certifiedEnglish}
		if r.Type == pec.External {
			a.Italian, a.English = externalItalian, externalEnglish
		}
		v.Recipients = append(v.Recipients, a)
	}
	for _, a := range ev.Taken {
		v.Taken = append(v.Taken, exact(string(a)))
	}
	return v
}

// fill returns the lines of w for v.
func (w words) fill(v view) (string, error) {
	var b strings.Builder
	if err := w.body.Execute(&b, v); err != nil {
		return "", fmt.Errorf("issue: text %q: %w", w.title, err)
	}
	return b.String(), nil
}

// plain returns the text part, in characters of ISO-8859-1 and with LF; RFC
// 6109, 4.3.1.
func (m model) plain(ev pec.Event) (string, error) {
	lost := false
	show := func(convert func(string) (string, bool)) func(string) string {
		return func(s string) string {
			s, less := convert(oneLine(s))
			lost = lost || less
			return s
		}
	}
	v := newView(ev, show(latin1), show(nearestLatin1))
	italian, err := m.italian.fill(v)
	if err != nil {
		return "", err
	}
	english, err := m.english.fill(v)
	if err != nil {
		return "", err
	}
	lines := []string{m.italian.title, italian, "", rule, "", m.english.title, english}
	if lost {
		lines = append(lines, "", lossItalian, lossEnglish)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// html returns the HTML part: the same information, exact, in ASCII, and
// nothing that loads or runs; RFC 6109, 4.3.1.
func (m model) html(ev pec.Event) (string, error) {
	v := newView(ev, oneLine, oneLine)
	italian, err := m.italian.fill(v)
	if err != nil {
		return "", err
	}
	english, err := m.english.fill(v)
	if err != nil {
		return "", err
	}
	paragraph := func(s string) string {
		return strings.ReplaceAll(escapeHTML(s), "\n", "<br>\n") + "<br>\n"
	}
	return "<html>\n<head><title>" + escapeHTML(m.italian.title) + "</title></head>\n<body>\n" +
		"<h3>" + escapeHTML(m.italian.title) + "</h3>\n" + paragraph(italian) +
		"<hr>\n" +
		"<h3>" + escapeHTML(m.english.title) + "</h3>\n" + paragraph(english) +
		"</body>\n</html>\n", nil
}

// escapeHTML returns s in ASCII, safe in HTML text.
func escapeHTML(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '"':
			b.WriteString("&quot;")
		case r == '\'':
			b.WriteString("&#39;")
		case r < 0x80:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}
