// Package daticert reads and writes the certification data (daticert.xml) of
// RFC 6109, 4.4. Both ways hold the order and the depth of its DTD; what it
// would not write it rejects, but for the forms that providers are known to
// emit. It never loads a DTD or an entity.
package daticert

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"pecd/pec"
)

// Limits of what is read and written.
const (
	MaxSize       = 1 << 20 // octets of the XML
	MaxRecipients = 10000   // elements destinatari, and elements ricezione
)

// Errors of both Parse and Marshal, always wrapped with the reason.
var (
	ErrInvalid = errors.New("daticert: invalid certification data")
	ErrLimit   = errors.New("daticert: over the limit")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Normal returns ev as Parse would return it: whole seconds, texts without
// control characters and without blanks around them, the identifier without
// angle brackets, an explicit error code. Parse(Marshal(ev)) equals Normal(ev).
func Normal(ev pec.Event) pec.Event {
	ev.At = wholeSecond(ev.At)
	ev.Provider = clean(ev.Provider)
	ev.Identifier = pec.Identifier(unbracketed(clean(string(ev.Identifier))))
	ev.MsgID = clean(ev.MsgID)
	ev.Sender = cleanAddress(ev.Sender)
	ev.ReplyTo = clean(ev.ReplyTo)
	ev.Subject = clean(ev.Subject)
	ev.Recipient = cleanAddress(ev.Recipient)
	ev.Detail = clean(ev.Detail)
	ev.Recipients = append([]pec.Recipient(nil), ev.Recipients...)
	for i := range ev.Recipients {
		ev.Recipients[i].Address = cleanAddress(ev.Recipients[i].Address)
	}
	ev.Taken = append([]pec.Address(nil), ev.Taken...)
	for i := range ev.Taken {
		ev.Taken[i] = cleanAddress(ev.Taken[i])
	}
	if ev.Error == "" {
		ev.Error = pec.NoError
	}
	// Old virus notices name the recipient in ricezione, newer ones in consegna
	// (docs/rules.md, D2).
	if ev.Kind == pec.KindVirus && ev.Recipient == "" && len(ev.Taken) == 1 {
		ev.Recipient, ev.Taken = ev.Taken[0], nil
	}
	return ev
}

// clean returns s as XML 1.0 can hold it and a reader of one line wants it:
// control characters become blanks, what is no character becomes U+FFFD.
func clean(s string) string {
	if isPlain(s) {
		return strings.Trim(s, " ")
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r):
			return ' '
		case r == 0xFFFE || r == 0xFFFF:
			return unicode.ReplacementChar
		}
		return r // strings.Map gives U+FFFD for invalid UTF-8
	}, s), " ")
}

// isPlain reports whether s is ASCII without control characters.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func cleanAddress(a pec.Address) pec.Address { return pec.Address(clean(string(a))) }

// unbracketed returns s without angle brackets and blanks around it.
func unbracketed(s string) string { return strings.Trim(s, "<> ") }

// check tells what is missing or wrong in a normal event.
func check(ev pec.Event) error {
	switch {
	case !ev.Kind.Valid():
		return invalid("unknown tipo %q", ev.Kind)
	case !validError(ev.Error):
		return invalid("unknown errore %q", ev.Error)
	case ev.Receipt != "" && !validReceipt(ev.Receipt):
		return invalid("unknown tipo of ricevuta %q", ev.Receipt)
	case ev.Sender == "":
		return invalid("no mittente")
	case ev.Provider == "":
		return invalid("no gestore-emittente")
	case ev.Identifier == "":
		return invalid("no identificativo")
	case len(ev.Recipients) == 0:
		return invalid("no destinatari")
	case len(ev.Recipients) > MaxRecipients || len(ev.Taken) > MaxRecipients:
		return fmt.Errorf("%w: more than %d recipients", ErrLimit, MaxRecipients)
	}
	for _, r := range ev.Recipients {
		if r.Address == "" || r.Type != pec.Certified && r.Type != pec.External {
			return invalid("destinatari %q of tipo %q", r.Address, r.Type)
		}
	}
	for _, a := range ev.Taken {
		if a == "" {
			return invalid("empty ricezione")
		}
	}
	return checkInstant(ev.At)
}

func validError(e pec.ErrorCode) bool {
	switch e {
	case pec.NoError, pec.ErrorNoDest, pec.ErrorNoDomain, pec.ErrorVirus, pec.ErrorOther:
		return true
	}
	return false
}

func validReceipt(t pec.ReceiptType) bool {
	return t == pec.Complete || t == pec.Brief || t == pec.Concise
}
