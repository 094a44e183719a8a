package issue

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"pecd/pec"
	"pecd/pec/message"
)

// A header is the top-level header of a draft while it is written.
type header struct{ bytes.Buffer }

// field writes one unfolded line. The programs that read certified mail look for
// name, colon, one blank and value, in just this casing (docs/rules.md, E1).
func (h *header) field(name, value string) {
	h.WriteString(name + ": " + value + "\r\n")
}

func (h *header) date(ev pec.Event) {
	h.field("Date", ev.At.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
}

// subject keeps the prefix clear, before any encoded word.
func (h *header) subject(prefix, subject string) {
	h.Write(message.EncodeHeader("Subject", prefix, subject))
}

// reference names the Message-ID that the client gave. One that another provider
// took and that no header field can hold stays in daticert.xml alone.
func (h *header) reference(msgid string) {
	if msgid != "" && fitsField(msgid) {
		h.field(pec.HeaderReference, msgid)
	}
}

// inherit copies all fields of that name. They keep every byte, but for what
// cannot travel in a header: a lone LF becomes CRLF, a lone CR or a NUL a blank.
// Else a next MTA might read a field of its own out of them.
func (h *header) inherit(from *message.Header, name string) {
	h.copied(from.Raw(name))
}

// inheritFirst copies the first field of that name, one that RFC 5322, 3.6 allows
// just once.
func (h *header) inheritFirst(from *message.Header, name string) {
	for _, f := range from.Fields {
		if strings.EqualFold(f.Name(), name) {
			h.copied(f.Raw)
			return
		}
	}
}

func (h *header) copied(raw []byte) {
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	for _, c := range raw {
		switch c {
		case '\n':
			h.WriteString("\r\n")
		case '\r', 0:
			h.WriteByte(' ')
		default:
			h.WriteByte(c)
		}
	}
	if len(raw) > 0 && raw[len(raw)-1] != '\n' {
		h.WriteString("\r\n")
	}
}

// receiptHeader returns the header of a receipt or notice; RFC 6109, 3.1.3, 3.1.4,
// 3.2.1, 3.2.3, 3.2.4, 3.3.2 and 3.3.3. From is the bare address (docs/rules.md, E2).
func (i Issuer) receiptHeader(ev pec.Event, m model, to pec.Address, id string) []byte {
	var h header
	h.date(ev)
	h.field("From", string(i.Address))
	h.field("To", string(to))
	h.field("Message-ID", "<"+id+">")
	h.subject(m.prefix, ev.Subject)
	h.field(pec.HeaderReceipt, string(ev.Kind))
	switch {
	case ev.Kind == pec.KindVirus:
		h.field(pec.HeaderSender, string(ev.Sender))
	case ev.Error == pec.ErrorVirus:
		h.field(pec.HeaderSecurity, pec.SecurityError)
	}
	h.reference(ev.MsgID)
	return h.Bytes()
}

// envelopeHeader returns the header of a transport envelope around a message
// with the header original; RFC 6109, 3.1.5.
func (i Issuer) envelopeHeader(ev pec.Event, original *message.Header) []byte {
	var h header
	h.inherit(original, "Return-Path")
	h.inherit(original, "Received")
	h.date(ev)
	h.field("From", onBehalf(ev.Sender)+" <"+string(i.Address)+">")
	if original.Has("Reply-To") {
		h.inherit(original, "Reply-To")
	} else {
		h.field("Reply-To", string(ev.Sender))
	}
	h.inherit(original, "To")
	h.inherit(original, "Cc")
	h.field("Message-ID", "<"+string(ev.Identifier)+">")
	h.subject(transport.prefix, ev.Subject)
	h.field(pec.HeaderTransport, pec.TransportCertified)
	h.field(pec.HeaderReceiptType, string(ev.Receipt))
	h.reference(ev.MsgID)
	return h.Bytes()
}

// onBehalf returns the display name of an envelope's From, which RFC 6109, 3.1.5
// writes in English and every program expects in Italian (docs/rules.md, W2).
func onBehalf(sender pec.Address) string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(sender))
	return `"Per conto di: ` + quoted + `"`
}

// Longest values, so that no line of ours gets over 998 octets.
const (
	maxAddress = 320 // RFC 3696, 3
	maxMsgID   = 940
)

// fitsHeader reports whether a can stand in a header field of ours.
func fitsHeader(a pec.Address) bool {
	return fitsEnvelope(a) && strings.IndexFunc(string(a), func(r rune) bool { return r > '~' }) < 0
}

// fitsEnvelope reports whether a can stand in an SMTP command.
func fitsEnvelope(a pec.Address) bool {
	local, domain := a.Split()
	return local != "" && domain != "" && len(a) <= maxAddress &&
		!strings.ContainsFunc(string(a), func(r rune) bool {
			return r <= ' ' || r == 0x7f || r == '<' || r == '>' || r == utf8.RuneError
		})
}

// fitsField reports whether s is one line of printable ASCII.
func fitsField(s string) bool {
	return len(s) <= maxMsgID && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
