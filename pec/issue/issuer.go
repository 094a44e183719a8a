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
	// ItalianOnly leaves out the English text after the Italian one.
	ItalianOnly bool
	// Register says how far the register was, in the words of logstore.Link.Field:
	// receipts bear it in the header of what is signed, so that who keeps them is a
	// witness. Empty: they do not.
	Register string
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
	d.Header = i.envelopeHeader(ev, &original.Header)
	if err := d.fill(i.wording(transport), ev, message.Relabel(original, ev.Identifier, ev.MsgID), rnd); err != nil {
		return Draft{}, err
	}
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

// NonAcceptance returns the non-acceptance notice (avviso di non accettazione) to
// the sender, which is the reverse path: for formal exceptions (RFC 6109, 3.1.2),
// where ev.Detail holds all reasons, in Italian, or where ev.Error is ErrorVirus
// for a virus (RFC 6109, 3.1.3), whose name is ev.Detail. ev.Identifier is one made
// for the notice, since there is no envelope. The message itself is never in it.
func (i Issuer) NonAcceptance(ev pec.Event, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(orOther(ev), pec.KindNonAcceptance)
	if err != nil {
		return Draft{}, err
	}
	m := nonAcceptance
	if ev.Error == pec.ErrorVirus {
		m = nonAcceptanceVirus
	}
	return i.receipt(ev, ev.Sender, m, nil, false, rnd)
}

// Virus returns the virus notice (avviso di rilevazione virus; RFC 6109, 3.2.3)
// about ev.Recipient, one of ours, to the provider that sent the message. to is its
// service mailbox, ev.Detail the name of the virus, ev.Error ErrorVirus. The
// message itself is never in it.
func (i Issuer) Virus(ev pec.Event, to pec.Address, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindVirus)
	if err != nil {
		return Draft{}, err
	}
	return i.receipt(ev, to, virus, nil, false, rnd)
}

// Timeout returns the notice that nothing was heard of the delivery to
// ev.Recipient within hours, 12 or 24, of dispatch (avviso di mancata consegna
// per superamento tempo massimo; RFC 6109, 3.1.6). It sets ev.Detail itself:
// programs take the code 5.4.1 for the last word on a message, so only the notice
// of 24 hours has it (docs/rules.md, N2).
func (i Issuer) Timeout(ev pec.Event, hours int, rnd io.Reader) (Draft, error) {
	var m model
	var code string
	switch hours {
	case 12:
		m, code, ev.Detail = timeout12, timeout12Code, timeout12Detail
	case 24:
		m, code, ev.Detail = timeout24, timeout24Code, timeout24Detail
	default:
		return Draft{}, unfit("timeout of %d hours", hours)
	}
	ev, err := i.certify(orOther(ev), pec.KindTimeout)
	if err != nil {
		return Draft{}, err
	}
	ev.Detail = coded(code, ev)
	return i.receipt(ev, ev.Sender, m, nil, false, rnd)
}

// orOther returns ev with the error that the certification data of its kind has
// where the caller names none.
func orOther(ev pec.Event) pec.Event {
	if ev.Error == "" || ev.Error == pec.NoError {
		ev.Error = pec.ErrorOther
	}
	return ev
}

// coded returns ev.Detail in the form X.Y.Z - provider - text (docs/rules.md, N1).
func coded(code string, ev pec.Event) string {
	return code + " - " + ev.Provider + " - " + ev.Detail
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
// carries it, or where ev.Receipt is Brief, what Brief made of it; eightBit says
// whether it holds bytes over 127. For a recipient that is not Primary the caller
// gives nil. Without an original, or where the sender asked for a concise receipt,
// it is the concise one. The certification data names the type that was asked for
// in any case.
func (i Issuer) Delivery(ev pec.Event, original message.Content, eightBit bool, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindDelivery)
	if err != nil {
		return Draft{}, err
	}
	m := deliveryComplete
	switch {
	case original == nil || ev.Receipt == pec.Concise:
		m, original, eightBit = deliveryConcise, nil, false
	case ev.Receipt == pec.Brief:
		m = deliveryBrief
	}
	return i.receipt(ev, ev.Sender, m, original, eightBit, rnd)
}

// NonDelivery returns the non-delivery notice (avviso di mancata consegna; RFC
// 6109, 3.3.3) for ev.Recipient, or where ev.Error is ErrorVirus the one that
// follows from a virus notice (RFC 6109, 3.2.4). It gives ev.Detail the form X.Y.Z -
// provider - text if it does not have it yet (docs/rules.md, N1).
func (i Issuer) NonDelivery(ev pec.Event, rnd io.Reader) (Draft, error) {
	ev, err := i.certify(ev, pec.KindNonDelivery)
	if err != nil {
		return Draft{}, err
	}
	m := nonDelivery
	if ev.Error == pec.ErrorVirus {
		m = nonDeliveryVirus
	}
	return i.receipt(ev, ev.Sender, m, nil, false, rnd)
}

var (
	detailForm     = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3} - .+ - .`)
	identifierForm = regexp.MustCompile(`^[A-Za-z0-9]{1,64}@` + domainForm.String()[1:])
)

// receipt returns the draft of a receipt or notice of the issuer to one address.
func (i Issuer) receipt(ev pec.Event, to pec.Address, m model, original message.Content, eightBit bool, rnd io.Reader) (Draft, error) {
	return i.draft(ev, to, m, original, eightBit, nil, rnd)
}

// draft is receipt, or with of a duplicate.
func (i Issuer) draft(ev pec.Event, to pec.Address, m model, original message.Content, eightBit bool, of *Duplicate, rnd io.Reader) (Draft, error) {
	if !fitsHeader(to) {
		return Draft{}, unfit("address %q", to)
	}
	id, err := NewIdentifier(ev.At, i.Address.Domain(), rnd)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Event: ev, MessageID: string(id), From: i.Address, To: []pec.Address{to}, Original: original != nil, EightBit: eightBit, Duplicate: of, Register: i.Register}
	d.Header = i.receiptHeader(ev, m, to, d.MessageID)
	if of != nil {
		d.Header = append(d.Header, pec.HeaderDuplicate+": "+of.Mark()+"\r\n"...)
	}
	if err := d.fill(i.wording(m), ev, original, rnd); err != nil {
		return Draft{}, err
	}
	return d, nil
}

// wording returns m in the languages of i.
func (i Issuer) wording(m model) model {
	if i.ItalianOnly {
		m.english = words{}
	}
	return m
}

// certify returns ev as a message of kind certifies it, without what that kind
// has no place for.
func (i Issuer) certify(ev pec.Event, kind pec.Kind) (pec.Event, error) {
	if err := i.valid(); err != nil {
		return ev, err
	}
	ev.Kind, ev.Provider = kind, i.Name
	if kind != pec.KindTransport && kind != pec.KindDelivery {
		ev.Receipt = ""
	} else if ev.Receipt == "" {
		ev.Receipt = pec.Complete // RFC 6109, 3.3.2.1
	}
	if !concernsOne(kind) {
		ev.Recipient = ""
	}
	if kind != pec.KindTakeCharge {
		ev.Taken = nil
	}
	if !failed(kind) {
		ev.Detail = ""
	}
	ev = daticert.Normal(ev)
	if kind == pec.KindNonDelivery && ev.Detail != "" && !detailForm.MatchString(ev.Detail) {
		code := "5.0.0"
		if ev.Error == pec.ErrorVirus {
			code = "5.5.1"
		}
		ev.Detail = coded(code, ev)
	}
	return ev, check(ev)
}

func (i Issuer) valid() error {
	if i.Name == "" || !fitsHeader(i.Address) {
		return unfit("issuer %q %q", i.Name, i.Address)
	}
	return nil
}

// concernsOne reports whether a message of kind k is about one recipient.
func concernsOne(k pec.Kind) bool {
	return k == pec.KindDelivery || k == pec.KindNonDelivery || k == pec.KindTimeout || k == pec.KindVirus
}

// failed reports whether a message of kind k says that something went wrong.
func failed(k pec.Kind) bool {
	return k == pec.KindNonAcceptance || k == pec.KindNonDelivery || k == pec.KindTimeout || k == pec.KindVirus
}

// fitsKind reports whether a message of kind k can have the error e.
func fitsKind(e pec.ErrorCode, k pec.Kind) bool {
	switch k {
	case pec.KindNonAcceptance:
		return e == pec.ErrorOther || e == pec.ErrorVirus
	case pec.KindTimeout:
		return e == pec.ErrorOther
	case pec.KindVirus:
		return e == pec.ErrorVirus
	case pec.KindNonDelivery:
		return e != pec.NoError
	}
	return e == pec.NoError
}

// check looks for what the kind of ev cannot do without. The rest is checked
// where the certification data is written.
func check(ev pec.Event) error {
	switch {
	case !fitsHeader(ev.Sender):
		return unfit("sender %q", ev.Sender)
	case !fitsKind(ev.Error, ev.Kind):
		return unfit("%s with error %q", ev.Kind, ev.Error)
	case failed(ev.Kind) && ev.Detail == "":
		return unfit("%s without detail", ev.Kind)
	case concernsOne(ev.Kind) && ev.Recipient == "":
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
