package pointwire

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"pecd/pec"
	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
)

// accessing and delivering decide what they are made with.
type accessing struct{ d access.Decision }

func (f accessing) Decide(context.Context, access.Submission) (access.Decision, error) {
	return f.d, nil
}

type delivering struct{ d delivery.Decision }

func (f delivering) Decide(context.Context, delivery.Handover) (delivery.Decision, error) {
	return f.d, nil
}

// FuzzAccess: whatever bytes an access point sends, behind the guard nobody who has
// not logged in is let in.
func FuzzAccess(f *testing.F) {
	for _, v := range []points.Verdict{points.Defer, points.Accept, points.Refuse} {
		b, err := proto.Marshal(AccessDecision(access.Decision{Verdict: v, Reasons: []points.Reason{{Cause: points.Policy, Italian: "i", English: "e"}}}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	m, err := message.Read(message.Bytes("From: a@x.example\r\nTo: b@x.example\r\n\r\n"))
	if err != nil {
		f.Fatal(err)
	}
	s := access.Submission{Sender: "a@x.example", SenderOurs: true, Message: m, Recipients: []pec.Recipient{{Address: "b@x.example", Type: pec.Certified}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var w pluginv1.AccessResponse
		if proto.Unmarshal(b, &w) != nil {
			return
		}
		d, err := AccessDecisionOf(&w)
		if err != nil {
			return
		}
		d, err = access.Guard(accessing{d}).Decide(context.Background(), s)
		if err == nil && d.Verdict == points.Accept {
			t.Error("a stranger is let in")
		}
	})
}

// FuzzDelivery: whatever bytes a delivery point sends, behind the guard a delivery is
// certified if there was one, and only then.
func FuzzDelivery(f *testing.F) {
	h := delivery.Handover{Provider: "Uno", Event: pec.Event{Kind: pec.KindTransport}, Results: []delivery.Result{
		{Recipient: "a@x.example", Answer: delivery.Delivered}, {Recipient: "b@x.example", Answer: delivery.NotNow}, {Recipient: "c@x.example", Answer: delivery.Never, Code: "5.1.1"}}}
	own, err := delivery.Builtin{}.Decide(context.Background(), h)
	if err != nil {
		f.Fatal(err)
	}
	for _, d := range []delivery.Decision{own, {Outcomes: make([]delivery.Outcome, 3)}, {}} {
		b, err := proto.Marshal(DeliveryDecision(d))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var w pluginv1.DeliveryResponse
		if proto.Unmarshal(b, &w) != nil {
			return
		}
		d, err := DeliveryDecisionOf(&w, h)
		if err != nil {
			return
		}
		if d, err = delivery.Guard(delivering{d}).Decide(context.Background(), h); err != nil {
			return
		}
		for i, o := range d.Outcomes {
			if o.Kind != own.Outcomes[i].Kind {
				t.Errorf("%q is certified of %s", o.Kind, h.Results[i].Answer)
			}
		}
	})
}
