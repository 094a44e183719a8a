package points

// A Stage is a moment at which checks look at a message.
type Stage string

// The stages.
const (
	Submission Stage = "submission" // a user of ours handed it in
	Incoming   Stage = "incoming"   // it came for users of ours
	Delivery   Stage = "delivery"   // it is about to go into mailboxes
)

// Stages are all stages, in the order in which a message passes them.
var Stages = []Stage{Submission, Incoming, Delivery}

// Says is what a check saw. The zero value is Unavailable: a check of which
// nothing is known has not found the message clean.
type Says int

// What checks say.
const (
	Unavailable Says = iota // it cannot tell now
	Clean                   // nothing to object to
	Refused                 // its rules forbid the message; the Reason says why
	Infected                // there is a virus in it; Virus names it
)

func (s Says) String() string {
	switch s {
	case Clean:
		return "clean"
	case Refused:
		return "refused"
	case Infected:
		return "infected"
	}
	return "unavailable"
}

// A Finding is what one check saw in a message. What follows from it is for the
// point to say.
type Finding struct {
	Check  string // the check's name in the configuration
	Says   Says
	Reason Reason // of Refused; its cause is Policy
	Virus  string // of Infected: the name that the scanner gives it, in printable ASCII
}

// Worst returns the finding that decides: one of a virus before one of a check
// that is unavailable, that before a refusal; ok is false if all are clean. Of
// equals it is the first.
func Worst(findings []Finding) (worst Finding, ok bool) {
	rank := map[Says]int{Clean: 0, Refused: 1, Unavailable: 2, Infected: 3}
	for _, f := range findings {
		if r := rank[f.Says]; r > 0 && (!ok || r > rank[worst.Says]) {
			worst, ok = f, true
		}
	}
	return worst, ok
}
