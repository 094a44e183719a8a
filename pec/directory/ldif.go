package directory

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits on what Parse reads. The directory of all providers is a few megabytes.
const (
	MaxSize    = 64 << 20 // octets of the file
	MaxLine    = 1 << 20  // octets of a line after unfolding
	MaxRecords = 100_000
)

// An attribute is one line of a record after unfolding.
type attribute struct {
	name  string // lower case, with its options
	value string
	line  int
}

// A record is what stands between two empty lines.
type record struct {
	number int // from 1
	line   int // of its first attribute, from 1
	dn     string
	attrs  []attribute
}

// A ldifReader splits an LDIF file into records: RFC 2849 without change
// records, controls and values that are fetched from a URL.
type ldifReader struct {
	rest    []byte
	line    int // number of the line at the start of rest
	records int
}

func newLDIFReader(ldif []byte) *ldifReader { return &ldifReader{rest: ldif, line: 1} }

// next returns the next record, nil after the last.
func (r *ldifReader) next() (*record, error) {
	var rec *record
	for len(r.rest) > 0 {
		start := r.line
		logical, err := r.logicalLine()
		if err != nil {
			return nil, r.errorf(start, "%w", err)
		}
		switch {
		case len(logical) == 0:
			if rec != nil {
				return rec, nil
			}
			continue
		case logical[0] == '#':
			continue
		}
		a, err := parseAttribute(logical)
		if err != nil {
			return nil, r.errorf(start, "%w", err)
		}
		a.line = start
		if rec == nil {
			if r.isVersion(a) {
				if a.value != "1" {
					return nil, r.errorf(start, "LDIF version %.20q, only 1 is known", a.value)
				}
				continue
			}
			if rec, err = r.begin(a); err != nil {
				return nil, err
			}
			continue
		}
		if err := rec.add(a); err != nil {
			return nil, r.errorf(start, "%w", err)
		}
	}
	return rec, nil
}

func (r *ldifReader) isVersion(a attribute) bool { return r.records == 0 && a.name == "version" }

func (r *ldifReader) begin(a attribute) (*record, error) {
	r.records++
	if r.records > MaxRecords {
		return nil, r.errorf(a.line, "more than %d records", MaxRecords)
	}
	if a.name != "dn" {
		return nil, r.errorf(a.line, "record begins with %.40q, not with dn", a.name)
	}
	return &record{number: r.records, line: a.line, dn: a.value}, nil
}

func (rec *record) add(a attribute) error {
	switch a.name {
	case "dn":
		return errors.New("dn within a record; an empty line is missing before it")
	case "changetype", "control":
		return fmt.Errorf("%s: change records are not a directory", a.name)
	}
	rec.attrs = append(rec.attrs, a)
	return nil
}

func (r *ldifReader) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d, record %d: %w", ErrSyntax, line, r.records, fmt.Errorf(format, args...))
}

// logicalLine returns the next line with its folded continuations joined and
// without its end.
func (r *ldifReader) logicalLine() ([]byte, error) {
	first := r.physicalLine()
	if len(r.rest) == 0 || r.rest[0] != ' ' {
		return first, checkLine(first)
	}
	joined := append([]byte(nil), first...)
	if len(joined) == 0 {
		return nil, errors.New("a continuation follows an empty line")
	}
	for len(r.rest) > 0 && r.rest[0] == ' ' {
		joined = append(joined, r.physicalLine()[1:]...)
	}
	return joined, checkLine(joined)
}

func (r *ldifReader) physicalLine() []byte {
	r.line++
	line, rest, _ := bytes.Cut(r.rest, []byte{'\n'})
	r.rest = rest
	return bytes.TrimSuffix(line, []byte{'\r'})
}

func checkLine(line []byte) error {
	switch {
	case len(line) > MaxLine:
		return fmt.Errorf("line longer than %d octets", MaxLine)
	case len(line) > 0 && line[0] == ' ':
		return errors.New("a continuation without a line before it")
	case bytes.IndexByte(line, 0) >= 0:
		return errors.New("NUL character")
	case bytes.IndexByte(line, '\r') >= 0:
		return errors.New("carriage return within a line")
	case !utf8.Valid(line):
		return errors.New("not UTF-8")
	}
	return nil
}

// parseAttribute reads "name: value", "name:: base64". A value that is to be
// fetched ("name:< URL") is refused: reading a directory must not open files.
func parseAttribute(line []byte) (attribute, error) {
	name, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return attribute{}, fmt.Errorf("no colon in %.40q", line)
	}
	if !validName(name) {
		return attribute{}, fmt.Errorf("bad attribute name %.40q", name)
	}
	a := attribute{name: strings.ToLower(name)}
	switch {
	case strings.HasPrefix(value, "<"):
		return a, fmt.Errorf("%s: values given by URL are refused", a.name)
	case strings.HasPrefix(value, ":"):
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimLeft(value[1:], " "))
		if err != nil {
			return a, fmt.Errorf("%s: bad base64: %w", a.name, err)
		}
		a.value = string(decoded)
	default:
		a.value = strings.TrimLeft(value, " ")
		// RFC 2849 wants these in base64; taken as they stand they could
		// only come from a writer that is wrong.
		if strings.HasPrefix(a.value, ":") || strings.HasPrefix(a.value, "<") {
			return a, fmt.Errorf("%s: value begins with %q; it must be in base64", a.name, a.value[:1])
		}
	}
	return a, nil
}

// validName accepts an attribute description of RFC 2849: letters, digits,
// hyphens, dots of an OID and options after semicolons.
func validName(name string) bool {
	if name == "" || len(name) > 200 {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '-' || c == '.' || c == ';'):
		default:
			return false
		}
	}
	return true
}
