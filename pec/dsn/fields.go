package dsn

import (
	"bytes"
	"encoding/hex"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A group is fields up to an empty line: names in lower case, values unfolded. Of
// a field that occurs twice the first counts.
type group map[string]string

// wanted are the fields that are read; RFC 3464, 2.2 and 2.3. All others are
// passed over.
var wanted = map[string]bool{
	"original-envelope-id": true, "reporting-mta": true, "arrival-date": true,
	"final-recipient": true, "original-recipient": true, "action": true, "status": true,
	"diagnostic-code": true, "remote-mta": true,
}

// groups returns the groups in the content of a delivery-status part that hold a
// wanted field; RFC 3464, 2.1. Lines end in CRLF or LF. What is not a field is
// passed over.
func groups(b []byte) iter.Seq[group] {
	return func(yield func(group) bool) {
		var g group
		for line := range fields(b) {
			name, value, _ := strings.Cut(line, ":")
			name = strings.ToLower(strings.TrimSpace(name))
			if _, twice := g[name]; line != "" && wanted[name] && !twice {
				if g == nil {
					g = group{}
				}
				g[name] = strings.TrimSpace(value)
			}
			if line == "" && g != nil {
				if !yield(g) {
					return
				}
				g = nil
			}
		}
		if g != nil {
			yield(g)
		}
	}
}

// fields returns the fields in b, a blank for each fold, and "" for each empty
// line.
func fields(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		var field []byte
		for line := range bytes.Lines(b) {
			line = bytes.TrimRight(line, "\r\n")
			blank := len(bytes.TrimSpace(line)) == 0
			if !blank && (line[0] == ' ' || line[0] == '\t') {
				field = append(append(field, ' '), bytes.TrimLeft(line, " \t")...)
				continue
			}
			if len(field) > 0 && !yield(string(field)) || blank && !yield("") {
				return
			}
			field = append(field[:0], line...)
			if blank {
				field = field[:0]
			}
		}
		if len(field) > 0 {
			yield(string(field))
		}
	}
}

// typed splits "type; value"; RFC 3464, 2.1.2. A value without a type is taken
// too.
func typed(v string) (kind, value string) {
	kind, value, found := strings.Cut(v, ";")
	if !found {
		return "", text(v)
	}
	return strings.ToLower(strings.TrimSpace(kind)), text(value)
}

// text returns s as one line of UTF-8, not too long for a log.
func text(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return ' '
		}
		return r
	}, s))
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimSpace(s[:n])
}

// fromXtext undoes the encoding of RFC 3461, 4. It reports false for what is no
// xtext or does not decode to text.
func fromXtext(s string) (string, bool) {
	var b strings.Builder
	for s != "" {
		plain, rest, found := strings.Cut(s, "+")
		b.WriteString(plain)
		if !found {
			break
		}
		if len(rest) < 2 {
			return "", false
		}
		c, err := hex.DecodeString(rest[:2])
		if err != nil {
			return "", false
		}
		b.Write(c)
		s = rest[2:]
	}
	decoded := b.String()
	return decoded, utf8.ValidString(decoded) && decoded == text(decoded)
}
