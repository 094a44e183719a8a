package message

import (
	"bytes"
	"strings"
)

// A Field is one header field as it stands, with its folds and its line end. The
// line end is missing only where the message ends with it.
type Field struct{ Raw []byte }

// Name returns the field name as written, without blanks before the colon.
func (f Field) Name() string { return string(f.name()) }

func (f Field) name() []byte {
	end := bytes.IndexByte(f.Raw, ':')
	if end < 0 {
		end = len(f.Raw)
	}
	for end > 0 && isBlank(f.Raw[end-1]) {
		end--
	}
	return f.Raw[:end]
}

// Value returns the bytes after the colon, with folds and line end. The caller
// does not change them.
func (f Field) Value() []byte {
	_, after, _ := bytes.Cut(f.Raw, []byte(":"))
	return after
}

// Unfolded returns the value without line ends and without white space around
// it. White space inside, that after a fold too, is kept; RFC 5322, 2.2.3.
func (f Field) Unfolded() string {
	v := bytes.Trim(f.Value(), " \t\r\n")
	if bytes.IndexByte(v, '\n') < 0 { // most fields are one line
		return string(v)
	}
	v = bytes.ReplaceAll(v, []byte("\r\n"), nil)
	v = bytes.ReplaceAll(v, []byte("\n"), nil)
	return string(v)
}

// A Header is the fields of a message in their order. Names are compared without
// regard to case.
type Header struct{ Fields []Field }

// named calls f with the fields of that name until f is false.
func (h *Header) named(name string, f func(Field) bool) {
	for _, field := range h.Fields {
		if is(field.name(), name) && !f(field) {
			return
		}
	}
}

func is(written []byte, name string) bool {
	// Few names have the length and the first letter of another.
	return len(written) == len(name) && (name == "" || written[0]|0x20 == name[0]|0x20) &&
		strings.EqualFold(string(written), name)
}

// Count returns the number of fields of that name.
func (h *Header) Count(name string) int {
	n := 0
	h.named(name, func(Field) bool { n++; return true })
	return n
}

// Has reports whether there is a field of that name.
func (h *Header) Has(name string) bool {
	found := false
	h.named(name, func(Field) bool { found = true; return false })
	return found
}

// Get returns the unfolded value of the first field of that name, or "".
func (h *Header) Get(name string) string {
	var value string
	h.named(name, func(f Field) bool { value = f.Unfolded(); return false })
	return value
}

// Values returns the unfolded values of all fields of that name in their order.
func (h *Header) Values(name string) []string {
	var values []string
	h.named(name, func(f Field) bool { values = append(values, f.Unfolded()); return true })
	return values
}

// Raw returns all fields of that name, byte for byte, one after the other.
func (h *Header) Raw(name string) []byte {
	var raw []byte
	h.named(name, func(f Field) bool { raw = append(raw, f.Raw...); return true })
	return raw
}
