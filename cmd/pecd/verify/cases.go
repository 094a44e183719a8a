package verify

import (
	"fmt"
	"slices"
	"time"

	"pecd/pec"
)

// A Case is all that was found about one certified message: what the messages
// with its identifier prove together. Only those that hold count. The JSON names
// are a stable interface.
type Case struct {
	Identifier pec.Identifier `json:"identifier"`
	MsgID      string         `json:"msgid,omitempty"`
	Sender     pec.Address    `json:"sender"`
	Subject    string         `json:"subject,omitempty"`
	// Accepted is when the sender's provider accepted it for sending; nil if that
	// is not proven. Refused is when it refused it.
	Accepted *time.Time `json:"accepted,omitempty"`
	Refused  *time.Time `json:"refused,omitempty"`
	// Envelope says that the transport envelope, with the original, is here.
	Envelope   bool     `json:"envelope"`
	Recipients []*Fate  `json:"recipients"`
	Proven     []string `json:"proven"`
	Missing    []string `json:"missing"`
	// Contradictions are what cannot all be true.
	Contradictions []string `json:"contradictions"`
	// Discarded are the messages that do not hold and so prove nothing.
	Discarded []string `json:"discarded,omitempty"`
	Messages  int      `json:"messages"` // without copies
}

// A Fate is what is proven about one recipient.
type Fate struct {
	Address pec.Address       `json:"address"`
	Type    pec.RecipientType `json:"type,omitempty"`
	State   string            `json:"state"`
	At      *time.Time        `json:"at,omitempty"`
	// Provider says so.
	Provider string          `json:"provider,omitempty"`
	Receipt  pec.ReceiptType `json:"receipt,omitempty"`
	// Original is how the original in the receipt and that in the envelope go
	// together: same, brief, attachments or different; empty if they could not
	// be compared.
	Original string `json:"original,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Values of Fate.State, in the order of their weight.
const (
	stateDelivered    = "delivered"
	stateNotDelivered = "not-delivered"
	stateVirus        = "virus"
	stateTimeout      = "no-answer-in-time"
	stateTaken        = "taken-in-charge"
	stateNothing      = "nothing"
)

// maxCases bounds what is remembered for the cases, in octets, about; a mailbox
// of 1 GB has some 100,000 messages, which take half of it.
const maxCases = 128 << 20

// cases collects what messages prove, by identifier.
type cases struct {
	by    map[pec.Identifier][]*proof
	order []pec.Identifier
	cost  int
	left  int // messages for which there was no room
}

func newCases() *cases { return &cases{by: make(map[pec.Identifier][]*proof)} }

// add takes p, which may be nil. Of copies of one message it keeps one.
func (c *cases) add(p *proof) {
	if p == nil {
		return
	}
	id := p.event.Identifier
	same := c.by[id]
	for i, old := range same {
		if p.digest != "" && old.digest == p.digest && old.event.Kind == p.event.Kind {
			if p.valid && !old.valid {
				same[i] = p
			}
			return
		}
	}
	cost := p.cost()
	if c.cost+cost > maxCases || len(same) >= maxPerCase {
		c.left++
		return
	}
	c.cost += cost
	if same == nil {
		c.order = append(c.order, id)
	}
	c.by[id] = append(same, p)
}

// maxPerCase bounds the messages of one case: an envelope and some receipts for
// each recipient. It keeps the search for copies short.
const maxPerCase = 40_000

// judge returns the cases in the order in which they were found.
func (c *cases) judge() []*Case {
	var out []*Case
	for _, id := range c.order {
		out = append(out, newCase(id, c.by[id]))
	}
	return out
}

func newCase(id pec.Identifier, proofs []*proof) *Case {
	c := &Case{Identifier: id, Proven: []string{}, Missing: []string{}, Contradictions: []string{}, Recipients: []*Fate{}, Messages: len(proofs)}
	b := caseBuilder{Case: c, fates: make(map[string]*Fate)}
	for _, p := range proofs {
		if p.valid {
			b.valid = append(b.valid, p)
		} else {
			c.Discarded = append(c.Discarded, p.place)
		}
	}
	if len(b.valid) == 0 {
		c.Sender, c.Subject, c.MsgID = proofs[0].event.Sender, proofs[0].event.Subject, proofs[0].event.MsgID
		c.Missing = append(c.Missing, "everything: no message about it holds")
		return c
	}
	b.begin()
	b.agree()
	b.tell()
	return c
}

// A caseBuilder puts a case together.
type caseBuilder struct {
	*Case
	valid    []*proof
	envelope *proof
	named    bool // all recipients are known
	fates    map[string]*Fate
}

// begin finds the message that tells best what the case is about: the envelope,
// or the acceptance receipt, or any.
func (b *caseBuilder) begin() {
	best := b.valid[0]
	for _, kind := range []pec.Kind{pec.KindAcceptance, pec.KindTransport} {
		if i := slices.IndexFunc(b.valid, func(p *proof) bool { return p.event.Kind == kind }); i >= 0 {
			best = b.valid[i]
		}
	}
	if best.event.Kind == pec.KindTransport {
		b.envelope, b.Envelope = best, true
	}
	ev := &best.event
	b.MsgID, b.Sender, b.Subject = ev.MsgID, ev.Sender, ev.Subject
	for _, r := range ev.Recipients {
		b.fate(r.Address).Type = r.Type
	}
	b.named = len(ev.Recipients) > 0
}

// fate returns the fate of a, which is made if a is new.
func (b *caseBuilder) fate(a pec.Address) *Fate {
	f := b.fates[a.Key()]
	if f == nil {
		f = &Fate{Address: a, State: stateNothing}
		b.fates[a.Key()] = f
		b.Recipients = append(b.Recipients, f)
	}
	return f
}

// agree looks whether the messages are about one and the same message, and takes
// what each says.
func (b *caseBuilder) agree() {
	for _, p := range b.valid {
		ev := &p.event
		if !ev.Sender.Same(b.Sender) {
			b.contradiction("%s names the sender %s, others %s", p.place, ev.Sender, b.Sender)
			continue
		}
		if ev.MsgID != "" && b.MsgID != "" && ev.MsgID != b.MsgID {
			b.contradiction("%s is about the message %s, others about %s", p.place, ev.MsgID, b.MsgID)
			continue
		}
		b.take(p)
	}
}

func (b *caseBuilder) take(p *proof) {
	ev := &p.event
	at := ev.At
	switch ev.Kind {
	case pec.KindTransport:
		if p != b.envelope && p.whole != b.envelope.whole {
			b.contradiction("%s and %s are envelopes with different originals", b.envelope.place, p.place)
		}
	case pec.KindAcceptance:
		b.Accepted = &at
		b.proven("accepted for sending on %s, says %s", at.Format(people), ev.Provider)
	case pec.KindNonAcceptance:
		b.Refused = &at
		b.proven("refused on %s, says %s: %s", at.Format(people), ev.Provider, ev.Detail)
	case pec.KindTakeCharge:
		for _, a := range ev.Taken {
			b.fated(p, a, stateTaken)
		}
	case pec.KindDelivery:
		b.fated(p, ev.Recipient, stateDelivered)
	case pec.KindNonDelivery:
		b.fated(p, ev.Recipient, stateNotDelivered)
	case pec.KindTimeout:
		b.fated(p, ev.Recipient, stateTimeout)
	case pec.KindVirus:
		b.fated(p, ev.Recipient, stateVirus)
	}
}

var weights = []string{stateDelivered, stateNotDelivered, stateVirus, stateTimeout, stateTaken, stateNothing}

// fated enters what p says of the recipient a. What weighs more replaces what
// weighs less: a delivery may follow a timeout notice, not a non-delivery.
func (b *caseBuilder) fated(p *proof, a pec.Address, state string) {
	known := len(b.fates)
	f := b.fate(a)
	if len(b.fates) > known && b.named {
		b.contradiction("%s is about %s, who is no recipient of the message", p.place, a)
	}
	if f.State == stateDelivered && state == stateNotDelivered || f.State == stateNotDelivered && state == stateDelivered {
		b.contradiction("one receipt says that it was delivered to %s, another that it was not", a)
	}
	original := notCompared
	if state == stateDelivered {
		if original = p.belongs(b.envelope); original == otherOriginal {
			b.contradiction("the original in %s is not the one in %s", p.place, b.envelope.place)
		}
	}
	if slices.Index(weights, state) >= slices.Index(weights, f.State) {
		return
	}
	at := p.event.At
	f.State, f.At, f.Provider, f.Detail = state, &at, p.event.Provider, p.event.Detail
	f.Receipt, f.Original = p.event.Receipt, original
}

// tell puts into words what is proven and what is missing.
func (b *caseBuilder) tell() {
	if b.Envelope {
		b.proven("the content: the transport envelope carries the original message")
	}
	if b.Refused == nil {
		if b.Accepted == nil {
			b.missing("acceptance receipt: that the sender's provider took it for sending")
		}
		if !b.Envelope {
			b.missing("transport envelope: the content as it was sent")
		}
	}
	for _, f := range b.Recipients {
		b.tellOf(f)
	}
}

// tellOf says what is proven and missing about one recipient.
func (b *caseBuilder) tellOf(f *Fate) {
	on := ""
	if f.At != nil {
		on = f.At.Format(people)
	}
	switch f.State {
	case stateDelivered:
		b.proven("delivered to %s on %s, says %s%s", f.Address, on, f.Provider, originals[f.Original])
		return
	case stateNotDelivered:
		b.proven("NOT delivered to %s, on %s, says %s: %s", f.Address, on, f.Provider, f.Detail)
		return
	case stateVirus:
		b.proven("a virus was found in it before delivery to %s, on %s, says %s", f.Address, on, f.Provider)
		return
	case stateTimeout:
		b.proven("no answer about %s in time, on %s, says %s", f.Address, on, f.Provider)
	case stateTaken:
		b.proven("taken in charge for %s on %s, says %s", f.Address, on, f.Provider)
	}
	switch {
	case b.Refused != nil:
	case f.Type == pec.External:
		b.proven("%s has an ordinary mailbox: there is no delivery receipt for it", f.Address)
	default:
		b.missing("delivery receipt for %s", f.Address)
	}
}

// originals are the words for Fate.Original.
var originals = map[string]string{
	sameOriginal:    "; its original is that of the transport envelope",
	briefOriginal:   "; its brief original is made of that of the transport envelope",
	sameAttachments: "; the hashes in it are those of attachments in the transport envelope",
	otherOriginal:   "; its original is NOT that of the transport envelope",
}

func (b *caseBuilder) proven(format string, args ...any) {
	b.Proven = append(b.Proven, fmt.Sprintf(format, args...))
}

func (b *caseBuilder) missing(format string, args ...any) {
	b.Missing = append(b.Missing, fmt.Sprintf(format, args...))
}

func (b *caseBuilder) contradiction(format string, args ...any) {
	b.Contradictions = append(b.Contradictions, fmt.Sprintf(format, args...))
}
