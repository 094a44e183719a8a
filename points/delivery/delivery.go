// Package delivery is the delivery point (punto di consegna; RFC 6109, 2.2.3 and
// 3.3.2): it decides what follows from the mailbox store's answer for one
// recipient of a transport envelope.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"pecd/pec"
	"pecd/points"
)

// A Point is a delivery point: the Builtin one, or one that takes its place. Its
// methods may be called concurrently. An error means doubt: of whom the decision then
// has no outcome nothing is certified now, and the message is put off.
type Point interface {
	Decide(ctx context.Context, h Handover) (Decision, error)
}

// A Handover is an envelope with what the mailbox store said of it.
type Handover struct {
	Provider string    // who certifies
	Event    pec.Event // what the envelope certifies
	Results  []Result
	// Findings are those of the checks before delivery, in their order. If one is
	// not clean, the mailbox store was not asked.
	Findings []points.Finding
}

// A Decision is what a delivery point says.
type Decision struct {
	// Outcomes are one for each result.
	Outcomes []Outcome
}

// An Answer is what the mailbox store said. The zero Answer is NotNow.
type Answer int

// The answers.
const (
	NotNow    Answer = iota // refused for now, or nothing is known
	Delivered               // the message is in the mailbox
	Never                   // refused for good
	Held                    // a check held it back; the mailbox store was not asked
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

// An Outcome is what is certified about one recipient. The zero Kind certifies
// nothing: the MTA is to try again.
type Outcome struct {
	Kind   pec.Kind // KindDelivery, KindNonDelivery or KindVirus
	Error  pec.ErrorCode
	Detail string
}

// Builtin is the delivery point of RFC 6109, 3.3.
type Builtin struct{}

// Decide says what is certified after each result; RFC 6109, 3.3.2 and 3.3.3.
func (Builtin) Decide(_ context.Context, h Handover) (Decision, error) {
	d := Decision{Outcomes: make([]Outcome, len(h.Results))}
	for i, r := range h.Results {
		d.Outcomes[i] = h.outcome(r)
	}
	return d, nil
}

func (h Handover) outcome(r Result) Outcome {
	switch r.Answer {
	case Delivered:
		return Outcome{Kind: pec.KindDelivery, Error: pec.NoError}
	case Held:
		return h.held()
	case NotNow:
		if r.Overdue {
			return h.undelivered("5.4.7", "la casella di destinazione non è stata disponibile entro il tempo massimo", pec.ErrorOther)
		}
	case Never:
		return h.undelivered(explain(r.Code))
	}
	return Outcome{}
}

// held is what follows where the checks kept the message from the store.
func (h Handover) held() Outcome {
	worst, found := points.Worst(h.Findings)
	switch {
	case found && worst.Says == points.Infected:
		return Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: worst.Virus}
	case found && worst.Says == points.Refused:
		return h.undelivered("5.7.1", worst.Reason.Italian, pec.ErrorOther)
	}
	return Outcome{}
}

// undelivered is a non-delivery in the form X.Y.Z - provider - text
// (docs/rules.md, N1).
func (h Handover) undelivered(code, text string, e pec.ErrorCode) Outcome {
	return Outcome{Kind: pec.KindNonDelivery, Error: e, Detail: fmt.Sprintf("%s - %s - %s", code, h.Provider, text)}
}

// explain gives code, Italian text and error of a refusal. The store's own words stay with the
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

// ErrUnlawful says that a delivery point decided what it may not: the message is
// put off.
var ErrUnlawful = errors.New("the delivery point decided what it may not")

// Guard returns p within the bounds of the law: a delivery point of others says in its
// own words why something was not delivered. It cannot certify what did not happen, nor
// leave uncertified what did.
//
// It is asked about nothing else. All that is not a non-delivery follows from the mailbox
// store's answer, and is certified without p: if what the store has taken had to wait for
// p, the store would get the message again with each attempt of the MTA. Whether p fails or
// decides what it may not, the decision has that with the error.
func Guard(p Point) Point { return guard{p} }

type guard struct{ Point }

// Decide implements Point.
func (g guard) Decide(ctx context.Context, h Handover) (Decision, error) {
	d, err := Builtin{}.Decide(ctx, h)
	if err != nil {
		return Decision{}, err
	}
	asked := h
	asked.Results = nil
	var at []int
	for i, o := range d.Outcomes {
		if o.Kind == pec.KindNonDelivery {
			at, asked.Results = append(at, i), append(asked.Results, h.Results[i])
			d.Outcomes[i] = Outcome{}
		}
	}
	if len(at) == 0 {
		return d, nil
	}
	said, err := g.ask(ctx, asked)
	if err != nil {
		return d, err
	}
	for j, i := range at {
		d.Outcomes[i] = said[j]
	}
	return d, nil
}

// ask returns the point's outcomes if they are lawful.
func (g guard) ask(ctx context.Context, h Handover) ([]Outcome, error) {
	d, err := g.Point.Decide(ctx, h)
	if err != nil {
		return nil, err
	}
	if len(d.Outcomes) != len(h.Results) {
		return nil, fmt.Errorf("%w: %d outcomes for %d results", ErrUnlawful, len(d.Outcomes), len(h.Results))
	}
	for i, o := range d.Outcomes {
		if err := lawful(h.Results[i], o); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnlawful, err)
		}
	}
	return d.Outcomes, nil
}

// maxDetail bounds errore-esteso, in octets.
const maxDetail = 1000

// lawful reports what keeps o from being the non-delivery that follows on r.
func lawful(r Result, o Outcome) error {
	if o.Kind != pec.KindNonDelivery {
		return fmt.Errorf("it certifies %q after %s; the rules say %q", o.Kind, r.Answer, pec.KindNonDelivery)
	}
	switch o.Error {
	case pec.ErrorNoDest, pec.ErrorNoDomain, pec.ErrorOther:
	default:
		return fmt.Errorf("a non-delivery with the error %q", o.Error)
	}
	if o.Detail == "" || len(o.Detail) > maxDetail || strings.ContainsFunc(o.Detail, unicode.IsControl) || !utf8.ValidString(o.Detail) {
		return fmt.Errorf("the text of a non-delivery must be 1 to %d octets of UTF-8 without control characters", maxDetail)
	}
	return nil
}

func (a Answer) String() string {
	switch a {
	case Delivered:
		return "delivered"
	case Never:
		return "never"
	case Held:
		return "held"
	}
	return "not now"
}
