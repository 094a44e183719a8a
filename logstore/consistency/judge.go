package consistency

import (
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// judge applies the rules to what was read.
func (s *story) judge() {
	s.dispatch()
	for _, f := range s.order {
		s.receiving(f)
	}
	if len(s.envelopes) != 1 {
		return
	}
	sent := s.envelopes[0]
	for _, r := range sent.Recipients {
		if r.Type == pec.Certified {
			s.sending(sent, s.fate(r.Address))
		}
	}
}

// dispatch: one envelope and one acceptance of a message of ours, under one name of a
// provider. Which it is does not count: we may have had another then.
func (s *story) dispatch() {
	if len(s.envelopes) == 0 && len(s.acceptances) == 0 {
		return
	}
	if len(s.envelopes) != 1 || len(s.acceptances) != 1 {
		s.find(0, "", false, "%d transport envelopes and %d acceptance receipts, one of each must be", len(s.envelopes), len(s.acceptances))
	}
	for _, a := range s.acceptances {
		for _, e := range s.envelopes {
			if a.SendingProvider != e.SendingProvider {
				s.find(a.Seq, "", false, "%s names %s as the sender's provider, the envelope %s", a.Type, a.SendingProvider, e.SendingProvider)
			}
		}
	}
}

// receiving holds what we issued about a recipient of ours: taken charge of once,
// and one outcome of it, or a virus notice instead of both.
func (s *story) receiving(f *fate) {
	outcomes := f.delivered + f.failed
	if f.taken > 1 {
		s.find(0, f.address, false, "%d take-charge receipts issued", f.taken)
	}
	if outcomes > 1 {
		s.find(0, f.address, false, "%d delivery receipts and %d non-delivery notices issued, together one may be", f.delivered, f.failed)
	}
	if f.infected > 1 {
		s.find(0, f.address, false, "%d virus notices issued", f.infected)
	}
	switch {
	case f.delivered == 0 || f.taken > 0:
	case !s.begins.IsZero() && f.deliveredAt.Sub(s.begins) <= StoreTerm:
		s.find(0, f.address, true, "a delivery receipt whose take-charge receipt went with what was purged")
	default:
		s.find(0, f.address, false, "a delivery receipt without a take-charge receipt")
	}
	if f.infected > 0 && f.delivered > 0 {
		s.find(0, f.address, false, "a virus notice and a delivery receipt")
	}
	if f.taken == 1 && outcomes == 0 && f.infected == 0 {
		s.missing(f, f.takenAt, StoreTerm, "taken charge of at %s, and neither delivered nor refused")
	}
}

// sending holds what we heard and said about a certified recipient of a message of
// ours.
func (s *story) sending(sent logstore.Entry, f *fate) {
	last := f.heardDelivered + f.heardFailed + f.told + f.toldInfected
	switch {
	case f.heardDelivered > 0 && f.told+f.toldInfected+f.heardFailed > 0:
		s.find(0, f.address, false, "the sender was told both that it was delivered and that it was not")
	case f.heardFailed+f.told+f.toldInfected > 1:
		s.find(0, f.address, false, "the sender was told %d times that it was not delivered", f.heardFailed+f.told+f.toldInfected)
	case f.heardDelivered > 1:
		s.find(0, f.address, true, "%d delivery receipts arrived, of one provider or of several", f.heardDelivered)
	}
	if (f.heardInfected > 0) != (f.toldInfected > 0) {
		s.find(0, f.address, false, "%d virus notices arrived, and the sender was told %d times", f.heardInfected, f.toldInfected)
	}
	if f.warned > 1 || f.expired > 1 {
		s.find(0, f.address, false, "%d notices of 12 hours and %d of 24 issued", f.warned, f.expired)
	}
	switch {
	case last == 0 && f.expired == 0:
		s.missing(f, sent.At, Term, "sent at %s, and the sender was told nothing")
	case last == 0:
		s.find(0, f.address, true, "nothing was heard; the sender was told so after 24 hours")
	case f.heardDelivered > 0 && f.heardTaken == 0:
		s.find(0, f.address, true, "a delivery receipt without a take-charge receipt of the other provider")
	case f.expired > 0:
		s.find(0, f.address, true, "the last word came after the notice of 24 hours")
	}
}

// missing reports what is to come, as explained while there is time.
func (s *story) missing(f *fate, since time.Time, term time.Duration, format string) {
	over := s.now.Sub(since) > term
	if !over {
		format += ", yet"
	}
	s.find(0, f.address, !over, format, since.UTC().Format(time.RFC3339))
}
