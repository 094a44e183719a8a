package message

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

const (
	maxColumns = 76  // of a line with encoded words; RFC 2047, 2
	maxWord    = 75  // of an encoded word
	minWord    = 36  // less than this is not begun on a line
	maxToken   = 900 // octets without a place to fold; the limit of a line is 998
)

// EncodeHeader returns the field "name: " + prefix + text with its CRLF, folded
// at 76 columns where there is a blank to fold at. Printable ASCII stays as it
// is. Other text becomes encoded words in UTF-8 (RFC 2047) after the prefix,
// which stays clear up to its last blank, so that programs that look for it find
// it (RFC 6109, 3.1.5: the Subject of an envelope). Decoding gives prefix + text
// again, blanks included; only what is not UTF-8 is replaced by U+FFFD.
func EncodeHeader(name, prefix, text string) []byte {
	prefix = strings.ToValidUTF8(prefix, string(utf8.RuneError))
	text = strings.ToValidUTF8(text, string(utf8.RuneError))
	f := folder{out: []byte(name + ": ")}
	f.column = len(f.out)
	all := prefix + text
	// A blank at the end of a line does not survive every MTA.
	if isClear(all) && (text == "" || !strings.HasSuffix(text, " ")) {
		f.clear(all)
	} else {
		head := prefix[:strings.LastIndexByte(prefix, ' ')+1]
		if !isClear(head) {
			head = ""
		}
		f.clear(strings.TrimSuffix(head, " "))
		f.words(all[len(head):], head == "")
	}
	return append(f.out, "\r\n"...)
}

// isClear reports whether s can stand in a header as it is.
func isClear(s string) bool {
	if strings.HasPrefix(s, " ") || strings.Contains(s, "=?") {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	for s != "" {
		n := tokenLen(s)
		if n > maxToken {
			return false
		}
		s = s[n:]
	}
	return true
}

// tokenLen returns the length of the blanks that s begins with and of the word
// after them.
func tokenLen(s string) int {
	blanks := len(s) - len(strings.TrimLeft(s, " "))
	if word := strings.IndexByte(s[blanks:], ' '); word >= 0 {
		return blanks + word
	}
	return len(s)
}

// A folder writes a field.
type folder struct {
	out    []byte
	column int // of the next octet
}

func (f *folder) put(s string) {
	f.out = append(f.out, s...)
	f.column += len(s)
}

func (f *folder) fold() {
	f.out = append(f.out, "\r\n"...)
	f.column = 0
}

// clear writes s and folds it before blanks that a word follows, never making a
// line of white space.
func (f *folder) clear(s string) {
	for s != "" {
		n := tokenLen(s)
		if s[0] == ' ' && f.column+n > maxColumns && strings.Trim(s[:n], " ") != "" {
			f.fold()
		}
		f.put(s[:n])
		s = s[n:]
	}
}

// words writes s as encoded words; if first, a blank stands before it already.
func (f *folder) words(s string, first bool) {
	enc := encodingB
	if qLen(s) <= bLen(len(s)) {
		enc = encodingQ
	}
	for s != "" {
		blank := " "
		if first {
			blank, first = "", false
		} else if f.column+1+minWord > maxColumns {
			f.fold()
		}
		room := max(minWord, maxColumns-f.column-len(blank))
		n := fitting(s, room-len("=?UTF-8?Q??="), enc)
		f.put(blank + word(s[:n], enc))
		s = s[n:]
	}
}

// The encodings of encoded words; RFC 2047, 4.
const (
	encodingB = 'B'
	encodingQ = 'Q'
)

// fitting returns how many octets of s fit into room when they are encoded:
// whole characters, of which even the longest fits into minWord.
func fitting(s string, room int, enc rune) int {
	n, q := 0, 0
	for n < len(s) {
		_, size := utf8.DecodeRuneInString(s[n:])
		q += qLen(s[n : n+size])
		if enc == encodingQ && q > room || enc == encodingB && bLen(n+size) > room {
			break
		}
		n += size
	}
	return n
}

func bLen(n int) int { return base64.StdEncoding.EncodedLen(n) }

func qLen(s string) int {
	n := 0
	for i := range len(s) {
		if n++; s[i] != ' ' && !isSafe(s[i]) {
			n += 2
		}
	}
	return n
}

// isSafe says what encoding Q leaves clear in every place; RFC 2047, 5 (3).
func isSafe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '!' || c == '*' || c == '+' || c == '-' || c == '/'
}

// word returns the encoded word of s.
func word(s string, enc rune) string {
	if enc == encodingB {
		return "=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, maxWord)
	b = append(b, "=?UTF-8?Q?"...)
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			b = append(b, '_')
		case isSafe(c):
			b = append(b, c)
		default:
			b = append(b, '=', hex[c>>4], hex[c&15])
		}
	}
	return string(append(b, "?="...))
}
