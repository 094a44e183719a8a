package issue

import (
	"io"
	"strings"
	"time"

	"pecd/pec"
)

// A Duplicate says that a draft renders once more what was issued before.
type Duplicate struct {
	// Made is the instant at which it is made, in legal time. It is that of the
	// signature; everything else carries the instant of the event.
	Made time.Time
	// Of is the Message-ID of what was issued, without angle brackets.
	Of string
}

// Mark is the value of the header field that marks a duplicate (docs/rules.md, U1):
// on the message, and on the part that is signed, where nobody can take it away.
func (d Duplicate) Mark() string { return d.Made.Format(time.RFC3339) + "; <" + d.Of + ">" }

// Duplicate renders the receipt or notice that certified ev once more, to be
// given to somebody who lost it. Every certified datum is the same; title, text
// and a header field say that it is a duplicate, and when it was made. to is its
// addressee. A delivery receipt comes without the original, which is not kept.
// Envelopes cannot be rendered again.
func (i Issuer) Duplicate(ev pec.Event, to pec.Address, of Duplicate, rnd io.Reader) (Draft, error) {
	m, ok := modelOf(ev)
	if !ok {
		return Draft{}, unfit("a duplicate of a %s", ev.Kind)
	}
	if of.Made.Before(ev.At) {
		return Draft{}, unfit("a duplicate from before the event")
	}
	if of.Of == "" || !fitsField("<"+of.Of+">") {
		return Draft{}, unfit("a duplicate of the Message-ID %q", of.Of)
	}
	certified, err := i.certify(ev, ev.Kind)
	if err != nil {
		return Draft{}, err
	}
	d, err := i.draft(certified, to, m.duplicate(certified, of), nil, false, &of, rnd)
	if err != nil {
		return Draft{}, err
	}
	return d, nil
}

// modelOf returns the texts of the receipt or notice that certified ev.
func modelOf(ev pec.Event) (model, bool) {
	infected := ev.Error == pec.ErrorVirus
	switch ev.Kind {
	case pec.KindAcceptance:
		return acceptance, true
	case pec.KindNonAcceptance:
		if infected {
			return nonAcceptanceVirus, true
		}
		return nonAcceptance, true
	case pec.KindTakeCharge:
		return takeCharge, true
	case pec.KindDelivery:
		return deliveryConcise, true
	case pec.KindNonDelivery:
		if infected {
			return nonDeliveryVirus, true
		}
		return nonDelivery, true
	case pec.KindTimeout:
		if strings.HasPrefix(ev.Detail, timeout24Code+" ") {
			return timeout24, true
		}
		return timeout12, true
	case pec.KindVirus:
		return virus, true
	}
	return model{}, false
}

// duplicate returns m with what marks a duplicate.
func (m model) duplicate(ev pec.Event, of Duplicate) model {
	m.prefix = "DUPLICATO - " + m.prefix
	m.italian.title = "Duplicato - " + m.italian.title
	m.english.title = "Duplicate - " + m.english.title
	const day, hour = "02/01/2006", "15:04:05"
	made := of.Made
	m.italian.note = "Duplicato, ricostruito dal registro del gestore il giorno " + made.Format(day) + " alle ore " + made.Format(hour+" (-0700)") +
		".\nIl documento originale è stato emesso il giorno " + ev.At.Format(day) + " alle ore " + ev.At.Format(hour+" (-0700)") + "."
	m.english.note = "Duplicate, made from the provider's register on " + made.Format(day) + " at " + made.Format(hour+" (-0700)") +
		".\nThe original document was issued on " + ev.At.Format(day) + " at " + ev.At.Format(hour+" (-0700)") + "."
	if ev.Kind == pec.KindDelivery {
		m.italian.note += "\nIl messaggio consegnato non è allegato: il gestore non lo conserva."
		m.english.note += "\nThe delivered message is not attached: the provider does not keep it."
	}
	return m
}
