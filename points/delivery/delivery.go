// Package delivery is the delivery point (punto di consegna; RFC 6109, 2.2.3 and
// 3.3.2): it decides what follows from the mailbox store's answer for one
// recipient of a transport envelope.
package delivery

import (
	"fmt"
	"strings"

	"pecd/pec"
)

// An Answer is what the mailbox store said. The zero Answer is NotNow.
type Answer int

// The answers.
const (
	NotNow    Answer = iota // refused for now, or nothing is known
	Delivered               // the message is in the mailbox
	Never                   // refused for good
)

// A Result is the store's answer about one recipient.
type Result struct {
	Recipient pec.Address
	Answer    Answer
	// Code is the store's enhanced status code, X.Y.Z; empty if it gave none.
	Code string
	// Text is the store's own text.
	Text string
	// Overdue says that the store has put the recipient off for so long that it
	// counts as refused for good.
	Overdue bool
}

// Settled reports whether something is certified about the recipient.
func (r Result) Settled() bool { return r.Answer != NotNow || r.Overdue }

// An Outcome is what is certified about one recipient. The zero Kind certifies
// nothing: the MTA is to try again.
type Outcome struct {
	Kind   pec.Kind // KindDelivery or KindNonDelivery
	Error  pec.ErrorCode
	Detail string
}

// Decide says what a provider named provider certifies after res; RFC 6109,
// 3.3.2 and 3.3.3.
func Decide(res Result, provider string) Outcome {
	switch res.Answer {
	case Delivered:
		return Outcome{Kind: pec.KindDelivery, Error: pec.NoError}
	case NotNow:
		if res.Overdue {
			return Outcome{Kind: pec.KindNonDelivery, Error: pec.ErrorOther,
				Detail: fmt.Sprintf("5.4.7 - %s - la casella di destinazione non è stata disponibile entro il tempo massimo", provider)}
		}
	case Never:
		code, text, e := explain(res.Code)
		return Outcome{Kind: pec.KindNonDelivery, Error: e, Detail: fmt.Sprintf("%s - %s - %s", code, provider, text)}
	}
	return Outcome{}
}

// explain gives code, Italian text and error of a refusal in the form X.Y.Z -
// provider - text (docs/rules.md, N1). The store's own words stay with the
// operator: they may say too much of the inside.
func explain(code string) (string, string, pec.ErrorCode) {
	switch {
	case code == "5.1.1":
		return code, "indirizzo non valido", pec.ErrorNoDest
	case code == "5.1.2":
		return code, "dominio non valido", pec.ErrorNoDomain
	case code == "5.2.1":
		return code, "casella disabilitata", pec.ErrorOther
	case code == "5.2.2":
		return code, "casella piena", pec.ErrorOther
	case strings.HasPrefix(code, "5."):
		return code, "consegna rifiutata dalla casella di destinazione", pec.ErrorOther
	}
	return "5.0.0", "consegna rifiutata dalla casella di destinazione", pec.ErrorOther
}
