// Package reception is the reception point (punto di ricezione; RFC 6109, 2.2.2):
// it says what a message that arrived is. An envelope or a receipt must be
// signed by a provider of the directory, whole, and consistent in what it
// certifies; whatever fails any check is neither.
//
// Only the signed entity counts as evidence: a header field outside the
// signature may contradict it, and then the message is refused, but it never
// adds anything.
package reception

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"slices"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/signer"
)

// A Class is what a message that arrived is. The zero Class is Other.
type Class int

// The classes; RFC 6109, 2.2.2.
const (
	Other    Class = iota // neither of the following; Found.Why says why
	Envelope              // a correct and undamaged transport envelope
	Receipt               // a correct and undamaged receipt or notice
)

func (c Class) String() string {
	switch c {
	case Envelope:
		return "envelope"
	case Receipt:
		return "receipt"
	}
	return "other"
}

// Found is what the reception point says of a message.
type Found struct {
	Class Class
	// Why says what is wrong with a message of class Other.
	Why error
	// Event is what the message certifies.
	Event pec.Event
	// Provider is the provider that signed it, from the directory.
	Provider *directory.Provider
	// Digest is the digest of the signed entity, in hexadecimal.
	Digest string
	// Basis names, as a digest in hexadecimal, what of the message the verdict rests on:
	// the signed entity, the certificate of who signed it, and the address in From. As long
	// as it is the same only directory, authorities and clock can judge otherwise.
	Basis string
	// Original is postacert.eml, nil if the message carries none.
	Original *message.Message

	answers []pec.Address
}

// The ways in which a message is neither envelope nor receipt, beside the errors
// of package signer.
var (
	ErrUnknownCertificate = errors.New("the signer's certificate is not in the directory")
	ErrForeignDomain      = errors.New("the provider does not manage the domain")
	ErrNoData             = errors.New("no certification data in the signed part")
	ErrInconsistent       = errors.New("header and certification data contradict each other")
	ErrNoOriginal         = errors.New("no original message in the signed part")
)

// maxData bounds daticert.xml, decoded, in octets.
const maxData = 1 << 20

// Examine classifies m. rep and verr are what the verifier said of it; dir is the
// directory in force. Instants are given in loc.
func Examine(m *message.Message, rep *signer.Report, verr error, dir *directory.Directory, loc *time.Location) Found {
	if verr != nil {
		return Found{Why: verr}
	}
	f, err := examine(m, rep, dir, loc)
	if err != nil {
		return Found{Why: err}
	}
	return f
}

func examine(m *message.Message, rep *signer.Report, dir *directory.Directory, loc *time.Location) (Found, error) {
	if _, ok := dir.ByCertificate(rep.Signer.Raw); !ok {
		return Found{}, ErrUnknownCertificate
	}
	f, from, err := read(m, rep, loc, func(a pec.Address) error {
		if _, ok := dir.Signer(rep.Signer.Raw, a.Domain()); !ok {
			return fmt.Errorf("%w %s", ErrForeignDomain, a.Domain())
		}
		return nil
	})
	if err != nil {
		return Found{}, err
	}
	f.Provider, _ = dir.Signer(rep.Signer.Raw, from.Domain())
	return f, nil
}

// Claim returns the transport envelope that m would be if who signed it were a provider
// that may: the signature is genuine, the content intact, header and data agree. Whether
// the certificate counts, and for whom, is not asked, so that this is no verdict, and there
// is no Provider. Of all else the class is Other. An error says that m could not be read.
func Claim(m *message.Message, rep *signer.Report, loc *time.Location) (Found, error) {
	if rep == nil || !rep.SignatureHolds || !rep.ContentIntact {
		return Found{}, nil
	}
	f, _, err := read(m, rep, loc, func(pec.Address) error { return nil })
	switch {
	case err != nil && !known(err):
		return Found{}, err
	case err != nil || f.Class != Envelope:
		return Found{}, nil
	}
	return f, nil
}

// read reads what m certifies, and in whose name; manages is as in evidence.
func read(m *message.Message, rep *signer.Report, loc *time.Location, manages func(pec.Address) error) (f Found, from pec.Address, err error) {
	data, original, err := Parts(rep.Entity)
	if err != nil {
		return Found{}, "", err
	}
	ev, err := Data(data, loc)
	if err != nil {
		return Found{}, "", err
	}
	e := evidence{header: &m.Header, event: ev, manages: manages}
	if from, err = e.from(); err != nil {
		return Found{}, "", err
	}
	f = Found{Class: Receipt, Event: ev, Digest: hex.EncodeToString(rep.ContentDigest), Basis: basis(rep, from), Original: original}
	if ev.Kind == pec.KindTransport {
		f.Class = Envelope
		return f, from, e.envelope(original != nil)
	}
	f.answers = e.answers()
	return f, from, e.receipt()
}

func basis(rep *signer.Report, from pec.Address) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %x %s", rep.ContentDigest, sha256.Sum256(rep.Signer.Raw), from.Key()))
	return hex.EncodeToString(sum[:])
}

// Parts finds the certification data and the original in a signed entity.
// Programs that read PEC take the first application/xml of the multipart/mixed
// (docs/rules.md, E4); so do we.
func Parts(entity *message.Part) (data *message.Part, original *message.Message, err error) {
	if entity == nil || entity.MediaType != "multipart/mixed" {
		return nil, nil, fmt.Errorf("%w: not a multipart/mixed", ErrNoData)
	}
	for _, c := range entity.Children {
		switch {
		case data == nil && c.MediaType == "application/xml":
			data = c
		case original == nil && c.MediaType == "message/rfc822" && strings.EqualFold(c.FileName(), pec.OriginalName):
			original, err = c.Embedded()
			switch {
			case errors.Is(err, message.ErrMalformed), errors.Is(err, message.ErrLimit):
				return nil, nil, fmt.Errorf("%w: %w", ErrNoOriginal, err)
			case err != nil: // of our own disk: a doubt, and no anomaly
				return nil, nil, fmt.Errorf("the original cannot be read: %w", err)
			}
		}
	}
	if data == nil || !strings.EqualFold(data.FileName(), pec.CertificationDataName) {
		return nil, nil, ErrNoData
	}
	return data, original, nil
}

// Data reads the certification data of a part.
func Data(part *message.Part, loc *time.Location) (pec.Event, error) {
	b, err := io.ReadAll(io.LimitReader(part.Decoded(), maxData+1))
	if err != nil { // of our own disk: a doubt, and no anomaly
		return pec.Event{}, fmt.Errorf("the certification data cannot be read: %w", err)
	}
	if len(b) > maxData {
		return pec.Event{}, fmt.Errorf("%w: larger than %d octets", ErrNoData, maxData)
	}
	ev, err := daticert.Parse(b, loc)
	if err != nil {
		return pec.Event{}, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	return ev, nil
}

// evidence is a message whose signature holds, with what its signer may say.
type evidence struct {
	header *message.Header
	event  pec.Event
	// manages returns nil if the signer's provider manages a's domain.
	manages func(a pec.Address) error
}

// from returns the address in whose name the message is, which must be of a
// domain that the provider manages.
func (e evidence) from() (pec.Address, error) {
	list, err := e.header.Addresses("From")
	if a, ok := loose(e.header); err != nil && ok {
		list, err = []pec.Address{a}, nil
	}
	if err != nil || len(list) != 1 {
		return "", fmt.Errorf("%w: no single address in From", ErrInconsistent)
	}
	return list[0], e.manages(list[0])
}

// loose returns the address of a From field as providers write it, too: behind a name
// that should be quoted, such as an address. The signature does not cover the field, so
// that strictness about it proves nothing.
func loose(h *message.Header) (pec.Address, bool) {
	value := strings.TrimSpace(h.Get("From"))
	i := strings.LastIndexByte(value, '<')
	if h.Count("From") != 1 || i < 0 || strings.ContainsAny(value[:i], "<>;,") {
		return "", false
	}
	a, err := mail.ParseAddress(value[i:])
	if err != nil {
		return "", false
	}
	return pec.Address(a.Address), true
}

// envelope checks a transport envelope; RFC 6109, 3.1.5.
func (e evidence) envelope(original bool) error {
	h := e.header
	if h.Count(pec.HeaderTransport) != 1 || !strings.EqualFold(h.Get(pec.HeaderTransport), pec.TransportCertified) || h.Has(pec.HeaderReceipt) {
		return fmt.Errorf("%w: the header does not say that it is an envelope", ErrInconsistent)
	}
	if !original {
		return ErrNoOriginal
	}
	if id := strings.Trim(h.Get("Message-ID"), "<>"); id != string(e.event.Identifier) {
		return fmt.Errorf("%w: Message-ID is not the identifier", ErrInconsistent)
	}
	// Who signs for a sender must be his provider, or any provider could send in
	// anybody's name.
	return e.manages(e.event.Sender)
}

// receipt checks a receipt or notice: the header says the same kind, and the
// provider that signed is the one that can know.
func (e evidence) receipt() error {
	h := e.header
	if h.Count(pec.HeaderReceipt) != 1 || !strings.EqualFold(h.Get(pec.HeaderReceipt), string(e.event.Kind)) || h.Has(pec.HeaderTransport) {
		return fmt.Errorf("%w: the header does not say %s", ErrInconsistent, e.event.Kind)
	}
	for _, a := range witnesses(e.event) {
		if err := e.manages(a); err != nil {
			return err
		}
	}
	if e.event.Kind == pec.KindNonDelivery && len(e.answers()) == 0 {
		return e.manages(e.event.Recipient)
	}
	return nil
}

// witnesses are the addresses whose provider alone can certify the event: the
// recipients for what happened at their mailboxes, the sender for the rest. A
// non-delivery may be certified by either (RFC 6109, 3.2.4 and 3.3.3).
func witnesses(ev pec.Event) []pec.Address {
	switch ev.Kind {
	case pec.KindTakeCharge:
		return ev.Taken
	case pec.KindDelivery, pec.KindVirus:
		return []pec.Address{ev.Recipient}
	case pec.KindNonDelivery:
		return nil
	}
	return []pec.Address{ev.Sender}
}

// answers are the recipients about whom the receipt is an answer.
func (e evidence) answers() []pec.Address {
	switch e.event.Kind {
	case pec.KindTakeCharge:
		return e.event.Taken
	case pec.KindDelivery:
		return []pec.Address{e.event.Recipient}
	case pec.KindNonDelivery:
		if e.manages(e.event.Recipient) == nil || e.manages(e.event.Sender) == nil {
			return []pec.Address{e.event.Recipient}
		}
	}
	return nil
}

// AddressedTo reports whether the envelope was sent to rcpt as certified mail. A
// genuine envelope that somebody sends on to another mailbox certifies nothing
// there.
func (f Found) AddressedTo(rcpt pec.Address) bool {
	for _, r := range f.Event.Recipients {
		if r.Type == pec.Certified && r.Address.Same(rcpt) {
			return true
		}
	}
	return false
}

// Names returns rcpts, the recipients of an SMTP transaction, as the certification data
// of the envelope call them: a server that looked a recipient up in its tables, or the
// sender's provider, may have written the local part in other letters, and what is
// certified is certified of whom the envelope names. None is named twice, and where it
// is not clear who is meant a recipient stays as it is.
func (f Found) Names(rcpts []pec.Address) []pec.Address {
	names := slices.Clone(rcpts)
	if f.Class != Envelope {
		return names
	}
	free := map[string][]pec.Address{} // whom the envelope names and rcpts do not
	for _, r := range f.Event.Recipients {
		if r.Type == pec.Certified && !slices.ContainsFunc(rcpts, r.Address.Same) {
			free[r.Address.Folded()] = append(free[r.Address.Folded()], r.Address)
		}
	}
	for i, r := range rcpts {
		if candidates := free[r.Folded()]; len(candidates) == 1 && !f.AddressedTo(r) {
			names[i] = candidates[0]
			delete(free, r.Folded())
		}
	}
	return names
}

// Answers returns the recipients of a message of ours about whom the receipt is
// an answer.
func (f Found) Answers() []pec.Address { return f.answers }

// ForService reports whether the message may only go to a provider's service
// mailbox (casella di servizio; RFC 6109, 2.2.5).
func (f Found) ForService() bool {
	return f.Class == Receipt && (f.Event.Kind == pec.KindTakeCharge || f.Event.Kind == pec.KindVirus)
}
