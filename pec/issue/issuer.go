package issue

import (
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/message"
)

// ErrEvent is wrapped by the errors about an event that cannot be certified: it
// lacks something, or an address or identifier is not fit for a header field.
// Trying again does not help.
var ErrEvent = errors.New("issue: the event cannot be certified")

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEvent, fmt.Sprintf(format, args...))
}

// An Issuer is a provider that issues system messages. It may be used
// concurrently.
type Issuer struct {
	Name    string      // of the provider (gestore-emittente)
	Address pec.Address // posta-certificata@domain, the From of all that is issued
}

// lower is base32 in digits and small letters: alphanumeric, and the same
// whether or not a program folds case.
var lower = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// random returns n octets of rnd in lower.
func random(n int, rnd io.Reader) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(rnd, b); err != nil {
		return "", fmt.Errorf("issue: randomness: %w", err)
	}
	return lower.EncodeToString(b), nil
}

var domainForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// NewIdentifier returns a new identifier [alphanumeric string]@domain (RFC 6109,
// 2.2.1): the instant in UTC to the millisecond, so that identifiers sort by
// time, and 120 random bits.
func NewIdentifier(at time.Time, domain string, rnd io.Reader) (pec.Identifier, error) {
	if !domainForm.MatchString(domain) {
		return "", unfit("domain %q", domain)
	}
	tail, err := random(15, rnd)
	if err != nil {
		return "", err
	}
	stamp := strings.Replace(at.UTC().Format("20060102150405.000"), ".", "", 1)
	return pec.Identifier(stamp + tail + "@" + domain), nil
}

// Transport returns the transport envelope (busta di trasporto; RFC 6109, 3.1.5)
// of original, whose facts are given: From is the sender, To all recipients,
// also those of ordinary mail. ev.Identifier becomes its Message-ID and that of
// the original inside. original's Source must stay readable: the draft points to
// its body.
func (i Issuer) Transport(ev pec.Event, original *message.Message, facts message.Facts, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindTransport)
	if err != nil {
		return Draft{}, err
	}
	if !identifierForm.MatchString(string(ev.Identifier)) {
		return Draft{}, unfit("identifier %q", ev.Identifier)
	}
	if ev.MsgID != "" && !fitsField(ev.MsgID) {
		return Draft{}, unfit("Message-ID %q", ev.MsgID)
	}
	d := Draft{Event: ev, MessageID: string(ev.Identifier), From: ev.Sender, Original: true, EightBit: facts.EightBit}
	for _, r := range ev.Recipients {
		if !fitsEnvelope(r.Address) {
			return Draft{}, unfit("recipient %q", r.Address)
		}
		d.To = append(d.To, r.Address)
	}
	if err := d.fill(transport, message.Relabel(original, ev.Identifier, ev.MsgID), rnd); err != nil {
		return Draft{}, err
	}
	d.Header = i.envelopeHeader(ev, &original.Header)
	return d, nil
}

// Acceptance returns the acceptance receipt (ricevuta di accettazione; RFC 6109,
// 3.1.4) to the sender.
func (i Issuer) Acceptance(ev pec.Event, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindAcceptance)
	if err != nil {
		return Draft{}, err
	}
	return i.receipt(ev, ev.Sender, acceptance, nil, false, rnd)
}

// TakeCharge returns the take-charge receipt (ricevuta di presa in carico; RFC
// 6109, 3.2.1) for the recipients in ev.Taken. to is the service mailbox of the
// sending provider.
func (i Issuer) TakeCharge(ev pec.Event, to pec.Address, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindTakeCharge)
	if err != nil {
		return Draft{}, err
	}
	return i.receipt(ev, to, takeCharge, nil, false, rnd)
}

// Delivery returns the delivery receipt (ricevuta di avvenuta consegna; RFC
// 6109, 3.3.2) for ev.Recipient. original is postacert.eml as the envelope
// carries it, eightBit whether it holds bytes over 127; for a recipient that is
// not Primary the caller gives nil. Without an original, or where the sender
// asked for a concise receipt, it is the concise one.
func (i Issuer) Delivery(ev pec.Event, original message.Content, eightBit bool, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindDelivery)
	if err != nil {
		return Draft{}, err
	}
	if original == nil || ev.Receipt == pec.Concise {
		return i.receipt(ev, ev.Sender, deliveryConcise, nil, false, rnd)
	}
	// Who asked for a brief receipt gets the complete one: it proves all that the
	// brief one does, which only spares traffic. The certification data names the
	// type that was asked for in either case.
	return i.receipt(ev, ev.Sender, deliveryComplete, original, eightBit, rnd)
}

// NonDelivery returns the non-delivery notice (avviso di mancata consegna; RFC
// 6109, 3.3.3) for ev.Recipient. It gives ev.Detail the form X.Y.Z - provider -
// text if it does not have it yet (docs/rules.md, N1).
func (i Issuer) NonDelivery(ev pec.Event, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindNonDelivery)
	if err != nil {
		return Draft{}, err
	}
	return i.receipt(ev, ev.Sender, nonDelivery, nil, false, rnd)
}

var (
	detailForm     = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3} - .+ - .`)
	identifierForm = regexp.MustCompile(`^[A-Za-z0-9]{1,64}@` + domainForm.String()[1:])
)

// receipt returns the draft of a receipt or notice of the issuer to one address.
func (i Issuer) receipt(ev pec.Event, to pec.Address, m model, original message.Content, eightBit bool, rnd io.Reader) (Draft, error) {
	if !fitsHeader(to) {
		return Draft{}, unfit("address %q", to)
	}
	id, err := NewIdentifier(ev.At, i.Address.Domain(), rnd)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Event: ev, MessageID: string(id), From: i.Address, To: []pec.Address{to}, Original: original != nil, EightBit: eightBit}
	if err := d.fill(m, original, rnd); err != nil {
		return Draft{}, err
	}
	d.Header = i.receiptHeader(ev, m, to, d.MessageID)
	return d, nil
}

// certify returns ev as a message of kind certifies it, without what that kind
// has no place for.
func (i Issuer) certify(ev pec.Event, kind pec.Kind) (pec.Event, error) {
	if i.Name == "" || !fitsHeader(i.Address) {
		return ev, unfit("issuer %q %q", i.Name, i.Address)
	}
	ev.Kind, ev.Provider = kind, i.Name
	if kind != pec.KindTransport && kind != pec.KindDelivery {
		ev.Receipt = ""
	} else if ev.Receipt == "" {
		ev.Receipt = pec.Complete // RFC 6109, 3.3.2.1
	}
	if kind != pec.KindDelivery && kind != pec.KindNonDelivery {
		ev.Recipient = ""
	}
	if kind != pec.KindTakeCharge {
		ev.Taken = nil
	}
	if kind != pec.KindNonDelivery {
		ev.Detail = ""
	}
	ev = daticert.Normal(ev)
	if ev.Detail != "" && !detailForm.MatchString(ev.Detail) {
		ev.Detail = "5.0.0 - " + ev.Provider + " - " + ev.Detail
	}
	return ev, check(ev)
}

// check looks for what the kind of ev cannot do without. The rest is checked
// where the certification data is written.
func check(ev pec.Event) error {
	failed := ev.Kind == pec.KindNonDelivery
	switch {
	case !fitsHeader(ev.Sender):
		return unfit("sender %q", ev.Sender)
	case failed != (ev.Error != pec.NoError) || ev.Error == pec.ErrorVirus:
		return unfit("%s with error %q", ev.Kind, ev.Error)
	case failed && ev.Detail == "":
		return unfit("%s without detail", ev.Kind)
	case (failed || ev.Kind == pec.KindDelivery) && ev.Recipient == "":
		return unfit("%s without recipient", ev.Kind)
	case ev.Kind == pec.KindTakeCharge && len(ev.Taken) == 0:
		return unfit("%s without recipients", ev.Kind)
	}
	return nil
}

// Primary reports whether rcpt is a primary recipient of original: named in To,
// or not clearly in Cc alone. Who cannot be told counts as primary; RFC 6109,
// 3.3.2.1.
func Primary(original *message.Message, rcpt pec.Address) bool {
	to, err := original.Header.Addresses("To")
	if err != nil || contains(to, rcpt) {
		return true
	}
	cc, err := original.Header.Addresses("Cc")
	return err != nil || !contains(cc, rcpt)
}

func contains(list []pec.Address, a pec.Address) bool {
	for _, b := range list {
		if a.Same(b) {
			return true
		}
	}
	return false
}
