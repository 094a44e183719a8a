package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/act"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// An office is one installation at work. The doors take the office in force
// when a message begins, so a reload never changes a message half way.
type office struct {
	*installation
	clerk *act.Clerk
}

// doors are what all doors share.
type doors struct {
	office  *atomic.Pointer[office]
	store   logstore.Store
	mailbox *lmtp.Store // the mailbox store behind us
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time
	atStep  func(string)
	turns   turns       // of messages that arrive, by their digest
	doubt   atomic.Bool // an arrival could not be settled: can the store be written?
}

// spool receives a message into the store and watches its octets go by.
type spool struct {
	body logstore.Body
	scan message.Scanner
}

func (s *spool) Write(p []byte) (int, error) {
	if _, err := s.scan.Write(p); err != nil {
		return 0, err
	}
	return s.body.Write(p)
}

// Abort drops the message; the MTA still has it, or its client knows.
func (s *spool) Abort() { s.body.Close() }

// accessDoor is where the MTA's submission service calls: every message there
// goes to the access point.
type accessDoor struct{ *doors }

// Begin opens a body for the message that is coming.
func (d accessDoor) Begin(_ context.Context, _ milter.Envelope) (milter.Message, error) {
	body, err := d.store.NewBody()
	if err != nil {
		return nil, err
	}
	return &submission{spool: spool{body: body}, accessDoor: d, office: d.office.Load()}, nil
}

type submission struct {
	spool
	accessDoor
	office *office
}

// End decides about the message and carries the decision out. DISCARD is said
// only after the commit.
func (s *submission) End(ctx context.Context, env milter.Envelope) milter.Verdict {
	defer s.body.Close()
	defer s.observe("access", s.now())
	v, word := s.decide(ctx, env)
	s.metrics.submissions.WithLabelValues(word).Inc()
	return v
}

func (s *submission) decide(ctx context.Context, env milter.Envelope) (milter.Verdict, string) {
	log := s.log.With("queue_id", env.QueueID, "client", env.ClientAddr)
	m, err := message.Read(s.body)
	if errors.Is(err, message.ErrLimit) || errors.Is(err, message.ErrMalformed) {
		log.Info("message refused", "cause", points.Malformed, "err", err)
		return refusal([]points.Reason{{Cause: points.Malformed, Italian: "l'intestazione non e' leggibile", English: "the header cannot be read"}}), "refuse"
	}
	if err != nil {
		log.Error("message put off: the spooled message cannot be read", "err", err)
		return later, "defer"
	}
	sub := access.Submission{Login: env.Auth, Sender: pec.Address(env.Sender), Recipients: addresses(env.Recipients), Message: m, Facts: s.scan.Facts()}
	o := access.Decide(sub, s.office.rules())
	switch o.Verdict {
	case points.Accept:
		id, err := s.office.clerk.Accept(ctx, o, m, sub.Facts, env.QueueID)
		if errors.Is(err, issue.ErrEvent) {
			// It can never be certified: an address, say, that no header field holds.
			o = access.Outcome{Verdict: points.Refuse, Reasons: []points.Reason{{Cause: points.Malformed,
				Italian: "gli indirizzi o gli identificativi del messaggio non sono certificabili", English: "addresses or identifiers of the message cannot be certified"}}}
			log.Info("message cannot be certified", "err", err)
			return s.refuse(ctx, log, o, sub, env.QueueID)
		}
		if err != nil {
			log.Error("message put off: it could not be committed", "err", err)
			return later, "defer"
		}
		log.Info("message accepted", "identifier", id)
		s.atStep(stepAccepted)
		return discard, "accept"
	case points.Refuse:
		return s.refuse(ctx, log, o, sub, env.QueueID)
	}
	return later, "defer"
}

// refuse registers the refusal before the client hears it.
func (s *submission) refuse(ctx context.Context, log *slog.Logger, o access.Outcome, sub access.Submission, queueID string) (milter.Verdict, string) {
	if err := s.office.clerk.Refuse(ctx, o, sub, queueID); err != nil {
		log.Error("message put off: its refusal could not be registered", "err", err)
		return later, "defer"
	}
	log.Info("message refused", "causes", causes(o.Reasons))
	return refusal(o.Reasons), "refuse"
}

func causes(reasons []points.Reason) string {
	s := make([]string, len(reasons))
	for i, r := range reasons {
		s[i] = string(r.Cause)
	}
	return strings.Join(s, ",")
}

func (d *doors) observe(door string, start time.Time) {
	d.metrics.duration.WithLabelValues(door).Observe(d.now().Sub(start).Seconds())
}

func addresses(list []string) []pec.Address {
	out := make([]pec.Address, len(list))
	for i, s := range list {
		out[i] = pec.Address(s)
	}
	return out
}

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

type arrival struct {
	spool
	arrivalDoor
	office *office
}

// End receives the message and returns the status of each recipient. A status of
// success is given only after the commit of what it stands for.
func (a *arrival) End(ctx context.Context, env lmtp.Envelope) []lmtp.Status {
	defer a.body.Close()
	defer a.observe("lmtp", a.now())
	status := make([]lmtp.Status, len(env.Recipients))
	for i := range status {
		status[i] = statusLater
	}
	m, err := message.Read(a.body)
	if err != nil {
		a.log.Error("message put off: its header cannot be read", "sender", env.Sender, "err", err)
		return status
	}
	found := a.examine(m)
	a.metrics.arrivals.WithLabelValues(found.Class.String()).Inc()
	log := a.log.With("identifier", found.Event.Identifier, "kind", found.Event.Kind)
	if found.Class != reception.Other {
		done, err := a.turns.take(ctx, found.Digest)
		if err != nil {
			log.Error("message put off: a copy of it takes too long", "err", err)
			return status
		}
		defer done()
	}
	switch found.Class {
	case reception.Envelope:
		err = a.envelope(ctx, env, found, status)
	case reception.Receipt:
		err = a.receipt(ctx, env, m, found, status)
	default:
		a.log.Warn("message put off: it is neither a valid envelope nor a valid receipt", "msgid", m.Header.Get("Message-ID"), "err", found.Why)
		for i := range status {
			status[i] = statusUncertain
		}
	}
	if err != nil {
		log.Error("message put off", "err", err)
		a.doubt.Store(true)
	}
	a.atStep(stepArrived)
	return status
}

func (a *arrival) examine(m *message.Message) reception.Found {
	rep, err := a.office.verifier.Verify(m, a.now())
	return reception.Examine(m, rep, err, a.office.directory, a.office.location)
}

// envelope takes charge of a transport envelope, delivers it to those who do not
// have it yet, and certifies what the mailbox store answered. status is filled
// in for each recipient as it is settled; the rest keeps what it holds.
func (a *arrival) envelope(ctx context.Context, env lmtp.Envelope, f reception.Found, status []lmtp.Status) error {
	var at []int // index of the recipient in env
	var to []pec.Address
	for i, r := range addresses(env.Recipients) {
		if !f.AddressedTo(r) {
			a.log.Warn("recipient put off: the envelope does not name him as certified", "identifier", f.Event.Identifier, "recipient", r)
			status[i] = statusForeign
			continue
		}
		at, to = append(at, i), append(to, r)
	}
	if len(to) == 0 {
		return nil
	}
	if err := a.office.clerk.TakeCharge(ctx, f, to, ""); err != nil {
		return err
	}
	a.atStep(stepTakenInCharge)
	concluded, err := a.office.clerk.Concluded(ctx, f, to)
	if err != nil {
		return err
	}
	results, err := a.deliver(ctx, env, to, concluded)
	if err != nil {
		return err
	}
	if err := a.office.clerk.Deliver(ctx, f, results, ""); err != nil {
		return err
	}
	for j, r := range results {
		// A refusal for good has become a non-delivery notice: for the MTA the
		// matter is closed, and no bounce of its own must follow.
		if concluded[j] || r.Answer != delivery.NotNow {
			status[at[j]] = statusDone
		}
	}
	return nil
}

// deliver hands the message to the mailbox store for those recipients that are
// not done, and returns a result for each of to.
func (a *arrival) deliver(ctx context.Context, env lmtp.Envelope, to []pec.Address, done []bool) ([]delivery.Result, error) {
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
	whole := message.Section(a.body, message.Range{Len: a.body.Size()})
	answers, err := a.mailbox.Deliver(ctx, env.Sender, rcpts, whole.Size(), a.scan.Facts().EightBit,
		func(w io.Writer) error { _, err := whole.WriteTo(w); return err })
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

// dispel makes sure after a failure that the store can be written before the
// mailbox store gets anything: on a full disk each attempt of the MTA would leave
// one more copy in the mailbox.
func (d *doors) dispel(ctx context.Context) error {
	if !d.doubt.Load() {
		return nil
	}
	if _, err := d.store.Commit(ctx, logstore.Tx{At: d.now()}); err != nil {
		return err
	}
	d.doubt.Store(false)
	return nil
}

// receipt delivers a receipt unchanged and registers its arrival. Take-charge
// receipts reach nobody but our own service mailbox.
func (a *arrival) receipt(ctx context.Context, env lmtp.Envelope, m *message.Message, f reception.Found, status []lmtp.Status) error {
	var at []int
	var to []pec.Address
	for i, r := range addresses(env.Recipients) {
		if f.ForService() && !r.Same(a.office.provider.ServiceMailbox) {
			status[i] = statusService
			continue
		}
		at, to = append(at, i), append(to, r)
	}
	if len(to) == 0 {
		return nil
	}
	done, err := a.office.clerk.Received(ctx, f, to)
	if err != nil {
		return err
	}
	results, err := a.deliver(ctx, env, to, done)
	if err != nil {
		return err
	}
	var delivered []pec.Address
	for _, r := range results {
		if r.Answer == delivery.Delivered {
			delivered = append(delivered, r.Recipient)
		}
	}
	id := strings.Trim(m.Header.Get("Message-ID"), "<>")
	if err := a.office.clerk.Receive(ctx, f, id, delivered, ""); err != nil {
		return err
	}
	for j, r := range results {
		switch {
		case done[j] || r.Answer == delivery.Delivered:
			status[at[j]] = statusDone
		case r.Answer == delivery.Never:
			status[at[j]] = statusNoMailbox
		}
	}
	return nil
}
