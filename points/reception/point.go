package reception

import (
	"context"
	"errors"
	"fmt"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
)

// A Point is a reception point: the Builtin one, or one that takes its place.
// Its methods may be called concurrently. An error means doubt: the message is
// put off.
type Point interface {
	Decide(ctx context.Context, a Arrival) (Decision, error)
}

// An Arrival is a message that arrived, with its circumstances.
type Arrival struct {
	Found   Found
	Message *message.Message
	// Bounce says that it is a notification about an envelope of ours.
	Bounce     bool
	Sender     pec.Address // SMTP reverse path
	Recipients []Recipient
	System     pec.Address // in whose name we issue
	Service    pec.Address // our service mailbox (RFC 6109, 2.2.5)
	// Gate says that it is still at the MTA's port 25, where it can be refused to
	// the server that sends it.
	Gate bool
	// Unwrappable says that no anomaly envelope can hold it.
	Unwrappable bool
	Findings    []points.Finding // of the checks of what comes in, in their order
}

// A Recipient is one recipient of the transaction.
type Recipient struct {
	Address pec.Address
	// RefusesOrdinary says that the mailbox takes certified mail only.
	RefusesOrdinary bool
}

// A Decision is what a reception point says of a message.
type Decision struct {
	// Fates are one for each recipient; none at all puts the message off.
	Fates []Fate
}

// A Way is what becomes of a message for one recipient. The zero Way is Later.
type Way int

// The ways.
const (
	Later     Way = iota // not now: the MTA keeps it
	Certified            // take charge of the envelope and deliver it
	Passed               // deliver the receipt as it is
	Service              // deliver the receipt to our service mailbox
	Ended                // it ends here: in the register, in no mailbox
	Bounced              // a notification: what it says of an envelope of ours is dealt with
	Wrapped              // deliver it in an anomaly envelope that tells Why
	Rejected             // refuse it at SMTP because of Reason
	Denied               // take charge of the envelope and certify its non-delivery because of Reason
	Virus                // keep the envelope apart and tell the sender's provider of the virus that Reason names
)

var ways = map[Way]string{Later: "later", Certified: "certified", Passed: "passed", Service: "service", Ended: "ended",
	Bounced: "bounced", Wrapped: "wrapped", Rejected: "rejected", Denied: "denied", Virus: "virus"}

func (w Way) String() string { return ways[w] }

// A Fate is what becomes of a message for one recipient.
type Fate struct {
	Way    Way
	Why    error         // of Wrapped: one for which Anomaly has words
	Reason points.Reason // of Rejected, Denied and Virus
}

// Builtin is the reception point of RFC 6109, 2.2.2.
type Builtin struct{}

// Decide says what becomes of a for each recipient.
func (Builtin) Decide(_ context.Context, a Arrival) (Decision, error) {
	var d Decision
	for _, r := range a.Recipients {
		f, err := a.fate(r)
		if err != nil {
			return Decision{}, err
		}
		d.Fates = append(d.Fates, f)
	}
	return d, nil
}

func (a Arrival) fate(r Recipient) (Fate, error) {
	switch {
	case a.Found.Class == Receipt:
		return Fate{Way: a.receipt(r)}, nil
	case a.Found.Class == Envelope && a.Found.AddressedTo(r.Address):
		return a.envelope(), nil
	case a.Found.Class == Envelope:
		return a.ordinary(r, ErrNotAddressed)
	case a.Bounce:
		return Fate{Way: Bounced}, nil
	case r.Address.Same(a.System) && a.Sender == "" && known(a.Found.Why):
		return Fate{Way: Ended}, nil
	}
	return a.ordinary(r, a.Found.Why)
}

// receipt says where a receipt goes: take-charge receipts and virus notices to
// nobody but our service mailbox (RFC 6109, 2.2.5); receipts about receipts end
// here.
func (a Arrival) receipt(r Recipient) Way {
	switch {
	case a.Found.ForService():
		return Service
	case r.Address.Same(a.System) && !r.Address.Same(a.Service):
		return Ended
	}
	return Passed
}

func (a Arrival) envelope() Fate {
	worst, found := points.Worst(a.Findings)
	switch {
	case !found:
		return Fate{Way: Certified}
	case worst.Says == points.Infected:
		return Fate{Way: Virus, Reason: virus(worst)}
	case worst.Says == points.Refused:
		return Fate{Way: Denied, Reason: worst.Reason}
	}
	return Fate{}
}

// ordinary is about mail that is not certified. What a provider of the directory
// has signed is handed on even to those who want certified mail only (RFC 6109,
// 2.2.2).
func (a Arrival) ordinary(r Recipient, why error) (Fate, error) {
	if !known(why) {
		return Fate{}, fmt.Errorf("it is not known what the message is: %w", why)
	}
	worst, found := points.Worst(a.Findings)
	switch {
	case a.Unwrappable:
		return Fate{Way: Rejected, Reason: unwrappable}, nil
	case found && worst.Says == points.Infected:
		return Fate{Way: Rejected, Reason: virus(worst)}, nil
	case r.RefusesOrdinary && !FromProvider(why):
		return Fate{Way: Rejected, Reason: certifiedOnly}, nil
	case found && worst.Says == points.Refused:
		return Fate{Way: Rejected, Reason: worst.Reason}, nil
	case found:
		return Fate{}, nil
	}
	return Fate{Way: Wrapped, Why: why}, nil
}

var (
	certifiedOnly = points.Reason{Cause: points.Policy, Italian: "La casella accetta solo posta certificata", English: "This mailbox takes certified mail only"}
	unwrappable   = points.Reason{Cause: points.BadOctets, Italian: "Righe oltre 998 byte o byte non ammessi", English: "Lines over 998 octets, or octets that mail cannot carry"}
)

func virus(f points.Finding) points.Reason {
	return points.Reason{Cause: points.Virus, Italian: f.Virus, English: f.Virus}
}

// ErrUnlawful says that a reception point decided what it may not: the message is
// put off.
var ErrUnlawful = errors.New("the reception point decided what it may not")

// Guard returns p within the bounds of the law: a reception point of others can
// take nothing for certified that is not, lose nothing that is, and hand on
// nothing in which a virus was found.
func Guard(p Point) Point { return guard{p} }

type guard struct{ Point }

// Decide implements Point.
func (g guard) Decide(ctx context.Context, a Arrival) (Decision, error) {
	d, err := g.Point.Decide(ctx, a)
	if err != nil || len(d.Fates) == 0 {
		return Decision{}, err
	}
	if len(d.Fates) != len(a.Recipients) {
		return Decision{}, fmt.Errorf("%w: %d fates for %d recipients", ErrUnlawful, len(d.Fates), len(a.Recipients))
	}
	for i, f := range d.Fates {
		if err := a.lawful(a.Recipients[i], f); err != nil {
			return Decision{}, fmt.Errorf("%w: %s: %w", ErrUnlawful, f.Way, err)
		}
	}
	return d, nil
}

// lawful reports what forbids f for r.
func (a Arrival) lawful(r Recipient, f Fate) error {
	if f.Way == Later {
		return nil
	}
	own, err := a.fate(r)
	if err != nil {
		return err
	}
	if err := f.complete(); err != nil {
		return err
	}
	if f.Way == own.Way || a.stricter(own, f.Way) {
		return nil
	}
	return fmt.Errorf("the rules say %s", own.Way)
}

// complete reports what f lacks.
func (f Fate) complete() error {
	switch f.Way {
	case Rejected, Denied, Virus:
		return f.Reason.Check()
	case Wrapped:
		if !known(f.Why) {
			return errors.New("an anomaly for which there are no words")
		}
	}
	return nil
}

// stricter reports whether a point may choose way where ours says own. A refusal
// by a check is the only thing that a point may overlook.
func (a Arrival) stricter(own Fate, way Way) bool {
	switch own.Way {
	case Certified:
		return way == Denied
	case Denied:
		return way == Certified && !a.held()
	case Wrapped:
		return way == Rejected && !FromProvider(own.Why)
	case Rejected:
		return way == Wrapped && !a.held() && !a.Unwrappable && own.Reason != certifiedOnly
	}
	return false
}

// held reports whether a check found more than a reason to refuse.
func (a Arrival) held() bool {
	worst, found := points.Worst(a.Findings)
	return found && worst.Says != points.Refused
}
