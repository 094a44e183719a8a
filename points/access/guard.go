package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pecd/points"
)

// ErrUnlawful says that an access point decided what it may not: the message is
// put off.
var ErrUnlawful = errors.New("the access point decided what it may not")

// Guard returns p within the bounds of the law. An access point of others may
// refuse more than ours, and set limits of its own. It cannot let a message in
// that would be certified wrongly, or one in which a virus was found.
func Guard(p Point) Point { return guard{p} }

type guard struct{ Point }

// Decide implements Point.
func (g guard) Decide(ctx context.Context, s Submission) (Decision, error) {
	d, err := g.Point.Decide(ctx, s)
	if err != nil {
		return Decision{}, err
	}
	switch d.Verdict {
	case points.Accept:
		return d, accepted(ctx, s)
	case points.Refuse:
		if err := plain(d.Reasons); err != nil {
			return Decision{}, err
		}
		return unanswerable(ctx, s, d)
	}
	return Decision{}, nil
}

// unanswerable adds to a refusal for formal reasons what our own rules have against
// answering it by a notice: a notice goes to the sender, and he may be somebody else
// (docs/decisions/0009-size-and-notices.md).
func unanswerable(ctx context.Context, s Submission, d Decision) (Decision, error) {
	if !points.Formal(d.Reasons) {
		return d, nil
	}
	s.Limits, s.Findings = Limits{TrustMTA: s.Limits.TrustMTA}, nil
	own, err := Builtin{}.Decide(ctx, s)
	if err != nil {
		return Decision{}, err
	}
	if own.Verdict == points.Refuse && !points.Formal(own.Reasons) {
		d.Reasons = append(slices.Clone(d.Reasons), own.Reasons...)
	}
	return d, nil
}

// accepted checks what no access point may accept.
func accepted(ctx context.Context, s Submission) error {
	s.Limits = Limits{TrustMTA: s.Limits.TrustMTA}
	var grave []points.Finding
	for _, f := range s.Findings {
		if f.Says != points.Refused {
			grave = append(grave, f)
		}
	}
	s.Findings = grave
	d, err := Builtin{}.Decide(ctx, s)
	switch {
	case err != nil:
		return err
	case d.Verdict == points.Refuse:
		return fmt.Errorf("%w: it accepted a message of which the rules say: %s", ErrUnlawful, points.Describe(d.Reasons))
	case d.Verdict != points.Accept:
		return fmt.Errorf("%w: it accepted a message that a check could not look at", ErrUnlawful)
	}
	return nil
}

// plain checks that reasons can be told to a sender.
func plain(reasons []points.Reason) error {
	if len(reasons) == 0 {
		return fmt.Errorf("%w: a refusal without reason", ErrUnlawful)
	}
	for _, r := range reasons {
		if err := r.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnlawful, err)
		}
	}
	return nil
}
