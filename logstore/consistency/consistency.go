// Package consistency holds the register against itself: what a provider must
// have issued and heard about each message, by the rules by which registers of
// certified mail are checked (docs/rules.md, L4). It reads entries only. That
// nothing was altered, package logstore verifies.
package consistency

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// How long the register may lack what is to come.
const (
	// Term is from dispatch to the last word about a recipient: the notice of 24
	// hours (RFC 6109, 3.1.6), with an hour for a daemon that was down.
	Term = 25 * time.Hour
	// StoreTerm is from the take-charge receipt to what became of the message here.
	StoreTerm = 25 * time.Hour
)

// A Finding is something that the rules do not allow, or what explains why they
// are not met.
type Finding struct {
	Identifier pec.Identifier `json:"identifier"`
	// Seq is the entry that it is about; 0 if it is about one that lacks.
	Seq       int64       `json:"seq,omitempty"`
	Recipient pec.Address `json:"recipient,omitempty"`
	// Explained says that it is allowed, and What why.
	Explained bool   `json:"explained"`
	What      string `json:"what"`
}

// String implements fmt.Stringer.
func (f Finding) String() string {
	s := string(f.Identifier)
	if f.Seq > 0 {
		s += fmt.Sprintf(", entry %d", f.Seq)
	}
	if f.Recipient != "" {
		s += ", " + string(f.Recipient)
	}
	return s + ": " + f.What
}

// Story checks all entries of one identifier, the oldest first, as of now.
// begins is the instant of the first entry that is left after a purge of the register,
// zero if nothing was purged.
func Story(entries []logstore.Entry, begins, now time.Time) []Finding {
	s := &story{begins: begins, now: now, fates: map[string]*fate{}, told: map[string]bool{}}
	for _, e := range entries {
		s.id = e.Identifier
		s.read(e)
	}
	s.judge()
	return s.findings
}

// A story is what the entries of an identifier say.
type story struct {
	id     pec.Identifier
	begins time.Time
	now    time.Time

	envelopes, acceptances []logstore.Entry
	order                  []*fate
	fates                  map[string]*fate
	named                  []pec.Recipient // the message's recipients
	told                   map[string]bool // digests of our notices to a sender of ours
	findings               []Finding
}

// A fate is what the register says about one recipient of the message.
type fate struct {
	address pec.Address
	// As the receiving provider: how often, and when, each was issued.
	taken, delivered, failed, infected int
	takenAt, deliveredAt               time.Time // the first
	// As the sending provider: what was heard of others, and said to the sender.
	heardTaken, heardDelivered, heardFailed, heardInfected int
	told, toldInfected, warned, expired                    int
}

// meant is the recipient whom another provider wrote as a, in other letters.
func (s *story) meant(a pec.Address) pec.Address {
	if i := find(s.named, a); i >= 0 && !s.named[i].Address.Same(a) {
		return s.named[i].Address
	}
	return a
}

func (s *story) fate(a pec.Address) *fate {
	a = s.meant(a)
	f := s.fates[a.Key()]
	if f == nil {
		f = &fate{address: a}
		s.fates[a.Key()] = f
		s.order = append(s.order, f)
	}
	return f
}

func (s *story) find(seq int64, rcpt pec.Address, explained bool, format string, args ...any) {
	s.findings = append(s.findings, Finding{Identifier: s.id, Seq: seq, Recipient: rcpt, Explained: explained, What: fmt.Sprintf(format, args...)})
}

// read takes in one entry.
func (s *story) read(e logstore.Entry) {
	if len(s.named) == 0 {
		s.named = e.Recipients
	}
	s.whom(e)
	switch e.Type {
	case logstore.EntryType(pec.KindTransport):
		s.envelopes = append(s.envelopes, e)
	case logstore.EntryType(pec.KindAcceptance):
		s.acceptances = append(s.acceptances, e)
	case logstore.EntryType(pec.KindTakeCharge):
		for _, a := range e.Taken {
			f := s.fate(a)
			if f.taken++; f.taken == 1 {
				f.takenAt = e.At
			}
		}
	case logstore.EntryType(pec.KindDelivery):
		f := s.fate(e.Recipient)
		if f.delivered++; f.delivered == 1 {
			f.deliveredAt = e.At
		}
	case logstore.EntryType(pec.KindNonDelivery):
		s.readFailure(e)
	case logstore.EntryType(pec.KindVirus):
		s.fate(e.Recipient).infected++
	case logstore.EntryType(pec.KindTimeout):
		if strings.HasPrefix(e.Detail, "5.4.1 ") {
			s.fate(e.Recipient).expired++
		} else {
			s.fate(e.Recipient).warned++
		}
	case logstore.EntryReceived:
		s.heard(e)
	}
}

// readFailure tells a notice of the receiving provider from one to a sender of ours
// about what became of his message elsewhere: that closes a row of the ledger, and
// was never taken charge of here.
func (s *story) readFailure(e logstore.Entry) {
	f := s.fate(e.Recipient)
	switch {
	case f.taken > 0:
		f.failed++
	case e.Error == pec.ErrorVirus:
		f.toldInfected++
		s.told[e.Digest] = true
	default:
		f.told++
		s.told[e.Digest] = true
	}
}

// heard takes in a receipt that arrived; its Detail begins with its kind.
func (s *story) heard(e logstore.Entry) {
	if s.told[e.Digest] {
		return // our own notice, on its way into the sender's mailbox
	}
	kind, _, _ := strings.Cut(e.Detail, ":")
	switch pec.Kind(kind) {
	case pec.KindTakeCharge:
		for _, a := range e.Taken {
			s.fate(a).heardTaken++
		}
	case pec.KindDelivery:
		s.fate(e.Recipient).heardDelivered++
	case pec.KindNonDelivery:
		s.fate(e.Recipient).heardFailed++
	case pec.KindVirus:
		s.fate(e.Recipient).heardInfected++
	}
}

// whom wants whom an entry is about among the certified recipients that it names.
func (s *story) whom(e logstore.Entry) {
	if len(e.Recipients) == 0 || !pec.Kind(e.Type).Valid() && e.Type != logstore.EntryReceived {
		return
	}
	for _, a := range append(e.Taken[:len(e.Taken):len(e.Taken)], e.Recipient) {
		if a == "" {
			continue
		}
		if i := find(e.Recipients, a); i < 0 {
			s.find(e.Seq, a, false, "%s about somebody who is no recipient of the message", e.Type)
		} else if e.Recipients[i].Type != pec.Certified {
			s.find(e.Seq, a, false, "%s about a recipient of ordinary mail", e.Type)
		}
	}
}

// find returns the place of a in list, as it is or as another provider may have written
// it; -1 if it is not there.
func find(list []pec.Recipient, a pec.Address) int {
	if i := slices.IndexFunc(list, func(r pec.Recipient) bool { return r.Address.Same(a) }); i >= 0 {
		return i
	}
	return slices.IndexFunc(list, func(r pec.Recipient) bool { return r.Address.Folded() == a.Folded() })
}
