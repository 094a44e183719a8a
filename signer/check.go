package signer

import (
	"errors"
	"fmt"
	"io"
	"net/mail"
	"reflect"
	"slices"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/issue"
	"pecd/pec/message"
)

// ErrDraft says that a draft is not what its event and the rules demand. It is
// a fault of this program, never of a user.
var ErrDraft = errors.New("signer: draft refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDraft, fmt.Errorf(format, args...))
}

// maxLine is the longest line, in octets without its end, that may leave: the
// next MTA would fold a longer one inside the signature (RFC 5321, 4.5.3.1.6).
const maxLine = 998

// checkDraft reads d back as its receiver will, with an empty signature in
// place, and holds what it finds against the event.
func (s *Signer) checkDraft(d issue.Draft) error {
	if err := checkEnvelope(d); err != nil {
		return err
	}
	h, err := readHeader822(d)
	if err != nil {
		return err
	}
	if err := s.checkHeader(d, h); err != nil {
		return err
	}
	mixed, err := readBack(d)
	if err != nil {
		return err
	}
	return checkEntity(d, mixed)
}

// anomaly reports whether d is an anomaly envelope: it certifies nothing, keeps
// the null sender of what it carries, and goes no further than our own mailbox
// store, so that what it carries may be as odd as it came.
func anomaly(d issue.Draft) bool { return d.Event.Kind == pec.KindAnomaly }

func checkEnvelope(d issue.Draft) error {
	if len(d.To) == 0 {
		return refuse("envelope without recipients")
	}
	for i, a := range append([]pec.Address{d.From}, d.To...) {
		if i == 0 && a == "" && d.NullSender && anomaly(d) {
			continue
		}
		local, domain := a.Split()
		if local == "" || domain == "" {
			return refuse("envelope address %.200q", a)
		}
		for _, c := range a {
			if c <= ' ' || c == 0x7f || c == '<' || c == '>' {
				return refuse("envelope address %.200q", a)
			}
		}
	}
	return checkBoundary(d.Boundary)
}

// checkBoundary accepts what may stand between quotes in one line; RFC 2046,
// 5.1.1, without the blank.
func checkBoundary(b string) error {
	const others = "'()+_,-./:=?"
	if b == "" || len(b) > 70 {
		return refuse("boundary of %d octets", len(b))
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return refuse("boundary %q", b)
		}
	}
	return nil
}

// readHeader822 reads a header block that must be nothing but fields.
func readHeader822(d issue.Draft) (*message.Header, error) {
	block := d.Header
	m, err := message.Read(message.Bytes(block))
	if err != nil {
		return nil, refuse("header: %w", err)
	}
	if m.HeaderRange != (message.Range{Off: 0, Len: int64(len(block))}) {
		return nil, refuse("header: not a field at octet %d", m.HeaderRange.End())
	}
	facts, err := message.ScanContent(message.Text(block))
	if err != nil {
		return nil, err
	}
	if !facts.EndsInNewline {
		return nil, refuse("header: does not end in a line end")
	}
	if anomaly(d) {
		facts.LongestLine = 0 // inherited fields are as they came
	}
	if err := checkFacts("header", facts); err != nil {
		return nil, err
	}
	for _, f := range m.Header.Fields {
		name := strings.ToLower(f.Name())
		if name == "mime-version" || strings.HasPrefix(name, "content-") {
			return nil, refuse("header: MIME field %s", f.Name())
		}
	}
	return &m.Header, nil
}

func checkFacts(what string, f message.Facts) error {
	switch {
	case f.NUL:
		return refuse("%s: NUL octet", what)
	case f.BareCR || f.BareLF:
		return refuse("%s: line ends other than CRLF", what)
	case f.LongestLine > maxLine:
		return refuse("%s: line of %d octets", what, f.LongestLine)
	}
	return nil
}

func hasEightBit(block []byte) bool {
	for _, c := range block {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

func (s *Signer) checkHeader(d issue.Draft, h *message.Header) error {
	once := []string{"From", "Date", "Subject", "Message-ID", "To"}
	if anomaly(d) {
		once = once[:3] // the others are inherited
	}
	for _, name := range once {
		if n := h.Count(name); n != 1 {
			return refuse("header: %d fields %s", n, name)
		}
	}
	from, err := h.Addresses("From")
	if err != nil || len(from) != 1 || !from[0].Same(s.id.address) {
		return refuse("header: From is not the certificate's address %s: %v", s.id.address, from)
	}
	if id := h.Get("Message-ID"); !anomaly(d) && (d.MessageID == "" || id != "<"+d.MessageID+">") {
		return refuse("header: Message-ID %.100q, draft says %.100q", id, d.MessageID)
	}
	date, err := mail.ParseDate(h.Get("Date"))
	if err != nil || !date.Equal(wholeSecond(d.Event.At)) {
		return refuse("header: Date %.60q is not the event's instant %s", h.Get("Date"), d.Event.At.Format(time.RFC3339))
	}
	return checkKind(d, h)
}

func wholeSecond(t time.Time) time.Time { return t.Add(-time.Duration(t.Nanosecond())) }

// checkKind makes sure that the one field that tells programs what the message
// is fits the event, octet for octet (docs/rules.md, W6): programs look for it
// with patterns. A transport envelope bears the identifier as its Message-ID, a
// receipt must not (RFC 6109, 2.2.1).
func checkKind(d issue.Draft, h *message.Header) error {
	want := pec.HeaderReceipt + ": " + string(d.Event.Kind) + "\r\n"
	transport := d.Event.Kind == pec.KindTransport
	switch {
	case transport:
		want = pec.HeaderTransport + ": " + pec.TransportCertified + "\r\n"
	case anomaly(d):
		want = pec.HeaderTransport + ": " + pec.TransportAnomaly + "\r\n"
	case !d.Event.Kind.Valid():
		return refuse("event of kind %q", d.Event.Kind)
	}
	got := string(h.Raw(pec.HeaderReceipt)) + string(h.Raw(pec.HeaderTransport))
	if got != want {
		return refuse("header: %.200q where the event wants %q", got, want)
	}
	if (d.MessageID == string(d.Event.Identifier)) != transport {
		return refuse("header: Message-ID %.100q of a %s with identifier %.100q", d.MessageID, d.Event.Kind, d.Event.Identifier)
	}
	return nil
}

// readBack reads the whole message with an empty signature in place and returns
// the part that is to be signed, which must be the entity and all of it: a
// boundary within the entity would end it early.
func readBack(d issue.Draft) (*message.Part, error) {
	m, err := message.Read(assemble(d, nil))
	if err != nil {
		return nil, draftOrRead("message", err)
	}
	root, err := m.Structure()
	if err != nil {
		return nil, draftOrRead("message", err)
	}
	if root.MediaType != "multipart/signed" || len(root.Children) != 2 {
		return nil, refuse("message: read back as %s of %d parts", root.MediaType, len(root.Children))
	}
	before, _ := frame(d)
	if want := (message.Range{Off: int64(len(before)), Len: d.Entity.Size()}); root.Children[0].Range() != want {
		return nil, refuse("message: the signed part reads back as %v, the entity is %v", root.Children[0].Range(), want)
	}
	return root.Children[0], nil
}

// draftOrRead tells a message that is wrong from one that could not be read.
func draftOrRead(what string, err error) error {
	if errors.Is(err, message.ErrMalformed) || errors.Is(err, message.ErrLimit) {
		return refuse("%s: %w", what, err)
	}
	return err
}

// checkEntity holds the parts against RFC 6109, 4.3, in the order in which all
// providers write them.
func checkEntity(d issue.Draft, mixed *message.Part) error {
	want := []struct{ mediaType, file string }{
		{"multipart/alternative", ""},
		{"application/xml", pec.CertificationDataName},
		{"message/rfc822", pec.OriginalName},
	}
	switch {
	case anomaly(d):
		// No part but the text and the whole message (RFC 6109, 3.2.2).
		want = slices.Delete(want, 1, 2)
	case !d.Original:
		want = want[:2]
	}
	if mixed.MediaType != "multipart/mixed" || len(mixed.Children) != len(want) {
		return refuse("entity: %s of %d parts, %d expected", mixed.MediaType, len(mixed.Children), len(want))
	}
	for i, w := range want {
		if p := mixed.Children[i]; p.MediaType != w.mediaType || p.FileName() != w.file {
			return refuse("entity: part %d is %.60q %.60q, not %s %s", i+1, p.MediaType, p.FileName(), w.mediaType, w.file)
		}
	}
	eightBit := []*message.Part{mixed}
	if d.Original {
		eightBit = append(eightBit, mixed.Children[len(want)-1])
	}
	for _, p := range eightBit {
		if declared := transferEncoding(p); (declared == "8bit") != d.EightBit || declared == "binary" {
			return refuse("entity: %s declared %q, holds octets over 127: %t", p.MediaType, declared, d.EightBit)
		}
	}
	if anomaly(d) {
		return nil
	}
	return checkCertificationData(d.Event, mixed.Children[1])
}

func transferEncoding(p *message.Part) string {
	return strings.ToLower(p.Header.Get("Content-Transfer-Encoding"))
}

func checkCertificationData(event pec.Event, p *message.Part) error {
	if e := transferEncoding(p); e != "base64" {
		return refuse("certification data: transfer encoding %.20q", e)
	}
	data, err := io.ReadAll(io.LimitReader(p.Decoded(), daticert.MaxSize+1))
	if err != nil {
		return err // of the source: Decoded has no others
	}
	got, err := daticert.Parse(data, event.At.Location())
	if err != nil {
		return refuse("certification data: %w", err)
	}
	return sameEvent(got, daticert.Normal(event))
}

// sameEvent compares to the second, since renderings carry no more.
func sameEvent(got, want pec.Event) error {
	const layout = time.RFC3339
	if g, w := got.At.Format(layout), want.At.Format(layout); g != w {
		return refuse("certification data: instant %s, the event's is %s", g, w)
	}
	got.At, want.At = time.Time{}, time.Time{}
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if bothEmpty := g.Field(i).Kind() == reflect.Slice && g.Field(i).Len()+w.Field(i).Len() == 0; bothEmpty {
			continue
		}
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			return refuse("certification data: %s is %.200q, the event's %.200q", g.Type().Field(i).Name, a, b)
		}
	}
	return nil
}
