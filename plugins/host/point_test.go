package host

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

func pointSpec(point, mode string) Spec {
	return Spec{Name: "point", Path: binary, Table: map[string]any{"point": point, "mode": mode}}
}

func submission(t testing.TB, text string) access.Submission {
	t.Helper()
	m, err := message.Read(message.Bytes(text))
	if err != nil {
		t.Fatal(err)
	}
	return access.Submission{Login: "anna@uno.example", Sender: "anna@uno.example", SenderOurs: true,
		Recipients: []pec.Recipient{{Address: "bruno@due.example", Type: pec.Certified}}, Message: m, Facts: message.Facts{Size: int64(len(text))}}
}

const good = "From: anna@uno.example\r\nTo: bruno@due.example\r\nSubject: prova\r\n\r\nciao\r\n"

// TestAccess: the built-in point decides outside of the process what it decides
// inside.
func TestAccess(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, pointSpec("access", ""))
	if h.Reception() != nil || h.Delivery() != nil || h.Checks(points.Submission) {
		t.Error("it takes more than its place")
	}
	foreign := submission(t, good)
	foreign.Login = "carla@uno.example"
	large := submission(t, good)
	large.Limits = access.Limits{MaxSize: 10, MaxRecipients: 100, MaxTotal: 1}
	refused := submission(t, good)
	refused.Findings = []points.Finding{{Check: "quota", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}}}
	infected := submission(t, good)
	infected.Findings = []points.Finding{{Check: "clamav", Says: points.Infected, Virus: "Eicar-Test"}}
	away := submission(t, good)
	away.Findings = []points.Finding{{Check: "clamav"}}
	octets := submission(t, "From: \xe8@uno.example\r\nTo: bruno@due.example\r\n\r\n")
	octets.Sender, octets.Login = "\xe8@uno.example", "\xe8@uno.example"
	for name, s := range map[string]access.Submission{"good": submission(t, good), "long": submission(t, good+strings.Repeat("ciao\r\n", 20_000)),
		"bcc": submission(t, "Bcc: carla@uno.example\r\n"+good), "foreign": foreign, "large": large, "refused": refused, "infected": infected, "away": away, "octets": octets} {
		want, err := access.Builtin{}.Decide(limit(t), s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Access().Decide(limit(t), s); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// TestAccessUnlawful: what the law forbids, no plugin can accept.
func TestAccessUnlawful(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, pointSpec("access", "accept"))
	s := submission(t, good)
	if d, err := h.Access().Decide(limit(t), s); err != nil || d.Verdict != points.Accept {
		t.Errorf("%+v, %v", d, err)
	}
	s.Login = ""
	if d, err := h.Access().Decide(limit(t), s); !errors.Is(err, access.ErrUnlawful) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestReception(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, pointSpec("reception", ""))
	m := submission(t, good).Message
	ev := pec.Event{Kind: pec.KindTransport, Recipients: []pec.Recipient{{Address: "bruno@due.example", Type: pec.Certified}}, Error: pec.NoError}
	two := []reception.Recipient{{Address: "bruno@due.example"}, {Address: "carla@due.example", RefusesOrdinary: true}}
	for name, a := range map[string]reception.Arrival{
		"envelope": {Found: reception.Found{Class: reception.Envelope, Event: ev}, Message: m, Recipients: two},
		"receipt":  {Found: reception.Found{Class: reception.Receipt, Event: pec.Event{Kind: pec.KindTakeCharge}}, Message: m, Recipients: two},
		"ordinary": {Found: reception.Found{Why: reception.ErrNoData}, Message: m, Recipients: two, Sender: "mario@ordinary.example"},
		"bounce":   {Found: reception.Found{Why: reception.ErrNoData}, Message: m, Recipients: two, Bounce: true},
		"system":   {Found: reception.Found{Why: reception.ErrNoData}, Message: m, Recipients: two[:1], System: "bruno@due.example"},
		"virus": {Found: reception.Found{Class: reception.Envelope, Event: ev}, Message: m, Recipients: two[:1],
			Findings: []points.Finding{{Says: points.Infected, Virus: "Eicar-Test"}}},
		"unwrappable": {Found: reception.Found{Why: reception.ErrNoData}, Message: m, Recipients: two, Unwrappable: true, Gate: true},
	} {
		want, err := reception.Builtin{}.Decide(limit(t), a)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Reception().Decide(limit(t), a); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	// It is not known what the message is: doubt, inside and outside.
	a := reception.Arrival{Found: reception.Found{Why: errors.New("disk on fire")}, Message: m, Recipients: two}
	if d, err := h.Reception().Decide(limit(t), a); err == nil {
		t.Errorf("%+v", d)
	}
}

func TestDelivery(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, pointSpec("delivery", ""))
	hand := delivery.Handover{Provider: "Uno PEC S.p.A.", Event: pec.Event{Subject: "così \xff"}, Results: []delivery.Result{
		{Recipient: "a@uno.example", Answer: delivery.Delivered}, {Recipient: "b@uno.example", Answer: delivery.NotNow},
		{Recipient: "c@uno.example", Answer: delivery.NotNow, Overdue: true}, {Recipient: "d@uno.example", Answer: delivery.Never, Code: "5.1.1", Text: "\xff"}}}
	held := hand
	held.Results = []delivery.Result{{Recipient: "a@uno.example", Answer: delivery.Held}}
	held.Findings = []points.Finding{{Says: points.Infected, Virus: "Eicar-Test"}}
	for _, hand := range []delivery.Handover{hand, held, {}} {
		want, err := delivery.Builtin{}.Decide(limit(t), hand)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.Delivery().Decide(limit(t), hand)
		if err != nil || len(got.Outcomes) != len(want.Outcomes) || len(want.Outcomes) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

// TestChatty: of what a plugin says of an error, a log and a terminal get only what
// they can show.
func TestChatty(t *testing.T) {
	o, r := options(t)
	h := start(t, o, pointSpec("access", "chatty"))
	if d, err := h.Access().Decide(limit(t), submission(t, good)); err == nil {
		t.Errorf("%+v", d)
	}
	last := h.Status()[0].LastError
	if !strings.Contains(last, "moon") || len(last) > 1200 || strings.ContainsFunc(last, unicode.IsControl) {
		t.Errorf("%d octets: %q", len(last), last)
	}
	if strings.Count(r.String(), "xx") > 600 {
		t.Errorf("the log: %s", r)
	}
}

// TestPointAway: without its plugin a point is in doubt.
func TestPointAway(t *testing.T) {
	o, _ := options(t)
	h, err := Start(limit(t), []Spec{pointSpec("access", "")}, o)
	if err != nil {
		t.Fatal(err)
	}
	p := h.Access()
	if err := h.Close(limit(t)); err != nil {
		t.Fatal(err)
	}
	if d, err := p.Decide(limit(t), submission(t, good)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%+v, %v", d, err)
	}
}
