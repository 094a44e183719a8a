package main

import (
	"io"
	"mime"
	"path"
	"strings"
	"unicode"

	"pecd/pec/message"
)

// fileNames are all names that p says it has: programs disagree which counts.
func fileNames(p *message.Part) (names []string) {
	for _, name := range []string{p.FileName(), readable(p.Params["name"])} {
		if name != "" && (len(names) == 0 || names[0] != name) {
			names = append(names, name)
		}
	}
	return names
}

// words decodes encoded words. A charset that it does not know is taken as ASCII:
// patterns are.
var words = mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}

func readable(name string) string {
	if decoded, err := words.DecodeHeader(name); err == nil {
		return decoded
	}
	return name
}

// plain is name as Windows takes it, in lower case: without directories, without
// what nobody sees, and without blanks and dots at its end.
func plain(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	name = strings.TrimRight(name, "/\\")
	name = name[strings.LastIndexAny(name, "/\\")+1:]
	name, _, _ = strings.Cut(name, ":") // a stream of a file of Windows
	return strings.TrimFunc(name, func(r rune) bool { return r == '.' || unicode.IsSpace(r) })
}

// matching returns the pattern that s, in lower case, matches, if there is one.
func matching(patterns []string, s string) (pattern string, ok bool) {
	for _, p := range patterns {
		// The patterns are good: settings were checked.
		if ok, err := path.Match(strings.ToLower(p), s); ok && err == nil {
			return p, true
		}
	}
	return "", false
}

// maxShown bounds a name in a reason, in octets.
const maxShown = 120

// shown is name as it may stand in a reason: printable ASCII without quotes.
func shown(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' {
			return '?'
		}
		return r
	}, name)
	if len(name) > maxShown {
		name = name[:maxShown] + "..."
	}
	return name
}
