package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/points"
)

// TestFindings: what a check before delivery saw, and what follows from it.
func TestFindings(t *testing.T) {
	infected := points.Finding{Says: points.Infected, Virus: "Eicar-Test"}
	refused := points.Finding{Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "allegato non ammesso", English: "no"}}
	for _, tt := range []struct {
		findings []points.Finding
		want     Outcome
	}{
		{[]points.Finding{refused, infected}, Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: "Eicar-Test"}},
		{[]points.Finding{refused}, Outcome{Kind: pec.KindNonDelivery, Error: pec.ErrorOther, Detail: "5.7.1 - Beta - allegato non ammesso"}},
		{[]points.Finding{refused, {}}, Outcome{}},
		{nil, Outcome{}},
	} {
		d, err := Builtin{}.Decide(context.Background(), Handover{Provider: "Beta", Results: []Result{{Answer: Held}}, Findings: tt.findings})
		if err != nil || d.Outcomes[0] != tt.want {
			t.Errorf("%+v: %+v, %v", tt.findings, d, err)
		}
	}
}

// fixed is a point that always decides the same.
type fixed []Outcome

func (f fixed) Decide(context.Context, Handover) (Decision, error) {
	return Decision{Outcomes: f}, nil
}

func TestGuard(t *testing.T) {
	failed := func(e pec.ErrorCode, detail string) Outcome {
		return Outcome{Kind: pec.KindNonDelivery, Error: e, Detail: detail}
	}
	delivered := Outcome{Kind: pec.KindDelivery, Error: pec.NoError}
	for name, tt := range map[string]struct {
		answer Answer
		says   []Outcome
		lawful bool
	}{
		"own words":                      {Never, []Outcome{failed(pec.ErrorNoDest, "5.1.1 - Beta - non esiste")}, true},
		"a delivery that was none":       {Never, []Outcome{delivered}, false},
		"silence about a refusal":        {Never, []Outcome{{}}, false},
		"a virus that was none":          {Never, []Outcome{{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: "x"}}, false},
		"too few":                        {Never, nil, false},
		"too many":                       {Never, []Outcome{failed(pec.ErrorOther, "5.0.0 - x"), {}}, false},
		"a virus error without a virus":  {Never, []Outcome{failed(pec.ErrorVirus, "5.0.0 - x")}, false},
		"no words":                       {Never, []Outcome{failed(pec.ErrorOther, "")}, false},
		"two lines":                      {Never, []Outcome{failed(pec.ErrorOther, "a\nb")}, false},
		"too many words":                 {Never, []Outcome{failed(pec.ErrorOther, strings.Repeat("a", 1001))}, false},
		"octets that are not characters": {Never, []Outcome{failed(pec.ErrorOther, "\xff")}, false},
	} {
		_, err := Guard(fixed(tt.says)).Decide(context.Background(), Handover{Provider: "Beta", Results: []Result{{Answer: tt.answer}}})
		if (err == nil) != tt.lawful || err != nil && !errors.Is(err, ErrUnlawful) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// nobody is a point that is not to be asked, or is away.
type nobody struct{ t *testing.T }

func (n nobody) Decide(_ context.Context, h Handover) (Decision, error) {
	for _, r := range h.Results {
		if r.Answer != Never {
			n.t.Errorf("asked about %s, which was %s", r.Recipient, r.Answer)
		}
	}
	return Decision{}, errors.New("away")
}

// TestGuardAsks: a point of others has no say in what is in the mailbox, what is put off
// and what is infected: that needs it not, and waits for nobody.
func TestGuardAsks(t *testing.T) {
	h := Handover{Provider: "Beta", Findings: []points.Finding{{Says: points.Infected, Virus: "Eicar-Test"}}, Results: []Result{
		{Recipient: "a@x.example", Answer: Delivered}, {Recipient: "b@x.example"}, {Recipient: "c@x.example", Answer: Held}}}
	want := []Outcome{{Kind: pec.KindDelivery, Error: pec.NoError}, {}, {Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: "Eicar-Test"}}
	if d, err := Guard(nobody{t}).Decide(context.Background(), h); err != nil || !slices.Equal(d.Outcomes, want) {
		t.Errorf("%+v, %v", d, err)
	}
	h.Results = append(h.Results, Result{Recipient: "d@x.example", Answer: Never})
	for name, p := range map[string]Point{"away": nobody{t}, "nonsense": fixed{{Kind: pec.KindDelivery, Error: pec.NoError}}} {
		if d, err := Guard(p).Decide(context.Background(), h); err == nil || !slices.Equal(d.Outcomes, append(slices.Clone(want), Outcome{})) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	own := Outcome{Kind: pec.KindNonDelivery, Error: pec.ErrorOther, Detail: "5.0.0 - Beta - no"}
	if d, err := Guard(fixed{own}).Decide(context.Background(), h); err != nil || !slices.Equal(d.Outcomes, append(slices.Clone(want), own)) {
		t.Errorf("%+v, %v", d, err)
	}
}
