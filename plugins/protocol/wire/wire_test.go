package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"pecd/pec"
	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
)

// sent is m after it went over the wire.
func sent[M proto.Message](t *testing.T, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := proto.Clone(m)
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out.(M)
}

func TestEvent(t *testing.T) {
	rome := time.FixedZone("", 7200)
	e := pec.Event{Kind: pec.KindNonDelivery, At: time.Date(2026, 7, 1, 12, 30, 15, 7, rome), Provider: "Uno", Identifier: "id@uno.example", MsgID: "<a@b>",
		Sender: "\xff@uno.example", Recipients: []pec.Recipient{{Address: "b@due.example", Type: pec.External}}, ReplyTo: "r", Subject: "così",
		Receipt: pec.Brief, Recipient: "c@due.example", Taken: []pec.Address{"d@due.example"}, Error: pec.ErrorOther, Detail: "5.0.0"}
	if n := reflect.TypeOf(e).NumField(); n != 14 {
		t.Errorf("an event has %d fields; are they all sent?", n)
	}
	got, err := EventOf(sent(t, Event(e)))
	if err != nil || !got.At.Equal(e.At) || got.At.Format(time.RFC3339) != e.At.Format(time.RFC3339) {
		t.Errorf("%v, %v", got.At, err)
	}
	if got.At = e.At; !reflect.DeepEqual(got, e) {
		t.Errorf("%+v\nwant %+v", got, e)
	}
	if got, err := EventOf(sent(t, Event(pec.Event{}))); err != nil || !reflect.DeepEqual(got, pec.Event{}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := EventOf(&pluginv1.Event{At: "yesterday"}); err == nil {
		t.Error("an instant that is none was read")
	}
}

func TestFindings(t *testing.T) {
	list := []points.Finding{{Check: "a"}, {Check: "b", Says: points.Clean}, {Check: "c", Says: points.Infected, Virus: "Eicar"},
		{Check: "d", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no!"}}}
	for i, w := range Findings(list) {
		if got := FindingsOf([]*pluginv1.Finding{sent(t, w)}); got[0] != list[i] {
			t.Errorf("%+v, want %+v", got[0], list[i])
		}
	}
	if got := FindingsOf([]*pluginv1.Finding{{Verdict: 99}}); got[0].Says != points.Unavailable {
		t.Errorf("an unknown verdict is %s", got[0].Says)
	}
}

func TestFacts(t *testing.T) {
	for _, f := range []message.Facts{{Size: 1}, {LongestLine: 2}, {EightBit: true}, {NUL: true}, {BareCR: true}, {BareLF: true}, {EndsInNewline: true}} {
		if got := FactsOf(sent(t, Facts(f))); got != f {
			t.Errorf("%+v, want %+v", got, f)
		}
	}
}

// TestAnswer: only what the protocol allows is an answer.
func TestAnswer(t *testing.T) {
	long := strings.Repeat("x", 501)
	for _, c := range []struct {
		r    *pluginv1.CheckResponse
		says points.Says
		ok   bool
	}{
		{nil, points.Unavailable, true},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_UNAVAILABLE}, points.Unavailable, true},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_CLEAN}, points.Clean, true},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "no", ReasonEnglish: "no"}, points.Refused, true},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "no"}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "no", ReasonEnglish: long}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "perché", ReasonEnglish: "no"}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "no\r\n250 ok", ReasonEnglish: "no"}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_INFECTED, Virus: "Eicar"}, points.Infected, true},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_INFECTED}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_INFECTED, Virus: long[:201]}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: 5}, points.Unavailable, false},
		{&pluginv1.CheckResponse{Verdict: -1}, points.Unavailable, false},
	} {
		f, err := Answer("check", c.r)
		if f.Says != c.says || f.Check != "check" || (err == nil) != c.ok || err != nil && !errors.Is(err, ErrAnswer) {
			t.Errorf("%v: %+v, %v", c.r, f, err)
		}
	}
}

// FuzzAnswer: whatever bytes a plugin sends, what comes out of them can be told to
// a sender.
func FuzzAnswer(f *testing.F) {
	for _, r := range []*pluginv1.CheckResponse{{}, {Verdict: pluginv1.Verdict_VERDICT_CLEAN}, {Verdict: pluginv1.Verdict_VERDICT_INFECTED, Virus: "Eicar"},
		{Verdict: pluginv1.Verdict_VERDICT_REFUSED, ReasonItalian: "no", ReasonEnglish: "no", Detail: "x"}} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r pluginv1.CheckResponse
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		got, err := Answer("check", &r)
		switch {
		case err != nil && got.Says != points.Unavailable:
			t.Errorf("%+v with %v", got, err)
		case got.Says == points.Refused && got.Reason.Check() != nil:
			t.Errorf("reason %+v", got.Reason)
		case got.Says == points.Infected && !points.Printable(got.Virus, 200):
			t.Errorf("virus %q", got.Virus)
		}
	})
}
