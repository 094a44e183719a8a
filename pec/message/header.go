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
	before, _, _ := bytes.Cut(f.Raw, []byte(":"))
	return bytes.TrimRight(before, " \t")
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
	v := bytes.ReplaceAll(f.Value(), []byte("\r\n"), nil)
	v = bytes.ReplaceAll(v, []byte("\n"), nil)
	return string(bytes.Trim(v, " \t\r"))
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
	return len(written) == len(name) && strings.EqualFold(string(written), name)
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
