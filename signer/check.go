package signer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/mail"
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

// checkDraft reads d back as its receiver will, from the whole message with an
// empty signature in place, and holds what it finds against the event.
func (t *term) checkDraft(d issue.Draft, f frame, whole message.Source) error {
	if err := checkEnvelope(d); err != nil {
		return err
	}
	if err := checkHeaderBlock(d); err != nil {
		return err
	}
	h, mixed, err := readBack(d, f, whole)
	if err != nil {
		return err
	}
	if err := t.checkHeader(d, h); err != nil {
		return err
	}
	if err := checkMarks(d, h, mixed); err != nil {
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
	if !(d.From == "" && d.NullSender && anomaly(d)) && !fitsEnvelope(d.From) {
		return refuse("envelope address %.200q", d.From)
	}
	for _, a := range d.To {
		if !fitsEnvelope(a) {
			return refuse("envelope address %.200q", a)
		}
	}
	return checkBoundary(d.Boundary)
}

func fitsEnvelope(a pec.Address) bool {
	for _, c := range a {
		if c <= ' ' || c == 0x7f || c == '<' || c == '>' {
			return false
		}
	}
	local, domain := a.Split()
	return local != "" && domain != ""
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

// checkHeaderBlock looks at the octets of a header that must be nothing but
// fields. What they say, readBack reads.
func checkHeaderBlock(d issue.Draft) error {
	var scan message.Scanner
	if _, err := scan.Write(d.Header); err != nil {
		return err
	}
	facts := scan.Facts()
	if !facts.EndsInNewline {
		return refuse("header: does not end in a line end")
	}
	if anomaly(d) {
		facts.LongestLine = 0 // inherited fields are as they came
	}
	return checkFacts("header", facts)
}

func checkFacts(what string, f message.Facts) error {
	switch {
	case f.NUL:
		return refuse("%s: NUL octet", what)
	case f.BareCR || f.BareLF:
		return refuse("%s: line ends other than CRLF", what)
	case f.LongestLine > message.MaxLine:
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

func (t *term) checkHeader(d issue.Draft, h *message.Header) error {
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
	if err != nil || len(from) != 1 || !from[0].Same(t.id.address) {
		return refuse("header: From is not the certificate's address %s: %v", t.id.address, from)
	}
	if id := h.Get("Message-ID"); !anomaly(d) && (d.MessageID == "" || id != "<"+d.MessageID+">") {
		return refuse("header: Message-ID %.100q, draft says %.100q", id, d.MessageID)
	}
	if err := checkDate(h.Get("Date"), d.Event.At); err != nil {
		return err
	}
	return checkKind(d, h)
}

func checkDate(date string, at time.Time) error {
	if date == at.Format(time.RFC1123Z) {
		return nil
	}
	// The same instant may be written in other ways.
	got, err := mail.ParseDate(date)
	if err != nil || !got.Equal(at.Truncate(time.Second)) {
		return refuse("header: Date %.60q is not the event's instant %s", date, at.Format(time.RFC3339))
	}
	return nil
}

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
	return checkVirus(d.Event, h)
}

// checkMarks wants the fields of ours where the draft has them, and nowhere else: in
// what is signed how far the register was, and in it and the header the mark of a
// duplicate (docs/rules.md, U1).
func checkMarks(d issue.Draft, h *message.Header, mixed *message.Part) error {
	want := ""
	if d.Duplicate != nil {
		want = pec.HeaderDuplicate + ": " + d.Duplicate.Mark() + "\r\n"
		if d.Original || d.Event.Kind == pec.KindTransport || anomaly(d) || d.Duplicate.Made.Before(d.Event.At) {
			return refuse("duplicate: of a %s, made at %s", d.Event.Kind, d.Duplicate.Made.Format(time.RFC3339))
		}
	}
	register := ""
	if d.Register != "" {
		register = pec.HeaderRegister + ": " + d.Register + "\r\n"
	}
	if got := string(mixed.Header.Raw(pec.HeaderRegister)); got != register {
		return refuse("entity: %.200q where the draft wants %q", got, register)
	}
	for _, got := range []string{string(h.Raw(pec.HeaderDuplicate)), string(mixed.Header.Raw(pec.HeaderDuplicate))} {
		if got != want {
			return refuse("duplicate: %.200q where the draft wants %q", got, want)
		}
	}
	return nil
}

// checkVirus holds the fields that only messages about a virus have against the
// event; RFC 6109, 3.1.3, 3.2.3 and 3.2.4.
func checkVirus(event pec.Event, h *message.Header) error {
	security, sender := "", ""
	switch {
	case event.Kind == pec.KindVirus:
		sender = string(event.Sender)
	case event.Error == pec.ErrorVirus:
		security = pec.HeaderSecurity + ": " + pec.SecurityError + "\r\n"
	}
	if got := string(h.Raw(pec.HeaderSecurity)); got != security {
		return refuse("header: %.100q where the event wants %q", got, security)
	}
	if got := h.Get(pec.HeaderSender); got != sender || h.Count(pec.HeaderSender) > 1 {
		return refuse("header: %s %.100q where the event wants %q", pec.HeaderSender, got, sender)
	}
	return nil
}

// readBack reads the whole message. It returns the fields that the draft brings,
// and the part that is to be signed, which must be the entity and all of it: a
// boundary within the entity would end it early.
func readBack(d issue.Draft, f frame, whole message.Source) (*message.Header, *message.Part, error) {
	m, err := message.Read(whole)
	if err != nil {
		return nil, nil, draftOrRead("message", err)
	}
	header, err := draftFields(d, m)
	if err != nil {
		return nil, nil, err
	}
	root, err := m.Structure()
	if err != nil {
		return nil, nil, draftOrRead("message", err)
	}
	if root.MediaType != "multipart/signed" || len(root.Children) != 2 {
		return nil, nil, refuse("message: read back as %s of %d parts", root.MediaType, len(root.Children))
	}
	if want := (message.Range{Off: int64(len(f.before)), Len: d.Entity.Size()}); root.Children[0].Range() != want {
		return nil, nil, refuse("message: the signed part reads back as %v, the entity is %v", root.Children[0].Range(), want)
	}
	return header, root.Children[0], nil
}

// draftFields returns the fields of m's header that stand in d.Header, which
// must be all of it, in whole fields and without one of MIME: those are ours.
func draftFields(d issue.Draft, m *message.Message) (*message.Header, error) {
	size := 0
	for i, f := range m.Header.Fields {
		if size == len(d.Header) {
			return &message.Header{Fields: m.Header.Fields[:i]}, nil
		}
		if ofMIME(f.Name()) {
			return nil, refuse("header: MIME field %s", f.Name())
		}
		size += len(f.Raw)
	}
	return nil, refuse("header: not a field at octet %d", m.HeaderRange.End())
}

func ofMIME(name string) bool {
	const content = "content-"
	return strings.EqualFold(name, "MIME-Version") || len(name) >= len(content) && strings.EqualFold(name[:len(content)], content)
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
	if p.Body.Len > 2*daticert.MaxSize {
		return refuse("certification data: %d octets", p.Body.Len)
	}
	text := make([]byte, p.Body.Len)
	if _, err := io.ReadFull(io.NewSectionReader(p.Source, p.Body.Off, p.Body.Len), text); err != nil {
		return err // of the source
	}
	data, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return refuse("certification data: %w", err)
	}
	got, err := daticert.Parse(data, event.At.Location())
	if err != nil {
		return refuse("certification data: %w", err)
	}
	return sameEvent(got, daticert.Normal(event))
}

// sameEvent compares every field, the instant to the second since renderings
// carry no more.
func sameEvent(got, want pec.Event) error {
	if !sameSecond(got.At, want.At) {
		return refuse("certification data: instant %s, the event's is %s", got.At.Format(time.RFC3339), want.At.Format(time.RFC3339))
	}
	for _, f := range [...]struct{ field, got, want string }{
		{"Kind", string(got.Kind), string(want.Kind)},
		{"Provider", got.Provider, want.Provider},
		{"Identifier", string(got.Identifier), string(want.Identifier)},
		{"MsgID", got.MsgID, want.MsgID},
		{"Sender", string(got.Sender), string(want.Sender)},
		{"ReplyTo", got.ReplyTo, want.ReplyTo},
		{"Subject", got.Subject, want.Subject},
		{"Receipt", string(got.Receipt), string(want.Receipt)},
		{"Recipient", string(got.Recipient), string(want.Recipient)},
		{"Error", string(got.Error), string(want.Error)},
		{"Detail", got.Detail, want.Detail},
	} {
		if f.got != f.want {
			return refuse("certification data: %s is %.200q, the event's %.200q", f.field, f.got, f.want)
		}
	}
	if !slices.Equal(got.Recipients, want.Recipients) {
		return refuse("certification data: Recipients is %.200q, the event's %.200q", got.Recipients, want.Recipients)
	}
	if !slices.Equal(got.Taken, want.Taken) {
		return refuse("certification data: Taken is %.200q, the event's %.200q", got.Taken, want.Taken)
	}
	return nil
}

// sameSecond reports whether a and b are the same instant and have the same offset
// from UTC, and so read alike.
func sameSecond(a, b time.Time) bool {
	_, offsetA := a.Zone()
	_, offsetB := b.Zone()
	return a.Unix() == b.Unix() && offsetA == offsetB
}
