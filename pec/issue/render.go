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
	Reason          string // Detail without a full stop
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
	v.Reason = strings.TrimRight(v.Detail, ". ")
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

// languages returns the titles and bodies of m for v: Italian, then English if m
// has it.
func (m model) languages(v view) ([][2]string, error) {
	var all [][2]string
	for _, w := range []words{m.italian, m.english} {
		if w.body == nil {
			continue
		}
		body, err := w.fill(v)
		if err != nil {
			return nil, err
		}
		if w.note != "" {
			body += "\n\n" + w.note
		}
		all = append(all, [2]string{w.title, body})
	}
	return all, nil
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
	all, err := m.languages(newView(ev, show(latin1), show(nearestLatin1)))
	if err != nil {
		return "", err
	}
	var lines []string
	for i, t := range all {
		if i > 0 {
			lines = append(lines, "", rule, "")
		}
		lines = append(lines, t[0], t[1])
	}
	if lost {
		lines = append(append(lines, ""), m.loss(ev.Kind)...)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// loss returns the lines that say where the exact text is.
func (m model) loss(k pec.Kind) []string {
	lines := []string{lossItalian, lossEnglish}
	if k == pec.KindAnomaly {
		lines = []string{anomalyLossItalian, anomalyLossEnglish}
	}
	if m.english.body == nil {
		return lines[:1]
	}
	return lines
}

// html returns the HTML part: the same information, exact, in ASCII, and
// nothing that loads or runs; RFC 6109, 4.3.1.
func (m model) html(ev pec.Event) (string, error) {
	all, err := m.languages(newView(ev, oneLine, oneLine))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("<html>\n<head><title>" + escapeHTML(m.italian.title) + "</title></head>\n<body>\n")
	for i, t := range all {
		if i > 0 {
			b.WriteString("<hr>\n")
		}
		b.WriteString("<h3>" + escapeHTML(t[0]) + "</h3>\n" +
			strings.ReplaceAll(escapeHTML(t[1]), "\n", "<br>\n") + "<br>\n")
	}
	b.WriteString("</body>\n</html>\n")
	return b.String(), nil
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
