package message

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/url"
	"strconv"
	"strings"
)

// maxMedia is the longest Content-Type or Content-Disposition that is read with
// its parameters.
const maxMedia = 64 << 10

// MediaType returns the Content-Type in lower case with its parameters, names in
// lower case. It is text/plain if there is none. What no grammar allows but mail
// has is read as it is meant: values without quotes, comments, parameters twice
// (the first counts). A value without type and subtype is ErrMalformed, and
// text/plain (RFC 2045, 5.2).
func (h *Header) MediaType() (mediaType string, params map[string]string, err error) {
	return mediaTypeOf(h.Get("Content-Type"))
}

func mediaTypeOf(v string) (mediaType string, params map[string]string, err error) {
	if v == "" {
		return "text/plain", map[string]string{}, nil
	}
	t, params := parseMedia(v)
	major, minor, _ := strings.Cut(t, "/")
	if major == "" || minor == "" || strings.Contains(minor, "/") {
		return "text/plain", params, fmt.Errorf("%w: Content-Type %.100q", ErrMalformed, v)
	}
	return t, params, nil
}

// parseMedia reads a value with parameters; RFC 2045, 5.1 and RFC 2183.
func parseMedia(v string) (string, map[string]string) {
	if len(v) <= maxMedia {
		if t, params, ok := parsePlain(v); ok {
			return t, params
		}
	}
	return parseAny(v)
}

// parseAny is parseMedia for all values.
func parseAny(v string) (string, map[string]string) {
	if len(v) > maxMedia {
		v, _, _ = strings.Cut(v[:maxMedia], ";")
	}
	t, params, err := mime.ParseMediaType(v)
	// The standard library knows no charset but UTF-8 in RFC 2231 values.
	if err != nil || params == nil || strings.Contains(v, "*") {
		t, params = parseLoose(v)
	}
	return t, params
}

// parsePlain reads a value of the form that nearly all have, quickly and as
// parseAny does: type/subtype; name=token; name="text". It is not ok if v is of
// another form.
func parsePlain(v string) (t string, params map[string]string, ok bool) {
	n := plainToken(v)
	if n > 0 && n < len(v) && v[n] == '/' {
		minor := plainToken(v[n+1:])
		if minor == 0 {
			return "", nil, false
		}
		n += 1 + minor
	}
	if n == 0 {
		return "", nil, false
	}
	t, params = strings.ToLower(v[:n]), map[string]string{}
	for v = v[n:]; v != ""; {
		name, value, rest, ok := plainParam(v)
		if !ok {
			return "", nil, false
		}
		name = strings.ToLower(name)
		if _, twice := params[name]; twice {
			return "", nil, false
		}
		params[name], v = value, rest
	}
	return t, params, true
}

// plainParam reads one parameter off v, from its semicolon on.
func plainParam(v string) (name, value, rest string, ok bool) {
	if v[0] != ';' {
		return "", "", "", false
	}
	i := 1
	for i < len(v) && isBlank(v[i]) {
		i++
	}
	v = v[i:]
	n := plainToken(v)
	if n == 0 || n == len(v) || v[n] != '=' {
		return "", "", "", false
	}
	name, v = v[:n], v[n+1:]
	if n = plainToken(v); n == 0 {
		if n = plainQuoted(v); n == 0 {
			return "", "", "", false
		}
		value = v[1 : n-1]
	} else {
		value = v[:n]
	}
	rest = v[n:]
	return name, value, rest, rest == "" || rest[0] == ';'
}

// plainFileName reads the one parameter filename of a Content-Disposition, which
// has nothing else.
func plainFileName(v string) (string, bool) {
	n := plainToken(v)
	if n == 0 || n == len(v) || len(v) > maxMedia {
		return "", false
	}
	name, value, rest, ok := plainParam(v[n:])
	return value, ok && rest == "" && strings.EqualFold(name, "filename")
}

// plainToken returns the length of the token that v begins with. One with an
// octet that RFC 2231 gives a sense ends there.
func plainToken(v string) int {
	for i := range len(v) {
		switch c := v[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '+':
		default:
			return i
		}
	}
	return len(v)
}

// plainQuoted returns the length of the quoted string that v begins with, with its
// quotes; 0 if it is empty, has no end, or has more in it than ASCII that stands
// for itself.
func plainQuoted(v string) int {
	if v == "" || v[0] != '"' {
		return 0
	}
	for i := 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"' && i > 1:
			return i + 1
		case c < ' ' || c > '~' || c == '\\' || c == '"' || c == '*':
			return 0
		}
	}
	return 0
}

// parseLoose reads what mime.ParseMediaType refuses.
func parseLoose(v string) (string, map[string]string) {
	t, rest, _ := strings.Cut(v, ";")
	t = strings.TrimSpace(t)
	if i := strings.IndexAny(t, " \t("); i >= 0 {
		t = t[:i]
	}
	params := map[string]string{}
	for rest != "" {
		var name, value string
		name, value, rest = nextParam(rest)
		if _, twice := params[name]; name != "" && !twice {
			params[name] = value
		}
	}
	joinExtended(params)
	return strings.ToLower(t), params
}

// nextParam reads one parameter off s. The name is empty if there is none before
// the next semicolon.
func nextParam(s string) (name, value, rest string) {
	i := strings.IndexAny(s, "=;")
	if i < 0 {
		return "", "", ""
	}
	if s[i] == ';' {
		return "", "", s[i+1:]
	}
	name = strings.ToLower(strings.TrimSpace(s[:i]))
	s = strings.TrimLeft(s[i+1:], " \t")
	if strings.HasPrefix(s, `"`) {
		value, s = quoted(s[1:])
		_, rest, _ = strings.Cut(s, ";")
		return name, value, rest
	}
	value, rest, _ = strings.Cut(s, ";")
	value = strings.TrimSpace(value)
	if strings.HasSuffix(value, ")") { // a comment after the value
		value, _, _ = strings.Cut(value, " (")
	}
	return name, strings.TrimSpace(value), rest
}

// quoted reads a quoted string whose first quote is already read.
func quoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// joinExtended puts together and decodes the parameters of RFC 2231, in place.
func joinExtended(params map[string]string) {
	for key := range params {
		base, ext, star := strings.Cut(key, "*")
		if !star || base == "" {
			continue
		}
		whole, isWhole := params[base+"*"]
		switch {
		case isWhole:
			params[base] = decodeExtended([]segment{{whole, true}})
		case ext == "0", ext == "0*":
			params[base] = decodeExtended(segments(params, base))
		}
	}
	for key := range params {
		if strings.Contains(key, "*") {
			delete(params, key)
		}
	}
}

// A segment is a part of a value of RFC 2231.
type segment struct {
	text    string
	encoded bool
}

func segments(params map[string]string, base string) []segment {
	var all []segment
	for n := 0; ; n++ {
		key := base + "*" + strconv.Itoa(n)
		if text, ok := params[key+"*"]; ok {
			all = append(all, segment{text, true})
		} else if text, ok := params[key]; ok {
			all = append(all, segment{text, false})
		} else {
			return all
		}
	}
}

// decodeExtended decodes charset'language'text; RFC 2231, 4.
func decodeExtended(all []segment) string {
	var charset string
	var b bytes.Buffer
	for i, p := range all {
		if !p.encoded {
			b.WriteString(p.text)
			continue
		}
		if i == 0 {
			if part := strings.SplitN(p.text, "'", 3); len(part) == 3 {
				charset, p.text = part[0], part[2]
			}
		}
		if text, err := url.PathUnescape(p.text); err == nil {
			p.text = text
		}
		b.WriteString(p.text)
	}
	raw := b.String()
	if charset == "" {
		return raw
	}
	r, err := charsetReader(charset, &b)
	if err != nil {
		return raw
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return raw
	}
	return string(text)
}
