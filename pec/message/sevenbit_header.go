package message

import (
	"bytes"
	"errors"
	"net/mail"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNotAlike   = errors.New("it would not read the same")
	errNoList     = errors.New("not an address list")
	errNotInText  = errors.New("8-bit octets where only ASCII may be")
	errNotClosed  = errors.New("a quote, comment or bracket without its end")
	errParameters = errors.New("8-bit parameters that are not understood")
)

// addressLists are the fields with addresses (RFC 5322, 3.6; RFC 8098, 2.1), and
// two that nobody has written a standard for.
var addressLists = nameSet("From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From", "Resent-Sender",
	"Resent-Reply-To", "Resent-To", "Resent-Cc", "Resent-Bcc", "Disposition-Notification-To", "Errors-To", "Return-Receipt-To")

// phraseLists have phrases; RFC 5322, 3.6.5, and RFC 2919.
var phraseLists = nameSet("Keywords", "List-Id")

// tokenFields have free text only in comments.
var tokenFields = nameSet("Date", "Resent-Date", "Message-ID", "Resent-Message-ID", "In-Reply-To", "References",
	"Received", "Return-Path", "MIME-Version", "Content-ID", encodingField, "DKIM-Signature", "Authentication-Results",
	"ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results")

func nameSet(names ...string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[strings.ToLower(name)] = true
	}
	return set
}

// sevenBitField returns f without octets over 127, with the line end of f. It
// says the same to Text, Addresses and MediaType, quotes aside.
func sevenBitField(f Field) ([]byte, error) {
	encode := encodeText
	switch name := strings.ToLower(f.Name()); {
	case name == "content-type", name == "content-disposition":
		encode = encodeParams
	case addressLists[name]:
		encode = encodeAddresses
	case phraseLists[name]:
		encode = encodePhrases
	case tokenFields[name]:
		encode = encodeComments
	}
	raw, err := encode(f.Name(), f.Unfolded())
	if err != nil {
		return nil, cannot("field %.100s: %v", f.Name(), err)
	}
	switch end := lineEnd(f.Raw); end {
	case "\n":
		raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte(end))
	case "":
		raw = bytes.TrimSuffix(raw, []byte("\r\n"))
	}
	if longestLine(raw) > max(MaxLine, longestLine(f.Raw)) {
		return nil, cannot("field %.100s: a line too long", f.Name())
	}
	return raw, nil
}

func longestLine(raw []byte) int {
	n := 0
	for line := range bytes.Lines(raw) {
		n = max(n, len(line)-len(lineEnd(line)))
	}
	return n
}

// encodeText is for fields that are only text. What stands before the 8-bit
// text stays clear.
func encodeText(name, value string) ([]byte, error) {
	text := strings.Trim(decoded(toUTF8(value)), " ")
	n := strings.IndexFunc(text, func(r rune) bool { return r > '~' })
	if n < 0 {
		n = len(text)
	}
	raw := EncodeHeader(name, text[:n], text[n:])
	if readable(Field{raw}.Unfolded()) != readable(value) {
		return nil, errNotAlike
	}
	return raw, nil
}

// encodeAddresses is for address lists; RFC 5322, 3.4. Only names and comments
// can be encoded: 8-bit addresses are of RFC 6532 and have no other form.
func encodeAddresses(name, value string) ([]byte, error) {
	before, err := people.ParseList(toUTF8(value))
	if err != nil {
		return nil, errNoList
	}
	raw, err := encodePhrases(name, value)
	if err != nil {
		return nil, err
	}
	after, err := people.ParseList(Field{raw}.Unfolded())
	if err != nil || len(after) != len(before) {
		return nil, errNotAlike
	}
	for i, a := range after {
		if a.Address != before[i].Address || bare(a.Name) != bare(before[i].Name) {
			return nil, errNotAlike
		}
	}
	return raw, nil
}

// people reads display names as they are meant.
var people = mail.AddressParser{WordDecoder: &words}

// bare returns s without what differs between a quoted string and an encoded word.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || unicode.IsSpace(r) || unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

func encodePhrases(name, value string) ([]byte, error) { return encodeTokens(name, value, true) }

func encodeComments(name, value string) ([]byte, error) { return encodeTokens(name, value, false) }

func encodeTokens(name, value string, phrases bool) ([]byte, error) {
	tokens, err := lex(toUTF8(value))
	if err != nil {
		return nil, err
	}
	w := tokenWriter{folder: folder{out: []byte(name + ":")}}
	w.column = len(w.out)
	for rest := tokens; len(rest) > 0; {
		n, ascii := phraseLen(rest)
		isLocal := n < len(rest) && rest[n].kind == '@'
		switch {
		case !ascii && (!phrases || isLocal), n == 0 && !rest[0].isASCII() && rest[0].kind != '(':
			return nil, errNotInText
		case !ascii:
			w.phrase(rest[:n])
		default:
			n = max(n, 1)
			for _, t := range rest[:n] {
				w.token(t)
			}
		}
		rest = rest[n:]
	}
	raw := append(w.out, "\r\n"...)
	if bare(readable(Field{raw}.Unfolded())) != bare(readable(value)) {
		return nil, errNotAlike
	}
	return raw, nil
}

// A token is a piece of a structured field. Its kind is a blank for white space,
// 'a' for a word, else what it begins with.
type token struct {
	kind byte
	text string
}

func (t token) isASCII() bool { return !hasEightBit([]byte(t.text)) }

func (t token) isWord() bool { return t.kind == 'a' || t.kind == '"' }

// phraseLen returns how many tokens the phrase at the start has, words and the
// white space between them, and whether they are all ASCII.
func phraseLen(tokens []token) (n int, ascii bool) {
	ascii = true
	for i, t := range tokens {
		if !t.isWord() && (t.kind != ' ' || i == 0) {
			break
		}
		if t.isWord() {
			n = i + 1
			ascii = ascii && t.isASCII()
		}
	}
	return n, ascii
}

// lex cuts s into tokens; RFC 5322, 3.2.
func lex(s string) ([]token, error) {
	var tokens []token
	for s != "" {
		kind, n := s[0], 1
		switch kind {
		case '"', '(', '<', '[':
			n = enclosed(s)
		case ',', ':', ';', '@':
		case ' ', '\t':
			kind, n = ' ', len(s)-len(strings.TrimLeft(s, " \t"))
		default:
			kind = 'a'
			if n = strings.IndexAny(s, " \t\"(<[,:;@"); n < 0 {
				n = len(s)
			}
		}
		if n == 0 {
			return nil, errNotClosed
		}
		tokens = append(tokens, token{kind, s[:n]})
		s = s[n:]
	}
	return tokens, nil
}

var closing = map[byte]byte{'"': '"', '(': ')', '<': '>', '[': ']'}

// enclosed returns the length of what s begins with up to its end, or 0.
func enclosed(s string) int {
	open := []byte{closing[s[0]]}
	for i := 1; i < len(s); i++ {
		last := open[len(open)-1]
		switch c := s[i]; {
		case c == '\\' && last != '>':
			i++
		case c == last:
			if open = open[:len(open)-1]; len(open) == 0 {
				return i + 1
			}
		case c == '(' && (last == ')' || last == '>'), c == '"' && last == '>':
			open = append(open, closing[c])
		}
	}
	return 0
}

// A tokenWriter writes a structured field.
type tokenWriter struct {
	folder
	blank string // white space that is not yet written
	begun bool
	must  bool // white space has to come next
}

// space writes the white space before n columns, on a new line if they do not
// fit, and some where there is none but has to be.
func (w *tokenWriter) space(n int) {
	full := w.begun && w.column+len(w.blank)+n > maxColumns
	if w.blank == "" && (w.must || !w.begun || full && bytes.HasSuffix(w.out, []byte(","))) || len(w.blank) > maxColumns {
		w.blank = " "
	}
	if full && w.blank != "" {
		w.fold()
	}
	w.put(w.blank)
	w.blank, w.begun, w.must = "", true, false
}

func (w *tokenWriter) token(t token) {
	switch {
	case t.kind == ' ':
		w.blank += t.text
	case t.isASCII():
		w.space(len(t.text))
		w.put(t.text)
	default: // a comment; RFC 2047, 5 (2)
		w.space(1 + minWord)
		w.put("(")
		w.words(decoded(unescape(t.text[1:len(t.text)-1])), true)
		w.put(")")
	}
}

// phrase writes words as one text; RFC 2047, 5 (3). Encoded one by one, the
// white space between them would not be read.
func (w *tokenWriter) phrase(tokens []token) {
	var text, run strings.Builder
	for _, t := range tokens {
		if t.kind != '"' {
			run.WriteString(t.text)
			continue
		}
		text.WriteString(decoded(run.String()))
		run.Reset()
		text.WriteString(unescape(t.text[1 : len(t.text)-1]))
	}
	text.WriteString(decoded(run.String()))
	w.must = true
	w.space(minWord)
	w.words(text.String(), true)
	w.must = true
}

// decoded returns s without encoded words and with blanks for the tabs of folds.
func decoded(s string) string {
	s = strings.ReplaceAll(s, "\t", " ")
	if text, err := words.DecodeHeader(s); err == nil {
		return text
	}
	return s
}

// unescape undoes quoted pairs; RFC 5322, 3.2.1.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// encodeParams is for fields with parameters. Those in 8 bits become RFC 2231.
func encodeParams(name, value string) ([]byte, error) {
	kind, rest, _ := strings.Cut(value, ";")
	if len(value) > maxMedia || hasEightBit([]byte(kind)) {
		return nil, errParameters
	}
	before, params := parseMedia(value)
	plain, extended := paramKeys(rest)
	f := folder{out: []byte(name + ":")}
	f.column = len(f.out)
	f.clear(" " + strings.TrimSpace(kind))
	for rest != "" {
		all := rest
		var key, text string
		key, text, rest = nextParam(all)
		raw := strings.TrimSpace(strings.TrimSuffix(all[:len(all)-len(rest)], ";"))
		switch {
		case raw == "":
		case !hasEightBit([]byte(raw)):
			f.put(";")
			f.clear(" " + raw)
		case highs(raw) != highs(text), key == "boundary", !isToken(key), plain[key] > 1,
			extended[key] && toUTF8(text) != params[key]:
			return nil, errParameters
		case extended[key]: // the same twice, for old readers
		default:
			f.extended(key, toUTF8(params[key]))
		}
	}
	raw := append(f.out, "\r\n"...)
	after, fresh := parseMedia(Field{raw}.Unfolded())
	if after != before || len(fresh) != len(params) {
		return nil, errNotAlike
	}
	for key, text := range params {
		if toUTF8(text) != fresh[key] {
			return nil, errNotAlike
		}
	}
	return raw, nil
}

// paramKeys returns how often each name is there, and which have a value of
// RFC 2231.
func paramKeys(rest string) (plain map[string]int, extended map[string]bool) {
	plain, extended = map[string]int{}, map[string]bool{}
	for rest != "" {
		var key string
		key, _, rest = nextParam(rest)
		plain[key]++
		if base, _, star := strings.Cut(key, "*"); star {
			extended[base] = true
		}
	}
	return plain, extended
}

// highs counts the octets over 127.
func highs(s string) int {
	n := 0
	for i := range len(s) {
		if s[i] > 127 {
			n++
		}
	}
	return n
}

// isToken says what is written as the name of a parameter of RFC 2231: one that
// is short and not itself of RFC 2231.
func isToken(key string) bool {
	return key != "" && len(key) <= 32 && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// extended writes a parameter in UTF-8, in segments if it is long; RFC 2231, 3, 4.
func (f *folder) extended(key, text string) {
	var segments []string
	segment := "UTF-8''"
	for _, r := range text {
		c := percent(r)
		if 1+len(key)+len("*99*=;")+len(segment)+len(c) > maxColumns {
			segments = append(segments, segment)
			segment = ""
		}
		segment += c
	}
	segments = append(segments, segment)
	for i, s := range segments {
		if len(segments) > 1 {
			s = key + "*" + strconv.Itoa(i) + "*=" + s
		} else {
			s = key + "*=" + s
		}
		f.put(";")
		f.clear(" " + s)
	}
}

// percent returns r as RFC 2231, 7 wants it.
func percent(r rune) string {
	const hex = "0123456789ABCDEF"
	if r < utf8.RuneSelf && isSafe(byte(r)) && r != '*' && r != '/' || r == '.' || r == '_' {
		return string(r)
	}
	var b strings.Builder
	for _, c := range []byte(string(r)) {
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
