package issue

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a parameter, in octets.
const (
	maxName    = 1000 // of a file name that we write; file systems allow 255
	maxQuoted  = 200  // of a value that stands in one piece
	maxSegment = 60   // of a piece of a longer one
)

// shortened returns name with at most maxName octets.
func shortened(name string) string {
	if len(name) <= maxName {
		return name
	}
	n := maxName
	for !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

// parameter returns a MIME parameter with the semicolon and the fold before it:
// as a quoted string (RFC 2045, 5.1) where value is ASCII, not too long and nothing
// that programs would decode (RFC 2047), else in the form of RFC 2231, 3 and 4.
func parameter(name, value string) string {
	if len(value) <= maxQuoted && fitsField(value) && !strings.Contains(value, "=?") {
		return ";\r\n\t" + name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	segments := []string{"UTF-8''"}
	for _, r := range strings.ToValidUTF8(value, string(utf8.RuneError)) {
		s := percent(r)
		if last := segments[len(segments)-1]; len(last)+len(s) > maxSegment {
			segments = append(segments, "")
		}
		segments[len(segments)-1] += s
	}
	if len(segments) == 1 {
		return ";\r\n\t" + name + "*=" + segments[0]
	}
	var b strings.Builder
	for i, s := range segments {
		fmt.Fprintf(&b, ";\r\n\t%s*%d*=%s", name, i, s)
	}
	return b.String()
}

// percent returns r as an extended value holds it; RFC 2231, 7.
func percent(r rune) string {
	if r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r)) {
		return string(r)
	}
	var b strings.Builder
	for _, c := range []byte(string(r)) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
