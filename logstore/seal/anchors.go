package seal

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"pecd/logstore"
)

// An Anchor is what something outside of the register vouches for.
type Anchor struct {
	logstore.Anchor
	At time.Time `json:"at"` // when it was vouched for
	By string    `json:"by"` // who: the day whose seal it is, or the witness
	// Proved says that the files prove it: a time stamp does. What else a witness
	// heard is only what the files say that it heard; the proof is with the witness.
	Proved bool `json:"proved"`
}

// Anchors returns what the seals and the witnesses in files vouch for: first the
// seals in the order of their days, then the witnesses in that of their files. It
// verifies signatures and tokens, not the entries. What does not hold is left out
// and told as a problem.
func (v *Verifier) Anchors(ctx context.Context, files fs.FS) (anchors []Anchor, problems []*Problem, err error) {
	days, err := Days(files)
	if err != nil {
		return nil, nil, err
	}
	for _, day := range days {
		s, problem := v.readSeal(ctx, files, day)
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if problem != nil {
			problems = append(problems, problem)
			continue
		}
		if s.Manifest.Last > 0 {
			anchors = append(anchors, Anchor{logstore.Anchor{Seq: s.Manifest.Last, Chain: s.Manifest.ChainAfter}, s.Stamped, "seal of " + day.String(), true})
		}
	}
	names, err := witnessFiles(files)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		err := readRecords(files, name, func(line int, r Record, err error) error {
			a, problem := v.attested(ctx, r, err)
			if problem != nil {
				problem.File, problem.Line = name, line
				problems = append(problems, problem)
				return ctx.Err()
			}
			anchors = append(anchors, a)
			return ctx.Err()
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return anchors, problems, nil
}

// attested returns what a record of a witness vouches for.
func (v *Verifier) attested(ctx context.Context, r Record, err error) (Anchor, *Problem) {
	if err != nil {
		return Anchor{}, &Problem{Text: fmt.Sprintf("it cannot be read: %v", err)}
	}
	if r.Seq < 1 {
		return Anchor{}, &Problem{Text: "it names no entry"}
	}
	a := Anchor{logstore.Anchor{Seq: r.Seq, Chain: r.Chain}, r.Attested, string(r.Kind) + " " + r.Name, false}
	switch r.Kind {
	case KindTimestamp:
		t, err := v.stamps.Verify(ctx, r.Proof, r.digest())
		if err != nil {
			return Anchor{}, &Problem{Seq: r.Seq, Text: err.Error()}
		}
		a.At, a.Proved = t.Time, true
	case KindSyslog, KindHTTP:
	default:
		return Anchor{}, &Problem{Seq: r.Seq, Text: fmt.Sprintf("a witness of the kind %.40q", r.Kind)}
	}
	return a, nil
}
