package main

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"pecd/lmtp"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// arrivalDoor is where the MTA delivers mail for our domains: it goes to the
// reception point and on to the delivery point.
type arrivalDoor struct{ *doors }

// Begin opens a body for the message that is coming.
func (d arrivalDoor) Begin(_ context.Context, _ lmtp.Envelope) (lmtp.Message, error) {
	body, err := d.store.NewBody()
	if err != nil {
		return nil, err
	}
	return &arrival{spool: spool{body: body}, arrivalDoor: d, office: d.office.Load()}, nil
}

// An arrival is one message on its way through the reception and the delivery
// point. What it learns about each recipient goes into status, which begins with
// "later" for all.
type arrival struct {
	spool
	arrivalDoor
	office *office

	env    lmtp.Envelope
	m      *message.Message
	found  reception.Found
	status []lmtp.Status
	log    *slog.Logger
}

// End receives the message and returns the status of each recipient. A status of
// success is given only after the commit of what it stands for.
func (a *arrival) End(ctx context.Context, env lmtp.Envelope) []lmtp.Status {
	defer a.body.Close()
	defer a.observe("lmtp", a.now())
	a.env, a.status = env, make([]lmtp.Status, len(env.Recipients))
	for i := range a.status {
		a.status[i] = statusLater
	}
	a.log = a.arrivalDoor.log
	var err error
	if a.m, err = message.Read(a.body); err != nil {
		a.log.Error("message put off: its header cannot be read", "sender", env.Sender, "err", err)
		return a.status
	}
	rep, verr := a.office.verifier.Verify(a.m, a.now())
	a.found = reception.Examine(a.m, rep, verr, a.office.directory, a.office.location)
	a.metrics.arrivals.WithLabelValues(a.found.Class.String()).Inc()
	a.log = a.log.With("identifier", a.found.Event.Identifier, "kind", a.found.Event.Kind)
	if err := a.receive(ctx); err != nil {
		a.log.Error("message put off", "msgid", a.m.Header.Get("Message-ID"), "err", err)
		a.doubt.Store(true)
	}
	a.atStep(stepArrived)
	return a.status
}

// receive does what the class of the message asks for.
func (a *arrival) receive(ctx context.Context) error {
	if a.found.Class == reception.Other {
		return a.other(ctx, a.everybody(), a.found.Why)
	}
	done, err := a.turns.take(ctx, a.found.Digest)
	if err != nil {
		return err
	}
	defer done()
	if a.found.Class == reception.Envelope {
		return a.envelope(ctx)
	}
	return a.receipt(ctx)
}

// A choice is some of the message's recipients: their places in the envelope and
// the addresses to which the message is delivered for them.
type choice struct {
	at []int
	to []pec.Address
}

func (c *choice) add(i int, to pec.Address) { c.at, c.to = append(c.at, i), append(c.to, to) }

func (a *arrival) everybody() (c choice) {
	for i, r := range a.env.Recipients {
		c.add(i, pec.Address(r))
	}
	return c
}

func (a *arrival) settle(c choice, s lmtp.Status) {
	for _, i := range c.at {
		a.status[i] = s
	}
}

// envelope takes charge of a transport envelope, delivers it to those who do not
// have it yet, and certifies what the mailbox store answered.
func (a *arrival) envelope(ctx context.Context) error {
	var named, others choice
	for i, r := range addresses(a.env.Recipients) {
		if a.found.AddressedTo(r) {
			named.add(i, r)
		} else {
			others.add(i, r)
		}
	}
	if len(others.to) > 0 {
		if err := a.wrap(ctx, others, reception.ErrNotAddressed); err != nil {
			return err
		}
	}
	if len(named.to) == 0 {
		return nil
	}
	clerk := a.office.clerk
	if err := clerk.TakeCharge(ctx, a.found, named.to, ""); err != nil {
		return err
	}
	a.atStep(stepTakenInCharge)
	concluded, err := clerk.Concluded(ctx, a.found, named.to)
	if err != nil {
		return err
	}
	results, err := a.deliver(ctx, named.to, concluded, a.whole())
	if err != nil {
		return err
	}
	if err := clerk.GiveUp(ctx, a.found, results); err != nil {
		return err
	}
	if err := clerk.Deliver(ctx, a.found, results, ""); err != nil {
		return err
	}
	for j, r := range results {
		// A refusal for good has become a non-delivery notice: for the MTA the
		// matter is closed, and no bounce of its own must follow.
		if concluded[j] || r.Settled() {
			a.status[named.at[j]] = statusDone
		}
	}
	return nil
}

// receipt delivers a receipt unchanged and registers its arrival. Take-charge
// receipts and virus notices reach nobody but our own service mailbox (RFC 6109,
// 2.2.5), and receipts about receipts end here.
func (a *arrival) receipt(ctx context.Context) error {
	var ours, ends choice
	service := a.office.provider.ServiceMailbox
	for i, r := range addresses(a.env.Recipients) {
		switch {
		case a.found.ForService():
			ours.add(i, service)
		case r.Same(a.office.issuer.Address) && !r.Same(service):
			ends.add(i, r)
		default:
			ours.add(i, r)
		}
	}
	clerk := a.office.clerk
	done, err := clerk.Received(ctx, a.found, ours.to)
	if err != nil {
		return err
	}
	results, err := a.deliver(ctx, ours.to, done, a.whole())
	if err != nil {
		return err
	}
	var delivered []pec.Address
	for _, r := range results {
		if r.Answer == delivery.Delivered {
			delivered = append(delivered, r.Recipient)
		}
	}
	if err := clerk.Receive(ctx, a.found, a.messageID(), delivered, ""); err != nil {
		return err
	}
	a.settle(ends, statusDone)
	a.pass(ours, done, results)
	return nil
}

// pass tells the MTA what the mailbox store said.
func (a *arrival) pass(c choice, done []bool, results []delivery.Result) {
	for j, r := range results {
		switch {
		case done[j] || r.Answer == delivery.Delivered:
			a.status[c.at[j]] = statusDone
		case r.Answer == delivery.Never:
			a.status[c.at[j]] = statusNoMailbox
		}
	}
}

func (a *arrival) messageID() string { return strings.Trim(a.m.Header.Get("Message-ID"), "<> ") }

// whole is the message as it came.
func (a *arrival) whole() message.Content {
	return message.Section(a.body, message.Range{Len: a.body.Size()})
}

// deliver hands c to the mailbox store for those of to that are not done, and
// returns a result for each of to.
func (a *arrival) deliver(ctx context.Context, to []pec.Address, done []bool, c message.Content) ([]delivery.Result, error) {
	results := make([]delivery.Result, len(to))
	var open []int
	var rcpts []string
	for i, r := range to {
		results[i].Recipient = r
		if !done[i] {
			open, rcpts = append(open, i), append(rcpts, string(r))
		}
	}
	if len(rcpts) == 0 {
		return results, nil
	}
	if err := a.dispel(ctx); err != nil {
		return nil, err
	}
	answers, err := a.mailbox.Deliver(ctx, a.env.Sender, rcpts, c.Size(), a.scan.Facts().EightBit,
		func(w io.Writer) error { _, err := c.WriteTo(w); return err })
	if err != nil {
		a.log.Error("mailbox store", "err", err)
		return results, nil
	}
	a.atStep(stepStored)
	for j, s := range answers {
		r := &results[open[j]]
		r.Answer, r.Code = result(s)
		r.Text = s.Text
		if r.Answer != delivery.Delivered {
			a.log.Warn("mailbox store refused", "recipient", r.Recipient, "code", s.Code, "enhanced", r.Code, "text", s.Text)
		}
	}
	return results, nil
}
