package access

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pecd/points"
)

var (
	clean    = points.Finding{Check: "one", Says: points.Clean}
	refused  = points.Finding{Check: "two", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}}
	infected = points.Finding{Check: "three", Says: points.Infected, Virus: "Eicar-Test"}
	unknown  = points.Finding{Check: "four"}
)

// TestFindings: what checks saw, and what follows from it.
func TestFindings(t *testing.T) {
	bcc := strings.Replace(good, "Subject:", "Bcc: x@beta.example\r\nSubject:", 1)
	for name, tt := range map[string]struct {
		raw      string
		login    string
		findings []points.Finding
		verdict  points.Verdict
		cause    points.Cause
	}{
		"clean":                          {good, "alice@alfa.example", []points.Finding{clean}, points.Accept, ""},
		"refused":                        {good, "alice@alfa.example", []points.Finding{clean, refused}, points.Refuse, points.Policy},
		"infected":                       {good, "alice@alfa.example", []points.Finding{infected, refused}, points.Refuse, points.Virus},
		"infected beats unknown":         {good, "alice@alfa.example", []points.Finding{unknown, infected}, points.Refuse, points.Virus},
		"unknown":                        {good, "alice@alfa.example", []points.Finding{clean, unknown}, points.Defer, ""},
		"unknown beats refused":          {good, "alice@alfa.example", []points.Finding{refused, unknown}, points.Defer, ""},
		"infected and a formal fault":    {bcc, "alice@alfa.example", []points.Finding{infected}, points.Refuse, points.Virus},
		"unknown and a formal fault":     {bcc, "alice@alfa.example", []points.Finding{unknown}, points.Refuse, points.BccPresent},
		"infected, and nobody logged in": {good, "", []points.Finding{infected}, points.Refuse, points.NotAuthenticated},
	} {
		s := submit(t, tt.raw)
		s.Login, s.Findings = tt.login, tt.findings
		d := decide(t, Builtin{}, s)
		if d.Verdict != tt.verdict || tt.cause != "" && (len(d.Reasons) != 1 || d.Reasons[0].Cause != tt.cause) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// fixed is a point that always decides the same.
type fixed Decision

func (f fixed) Decide(context.Context, Submission) (Decision, error) { return Decision(f), nil }

func TestGuard(t *testing.T) {
	accept := fixed{Verdict: points.Accept}
	refuse := func(r ...points.Reason) fixed { return fixed{Verdict: points.Refuse, Reasons: r} }
	no := points.Reason{Cause: points.Policy, Italian: "no", English: "no"}
	for name, tt := range map[string]struct {
		point  Point
		change func(*Submission)
		lawful bool
	}{
		"accepts":                        {accept, func(*Submission) {}, true},
		"sets its own limits":            {accept, func(s *Submission) { s.Facts.Size = 40_000_000 }, true},
		"overlooks a check's refusal":    {accept, func(s *Submission) { s.Findings = []points.Finding{refused} }, true},
		"overlooks a virus":              {accept, func(s *Submission) { s.Findings = []points.Finding{infected} }, false},
		"overlooks a check that is away": {accept, func(s *Submission) { s.Findings = []points.Finding{unknown} }, false},
		"lets nobody in":                 {accept, func(s *Submission) { s.Login = "" }, false},
		"lets a stranger in":             {accept, func(s *Submission) { s.SenderOurs = false }, false},
		"lets damage in":                 {accept, func(s *Submission) { s.Facts.NUL = true }, false},
		"refuses":                        {refuse(no), func(*Submission) {}, true},
		"refuses without reason":         {refuse(), func(*Submission) {}, false},
		"refuses for an unknown cause":   {refuse(points.Reason{Cause: "x", Italian: "no", English: "no"}), func(*Submission) {}, false},
		"refuses in two lines":           {refuse(points.Reason{Cause: points.Policy, Italian: "no\r\n250 ok", English: "no"}), func(*Submission) {}, false},
		"refuses at great length":        {refuse(points.Reason{Cause: points.Policy, Italian: strings.Repeat("n", 501), English: "no"}), func(*Submission) {}, false},
		"defers":                         {fixed{}, func(*Submission) {}, true},
	} {
		s := submit(t, good)
		tt.change(&s)
		d, err := Guard(tt.point).Decide(context.Background(), s)
		if (err == nil) != tt.lawful || err != nil && !errors.Is(err, ErrUnlawful) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if want := Decision(tt.point.(fixed)); err == nil && d.Verdict != want.Verdict {
			t.Errorf("%s: %v, want %v", name, d.Verdict, want.Verdict)
		}
	}
}

// TestGuardKeepsNoticesFromStrangers: a point of others may refuse by a rule of its
// own before it asks who sends. Whoever is not known to have sent the message gets no
// notice about it: the client hears the refusal.
func TestGuardKeepsNoticesFromStrangers(t *testing.T) {
	no := points.Reason{Cause: points.Policy, Italian: "no", English: "no"}
	for name, tt := range map[string]struct {
		change func(*Submission)
		formal bool
	}{
		"the user himself":        {func(*Submission) {}, true},
		"who breaks another rule": {func(s *Submission) { s.Facts.LongestLine = 2000 }, true},
		"another user":            {func(s *Submission) { s.Login = "bruno@alfa.example" }, false},
		"nobody":                  {func(s *Submission) { s.Login = "" }, false},
		"a stranger's address":    {func(s *Submission) { s.SenderOurs = false }, false},
	} {
		s := submit(t, good)
		tt.change(&s)
		d, err := Guard(fixed{Verdict: points.Refuse, Reasons: []points.Reason{no}}).Decide(context.Background(), s)
		if err != nil || points.Formal(d.Reasons) != tt.formal || d.Reasons[0] != no {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}
