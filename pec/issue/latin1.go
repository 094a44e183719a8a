package issue

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// oneLine returns s so that it can neither end its line nor change how the rest
// of it is shown: control characters and separators become blanks, marks that
// set the direction of writing go.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
}

// latin1 returns s with what ISO-8859-1 cannot hold as "?", and whether there
// was any. It serves for addresses: a similar letter would be another address.
func latin1(s string) (string, bool) {
	lost := false
	s = strings.Map(func(r rune) rune {
		if r <= unicode.MaxLatin1 {
			return r
		}
		lost = true
		return '?'
	}, s)
	return s, lost
}

// nearestLatin1 returns s with typographic characters and letters with marks in
// their nearest form in ISO-8859-1, invisible characters left out and the rest
// as "?". It reports whether there was a rest (docs/rules.md, T2).
func nearestLatin1(s string) (string, bool) {
	var b strings.Builder
	lost, letter := false, false // letter: a mark that follows belongs to it
	for _, r := range norm.NFC.String(s) {
		mark := unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Variation_Selector, r)
		if near, ok := nearest(r); ok && (!mark || letter) {
			b.WriteString(near)
		} else {
			b.WriteByte('?')
			lost = true
		}
		letter = mark && letter || unicode.IsLetter(r)
	}
	return b.String(), lost
}

// nearest returns the form of r in ISO-8859-1, "" if there is nothing to see.
func nearest(r rune) (string, bool) {
	if r <= unicode.MaxLatin1 {
		return string(r), true
	}
	if s, ok := similar[r]; ok {
		return s, true
	}
	if unicode.In(r, unicode.Mn, unicode.Cf, unicode.Variation_Selector) {
		return "", true
	}
	var b strings.Builder
	for _, c := range norm.NFKD.String(string(r)) {
		s, ok := similar[c]
		switch {
		case ok:
			b.WriteString(s)
		case c <= unicode.MaxLatin1:
			b.WriteRune(c)
		case !unicode.Is(unicode.Mn, c):
			return "", false
		}
	}
	return b.String(), true
}

// similar are characters that Unicode does not decompose.
var similar = map[rune]string{
	'‘': "'", '’': "'", '‚': "'", '‛': "'", '′': "'", 'ʹ': "'", 'ʻ': "'", 'ʼ': "'",
	'“': `"`, '”': `"`, '„': `"`, '‟': `"`, '″': `"`,
	'‹': "<", '›': ">",
	'‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '―': "-", '−': "-",
	'⁄': "/", '∕': "/", '•': "*", '‣': "*", '…': "...", '€': "EUR", '™': "(TM)",
	'→': "->", '←': "<-", '≤': "<=", '≥': ">=", '≠': "!=",
	'Đ': "D", 'đ': "d", 'Ħ': "H", 'ħ': "h", 'ı': "i", 'ĸ': "k", 'Ł': "L", 'ł': "l",
	'Ŋ': "N", 'ŋ': "n", 'Œ': "OE", 'œ': "oe", 'Ŧ': "T", 'ŧ': "t", 'ẞ': "SS", 'Ə': "E", 'ə': "e",
}
