package daticert

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/encoding/charmap"

	"pecd/pec"
)

// Parse reads a daticert.xml. It takes white space and comments anywhere and a
// bare DOCTYPE, which it does not load; it refuses everything that the DTD of
// RFC 6109, 4.4 does not know, entities beyond the five of XML, and charsets
// other than UTF-8, US-ASCII, ISO-8859-1 and windows-1252. The instant is in
// loc if loc has the offset of the data at that time, else (or if loc is nil)
// in a fixed zone. Errors are ErrInvalid or ErrLimit.
func Parse(data []byte, loc *time.Location) (pec.Event, error) {
	if len(data) > MaxSize {
		return pec.Event{}, fmt.Errorf("%w: %d octets", ErrLimit, len(data))
	}
	q := quick{rest: string(data)}
	ev, ok := q.document(loc)
	if !ok {
		r := newReader(data)
		if ev = r.document(loc); r.err != nil {
			return pec.Event{}, r.err
		}
	}
	ev = Normal(ev)
	if err := check(ev); err != nil {
		return pec.Event{}, err
	}
	return ev, nil
}

// A reader goes through the document once, in the order of the DTD. After the
// first error it does nothing more.
type reader struct {
	dec    *xml.Decoder
	next   xml.Token // the next start or end tag, nil after the end
	began  bool      // something was read already
	rooted bool      // the root element was read
	typed  bool      // a DOCTYPE was read
	err    error
}

const (
	space = " \t\r\n"
	bom   = "\ufeff"
)

func newReader(data []byte) *reader {
	data = bytes.TrimPrefix(bytes.Trim(data, space), []byte(bom))
	r := &reader{dec: xml.NewDecoder(bytes.NewReader(data))}
	r.dec.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(charset) {
		case "us-ascii", "ascii":
			if bytes.ContainsFunc(data, func(c rune) bool { return c >= 0x80 }) {
				return nil, errors.New("octets over 127 in US-ASCII")
			}
			return in, nil
		case "iso-8859-1":
			return charmap.ISO8859_1.NewDecoder().Reader(in), nil
		case "windows-1252":
			return charmap.Windows1252.NewDecoder().Reader(in), nil
		}
		return nil, errors.New("charset not known")
	}
	r.advance()
	return r
}

func (r *reader) document(loc *time.Location) (ev pec.Event) {
	root := r.open("postacert", "tipo", "errore")
	ev.Kind = pec.Kind(root["tipo"])
	ev.Error = pec.ErrorCode(root.or("errore", string(pec.NoError)))
	if ev.Error == "" {
		r.fail("empty errore")
	}
	r.heading(&ev)
	r.data(&ev, loc)
	r.close()
	if r.err == nil && r.next != nil {
		r.fail("something after the root element")
	}
	return ev
}

func (r *reader) heading(ev *pec.Event) {
	r.open("intestazione")
	ev.Sender = pec.Address(r.leaf("mittente"))
	for r.at("destinatari") {
		if len(ev.Recipients) == MaxRecipients {
			r.over()
			return
		}
		address, a := r.leafWith("destinatari", "tipo")
		kind := a.or("tipo", string(pec.Certified))
		ev.Recipients = append(ev.Recipients,
			pec.Recipient{Address: pec.Address(address), Type: pec.RecipientType(kind)})
	}
	ev.ReplyTo = r.leaf("risposte")
	ev.Subject = r.optional("oggetto")
	r.close()
}

func (r *reader) data(ev *pec.Event, loc *time.Location) {
	r.open("dati")
	ev.Provider = r.leaf("gestore-emittente")
	zone := r.open("data", "zona")["zona"]
	day, hour := r.leaf("giorno"), r.leaf("ora")
	r.close()
	if r.err == nil {
		ev.At, r.err = instant(day, hour, zone, loc)
	}
	ev.Identifier = pec.Identifier(r.leaf("identificativo"))
	ev.MsgID = r.optional("msgid")
	if r.at("ricevuta") {
		ev.Receipt = r.receipt()
	}
	ev.Recipient = pec.Address(r.optional("consegna"))
	for r.at("ricezione") {
		if len(ev.Taken) == MaxRecipients {
			r.over()
			return
		}
		ev.Taken = append(ev.Taken, pec.Address(r.leaf("ricezione")))
	}
	ev.Detail = r.optional("errore-esteso")
	r.close()
}

// receipt reads the element ricevuta, which is empty but for its attribute.
func (r *reader) receipt() pec.ReceiptType {
	t := pec.ReceiptType(r.open("ricevuta", "tipo")["tipo"])
	r.close()
	if !validReceipt(t) {
		r.fail("ricevuta of tipo %q", t)
	}
	return t
}

// at reports whether the element name begins next.
func (r *reader) at(name string) bool {
	start, ok := r.next.(xml.StartElement)
	return r.err == nil && ok && start.Name == xml.Name{Local: name}
}

// open enters the element name, which must begin next.
func (r *reader) open(name string, allowed ...string) attributes {
	a := r.start(name, allowed...)
	r.advance()
	return a
}

// start takes the start tag of name, without going on to what follows it.
func (r *reader) start(name string, allowed ...string) attributes {
	if !r.at(name) {
		r.fail("no %s where it belongs", name)
		return nil
	}
	a := attributes{}
	for _, attr := range r.next.(xml.StartElement).Attr {
		_, twice := a[attr.Name.Local]
		if attr.Name.Space != "" || !slices.Contains(allowed, attr.Name.Local) || twice {
			r.fail("attribute %q of %s", attr.Name.Local, name)
			return nil
		}
		a[attr.Name.Local] = strings.Trim(attr.Value, space)
	}
	return a
}

// close leaves an element that has nothing more in it.
func (r *reader) close() {
	if _, ok := r.next.(xml.EndElement); !ok {
		r.fail("an element where none belongs")
		return
	}
	r.advance()
}

func (r *reader) leaf(name string) string {
	text, _ := r.leafWith(name)
	return text
}

func (r *reader) optional(name string) string {
	if !r.at(name) {
		return ""
	}
	return r.leaf(name)
}

// leafWith reads an element that holds only text.
func (r *reader) leafWith(name string, allowed ...string) (string, attributes) {
	a := r.start(name, allowed...)
	var text strings.Builder
	for r.err == nil {
		switch tok := r.token().(type) {
		case xml.CharData:
			text.Write(tok)
		case xml.Comment:
		case xml.EndElement:
			r.advance()
			return text.String(), a
		default:
			r.fail("more than text in %s", name)
		}
	}
	return "", nil
}

// advance goes to the next tag, over white space, comments and what may stand
// before the root element.
func (r *reader) advance() {
	for r.err == nil {
		first := !r.began
		r.began = true
		switch tok := r.token().(type) {
		case nil:
			r.next = nil
			return
		case xml.StartElement, xml.EndElement:
			r.next, r.rooted = tok, true
			return
		case xml.Comment:
		case xml.CharData:
			if len(bytes.Trim(tok, space)) > 0 {
				r.fail("text where none belongs")
			}
		case xml.ProcInst:
			if !first || tok.Target != "xml" {
				r.fail("processing instruction %q", tok.Target)
			}
		case xml.Directive:
			if r.rooted || r.typed || !doctype.Match(tok) {
				r.fail("declaration other than a bare DOCTYPE")
			}
			r.typed = true
		}
	}
}

// doctype is a DOCTYPE that declares nothing: no internal subset.
var doctype = regexp.MustCompile(`^DOCTYPE\s+postacert` +
	`(\s+SYSTEM\s+` + literal + `|\s+PUBLIC\s+` + literal + `\s+` + literal + `)?\s*$`)

const literal = `("[^"<>\[\]]*"|'[^'<>\[\]]*')`

// token returns the next token, nil at the end of the document or on an error.
func (r *reader) token() xml.Token {
	tok, err := r.dec.Token()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		r.fail("%v", err)
		return nil
	}
	return tok
}

// fail keeps the first error.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = invalid(format, args...)
	}
}

func (r *reader) over() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: more than %d recipients", ErrLimit, MaxRecipients)
	}
}

// attributes are those of one element.
type attributes map[string]string

func (a attributes) or(name, absent string) string {
	if v, ok := a[name]; ok {
		return v
	}
	return absent
}
