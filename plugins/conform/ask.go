package conform

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/plugins/host"
	"pecd/plugins/protocol"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
	"pecd/signer"
)

// ask asks the plugin about m, a check at each of its stages. An error says that
// there was no answer that counts.
func (k *kit) ask(ctx context.Context, m mail) error {
	if k.desc.Kind == protocol.KindCheck {
		for _, stage := range k.desc.Stages {
			if err := k.askAt(ctx, stage, m, certified); err != nil {
				return fmt.Errorf("%s at %s: %w", m.what, stage, err)
			}
		}
		return nil
	}
	if err := k.decide(ctx, m, certified); err != nil {
		return fmt.Errorf("%s: %w", m.what, err)
	}
	return nil
}

const (
	alice = pec.Address("alice@alfa.example")
	bob   = pec.Address("bob@beta.example")
)

// certified are the recipients of most questions.
var certified = []pec.Recipient{{Address: bob, Type: pec.Certified}}

func (k *kit) askAt(ctx context.Context, stage points.Stage, m mail, to []pec.Recipient) error {
	q := host.Question{Sender: alice, Recipients: to, Source: m.source, Range: message.Range{Len: m.source.Size()}, Facts: m.facts, QueueID: "4c1F9x0pZ1z3"}
	switch stage {
	case points.Submission:
		q.Login, q.Client, q.TLS = string(alice), "192.0.2.17", "TLSv1.3"
	case points.Delivery:
		q.Identifier = "opec1.20261122104500.00001.01.1.1@alfa.example"
	}
	found := k.host.Check(ctx, stage, q)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(found) != 1:
		return fmt.Errorf("%d findings", len(found))
	case found[0].Says == points.Unavailable:
		return errors.New(k.log.last())
	}
	return nil
}

// decide asks a point, within its guard.
func (k *kit) decide(ctx context.Context, m mail, to []pec.Recipient) error {
	if k.desc.Kind == protocol.KindDelivery {
		h := handover()
		for range len(to) - 1 {
			h.Results = append(h.Results, h.Results[0])
		}
		_, err := k.host.Delivery().Decide(ctx, h)
		return err
	}
	msg, err := message.Read(m.source)
	if err != nil {
		return fmt.Errorf("the kit itself cannot read it: %w", err)
	}
	if k.desc.Kind == protocol.KindAccess {
		s := submission(msg, m.facts)
		s.Recipients = to
		d, err := k.host.Access().Decide(ctx, s)
		if err == nil && d.Verdict == points.Defer {
			err = errors.New("it puts the message off")
		}
		return err
	}
	a := arrival(msg, reception.Found{Why: signer.ErrNoSignature})
	for _, r := range to[1:] {
		a.Recipients = append(a.Recipients, reception.Recipient{Address: r.Address})
	}
	d, err := k.host.Reception().Decide(ctx, a)
	if err == nil && len(d.Fates) == 0 {
		err = errors.New("it puts the message off")
	}
	return err
}

func submission(m *message.Message, f message.Facts) access.Submission {
	return access.Submission{Login: string(alice), Sender: alice, SenderOurs: true, Recipients: certified, Message: m, Facts: f,
		Limits: access.Limits{MaxSize: largeSize + 1<<20, MaxRecipients: 500, MaxTotal: largeSize + 1<<20}}
}

func arrival(m *message.Message, f reception.Found) reception.Arrival {
	return reception.Arrival{Found: f, Message: m, Sender: alice, Recipients: []reception.Recipient{{Address: bob}},
		System: "posta-certificata@beta.example", Service: "ricevute@beta.example"}
}

func handover() delivery.Handover {
	return delivery.Handover{Provider: "Beta PEC S.p.A.", Event: event(pec.KindTransport),
		Results: []delivery.Result{{Recipient: bob, Answer: delivery.Never, Code: "5.1.1"}}} // about others it is not asked
}

// event is one that a system message of the kind certifies.
func event(kind pec.Kind) pec.Event {
	ev := pec.Event{Kind: kind, Provider: "Alfa PEC S.p.A.", Identifier: "opec1.20261122104500.00001.01.1.1@alfa.example",
		MsgID: "<check-1@alfa.example>", Sender: alice, Recipients: certified, ReplyTo: string(alice), Subject: "Offerta n. 12",
		Receipt: pec.Complete, Error: pec.NoError}
	switch kind {
	case pec.KindDelivery, pec.KindNonDelivery, pec.KindVirus:
		ev.Recipient = bob
	case pec.KindTakeCharge:
		ev.Taken = []pec.Address{bob}
	}
	return ev
}

func answer(ctx context.Context, k *kit) error {
	for _, m := range []mail{plain(), filed()} {
		if err := k.ask(ctx, m); err != nil {
			return err
		}
	}
	k.state = answers
	return nil
}

// findings are what checks before a point may have seen.
var findings = map[string][]points.Finding{
	"no checks":                nil,
	"clean":                    {{Check: "one", Says: points.Clean}},
	"a refusal":                {{Check: "one", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}}},
	"a virus":                  {{Check: "one", Says: points.Infected, Virus: "Eicar-Test-Signature"}},
	"a check that cannot tell": {{Check: "one"}},
}

// lawful asks a point in all circumstances; its guard says what is against the
// law.
func lawful(ctx context.Context, k *kit) error {
	if !k.point() {
		return skip("a check decides nothing")
	}
	msg, err := message.Read(plain().source)
	if err != nil {
		return err
	}
	for seen, f := range findings {
		var err error
		switch k.desc.Kind {
		case protocol.KindAccess:
			err = k.lawfulAccess(ctx, msg, f)
		case protocol.KindReception:
			err = k.lawfulReception(ctx, msg, f)
		default:
			err = k.lawfulDelivery(ctx, f)
		}
		if err != nil {
			return fmt.Errorf("with %s: %w", seen, err)
		}
	}
	return nil
}

func (k *kit) lawfulAccess(ctx context.Context, msg *message.Message, f []points.Finding) error {
	for what, change := range map[string]func(*access.Submission){
		"a plain message":       func(*access.Submission) {},
		"nobody logged in":      func(s *access.Submission) { s.Login = "" },
		"a sender of elsewhere": func(s *access.Submission) { s.SenderOurs = false },
		"another login":         func(s *access.Submission) { s.Login = "anna@alfa.example" },
		"another recipient": func(s *access.Submission) {
			s.Recipients = []pec.Recipient{{Address: "x@ordinary.example", Type: pec.External}}
		},
		"NUL octets": func(s *access.Submission) { s.Facts.NUL = true },
		"too large":  func(s *access.Submission) { s.Facts.Size = 1 << 40 },
	} {
		s := submission(msg, plain().facts)
		s.Findings = f
		change(&s)
		if _, err := k.host.Access().Decide(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (k *kit) lawfulReception(ctx context.Context, msg *message.Message, f []points.Finding) error {
	of := &directory.Provider{Name: "Alfa PEC S.p.A."}
	found := func(c reception.Class, kind pec.Kind) reception.Found {
		return reception.Found{Class: c, Event: event(kind), Provider: of, Digest: strings.Repeat("0a", 32)}
	}
	for what, a := range map[string]reception.Arrival{
		"an envelope":           arrival(msg, found(reception.Envelope, pec.KindTransport)),
		"a delivery receipt":    arrival(msg, found(reception.Receipt, pec.KindDelivery)),
		"a take-charge receipt": arrival(msg, found(reception.Receipt, pec.KindTakeCharge)),
		"a virus notice":        arrival(msg, found(reception.Receipt, pec.KindVirus)),
		"ordinary mail":         arrival(msg, reception.Found{Why: signer.ErrNoSignature}),
		"an altered envelope":   arrival(msg, reception.Found{Why: signer.ErrAltered}),
		"a damaged envelope":    arrival(msg, reception.Found{Why: reception.ErrInconsistent}),
	} {
		a.Findings = f
		for circumstance, change := range map[string]func(*reception.Arrival){
			"as it is":          func(*reception.Arrival) {},
			"at the gate":       func(a *reception.Arrival) { a.Gate = true },
			"as a notification": func(a *reception.Arrival) { a.Sender, a.Bounce = "", a.Found.Class == reception.Other },
			"for certified mail only": func(a *reception.Arrival) {
				a.Recipients = []reception.Recipient{{Address: bob, RefusesOrdinary: true}}
			},
			"for somebody else": func(a *reception.Arrival) { a.Recipients = []reception.Recipient{{Address: "bruna@beta.example"}} },
			"not to be wrapped": func(a *reception.Arrival) { a.Unwrappable = true },
		} {
			a := a
			change(&a)
			if _, err := k.host.Reception().Decide(ctx, a); err != nil {
				return fmt.Errorf("%s %s: %w", what, circumstance, err)
			}
		}
	}
	return nil
}

func (k *kit) lawfulDelivery(ctx context.Context, f []points.Finding) error {
	h := handover()
	h.Findings = f
	h.Results = []delivery.Result{
		{Recipient: bob, Answer: delivery.Delivered},
		{Recipient: bob, Answer: delivery.NotNow, Code: "4.2.2", Text: "full"},
		{Recipient: bob, Answer: delivery.NotNow, Code: "4.2.2", Overdue: true},
		{Recipient: bob, Answer: delivery.Never, Code: "5.1.1", Text: "no such user"},
		{Recipient: bob, Answer: delivery.Never, Code: "5.2.2"},
		{Recipient: bob, Answer: delivery.Never},
		{Recipient: bob, Answer: delivery.Held},
	}
	_, err := k.host.Delivery().Decide(ctx, h)
	return err
}

// parallel is how many calls pecd makes at the same time.
const parallel = 32

// together calls f parallel times at once and returns the first error.
func together(f func(int) error) error {
	errs := make(chan error, parallel)
	var wg sync.WaitGroup
	for i := range parallel {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs <- f(i)
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func concurrency(ctx context.Context, k *kit) error {
	list := []mail{plain(), filed()}
	return together(func(i int) error { return k.ask(ctx, list[i%2]) })
}

// shown is how many odd messages without an answer are told of; the rest is
// likely to have the same reason.
const shown = 5

func odd(ctx context.Context, k *kit) error {
	var errs []error
	more := 0
	for _, m := range oddities() {
		err := k.ask(ctx, m)
		switch {
		case err != nil && len(errs) < shown:
			errs = append(errs, err)
		case err != nil:
			more++
		}
	}
	if more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// recipients are five times as many as Postfix takes where nobody has changed it.
const recipients = 5000

func manyRecipients(ctx context.Context, k *kit) error {
	to := make([]pec.Recipient, 0, recipients)
	for i := range cap(to) {
		to = append(to, pec.Recipient{Address: pec.Address(fmt.Sprintf("recipient-%d\xff%s@beta.example", i, strings.Repeat("x", 60))), Type: pec.External})
	}
	to[0] = certified[0]
	if !k.point() {
		return k.askAt(ctx, k.desc.Stages[0], plain(), to)
	}
	return k.decide(ctx, plain(), to)
}
