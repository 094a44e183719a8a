// Package pec holds the words of Italian certified mail (posta elettronica
// certificata): kinds of system messages, addresses, identifiers and the event
// that a receipt, notice or envelope certifies. It does no I/O and reads no
// clock.
//
// The identifiers are the English terms of RFC 6109; each constant is the
// Italian string that travels on the wire.
package pec

import (
	"strings"
	"time"
)

// A Kind is the type of a system message: the attribute tipo of the
// certification data; RFC 6109, 4.4.
type Kind string

// The kinds of RFC 6109, 4.4.
const (
	KindTransport     Kind = "posta-certificata"         // busta di trasporto; RFC 6109, 3.1.5
	KindAcceptance    Kind = "accettazione"              // ricevuta di accettazione; RFC 6109, 3.1.4
	KindNonAcceptance Kind = "non-accettazione"          // avviso di non accettazione; RFC 6109, 3.1.2
	KindTakeCharge    Kind = "presa-in-carico"           // ricevuta di presa in carico; RFC 6109, 3.2.1
	KindDelivery      Kind = "avvenuta-consegna"         // ricevuta di avvenuta consegna; RFC 6109, 3.3.2
	KindNonDelivery   Kind = "errore-consegna"           // avviso di mancata consegna; RFC 6109, 3.3.3
	KindTimeout       Kind = "preavviso-errore-consegna" // superamento tempo massimo; RFC 6109, 3.1.6
	KindVirus         Kind = "rilevazione-virus"         // avviso di rilevazione virus; RFC 6109, 3.2.3
)

// KindAnomaly is the anomaly envelope (busta di anomalia; RFC 6109, 3.2.2). It
// certifies nothing and carries no certification data, so the word is only our
// own, for the register.
const KindAnomaly Kind = "busta-anomalia"

// Valid reports whether k is one of the kinds of RFC 6109, 4.4, that certification
// data can have.
func (k Kind) Valid() bool {
	switch k {
	case KindTransport, KindAcceptance, KindNonAcceptance, KindTakeCharge,
		KindDelivery, KindNonDelivery, KindTimeout, KindVirus:
		return true
	}
	return false
}

// Header fields of PEC messages; RFC 6109, 8.1.
const (
	HeaderReceipt     = "X-Ricevuta"               // a receipt or notice; the value is its Kind
	HeaderTransport   = "X-Trasporto"              // an envelope; TransportCertified or TransportAnomaly
	HeaderReference   = "X-Riferimento-Message-ID" // the Message-ID that the user's client gave
	HeaderReceiptType = "X-TipoRicevuta"           // the delivery receipt that the sender asks for
	HeaderSecurity    = "X-VerificaSicurezza"      // a notice to the sender about a virus; SecurityError
	HeaderSender      = "X-Mittente"               // in a virus notice: the original sender
	HeaderRegister    = "X-Registro"               // of our own, in the signed part: how far the register was
	HeaderDuplicate   = "X-Duplicato"              // of our own: issued once more; when, and the Message-ID of the first
)

// SecurityError is the value of HeaderSecurity; RFC 6109, 8.1.3.
const SecurityError = "errore"

// Values of HeaderTransport; RFC 6109, 8.1.4.
const (
	TransportCertified = "posta-certificata" // busta di trasporto
	TransportAnomaly   = "errore"            // busta di anomalia
)

// Names of the attachments. RFC 6109 4.3.3 writes certdata.xml; every program
// that reads PEC wants daticert.xml (docs/rules.md, W1).
const (
	CertificationDataName = "daticert.xml"
	OriginalName          = "postacert.eml"
)

// An Identifier is the provider's own id of a message (identificativo), without
// angle brackets: [alphanumeric string]@[domain]; RFC 6109, 2.2.1.
type Identifier string

// An Address is an addr-spec, without angle brackets and as it came.
type Address string

// Split returns the local part and the domain. The domain is what follows the
// last @; without an @ it is empty.
func (a Address) Split() (local, domain string) {
	i := strings.LastIndexByte(string(a), '@')
	if i < 0 {
		return string(a), ""
	}
	return string(a[:i]), string(a[i+1:])
}

// Domain returns the domain in lower case: domains are compared without regard
// to case (RFC 6109, 2.2.1).
func (a Address) Domain() string {
	_, d := a.Split()
	return lower(d)
}

// Key returns a form of a under which addresses that reach the same mailbox
// compare equal. Only the domain is folded: the local part belongs to its
// provider, who alone knows what it means.
func (a Address) Key() string {
	local, domain := a.Split()
	if domain == "" {
		return string(a)
	}
	return local + "@" + lower(domain)
}

// Folded returns a form of a in which the case of the local part is gone, too. Servers
// that look addresses up in tables, and providers, may have written it otherwise than the
// sender did.
func (a Address) Folded() string {
	local, domain := a.Split()
	return strings.ToLower(local) + "@" + lower(domain)
}

// Same reports whether a and b are the same mailbox; see Key.
func (a Address) Same(b Address) bool { return a.Key() == b.Key() }

// lower folds ASCII only: in Unicode the lower case of the Kelvin sign is a k,
// and would make one domain another.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// A RecipientType says whether a recipient's domain is in the directory.
type RecipientType string

// The recipient types of RFC 6109, 4.4.
const (
	Certified RecipientType = "certificato" // posta certificata
	External  RecipientType = "esterno"     // posta ordinaria
)

// A Recipient is one recipient of the original message with its type.
type Recipient struct {
	Address Address       `json:"address"`
	Type    RecipientType `json:"type,omitempty"`
}

// A ReceiptType is the delivery receipt that a sender asks for; RFC 6109, 3.3.2.
type ReceiptType string

// The receipt types of RFC 6109, 3.1.5.
const (
	Complete ReceiptType = "completa"
	Brief    ReceiptType = "breve"
	Concise  ReceiptType = "sintetica"
)

// An ErrorCode is the attribute errore of the certification data; RFC 6109, 4.4.
type ErrorCode string

// The error codes of RFC 6109, 4.4.
const (
	NoError       ErrorCode = "nessuno"
	ErrorNoDest   ErrorCode = "no-dest"    // destinatario errato
	ErrorNoDomain ErrorCode = "no-dominio" // dominio errato
	ErrorVirus    ErrorCode = "virus"
	ErrorOther    ErrorCode = "altro"
)

// An Event is what a system message certifies: what happened, when, to which
// message, for whom and why. The certification data and the Italian texts are
// renderings of it.
type Event struct {
	Kind Kind
	// At is the one instant of the transaction (RFC 6109, 4.1), in legal time:
	// its location decides date, time and zone of every rendering. Renderings
	// carry whole seconds.
	At time.Time
	// Provider is the name of the provider that certifies (gestore-emittente).
	Provider   string
	Identifier Identifier
	// MsgID is the Message-ID that the user's client gave, with its angle
	// brackets; empty if it gave none.
	MsgID      string
	Sender     Address
	Recipients []Recipient
	// ReplyTo is the value of the original's Reply-To (risposte); may be empty.
	ReplyTo string
	// Subject is the original's subject, decoded to Unicode without control
	// characters; may be empty.
	Subject string
	// Receipt is the delivery receipt that the sender asked for; only in
	// transport envelopes and delivery receipts, elsewhere empty.
	Receipt ReceiptType
	// Recipient is the one recipient that the event concerns (consegna); empty
	// where it concerns all or several.
	Recipient Address
	// Taken are the recipients that a take-charge receipt covers (ricezione).
	Taken []Address
	// Error is NoError unless something went wrong.
	Error ErrorCode
	// Detail describes the error (errore-esteso); empty without one.
	Detail string
}
