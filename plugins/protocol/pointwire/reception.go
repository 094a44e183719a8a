package pointwire

import (
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points/reception"
)

var classes = map[reception.Class]pluginv1.Class{reception.Other: pluginv1.Class_CLASS_OTHER,
	reception.Envelope: pluginv1.Class_CLASS_ENVELOPE, reception.Receipt: pluginv1.Class_CLASS_RECEIPT}

// Reception translates an arrival to the protocol; m is how its message is
// reached.
func Reception(a reception.Arrival, m *pluginv1.Message) *pluginv1.ReceptionRequest {
	r := &pluginv1.ReceptionRequest{
		Found:   &pluginv1.Found{Class: classes[a.Found.Class], Why: reception.Word(a.Found.Why), Event: wire.Event(a.Found.Event), Digest: wire.Text(a.Found.Digest)},
		Message: m, Bounce: a.Bounce, Sender: []byte(a.Sender), System: []byte(a.System), Service: []byte(a.Service), Gate: a.Gate,
		Unwrappable: a.Unwrappable, Findings: wire.Findings(a.Findings),
	}
	if p := a.Found.Provider; p != nil {
		r.Found.Provider, r.Found.ProviderUnit = wire.Text(p.Name), wire.Text(p.Unit)
	}
	for _, rcpt := range a.Recipients {
		r.Recipients = append(r.Recipients, &pluginv1.ReceptionRecipient{Address: []byte(rcpt.Address), RefusesOrdinary: rcpt.RefusesOrdinary})
	}
	return r
}

// ReceptionOf translates an arrival from the protocol; m is its message. Of the
// provider it has name and unit only, and it has no Original.
func ReceptionOf(r *pluginv1.ReceptionRequest, m *message.Message) (reception.Arrival, error) {
	w := r.GetFound()
	a := reception.Arrival{
		Message: m, Bounce: r.GetBounce(), Sender: pec.Address(r.GetSender()), System: pec.Address(r.GetSystem()), Service: pec.Address(r.GetService()),
		Gate: r.GetGate(), Unwrappable: r.GetUnwrappable(), Findings: wire.FindingsOf(r.GetFindings()),
	}
	ev, err := wire.EventOf(w.GetEvent())
	if err != nil {
		return a, err
	}
	class, _ := wire.KeyOf(classes, w.GetClass())
	a.Found = reception.Found{Class: class, Why: reception.Named(w.GetWhy()), Event: ev, Digest: w.GetDigest()}
	if w.GetProvider() != "" {
		a.Found.Provider = &directory.Provider{Name: w.GetProvider(), Unit: w.GetProviderUnit()}
	}
	for _, rcpt := range r.GetRecipients() {
		a.Recipients = append(a.Recipients, reception.Recipient{Address: pec.Address(rcpt.GetAddress()), RefusesOrdinary: rcpt.GetRefusesOrdinary()})
	}
	return a, nil
}

var ways = map[reception.Way]pluginv1.Way{reception.Later: pluginv1.Way_WAY_LATER, reception.Certified: pluginv1.Way_WAY_CERTIFIED,
	reception.Passed: pluginv1.Way_WAY_PASSED, reception.Service: pluginv1.Way_WAY_SERVICE, reception.Ended: pluginv1.Way_WAY_ENDED,
	reception.Bounced: pluginv1.Way_WAY_BOUNCED, reception.Wrapped: pluginv1.Way_WAY_WRAPPED, reception.Rejected: pluginv1.Way_WAY_REJECTED,
	reception.Denied: pluginv1.Way_WAY_DENIED, reception.Virus: pluginv1.Way_WAY_VIRUS}

// ReceptionDecision translates a decision to the protocol.
func ReceptionDecision(d reception.Decision) *pluginv1.ReceptionResponse {
	w := &pluginv1.ReceptionResponse{}
	for _, f := range d.Fates {
		w.Fates = append(w.Fates, &pluginv1.Fate{Way: ways[f.Way], Why: reception.Word(f.Why), Reason: wire.Reason(f.Reason)})
	}
	return w
}

// ReceptionDecisionOf translates a decision about a from the protocol.
func ReceptionDecisionOf(w *pluginv1.ReceptionResponse, a reception.Arrival) (reception.Decision, error) {
	if n := len(w.GetFates()); n != 0 && n != len(a.Recipients) {
		return reception.Decision{}, wire.Nonsense("%d fates for %d recipients", n, len(a.Recipients))
	}
	var d reception.Decision
	for _, f := range w.GetFates() {
		fate, err := fateOf(f, a)
		if err != nil {
			return reception.Decision{}, err
		}
		d.Fates = append(d.Fates, fate)
	}
	return d, nil
}

func fateOf(f *pluginv1.Fate, a reception.Arrival) (reception.Fate, error) {
	way, ok := wire.KeyOf(ways, f.GetWay())
	if !ok && f.GetWay() != pluginv1.Way_WAY_UNSPECIFIED {
		return reception.Fate{}, wire.Nonsense("there is no way %d", f.GetWay())
	}
	fate := reception.Fate{Way: way, Reason: wire.ReasonOf(f.GetReason())}
	if way == reception.Wrapped {
		if fate.Why = why(f.GetWhy(), a); fate.Why == nil {
			return reception.Fate{}, wire.Nonsense("there is no anomaly %q", f.GetWhy())
		}
	}
	return fate, nil
}

// why is the error that word names. Where it is what the verification found, that
// one says more to the operator.
func why(word string, a reception.Arrival) error {
	if word != "" && word == reception.Word(a.Found.Why) {
		return a.Found.Why
	}
	return reception.Named(word)
}
