// Package message is a message as bytes: header fields in their order, MIME
// parts as byte ranges, and new messages made of pieces of old ones. It never
// writes again what it has read: an original is carried byte for byte, as
// RFC 6109, 2.2.1 and 3.1.5 want it, and what is signed is what was on the wire
// (RFC 1847, 2.1).
//
// Everything here takes hostile input. Readers are total: what is odd is read as
// far as it goes, what is too large is refused with ErrLimit. Nothing here is
// changed after it was made, so it may be used concurrently; only a Scanner and
// the readers belong to one goroutine.
package message

import (
	"bytes"
	"errors"
	"fmt"
)

var (
	// ErrMalformed says that the bytes are not what was asked for.
	ErrMalformed = errors.New("message: malformed")
	// ErrLimit says that a message has more or larger headers, or more or deeper
	// parts, than this package reads.
	ErrLimit = errors.New("message: over the limit")
)

// Limits of one header.
const (
	maxHeader = 1 << 20 // octets
	maxFields = 10000
)

// A Message is a message or a MIME entity, as byte ranges of Source. Between the
// two ranges stands the empty line, if there is one.
type Message struct {
	Source      Source
	Header      Header
	HeaderRange Range // the fields, without the empty line
	Body        Range // after the empty line; empty if there is none
}

// Read reads the header of the message that is the whole of src.
func Read(src Source) (*Message, error) {
	return ReadRange(src, Range{0, src.Size()})
}

// ReadRange reads the header of the message that is r of src. Lines end in CRLF
// or LF. A line that is not a field ends the header; the body then starts with
// it. A header over 1 MiB or 10,000 fields is ErrLimit, an r that is not in src
// is ErrMalformed; other errors come from src.
func ReadRange(src Source, r Range) (*Message, error) {
	if r.Off < 0 || r.Len < 0 || r.Off > src.Size()-r.Len {
		return nil, fmt.Errorf("%w: a range outside of its source", ErrMalformed)
	}
	m, err := readEntity(newWindow(src, r, smallWindow), r.Off, maxHeader, nil)
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// Range returns m from the header to the end of the body.
func (m *Message) Range() Range {
	return Range{m.HeaderRange.Off, m.Body.End() - m.HeaderRange.Off}
}

// readEntity reads the entity from pos to the end of w. Its header ends at the
// latest before a line for which stop is true.
func readEntity(w *window, pos int64, limit int, stop func(line []byte) bool) (Message, error) {
	h, end, err := readHeader(w, pos, limit, stop)
	if err != nil {
		return Message{}, err
	}
	b, err := w.from(end, 2)
	if err != nil {
		return Message{}, err
	}
	body := end
	switch {
	case bytes.HasPrefix(b, []byte("\n")):
		body++
	case bytes.HasPrefix(b, []byte("\r\n")):
		body += 2
	}
	return Message{
		Source:      w.src,
		Header:      h,
		HeaderRange: Range{pos, end - pos},
		Body:        Range{body, w.end - body},
	}, nil
}

// readHeader reads the fields at pos and returns where they end.
func readHeader(w *window, pos int64, limit int, stop func(line []byte) bool) (Header, int64, error) {
	var raw []byte
	var few [16]int
	starts := few[:0]
	for pos < w.end {
		b, err := w.from(pos, lookAhead)
		if err != nil {
			return Header{}, 0, err
		}
		if len(starts) == 0 || !isBlank(b[0]) {
			line, whole := firstLine(b, pos+int64(len(b)) == w.end)
			if whole && stop != nil && stop(line) || nameLen(line) == 0 {
				break
			}
			if len(starts) == maxFields {
				return Header{}, 0, fmt.Errorf("%w: more than %d header fields", ErrLimit, maxFields)
			}
			if raw == nil {
				raw = make([]byte, 0, headerSize(b))
			}
			starts = append(starts, len(raw))
		}
		if raw, pos, err = appendLine(raw, w, pos, limit); err != nil {
			return Header{}, 0, err
		}
	}
	return Header{cutFields(raw, starts)}, pos, nil
}

// headerSize returns about how many octets the header has that b begins with; 0
// if its end is not near.
func headerSize(b []byte) int {
	b = b[:min(len(b), lookAhead)]
	if i := bytes.Index(b, []byte("\n\r\n")); i >= 0 {
		return i + 1
	}
	return bytes.Index(b, []byte("\n\n")) + 1
}

// firstLine returns the first line of b without its LF, cut off at lookAhead,
// and whether that is all of it; last says that nothing follows b.
func firstLine(b []byte, last bool) (line []byte, whole bool) {
	if len(b) > lookAhead {
		b, last = b[:lookAhead], false
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], true
	}
	return b, last
}

// appendLine appends the line at pos, which may be longer than w, to raw.
func appendLine(raw []byte, w *window, pos int64, limit int) ([]byte, int64, error) {
	for pos < w.end {
		b, err := w.from(pos, 1)
		if err != nil {
			return nil, 0, err
		}
		i := bytes.IndexByte(b, '\n')
		if i >= 0 {
			b = b[:i+1]
		}
		if len(raw)+len(b) > limit {
			return nil, 0, fmt.Errorf("%w: header too large", ErrLimit)
		}
		raw, pos = append(raw, b...), pos+int64(len(b))
		if i >= 0 {
			break
		}
	}
	return raw, pos, nil
}

// cutFields cuts raw into the fields that begin at starts.
func cutFields(raw []byte, starts []int) []Field {
	fields := make([]Field, len(starts))
	for i, start := range starts {
		end := len(raw)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		fields[i].Raw = raw[start:end:end]
	}
	return fields
}

// nameLen returns the length of the field name that line begins with, or 0 if
// line is not a field: printable ASCII without blanks, then perhaps blanks
// (RFC 5322, 4.5.8), then a colon.
func nameLen(line []byte) int {
	n := 0
	for n < len(line) && line[n] > ' ' && line[n] < 0x7f && line[n] != ':' {
		n++
	}
	for i := n; i < len(line); i++ {
		if !isBlank(line[i]) {
			if line[i] == ':' {
				return n
			}
			break
		}
	}
	return 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
