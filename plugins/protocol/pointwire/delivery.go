package pointwire

import (
	"pecd/pec"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points/delivery"
)

var answers = map[delivery.Answer]pluginv1.Answer{delivery.NotNow: pluginv1.Answer_ANSWER_NOT_NOW, delivery.Delivered: pluginv1.Answer_ANSWER_DELIVERED,
	delivery.Never: pluginv1.Answer_ANSWER_NEVER, delivery.Held: pluginv1.Answer_ANSWER_HELD}

// Delivery translates a handover to the protocol.
func Delivery(h delivery.Handover) *pluginv1.DeliveryRequest {
	r := &pluginv1.DeliveryRequest{Provider: wire.Text(h.Provider), Event: wire.Event(h.Event), Findings: wire.Findings(h.Findings)}
	for _, s := range h.Results {
		r.Results = append(r.Results, &pluginv1.Result{Recipient: []byte(s.Recipient), Answer: answers[s.Answer], Code: wire.Text(s.Code),
			Text: wire.Text(s.Text), Overdue: s.Overdue})
	}
	return r
}

// DeliveryOf translates a handover from the protocol.
func DeliveryOf(r *pluginv1.DeliveryRequest) (delivery.Handover, error) {
	h := delivery.Handover{Provider: r.GetProvider(), Findings: wire.FindingsOf(r.GetFindings())}
	var err error
	if h.Event, err = wire.EventOf(r.GetEvent()); err != nil {
		return h, err
	}
	for _, s := range r.GetResults() {
		answer, _ := wire.KeyOf(answers, s.GetAnswer())
		h.Results = append(h.Results, delivery.Result{Recipient: pec.Address(s.GetRecipient()), Answer: answer, Code: s.GetCode(),
			Text: s.GetText(), Overdue: s.GetOverdue()})
	}
	return h, nil
}

// DeliveryDecision translates a decision to the protocol.
func DeliveryDecision(d delivery.Decision) *pluginv1.DeliveryResponse {
	w := &pluginv1.DeliveryResponse{}
	for _, o := range d.Outcomes {
		w.Outcomes = append(w.Outcomes, &pluginv1.Outcome{Kind: wire.Text(string(o.Kind)), Error: wire.Text(string(o.Error)), Detail: wire.Text(o.Detail)})
	}
	return w
}

// DeliveryDecisionOf translates a decision about h from the protocol. Kinds and
// errors that are not known are for delivery.Guard to refuse.
func DeliveryDecisionOf(w *pluginv1.DeliveryResponse, h delivery.Handover) (delivery.Decision, error) {
	if n := len(w.GetOutcomes()); n != len(h.Results) {
		return delivery.Decision{}, wire.Nonsense("%d outcomes for %d results", n, len(h.Results))
	}
	var d delivery.Decision
	for _, o := range w.GetOutcomes() {
		d.Outcomes = append(d.Outcomes, delivery.Outcome{Kind: pec.Kind(o.GetKind()), Error: pec.ErrorCode(o.GetError()), Detail: o.GetDetail()})
	}
	return d, nil
}
