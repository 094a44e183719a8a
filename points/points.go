// Package points says what a decision is. The access, reception and delivery
// points (punto di accesso, ricezione, consegna; RFC 6109, 2.2) are functions
// from a message and its circumstances to one of these values. A point opens no
// socket, holds no key and knows no SMTP number: package act carries its
// decision out, and the doors turn it into a reply.
package points

import (
	"fmt"
	"strings"
)

// A Verdict is the outcome of a point. The zero Verdict is Defer: out of
// ignorance nothing is accepted and nothing refused.
type Verdict int

// The verdicts.
const (
	Defer  Verdict = iota // not now: the MTA keeps the message
	Accept                // the message enters certified mail
	Refuse                // never: the sender is told why
)

func (v Verdict) String() string {
	switch v {
	case Accept:
		return "accept"
	case Refuse:
		return "refuse"
	}
	return "defer"
}

// A Cause says which rule a message breaks. Doors map it to SMTP status codes.
type Cause string

// Causes of refusal at the access point. The formal exceptions are those of
// RFC 6109, 3.1.1; docs/rules.md, A2.
const (
	NotAuthenticated    Cause = "not-authenticated"
	LoginNotSender      Cause = "login-not-sender"
	SenderNotOurs       Cause = "sender-not-ours"
	FromInvalid         Cause = "from-invalid"
	FromDiffers         Cause = "from-differs"
	ToInvalid           Cause = "to-invalid"
	RecipientNotInField Cause = "recipient-not-in-field"
	BccPresent          Cause = "bcc-present"
	TooLarge            Cause = "too-large"
	TooLargeTimes       Cause = "too-large-times-recipients"
	TooManyRecipients   Cause = "too-many-recipients"
	LineTooLong         Cause = "line-too-long"
	BadOctets           Cause = "bad-octets"
	FieldRepeated       Cause = "field-repeated"
	Malformed           Cause = "malformed"
	Policy              Cause = "policy" // a check refuses it
	Virus               Cause = "virus"  // a check found a virus in it
)

// Formal reports whether a user of ours is told of c in a signed notice: of a
// formal exception (eccezione formale; RFC 6109, 3.1.2), or of a virus (3.1.3).
// The other causes leave open who sent the message: they are refused at SMTP.
func (c Cause) Formal() bool {
	switch c {
	case NotAuthenticated, LoginNotSender, SenderNotOurs, Malformed:
		return false
	}
	return true
}

// A Reason is a cause with its description for the sender, in Italian and in
// English, in ASCII as SMTP replies must be.
type Reason struct {
	Cause   Cause
	Italian string
	English string
}

// Formal reports whether all reasons are formal exceptions.
func Formal(reasons []Reason) bool {
	for _, r := range reasons {
		if !r.Cause.Formal() {
			return false
		}
	}
	return len(reasons) > 0
}

// Find returns the first reason with the given cause.
func Find(reasons []Reason, c Cause) (Reason, bool) {
	for _, r := range reasons {
		if r.Cause == c {
			return r, true
		}
	}
	return Reason{}, false
}

// Italian joins the Italian descriptions of reasons, for a notice.
func Italian(reasons []Reason) string {
	s := make([]string, len(reasons))
	for i, r := range reasons {
		s[i] = r.Italian
	}
	return strings.Join(s, "; ")
}

// Describe joins the descriptions of reasons, Italian first.
func Describe(reasons []Reason) string {
	var it, en []string
	for _, r := range reasons {
		it = append(it, r.Italian)
		en = append(en, r.English)
	}
	return strings.Join(it, "; ") + " / " + strings.Join(en, "; ")
}

// maxReason bounds a description, in octets: several must fit a notice.
const maxReason = 500

// causes are all there are.
var causes = map[Cause]bool{NotAuthenticated: true, LoginNotSender: true, SenderNotOurs: true, FromInvalid: true, FromDiffers: true,
	ToInvalid: true, RecipientNotInField: true, BccPresent: true, TooLarge: true, TooLargeTimes: true, TooManyRecipients: true,
	LineTooLong: true, BadOctets: true, FieldRepeated: true, Malformed: true, Policy: true, Virus: true}

// Check reports what keeps r from being told to a sender: a cause that is not
// known, or a description that is empty, too long or not printable ASCII.
func (r Reason) Check() error {
	if !causes[r.Cause] {
		return fmt.Errorf("the cause %q is not known", r.Cause)
	}
	for _, s := range []string{r.Italian, r.English} {
		if !Printable(s, maxReason) {
			return fmt.Errorf("a reason must be 1 to %d octets of printable ASCII, in Italian and in English", maxReason)
		}
	}
	return nil
}

// Printable reports whether s is 1 to limit octets of printable ASCII.
func Printable(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
