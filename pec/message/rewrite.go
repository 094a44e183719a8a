package message

import (
	"bytes"

	"pecd/pec"
)

const messageID = "Message-ID"

// Relabel returns original with the provider's identifier as its Message-ID and
// with msgid, the Message-ID that the client gave, as X-Riferimento-Message-ID,
// the last field; RFC 6109, 2.2.1. Fields of these names that were there go,
// but the first Message-ID is replaced where it stands, its name as written.
// Without one the new field comes after the last. An empty msgid adds nothing.
//
// Every other byte stays. Two repairs keep the new fields apart from the rest: a
// field before them without a line end gets one, and a body without any header
// before it gets an empty line.
func Relabel(original *Message, id pec.Identifier, msgid string) Content {
	fresh := []byte(": <" + string(id) + ">")
	header := make([]byte, 0, original.HeaderRange.Len+256)
	replaced := false
	for _, f := range original.Header.Fields {
		switch name := f.name(); {
		case is(name, pec.HeaderReference), replaced && is(name, messageID):
			continue
		case is(name, messageID):
			replaced = true
			header = append(append(header, name...), fresh...)
			header = append(header, lineEnd(f.Raw)...)
		default:
			header = append(header, f.Raw...)
		}
	}
	if !replaced {
		header = append(append(append(endLine(header), messageID...), fresh...), "\r\n"...)
	}
	if msgid != "" {
		// A Message-ID may be folded, 8-bit or longer than a line; it is still
		// one field that decodes to what the client gave.
		header = append(endLine(header), EncodeHeader(pec.HeaderReference, "", msgid)...)
	}
	return append(Text(header), rest(original)...)
}

// rest returns m without its fields: the empty line and the body.
func rest(m *Message) Content {
	off := m.HeaderRange.End()
	body := Section(m.Source, Range{off, m.Body.End() - off})
	if off < m.Body.Off || len(m.Header.Fields) > 0 || m.Body.Len == 0 {
		return body
	}
	return append(Text([]byte("\r\n")), body...)
}

// endLine returns header with a line end after the last field.
func endLine(header []byte) []byte {
	if len(header) == 0 || bytes.HasSuffix(header, []byte("\n")) {
		return header
	}
	return append(header, "\r\n"...)
}

// lineEnd returns the line end of raw.
func lineEnd(raw []byte) string {
	switch {
	case bytes.HasSuffix(raw, []byte("\r\n")):
		return "\r\n"
	case bytes.HasSuffix(raw, []byte("\n")):
		return "\n"
	}
	return ""
}
