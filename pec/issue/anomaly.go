package issue

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/message"
)

// ErrUnwrappable is wrapped by the errors about a received message that no
// envelope can hold unaltered. Who receives such a message refuses it; trying
// again does not help.
var ErrUnwrappable = errors.New("issue: the message cannot be put into an envelope")

// unknownSender stands in an anomaly envelope where neither the reverse path nor
// the field From names anybody.
const unknownSender = "mittente sconosciuto"

// Anomaly returns the anomaly envelope (busta di anomalia; RFC 6109, 3.2.2) of
// received, whose facts are given: a message that is not certified mail or failed
// a check. ev.At is its arrival, ev.Detail the error in a few Italian words. It
// goes on to ev.Recipients from ev.Sender, unaltered; an empty ev.Sender is the
// null reverse path. received's Source must stay readable: the draft points to it.
//
// The envelope itself is well formed whatever it holds (docs/rules.md, M1). It has
// received's Message-ID if that is one, else a new one; the first of several To;
// and as the sender's name, where there is no reverse path, the address in From.
//
// A message with NUL, with a CR or LF that stands alone, or with a line over 998
// octets is ErrUnwrappable (docs/rules.md, M2). RFC 2045, 2.7 and 2.8 allow it
// neither as 7bit nor as 8bit, which are all that readers of certified mail expect;
// message/rfc822 may not be encoded (RFC 2046, 5.2.1), and what is sent as binary
// is folded by the next program that forwards it, inside the signature.
func (i Issuer) Anomaly(ev pec.Event, received *message.Message, facts message.Facts, rnd io.Reader) (Draft, error) {
	if err := i.valid(); err != nil {
		return Draft{}, err
	}
	if !facts.Carriable() {
		return Draft{}, fmt.Errorf("%w: NUL %t, CR alone %t, LF alone %t, longest line %d", ErrUnwrappable,
			facts.NUL, facts.BareCR, facts.BareLF, facts.LongestLine)
	}
	ev = i.reported(ev)
	d := Draft{Event: ev, From: ev.Sender, NullSender: ev.Sender == "", Original: true, EightBit: facts.EightBit}
	if err := d.route(); err != nil {
		return Draft{}, err
	}
	id, inherited := messageID(&received.Header)
	if !inherited {
		fresh, err := NewIdentifier(ev.At, i.Address.Domain(), rnd)
		if err != nil {
			return Draft{}, err
		}
		id = string(fresh)
	}
	d.MessageID = id

	named := ev
	named.Sender = sender(ev, &received.Header)
	d.Header = i.anomalyHeader(named, &received.Header, id, inherited, facts.EightBit)
	if err := fits(d.Header); err != nil {
		return Draft{}, fmt.Errorf("%w: %w", ErrUnwrappable, err)
	}
	shown := named
	if shown.Sender == "" {
		shown.Sender = unknownSender
	}
	if err := d.fill(i.wording(anomaly), shown, message.Section(received.Source, received.Range()), rnd); err != nil {
		return Draft{}, err
	}
	return d, nil
}

// reported returns ev as the text of an anomaly envelope says it.
func (i Issuer) reported(ev pec.Event) pec.Event {
	ev.Kind, ev.Provider = pec.KindAnomaly, i.Name
	ev.Receipt, ev.Recipient, ev.Taken = "", "", nil
	return daticert.Normal(orOther(ev))
}

// route sets the recipients of an anomaly envelope and checks what its event
// cannot do without.
func (d *Draft) route() error {
	ev := d.Event
	switch {
	case ev.At.IsZero() || ev.At.Year() < 1 || ev.At.Year() > 9999:
		return unfit("%s at %v", ev.Kind, ev.At)
	case ev.Detail == "":
		return unfit("%s without detail", ev.Kind)
	case len(ev.Recipients) == 0:
		return unfit("%s without recipients", ev.Kind)
	case !d.NullSender && !fitsEnvelope(ev.Sender):
		return unfit("sender %q", ev.Sender)
	}
	for _, r := range ev.Recipients {
		if !fitsEnvelope(r.Address) {
			return unfit("recipient %q", r.Address)
		}
		d.To = append(d.To, r.Address)
	}
	return nil
}

// sender returns who sent the message: the reverse path, or without one the
// address in From, or "".
func sender(ev pec.Event, h *message.Header) pec.Address {
	if ev.Sender != "" {
		return ev.Sender
	}
	from, err := h.Addresses("From")
	if err != nil || len(from) == 0 || !fitsName(from[0]) {
		return ""
	}
	return from[0]
}

// fitsName reports whether a can be named as a sender: unlike a path, it may have
// blanks in a quoted local part.
func fitsName(a pec.Address) bool {
	local, domain := a.Split()
	if len(local) > 2 && local[0] == '"' && local[len(local)-1] == '"' {
		local = strings.ReplaceAll(local, " ", "_")
	}
	return fitsEnvelope(pec.Address(local + "@" + domain))
}

// messageID returns the Message-ID, without angle brackets, and whether there is
// one and only one, in the form that all programs understand.
func messageID(h *message.Header) (string, bool) {
	id, opened := strings.CutPrefix(h.Get("Message-ID"), "<")
	id, closed := strings.CutSuffix(id, ">")
	usable := opened && closed && id != "" && h.Count("Message-ID") == 1 && fitsField(id) && !strings.ContainsAny(id, " <>")
	return id, usable
}

// anomalyHeader returns the header of an anomaly envelope around a message with
// the header received; RFC 6109, 3.2.2.
func (i Issuer) anomalyHeader(ev pec.Event, received *message.Header, id string, inherited, eightBit bool) []byte {
	var h header
	h.inherit(received, "Return-Path")
	h.inherit(received, "Received")
	h.date(ev)
	h.field("From", onBehalf(readable(ev.Sender))+" <"+string(i.Address)+">")
	h.replyTo(ev.Sender, received, eightBit)
	if received.Has("To") {
		h.inheritFirst(received, "To")
	} else {
		h.field("To", "undisclosed-recipients:;")
	}
	h.inheritFirst(received, "Cc")
	if inherited {
		h.inheritFirst(received, "Message-ID")
	} else {
		h.field("Message-ID", "<"+id+">")
	}
	h.subject(anomaly.prefix, ev.Subject)
	h.field(pec.HeaderTransport, pec.TransportAnomaly)
	return h.Bytes()
}

// readable returns a as the ASCII that the field From needs; programs look for it
// in there in clear. The text shows it exactly.
func readable(a pec.Address) pec.Address {
	if a == "" {
		return unknownSender
	}
	return pec.Address(strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, string(a)))
}

// replyTo inherits Reply-To, or names the sender if there is one and the field can
// hold it: in UTF-8 (RFC 6532) only where the message is 8-bit anyway.
func (h *header) replyTo(sender pec.Address, received *message.Header, eightBit bool) {
	switch {
	case received.Has("Reply-To"):
		h.inheritFirst(received, "Reply-To")
	case sender != "" && (eightBit || readable(sender) == sender):
		h.field("Reply-To", string(sender))
	}
}
