package message

import (
	"io"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// Text returns the first value of that name as people read it: encoded words
// decoded (RFC 2047), bare 8-bit text taken as UTF-8 if it is that, else as
// windows-1252. Control characters become blanks; blanks at the ends are cut,
// inside they are kept.
func (h *Header) Text(name string) string { return readable(h.Get(name)) }

func readable(value string) string {
	if isPlain(value) {
		return strings.Trim(value, " ")
	}
	s := toUTF8(value)
	// The decoder fails only with a charset reader that fails.
	if decoded, err := words.DecodeHeader(s); err == nil {
		s = decoded
	}
	// Map also puts U+FFFD for what is not UTF-8.
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Trim(s, " ")
}

// isPlain reports whether there is nothing to be decoded in value.
func isPlain(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '?' && i > 0 && value[i-1] == '=' {
			return false
		}
	}
	return true
}

// words decodes encoded words of any charset.
var words = mime.WordDecoder{CharsetReader: charsetReader}

// charsetReader never fails: an unknown charset is read as windows-1252, so that
// at least the ASCII in it can be read.
func charsetReader(name string, in io.Reader) (io.Reader, error) {
	if r, err := charset.Reader(name, in); err == nil {
		return r, nil
	}
	return charmap.Windows1252.NewDecoder().Reader(in), nil
}

// toUTF8 returns s if it is UTF-8, else s read as windows-1252, of which
// ISO 8859-1 is a part.
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	decoded, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	return decoded
}
