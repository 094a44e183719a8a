// Package wire translates between our values and the messages of the protocol,
// in both directions, for checks and for what the points have in common. It
// refuses answers that the protocol does not allow.
package wire

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
)

// ErrAnswer says that an answer of a plugin is none that the protocol allows.
var ErrAnswer = errors.New("the plugin's answer is not allowed by the protocol")

// Nonsense returns an ErrAnswer with what is wrong.
func Nonsense(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrAnswer}, args...)...)
}

// Text is s as a string of the protocol: UTF-8.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

var stages = map[points.Stage]pluginv1.Stage{points.Submission: pluginv1.Stage_STAGE_SUBMISSION,
	points.Incoming: pluginv1.Stage_STAGE_INCOMING, points.Delivery: pluginv1.Stage_STAGE_DELIVERY}

// Stage translates a stage to the protocol.
func Stage(s points.Stage) pluginv1.Stage { return stages[s] }

// StageOf translates a stage from the protocol; ok is false if it is not known.
func StageOf(v pluginv1.Stage) (stage points.Stage, ok bool) {
	return KeyOf(stages, v)
}

// Facts translates facts to the protocol.
func Facts(f message.Facts) *pluginv1.Facts {
	return &pluginv1.Facts{Size: f.Size, LongestLine: int64(f.LongestLine), EightBit: f.EightBit, Nul: f.NUL,
		BareCr: f.BareCR, BareLf: f.BareLF, EndsInNewline: f.EndsInNewline}
}

// FactsOf translates facts from the protocol.
func FactsOf(f *pluginv1.Facts) message.Facts {
	return message.Facts{Size: f.GetSize(), LongestLine: int(f.GetLongestLine()), EightBit: f.GetEightBit(), NUL: f.GetNul(),
		BareCR: f.GetBareCr(), BareLF: f.GetBareLf(), EndsInNewline: f.GetEndsInNewline()}
}

// Recipients translates recipients to the protocol.
func Recipients(list []pec.Recipient) []*pluginv1.Recipient {
	w := make([]*pluginv1.Recipient, len(list))
	for i, r := range list {
		w[i] = &pluginv1.Recipient{Address: []byte(r.Address), Type: Text(string(r.Type))}
	}
	return w
}

// RecipientsOf translates recipients from the protocol.
func RecipientsOf(w []*pluginv1.Recipient) []pec.Recipient {
	var list []pec.Recipient
	for _, r := range w {
		list = append(list, pec.Recipient{Address: pec.Address(r.GetAddress()), Type: pec.RecipientType(r.GetType())})
	}
	return list
}

var verdicts = map[points.Says]pluginv1.Verdict{points.Unavailable: pluginv1.Verdict_VERDICT_UNAVAILABLE, points.Clean: pluginv1.Verdict_VERDICT_CLEAN,
	points.Refused: pluginv1.Verdict_VERDICT_REFUSED, points.Infected: pluginv1.Verdict_VERDICT_INFECTED}

// Findings translates what checks saw to the protocol.
func Findings(list []points.Finding) []*pluginv1.Finding {
	w := make([]*pluginv1.Finding, len(list))
	for i, f := range list {
		w[i] = &pluginv1.Finding{Check: Text(f.Check), Verdict: verdicts[f.Says], Reason: Reason(f.Reason), Virus: Text(f.Virus)}
	}
	return w
}

// FindingsOf translates findings from the protocol; of what it does not know it
// makes Unavailable.
func FindingsOf(w []*pluginv1.Finding) []points.Finding {
	var list []points.Finding
	for _, f := range w {
		says, _ := KeyOf(verdicts, f.GetVerdict())
		list = append(list, points.Finding{Check: f.GetCheck(), Says: says, Reason: ReasonOf(f.GetReason()), Virus: f.GetVirus()})
	}
	return list
}

// Response translates what a check says to the protocol.
func Response(f points.Finding) *pluginv1.CheckResponse {
	r := &pluginv1.CheckResponse{Verdict: verdicts[f.Says]}
	switch f.Says {
	case points.Refused:
		r.ReasonItalian, r.ReasonEnglish = Text(f.Reason.Italian), Text(f.Reason.English)
	case points.Infected:
		r.Virus = Text(f.Virus)
	}
	return r
}

// Answer reads what a check said; name is the check's in the configuration.
func Answer(name string, r *pluginv1.CheckResponse) (points.Finding, error) {
	f := points.Finding{Check: name}
	switch r.GetVerdict() {
	case pluginv1.Verdict_VERDICT_UNSPECIFIED, pluginv1.Verdict_VERDICT_UNAVAILABLE:
	case pluginv1.Verdict_VERDICT_CLEAN:
		f.Says = points.Clean
	case pluginv1.Verdict_VERDICT_REFUSED:
		reason := points.Reason{Cause: points.Policy, Italian: r.GetReasonItalian(), English: r.GetReasonEnglish()}
		if err := reason.Check(); err != nil {
			return f, Nonsense("%w", err)
		}
		f.Says, f.Reason = points.Refused, reason
	case pluginv1.Verdict_VERDICT_INFECTED:
		if !points.Printable(r.GetVirus(), protocol.MaxVirus) {
			return f, Nonsense("a virus' name must be 1 to %d octets of printable ASCII", protocol.MaxVirus)
		}
		f.Says, f.Virus = points.Infected, r.GetVirus()
	default:
		return f, Nonsense("there is no verdict %d", r.GetVerdict())
	}
	return f, nil
}

// Reason translates a reason to the protocol; nil if there is none.
func Reason(r points.Reason) *pluginv1.Reason {
	if r == (points.Reason{}) {
		return nil
	}
	return &pluginv1.Reason{Cause: Text(string(r.Cause)), Italian: Text(r.Italian), English: Text(r.English)}
}

// ReasonOf translates a reason from the protocol.
func ReasonOf(r *pluginv1.Reason) points.Reason {
	return points.Reason{Cause: points.Cause(r.GetCause()), Italian: r.GetItalian(), English: r.GetEnglish()}
}

// Event translates an event to the protocol. That of a message which certifies
// nothing has no instant.
func Event(e pec.Event) *pluginv1.Event {
	w := &pluginv1.Event{Kind: Text(string(e.Kind)), Provider: Text(e.Provider), Identifier: Text(string(e.Identifier)), Msgid: Text(e.MsgID),
		Sender: []byte(e.Sender), Recipients: Recipients(e.Recipients), ReplyTo: Text(e.ReplyTo), Subject: Text(e.Subject),
		Receipt: Text(string(e.Receipt)), Recipient: []byte(e.Recipient), Error: Text(string(e.Error)), Detail: Text(e.Detail)}
	if !e.At.IsZero() {
		w.At = e.At.Format(time.RFC3339Nano)
	}
	for _, a := range e.Taken {
		w.Taken = append(w.Taken, []byte(a))
	}
	return w
}

// EventOf translates an event from the protocol.
func EventOf(w *pluginv1.Event) (pec.Event, error) {
	e := pec.Event{Kind: pec.Kind(w.GetKind()), Provider: w.GetProvider(), Identifier: pec.Identifier(w.GetIdentifier()), MsgID: w.GetMsgid(),
		Sender: pec.Address(w.GetSender()), Recipients: RecipientsOf(w.GetRecipients()), ReplyTo: w.GetReplyTo(), Subject: w.GetSubject(),
		Receipt: pec.ReceiptType(w.GetReceipt()), Recipient: pec.Address(w.GetRecipient()), Error: pec.ErrorCode(w.GetError()), Detail: w.GetDetail()}
	for _, a := range w.GetTaken() {
		e.Taken = append(e.Taken, pec.Address(a))
	}
	if w.GetAt() == "" {
		return e, nil
	}
	var err error
	e.At, err = time.Parse(time.RFC3339Nano, w.GetAt())
	return e, err
}

// KeyOf is the key of value in m; ok is false if there is none.
func KeyOf[K comparable, V comparable](m map[K]V, value V) (key K, ok bool) {
	for k, v := range m {
		if v == value {
			return k, true
		}
	}
	return key, false
}
