package pointwire

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

func sent[M proto.Message](t testing.TB, m M) M {
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

var findings = []points.Finding{{Check: "c", Says: points.Infected, Virus: "Eicar"}}

func TestAccess(t *testing.T) {
	m := &message.Message{}
	s := access.Submission{Login: "l\xff", Sender: "s\xff", SenderOurs: true, Recipients: []pec.Recipient{{Address: "r\xff", Type: pec.Certified}}, Message: m,
		Facts: message.Facts{Size: 7, NUL: true}, Limits: access.Limits{MaxSize: 1, MaxRecipients: 2, MaxTotal: 3, TrustMTA: true}, Findings: findings}
	if n := reflect.TypeOf(s).NumField(); n != 8 {
		t.Errorf("a submission has %d fields; are they all sent?", n)
	}
	if got := AccessOf(sent(t, Access(s, &pluginv1.Message{Facts: wire.Facts(s.Facts)})), m); !reflect.DeepEqual(got, s) {
		t.Errorf("%+v\nwant %+v", got, s)
	}
	for _, d := range []access.Decision{{}, {Verdict: points.Accept}, {Verdict: points.Refuse, Reasons: []points.Reason{{Cause: points.TooLarge, Italian: "i", English: "e"}}}} {
		if got, err := AccessDecisionOf(sent(t, AccessDecision(d))); err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%+v, %v; want %+v", got, err, d)
		}
	}
	for _, w := range []*pluginv1.AccessResponse{{Verdict: 9}, {Verdict: -1}, {Reasons: make([]*pluginv1.Reason, 101), Verdict: pluginv1.AccessVerdict_ACCESS_VERDICT_REFUSE}} {
		if got, err := AccessDecisionOf(w); !errors.Is(err, wire.ErrAnswer) || got.Verdict != points.Defer {
			t.Errorf("%v: %+v, %v", w, got, err)
		}
	}
}

func arrival() reception.Arrival {
	return reception.Arrival{
		Found:   reception.Found{Class: reception.Receipt, Event: pec.Event{Kind: pec.KindDelivery, Sender: "s"}, Provider: &directory.Provider{Name: "Uno", Unit: "due"}, Digest: "ab"},
		Message: &message.Message{}, Bounce: true, Sender: "s\xff", Recipients: []reception.Recipient{{Address: "r\xff", RefusesOrdinary: true}}, System: "sys", Service: "ser",
		Gate: true, Unwrappable: true, Findings: findings}
}

func TestReception(t *testing.T) {
	a := arrival()
	if n := reflect.TypeOf(a).NumField(); n != 10 {
		t.Errorf("an arrival has %d fields; are they all sent?", n)
	}
	if got, err := ReceptionOf(sent(t, Reception(a, nil)), a.Message); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v, %v\nwant %+v", got, err, a)
	}
	a.Found = reception.Found{Why: fmt.Errorf("really: %w", reception.ErrNoData)}
	if got, err := ReceptionOf(sent(t, Reception(a, nil)), a.Message); err != nil || got.Found.Why != reception.ErrNoData {
		t.Errorf("%+v, %v", got.Found, err)
	}
}

func TestReceptionDecision(t *testing.T) {
	a := arrival()
	why := fmt.Errorf("really: %w", reception.ErrNoData)
	a.Found = reception.Found{Why: why}
	for way := reception.Later; way <= reception.Virus; way++ {
		d := reception.Decision{Fates: []reception.Fate{{Way: way, Reason: points.Reason{Cause: points.Virus, Italian: "i", English: "e"}}}}
		if way == reception.Wrapped {
			d.Fates[0].Why = why
		}
		got, err := ReceptionDecisionOf(sent(t, ReceptionDecision(d)), a)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%s: %+v, %v", way, got, err)
		}
	}
	d := reception.Decision{Fates: []reception.Fate{{Way: reception.Wrapped, Why: reception.ErrNotAddressed}}}
	if got, err := ReceptionDecisionOf(ReceptionDecision(d), a); err != nil || got.Fates[0].Why != reception.ErrNotAddressed {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ReceptionDecisionOf(nil, a); err != nil || len(got.Fates) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, fates := range [][]*pluginv1.Fate{{{Way: 11}}, {{Way: -1}}, {{Way: pluginv1.Way_WAY_WRAPPED}}, {{Way: pluginv1.Way_WAY_WRAPPED, Why: "moon"}}, {{}, {}}} {
		if got, err := ReceptionDecisionOf(&pluginv1.ReceptionResponse{Fates: fates}, a); !errors.Is(err, wire.ErrAnswer) || len(got.Fates) > 0 {
			t.Errorf("%v: %+v, %v", fates, got, err)
		}
	}
}

func TestDelivery(t *testing.T) {
	h := delivery.Handover{Provider: "Uno", Event: pec.Event{Kind: pec.KindTransport}, Findings: findings, Results: []delivery.Result{
		{Recipient: "a\xff", Answer: delivery.NotNow, Overdue: true}, {Answer: delivery.Delivered}, {Answer: delivery.Never, Code: "5.1.1", Text: "no"}, {Answer: delivery.Held}}}
	if n := reflect.TypeOf(h).NumField(); n != 4 {
		t.Errorf("a handover has %d fields; are they all sent?", n)
	}
	if got, err := DeliveryOf(sent(t, Delivery(h))); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, %v\nwant %+v", got, err, h)
	}
	d := delivery.Decision{Outcomes: []delivery.Outcome{{Kind: pec.KindDelivery, Error: pec.NoError}, {}, {Kind: pec.KindNonDelivery, Error: pec.ErrorOther, Detail: "così"}, {}}}
	if got, err := DeliveryDecisionOf(sent(t, DeliveryDecision(d)), h); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DeliveryDecisionOf(nil, h); !errors.Is(err, wire.ErrAnswer) || got.Outcomes != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// fixed decides what it is made with.
type fixed struct{ d reception.Decision }

func (f fixed) Decide(context.Context, reception.Arrival) (reception.Decision, error) {
	return f.d, nil
}

// FuzzReception: whatever bytes a reception point sends, behind the guard nothing
// is certified that is not.
func FuzzReception(f *testing.F) {
	for way := reception.Later; way <= reception.Virus; way++ {
		b, err := proto.Marshal(ReceptionDecision(reception.Decision{Fates: []reception.Fate{{Way: way, Why: reception.ErrNoData, Reason: points.Reason{Cause: points.Policy, Italian: "i", English: "e"}}}}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	a := reception.Arrival{Found: reception.Found{Why: reception.ErrNoData}, Message: &message.Message{}, Recipients: []reception.Recipient{{Address: "r"}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var w pluginv1.ReceptionResponse
		if proto.Unmarshal(b, &w) != nil {
			return
		}
		d, err := ReceptionDecisionOf(&w, a)
		if err != nil {
			return
		}
		d, err = reception.Guard(fixed{d}).Decide(context.Background(), a)
		for _, fate := range d.Fates {
			if err == nil && fate.Way != reception.Later && fate.Way != reception.Wrapped && fate.Way != reception.Rejected {
				t.Errorf("ordinary mail is %s", fate.Way)
			}
		}
	})
}
