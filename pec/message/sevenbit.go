package message

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrSevenBit says that a message has octets over 127 where nothing can be
// encoded without changing what the message is.
var ErrSevenBit = errors.New("message: cannot be brought to 7 bits")

// A Spool takes what is written to it and is then a Source of it. Whoever gave
// it frees it, after the Content that points to it.
type Spool interface {
	io.Writer
	Source
}

const encodingField = "Content-Transfer-Encoding"

// The transfer encodings that are written; RFC 2045, 6.
const (
	sevenBit        = "7bit"
	quotedPrintable = "quoted-printable"
	base64Encoding  = "base64"
)

// SevenBit returns m as a message without octets over 127; RFC 6109, 4.3. Text
// in 8 bits becomes quoted-printable, other parts base64, so that decoding them
// gives the same octets. Their Content-Transfer-Encoding and that of the
// multiparts and messages around them is adjusted, bare 8-bit text in fields
// becomes encoded words (RFC 2047), in parameters RFC 2231. A message with parts
// that are encoded gets a MIME-Version if it has none. All other octets stay; a
// message in 7 bits is a range of its source, whatever it declares.
//
// Header.Text of every field stays the same, Addresses, MediaType and FileName
// too; only quotes around names are gone, which an encoded word cannot have.
//
// ErrSevenBit is what cannot be done: octets that a signature covers
// (multipart/signed), addresses in 8 bits, text outside of the parts, fields
// that are not read twice in the same way. ErrLimit is as with Structure,
// embedded messages counted with the message that has them. Other errors come
// from the source or the spools.
//
// spool is called once for every part that is encoded, at most 1,000 times, some
// of them perhaps before an error. Each is written from its beginning to its end
// and then only read. Beside them it takes the memory of headers and buffers.
func SevenBit(m *Message, spool func() (Spool, error)) (Content, error) {
	c := converter{spool: spool, buf: make([]byte, min(m.Range().Len, largeWindow))}
	return c.message(m)
}

func cannot(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSevenBit, fmt.Sprintf(format, args...))
}

// A converter brings one message to 7 bits.
type converter struct {
	spool func() (Spool, error)
	buf   []byte
	depth int // of the entities that are open
	parts int
}

func (c *converter) message(m *Message) (Content, error) {
	high, err := c.eightBit(m.Source, m.Range())
	if err != nil {
		return nil, err
	}
	if !high {
		return Section(m.Source, m.Range()), nil
	}
	root, err := m.Structure()
	if err != nil {
		return nil, err
	}
	root.Walk(func(*Part) bool { c.parts++; return true })
	if c.parts > maxParts {
		return nil, fmt.Errorf("%w: more than %d parts", ErrLimit, maxParts)
	}
	out, err := c.entity(root, true)
	if err != nil {
		return nil, err
	}
	if err := readBack(root, out); err != nil {
		return nil, err
	}
	return out, nil
}

// eightBit reports whether an octet of r is over 127.
func (c *converter) eightBit(src Source, r Range) (bool, error) {
	for off := r.Off; off < r.End(); {
		b := c.buf[:min(int64(len(c.buf)), r.End()-off)]
		if err := readFull(src, b, off); err != nil {
			return false, err
		}
		if hasEightBit(b) {
			return true, nil
		}
		off += int64(len(b))
	}
	return false, nil
}

// entity converts p; root says that it is a message, not a part of one.
func (c *converter) entity(p *Part, root bool) (Content, error) {
	if c.depth == maxDepth {
		return nil, fmt.Errorf("%w: parts nested more than %d deep", ErrLimit, maxDepth)
	}
	c.depth++
	defer func() { c.depth-- }()
	body, encoding, err := c.body(p)
	if err != nil {
		return nil, err
	}
	header, err := sevenBitHeader(p, encoding, root)
	if err != nil {
		return nil, err
	}
	out := Text(header)
	// Without an empty line the first line of the body is known not to be a
	// field; encoded it could look like one.
	gap := Range{p.HeaderRange.End(), p.Body.Off - p.HeaderRange.End()}
	if gap.Len == 0 && encoding != "" {
		out = append(out, Piece{Text: []byte("\r\n")})
	} else {
		out = append(out, Section(p.Source, gap)...)
	}
	return append(out, body...), nil
}

// body returns the body of p in 7 bits and the encoding that it is in now, which
// is empty if the body is as it was.
func (c *converter) body(p *Part) (content Content, encoding string, err error) {
	high, err := c.eightBit(p.Source, p.Body)
	if err != nil {
		return nil, "", err
	}
	if !high {
		return Section(p.Source, p.Body), "", nil
	}
	if encoding, err = newEncoding(p); err != nil {
		return nil, "", err
	}
	switch {
	case encoding != sevenBit:
		content, err = c.encode(p, encoding)
	case p.MediaType == "message/rfc822":
		content, err = c.embedded(p)
	default:
		content, err = c.multipart(p)
	}
	return content, encoding, err
}

// newEncoding returns the encoding for p, which is 8-bit: 7bit for the types
// with parts of their own, which may not be encoded; RFC 2045, 6.4.
func newEncoding(p *Part) (string, error) {
	// Readers do not agree which of two fields counts.
	if p.Header.Count("Content-Type") > 1 || p.Header.Count(encodingField) > 1 {
		return "", cannot("a part with two types or encodings")
	}
	was := p.encoding()
	switch was {
	case "", sevenBit, "8bit", "binary", quotedPrintable:
	default:
		return "", cannot("8-bit octets in a part encoded as %.40q", was)
	}
	major, minor, _ := strings.Cut(p.MediaType, "/")
	switch {
	case p.MediaType == "multipart/signed":
		return "", cannot("8-bit octets under a signature")
	case major == "multipart", p.MediaType == "message/rfc822":
		if was == quotedPrintable {
			return "", cannot("an encoded %.100s", p.MediaType)
		}
		return sevenBit, nil
	case major == "message" && !strings.HasPrefix(minor, "global"):
		return "", cannot("8-bit octets in %.100s", p.MediaType) // global is RFC 6532, 3.7
	case major == "text", was == quotedPrintable:
		return quotedPrintable, nil
	}
	return base64Encoding, nil
}

func (c *converter) multipart(p *Part) (Content, error) {
	if len(p.Children) == 0 {
		return nil, cannot("a multipart without parts")
	}
	var out Content
	pos := p.Body.Off
	between := func(end int64) error {
		r := Range{pos, end - pos}
		high, err := c.eightBit(p.Source, r)
		if err != nil {
			return err
		}
		if high {
			return cannot("8-bit octets outside of the parts of a multipart")
		}
		out = append(out, Section(p.Source, r)...)
		return nil
	}
	for _, child := range p.Children {
		r := child.Range()
		if err := between(r.Off); err != nil {
			return nil, err
		}
		content, err := c.entity(child, false)
		if err != nil {
			return nil, err
		}
		out, pos = append(out, content...), r.End()
	}
	return out, between(p.Body.End())
}

func (c *converter) embedded(p *Part) (Content, error) {
	m, err := p.Embedded()
	if err != nil {
		return nil, err
	}
	return c.message(m)
}

// encode writes the body of p to a spool.
func (c *converter) encode(p *Part, encoding string) (Content, error) {
	s, err := c.spool()
	if err != nil {
		return nil, fmt.Errorf("message: spool: %w", err)
	}
	var in io.Reader = &wholeReader{io.NewSectionReader(p.Source, p.Body.Off, p.Body.Len), p.Body.Len}
	if p.encoding() == quotedPrintable {
		in = newQuotedReader(in)
	}
	if encoding == quotedPrintable {
		err = writeQuoted(s, in, c.buf)
	} else {
		err = writeBase64(s, in)
	}
	if err != nil {
		return nil, fmt.Errorf("message: encode: %w", err)
	}
	return Section(s, Range{0, s.Size()}), nil
}

// readBack checks that out is read as the tree that it was made of.
func readBack(root *Part, out Content) error {
	m, err := Read(out)
	if err != nil {
		return err
	}
	p, err := m.Structure()
	if err != nil {
		return err
	}
	if !alike(root, p) {
		return cannot("its parts would not be the same")
	}
	return nil
}

func alike(p, q *Part) bool {
	if p.MediaType != q.MediaType || p.FileName() != q.FileName() || len(p.Children) != len(q.Children) ||
		len(p.Header.Fields) > len(q.Header.Fields) {
		return false
	}
	for i := range p.Children {
		if !alike(p.Children[i], q.Children[i]) {
			return false
		}
	}
	return true
}

// sevenBitHeader returns the fields of p, whose body is now in that encoding.
func sevenBitHeader(p *Part, encoding string, root bool) ([]byte, error) {
	out := make([]byte, 0, p.HeaderRange.Len+128)
	line := encodingField + ": " + encoding + "\r\n"
	// Without the field it is 7bit; RFC 2045, 6.1.
	add := encoding != "" && encoding != sevenBit && !p.Header.Has(encodingField)
	for _, f := range p.Header.Fields {
		switch {
		case encoding != "" && is(f.name(), encodingField):
			if p.encoding() == encoding && !hasEightBit(f.Raw) {
				out = append(out, f.Raw...)
			} else {
				out = append(append(append(out, f.name()...), ": "+encoding...), lineEnd(f.Raw)...)
			}
		case hasEightBit(f.Raw):
			fresh, err := sevenBitField(f)
			if err != nil {
				return nil, err
			}
			out = append(out, fresh...)
		default:
			out = append(out, f.Raw...)
		}
		if add && is(f.name(), "Content-Type") {
			out, add = append(endLine(out), line...), false
		}
	}
	if add {
		out = append(endLine(out), line...)
	}
	// What is encoded can be read only where MIME is; RFC 2045, 4.
	if root && encoding != "" && !p.Header.Has("MIME-Version") {
		out = append(endLine(out), "MIME-Version: 1.0\r\n"...)
	}
	return out, nil
}
