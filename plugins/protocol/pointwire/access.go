// Package pointwire translates between the values of the points and the messages
// of the protocol, in both directions: what a plugin gets of a message is what
// the built-in point would have got, and it decides the same. It refuses answers
// that the protocol does not allow; whether they are lawful is for the guards of
// the points.
package pointwire

import (
	"pecd/pec"
	"pecd/pec/message"
	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points"
	"pecd/points/access"
)

// Access translates a submission to the protocol; m is how its message is
// reached.
func Access(s access.Submission, m *pluginv1.Message) *pluginv1.AccessRequest {
	l := s.Limits
	return &pluginv1.AccessRequest{
		Login: []byte(s.Login), Sender: []byte(s.Sender), SenderOurs: s.SenderOurs, Recipients: wire.Recipients(s.Recipients), Message: m,
		Limits:   &pluginv1.Limits{MaxSize: l.MaxSize, MaxRecipients: int64(l.MaxRecipients), MaxTotal: l.MaxTotal, TrustMta: l.TrustMTA},
		Findings: wire.Findings(s.Findings),
	}
}

// AccessOf translates a submission from the protocol; m is its message.
func AccessOf(r *pluginv1.AccessRequest, m *message.Message) access.Submission {
	l := r.GetLimits()
	return access.Submission{
		Login: string(r.GetLogin()), Sender: pec.Address(r.GetSender()), SenderOurs: r.GetSenderOurs(), Recipients: wire.RecipientsOf(r.GetRecipients()),
		Message: m, Facts: wire.FactsOf(r.GetMessage().GetFacts()),
		Limits:   access.Limits{MaxSize: l.GetMaxSize(), MaxRecipients: int(l.GetMaxRecipients()), MaxTotal: l.GetMaxTotal(), TrustMTA: l.GetTrustMta()},
		Findings: wire.FindingsOf(r.GetFindings()),
	}
}

var accessVerdicts = map[points.Verdict]pluginv1.AccessVerdict{points.Defer: pluginv1.AccessVerdict_ACCESS_VERDICT_DEFER,
	points.Accept: pluginv1.AccessVerdict_ACCESS_VERDICT_ACCEPT, points.Refuse: pluginv1.AccessVerdict_ACCESS_VERDICT_REFUSE}

// AccessDecision translates a decision to the protocol.
func AccessDecision(d access.Decision) *pluginv1.AccessResponse {
	w := &pluginv1.AccessResponse{Verdict: accessVerdicts[d.Verdict]}
	// More are told to nobody: a notice has its limits too.
	for _, r := range d.Reasons[:min(len(d.Reasons), protocol.MaxReasons)] {
		w.Reasons = append(w.Reasons, wire.Reason(r))
	}
	return w
}

// AccessDecisionOf translates a decision from the protocol.
func AccessDecisionOf(w *pluginv1.AccessResponse) (access.Decision, error) {
	var d access.Decision
	if w.GetVerdict() == pluginv1.AccessVerdict_ACCESS_VERDICT_UNSPECIFIED {
		return d, nil
	}
	v, ok := wire.KeyOf(accessVerdicts, w.GetVerdict())
	if !ok {
		return d, wire.Nonsense("there is no verdict %d", w.GetVerdict())
	}
	if len(w.GetReasons()) > protocol.MaxReasons {
		return d, wire.Nonsense("%d reasons; the most is %d", len(w.GetReasons()), protocol.MaxReasons)
	}
	d.Verdict = v
	for _, r := range w.GetReasons() {
		d.Reasons = append(d.Reasons, wire.ReasonOf(r))
	}
	return d, nil
}
