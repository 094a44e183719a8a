package reception_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/reception"
	"pecd/signer"
)

var (
	refused  = points.Finding{Check: "policy", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}}
	infected = points.Finding{Check: "virus", Says: points.Infected, Virus: "Eicar-Test"}
	unknown  = points.Finding{Check: "away"}
)

func envelopeFor(list ...pec.Address) reception.Found {
	f := reception.Found{Class: reception.Envelope}
	f.Event.Kind = pec.KindTransport
	for _, r := range list {
		f.Event.Recipients = append(f.Event.Recipients, pec.Recipient{Address: r, Type: pec.Certified})
	}
	return f
}

func receiptOf(k pec.Kind) reception.Found {
	return reception.Found{Class: reception.Receipt, Event: pec.Event{Kind: k}}
}

func other(why error) reception.Found { return reception.Found{Why: why} }

// TestDecide: what becomes of each kind of message for one recipient.
func TestDecide(t *testing.T) {
	const bob, system, service = "bob@beta.example", "posta-certificata@beta.example", "ricevute@beta.example"
	for name, tt := range map[string]struct {
		found    reception.Found
		rcpt     reception.Recipient
		sender   pec.Address
		findings []points.Finding
		want     reception.Way
		cause    points.Cause
	}{
		"envelope":                          {found: envelopeFor(bob), want: reception.Certified},
		"infected envelope":                 {found: envelopeFor(bob), findings: []points.Finding{refused, infected}, want: reception.Virus, cause: points.Virus},
		"envelope that a check refuses":     {found: envelopeFor(bob), findings: []points.Finding{refused}, want: reception.Denied, cause: points.Policy},
		"envelope that no check looked at":  {found: envelopeFor(bob), findings: []points.Finding{unknown}, want: reception.Later},
		"envelope for another":              {found: envelopeFor("bruna@beta.example"), want: reception.Wrapped},
		"infected envelope for another":     {found: envelopeFor("bruna@beta.example"), findings: []points.Finding{infected}, want: reception.Rejected, cause: points.Virus},
		"receipt":                           {found: receiptOf(pec.KindDelivery), want: reception.Passed},
		"take-charge receipt":               {found: receiptOf(pec.KindTakeCharge), want: reception.Service},
		"virus notice":                      {found: receiptOf(pec.KindVirus), want: reception.Service},
		"receipt about a receipt":           {found: receiptOf(pec.KindDelivery), rcpt: reception.Recipient{Address: system}, want: reception.Ended},
		"receipt to the service mailbox":    {found: receiptOf(pec.KindDelivery), rcpt: reception.Recipient{Address: service}, want: reception.Passed},
		"ordinary mail":                     {found: other(signer.ErrNoSignature), want: reception.Wrapped},
		"ordinary mail that is not wanted":  {found: other(signer.ErrNoSignature), rcpt: reception.Recipient{Address: bob, RefusesOrdinary: true}, want: reception.Rejected, cause: points.Policy},
		"of a provider, not wanted":         {found: other(reception.ErrInconsistent), rcpt: reception.Recipient{Address: bob, RefusesOrdinary: true}, want: reception.Wrapped},
		"infected ordinary mail":            {found: other(signer.ErrNoSignature), findings: []points.Finding{infected}, want: reception.Rejected, cause: points.Virus},
		"ordinary mail that a check denies": {found: other(signer.ErrNoSignature), findings: []points.Finding{refused}, want: reception.Rejected, cause: points.Policy},
		"ordinary mail, check away":         {found: other(signer.ErrNoSignature), findings: []points.Finding{unknown}, want: reception.Later},
		"notification to the system":        {found: other(signer.ErrNoSignature), rcpt: reception.Recipient{Address: system}, sender: "", want: reception.Ended},
	} {
		a := reception.Arrival{Found: tt.found, Sender: "x@y.example", System: system, Service: service, Findings: tt.findings}
		if name == "notification to the system" {
			a.Sender = tt.sender
		}
		if tt.rcpt.Address == "" {
			tt.rcpt.Address = bob
		}
		a.Recipients = []reception.Recipient{tt.rcpt}
		d, err := reception.Builtin{}.Decide(context.Background(), a)
		if err != nil || d.Fates[0].Way != tt.want || d.Fates[0].Reason.Cause != tt.cause {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		// Whatever ours says is lawful.
		if _, err := reception.Guard(reception.Builtin{}).Decide(context.Background(), a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnknown: what cannot be named is not decided.
func TestUnknown(t *testing.T) {
	a := reception.Arrival{Found: other(errors.New("the disk is away")), Recipients: []reception.Recipient{{Address: "bob@beta.example"}}}
	if d, err := (reception.Builtin{}).Decide(context.Background(), a); err == nil {
		t.Errorf("%+v", d)
	}
	// Nor does it end here where a notification would.
	a.System = "bob@beta.example"
	if d, err := (reception.Builtin{}).Decide(context.Background(), a); err == nil {
		t.Errorf("%+v", d)
	}
}

// TestUnread: a disk that fails while a message is looked at makes no anomaly of it.
func TestUnread(t *testing.T) {
	broken := &message.Part{MediaType: "message/rfc822", Message: message.Message{Source: brokenSource{}, Body: message.Range{Len: 100},
		Header: header(t, "Content-Type: message/rfc822; name=postacert.eml\r\nContent-Disposition: attachment; filename=postacert.eml\r\n")}}
	_, _, err := reception.Parts(&message.Part{MediaType: "multipart/mixed", Children: []*message.Part{broken}})
	if _, known := reception.Anomaly(err); err == nil || known {
		t.Errorf("the original: %v", err)
	}
	_, err = reception.Data(&message.Part{MediaType: "application/xml", Message: message.Message{Source: brokenSource{}, Body: message.Range{Len: 100}}}, time.UTC)
	if _, known := reception.Anomaly(err); err == nil || known {
		t.Errorf("the certification data: %v", err)
	}
}

type brokenSource struct{}

func (brokenSource) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is away") }
func (brokenSource) Size() int64                       { return 1000 }

func header(t *testing.T, text string) message.Header {
	t.Helper()
	m, err := message.Read(message.Bytes(text + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m.Header
}

// fixed is a point that always decides the same.
type fixed []reception.Fate

func (f fixed) Decide(context.Context, reception.Arrival) (reception.Decision, error) {
	return reception.Decision{Fates: f}, nil
}

func TestGuard(t *testing.T) {
	no := points.Reason{Cause: points.Policy, Italian: "no", English: "no"}
	fate := func(w reception.Way) fixed { return fixed{{Way: w, Reason: no, Why: signer.ErrNoSignature}} }
	for name, tt := range map[string]struct {
		found    reception.Found
		findings []points.Finding
		says     fixed
		lawful   bool
		refuses  bool // the mailbox wants no ordinary mail
	}{
		"ordinary mail as certified":       {other(signer.ErrNoSignature), nil, fate(reception.Certified), false, false},
		"ordinary mail as receipt":         {other(signer.ErrNoSignature), nil, fate(reception.Passed), false, false},
		"ordinary mail refused":            {other(signer.ErrNoSignature), nil, fate(reception.Rejected), true, false},
		"ordinary mail lost":               {other(signer.ErrNoSignature), nil, fate(reception.Ended), false, false},
		"a provider's refused":             {other(reception.ErrNoData), nil, fate(reception.Rejected), false, false},
		"an envelope lost":                 {envelopeFor("bob@beta.example"), nil, fate(reception.Ended), false, false},
		"an envelope refused at SMTP":      {envelopeFor("bob@beta.example"), nil, fate(reception.Rejected), false, false},
		"an envelope as anomaly":           {envelopeFor("bob@beta.example"), nil, fate(reception.Wrapped), false, false},
		"an envelope denied":               {envelopeFor("bob@beta.example"), nil, fate(reception.Denied), true, false},
		"an envelope denied, no words":     {envelopeFor("bob@beta.example"), nil, fixed{{Way: reception.Denied}}, false, false},
		"an envelope put off":              {envelopeFor("bob@beta.example"), nil, fate(reception.Later), true, false},
		"all put off":                      {envelopeFor("bob@beta.example"), nil, nil, true, false},
		"a refusal overlooked":             {envelopeFor("bob@beta.example"), []points.Finding{refused}, fate(reception.Certified), true, false},
		"a virus overlooked":               {envelopeFor("bob@beta.example"), []points.Finding{infected}, fate(reception.Certified), false, false},
		"a virus made up":                  {envelopeFor("bob@beta.example"), nil, fate(reception.Virus), false, false},
		"a check that is away, overlooked": {envelopeFor("bob@beta.example"), []points.Finding{unknown}, fate(reception.Certified), false, false},
		"ordinary virus overlooked":        {other(signer.ErrNoSignature), []points.Finding{infected}, fate(reception.Wrapped), false, false},
		"ordinary refusal overlooked":      {other(signer.ErrNoSignature), []points.Finding{refused}, fate(reception.Wrapped), true, false},
		"a receipt lost":                   {receiptOf(pec.KindDelivery), nil, fate(reception.Ended), false, false},
		"a receipt refused":                {receiptOf(pec.KindDelivery), nil, fate(reception.Rejected), false, false},
		"a take-charge receipt to a user":  {receiptOf(pec.KindTakeCharge), nil, fate(reception.Passed), false, false},
		"another's envelope refused":       {envelopeFor("bruna@beta.example"), nil, fate(reception.Rejected), false, false},
		"two fates for one":                {envelopeFor("bob@beta.example"), nil, fixed{{Way: reception.Certified}, {Way: reception.Certified}}, false, false},
		"a mailbox's refusal overlooked":   {found: other(signer.ErrNoSignature), says: fate(reception.Wrapped), refuses: true},
	} {
		a := reception.Arrival{Found: tt.found, Sender: "x@y.example", System: "posta-certificata@beta.example", Findings: tt.findings,
			Recipients: []reception.Recipient{{Address: "bob@beta.example", RefusesOrdinary: tt.refuses}}}
		_, err := reception.Guard(tt.says).Decide(context.Background(), a)
		if (err == nil) != tt.lawful || err != nil && !errors.Is(err, reception.ErrUnlawful) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWords: each anomaly has a word that leads back to it.
func TestWords(t *testing.T) {
	for _, why := range []error{signer.ErrNoSignature, signer.ErrRevoked, reception.ErrNotAddressed, reception.ErrBounce, reception.ErrNoData} {
		if w := reception.Word(why); w == "" || !errors.Is(reception.Named(w), why) {
			t.Errorf("%v: %q", why, w)
		}
	}
	if reception.Word(errors.New("x")) != "" || reception.Named("x") != nil {
		t.Error("a word for nothing")
	}
}

// TestClockBehind: a signature by a certificate that is not valid yet puts a message
// off. One that has run out is an anomaly.
func TestClockBehind(t *testing.T) {
	if _, known := reception.Anomaly(fmt.Errorf("checking: %w", signer.ErrNotYet)); known {
		t.Error("a clock that may be behind makes an anomaly")
	}
	if _, known := reception.Anomaly(fmt.Errorf("checking: %w", signer.ErrExpired)); !known {
		t.Error("a certificate that has run out is nothing known")
	}
}
