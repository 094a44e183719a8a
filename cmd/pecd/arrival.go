package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/act"
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
	// mailboxes are the recipients as the MTA wrote them, by the names that the envelope
	// gives them, where these are others.
	mailboxes map[pec.Address]string
	direct    bool      // it comes from the outbox; the MTA gets it if not all goes well
	wait      *patience // with the mailbox store, if direct
	m         *message.Message
	found     reception.Found
	bounce    reception.Bounce // if the message is a notification about one of ours
	status    []lmtp.Status
	log       *slog.Logger
}

// End receives the message and returns the status of each recipient. A status of
// success is given only after the commit of what it stands for.
func (a *arrival) End(ctx context.Context, env lmtp.Envelope) []lmtp.Status {
	defer a.body.Close()
	defer a.observe("lmtp", a.now())
	a.env = env
	var places []int
	a.env.Recipients, places = eachOnce(env.Recipients)
	a.status = slices.Repeat([]lmtp.Status{statusLater}, len(a.env.Recipients))
	a.log = a.arrivalDoor.log
	a.arrive(ctx)
	status := make([]lmtp.Status, len(places))
	for i, at := range places {
		status[i] = a.status[at]
	}
	return status
}

// eachOnce returns the mailboxes of list, each once, and for each of list the place of
// its mailbox among them. An MTA may give a mailbox twice, its domain in other letters;
// the mailbox store may then take the message for the one and refuse it for the other.
func eachOnce(list []string) (once []string, places []int) {
	known := map[string]int{}
	for _, r := range list {
		key := pec.Address(r).Key()
		at, ok := known[key]
		if !ok {
			at = len(once)
			known[key], once = at, append(once, r)
		}
		places = append(places, at)
	}
	return once, places
}

// arrive fills in the status.
func (a *arrival) arrive(ctx context.Context) {
	var err error
	a.m, err = message.Read(a.body)
	switch {
	case errors.Is(err, message.ErrLimit), errors.Is(err, message.ErrMalformed):
		// No waiting mends it, and a day of 4xx would end in a bounce, too.
		a.log.Info("message refused: its header cannot be read", "err", err)
		a.status = slices.Repeat([]lmtp.Status{statusUnreadable}, len(a.status))
		return
	case err != nil:
		a.log.Error("message put off: its header cannot be read", "err", err)
		return
	}
	if err := a.time.stops(); err != nil {
		a.log.Error("message put off", "msgid", a.m.Header.Get("Message-ID"), "err", err)
		return
	}
	a.log = a.log.With("qid", queueID(a.m.Header))
	rep, verr := a.office.trust.verifier.VerifyContext(ctx, a.m, a.now())
	a.found = reception.Examine(a.m, rep, verr, a.office.directory, a.office.location)
	if err := a.each(ctx, rep); err != nil {
		a.putOff(err)
	}
}

// dealWith deals with the message as what was found.
func (a *arrival) dealWith(ctx context.Context) {
	a.metrics.arrivals.WithLabelValues(a.found.Class.String()).Inc()
	a.log = a.log.With("id", a.found.Event.Identifier, "kind", a.found.Event.Kind)
	if a.direct && a.found.Class == reception.Other {
		a.log.Warn("a message of ours is not certified mail to ourselves: the MTA gets it", "msgid", a.m.Header.Get("Message-ID"))
		return
	}
	if err := a.receive(ctx); err != nil {
		a.putOff(err)
	}
	a.log.Info("message received", "class", a.found.Class, "recipients", len(a.status), "settled", settledOf(a.status))
	a.atStep(stepArrived)
}

// putOff tells of err, for which the message waits.
func (a *arrival) putOff(err error) {
	a.log.Error("message put off", "msgid", a.m.Header.Get("Message-ID"), "err", err)
	a.doubtStore.Store(true)
	a.doubtKey.Store(true)
}

// settledOf counts the recipients whose matter is closed for the MTA.
func settledOf(status []lmtp.Status) (n int) {
	for _, s := range status {
		if !s.Deferred() {
			n++
		}
	}
	return n
}

// queueID is the MTA's name of a message that it delivers: the id of the topmost
// Received field, which is its own (RFC 5321, 4.4). LMTP itself does not tell it.
// Empty if there is none that could be one.
func queueID(h message.Header) string {
	text, _, _ := strings.Cut(h.Get("Received"), ";")
	words := strings.Fields(text)
	for i, w := range words {
		if w != "id" || i+1 == len(words) {
			continue
		}
		id := words[i+1]
		if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) || r > unicode.MaxASCII }) {
			return ""
		}
		return id
	}
	return ""
}

// receive asks the reception point and does what it says.
func (a *arrival) receive(ctx context.Context) error {
	q, err := a.asked(ctx)
	if err != nil {
		return err
	}
	d, err := a.office.points.reception.Decide(ctx, q)
	if err != nil {
		return err
	}
	if len(d.Fates) == 0 {
		a.log.Warn("message put off", "findings", describe(q.Findings))
		return nil
	}
	if a.found.Class == reception.Receipt {
		return a.receipt(ctx, d.Fates)
	}
	for _, g := range a.groups(d.Fates) {
		if g.Way == reception.Later {
			a.log.Warn("message put off", "findings", describe(q.Findings))
		}
		if err := a.carry(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// asked is what the reception point is asked. Receipts are not shown to checks:
// what they carry is what a user of ours sent, and was checked then.
func (a *arrival) asked(ctx context.Context) (reception.Arrival, error) {
	q := a.office.arrival(a.m, a.found, pec.Address(a.env.Sender))
	var err error
	if a.found.Class == reception.Other {
		if a.bounce, q.Bounce, err = reception.ReadBounce(a.m, q.Sender, a.office.clerk.Owner); err != nil {
			return q, err
		}
	}
	if q.Recipients, err = a.recipients(ctx, addresses(a.env.Recipients)); err != nil {
		return q, err
	}
	q.Unwrappable = a.unwrappable()
	if a.found.Class != reception.Receipt && !q.Bounce {
		q.Findings = a.look(ctx, points.Incoming)
	}
	return q, nil
}

// arrival is what the reception point is asked about m, as far as it is the same
// at the gate and here.
func (o *office) arrival(m *message.Message, f reception.Found, sender pec.Address) reception.Arrival {
	return reception.Arrival{Found: f, Message: m, Sender: sender, System: o.issuer.Address, Service: o.provider.ServiceMailbox}
}

// look shows the message to the checks of a stage.
func (a *arrival) look(ctx context.Context, stage points.Stage) []points.Finding {
	q := a.question()
	q.Identifier, q.Sender, q.Recipients = a.found.Event.Identifier, pec.Address(a.env.Sender), certified(addresses(a.env.Recipients))
	return a.office.points.look(ctx, stage, q)
}

func certified(list []pec.Address) (out []pec.Recipient) {
	for _, r := range list {
		out = append(out, pec.Recipient{Address: r, Type: pec.Certified})
	}
	return out
}

// A choice is some of the message's recipients: their places in the envelope and
// the addresses to which the message is delivered for them.
type choice struct {
	at []int
	to []pec.Address
}

func (c *choice) add(i int, to pec.Address) { c.at, c.to = append(c.at, i), append(c.to, to) }

// A group is the recipients who share a fate.
type group struct {
	reception.Fate
	choice
}

func (a *arrival) groups(fates []reception.Fate) (list []*group) {
next:
	for i, f := range fates {
		r := pec.Address(a.env.Recipients[i])
		for _, g := range list {
			if g.Way == f.Way && g.Reason == f.Reason && reception.Word(g.Why) == reception.Word(f.Why) {
				g.add(i, r)
				continue next
			}
		}
		list = append(list, &group{f, choice{[]int{i}, []pec.Address{r}}})
	}
	return list
}

func (a *arrival) settle(c choice, s lmtp.Status) {
	for _, i := range c.at {
		a.status[i] = s
	}
}

// carry carries out what was decided for g.
func (a *arrival) carry(ctx context.Context, g *group) error {
	switch g.Way {
	case reception.Certified:
		return a.envelope(ctx, g.choice, nil)
	case reception.Denied:
		return a.envelope(ctx, g.choice, []points.Finding{{Says: points.Refused, Reason: g.Reason}})
	case reception.Virus:
		return a.infected(ctx, g.choice, g.Reason)
	case reception.Bounced:
		return a.bounced(ctx, g.choice)
	case reception.Wrapped:
		return a.wrap(ctx, g.choice, g.Why)
	case reception.Rejected:
		return a.reject(ctx, g.choice, g.Reason)
	case reception.Ended:
		return a.end(ctx, g.choice)
	}
	return nil
}

// envelope takes charge of a transport envelope, delivers it to those who do not
// have it yet, and certifies what the delivery point says of the mailbox store's
// answers. With findings it is not delivered.
func (a *arrival) envelope(ctx context.Context, c choice, findings []points.Finding) error {
	clerk := a.office.clerk
	c, err := a.open(ctx, c)
	if err != nil || len(c.to) == 0 {
		return err
	}
	if err := clerk.TakeCharge(ctx, a.found, c.to, ""); err != nil {
		return a.uncertifiable(ctx, c, findings, err)
	}
	a.atStep(stepTakenInCharge)
	source := logstore.KeptReception
	if findings == nil {
		findings, source = a.look(ctx, points.Delivery), logstore.KeptDelivery
		if worst, _ := points.Worst(findings); worst.Says == points.Infected {
			a.metrics.infected.WithLabelValues(infectedEnvelope).Inc()
		}
	}
	findings = a.tellable(findings)
	results, err := a.handOver(ctx, c.to, findings)
	if err != nil {
		return err
	}
	ctx, cancel := closing(ctx)
	defer cancel()
	// While nobody vouches for the clock nothing falls due: the store is asked again.
	if !a.time.unsure() {
		if err := clerk.GiveUp(ctx, a.found, results); err != nil {
			return err
		}
	}
	d, err := a.office.points.delivery.Decide(ctx, delivery.Handover{Provider: a.office.issuer.Name, Event: a.found.Event,
		Results: results, Findings: findings})
	if len(d.Outcomes) == 0 {
		return err
	}
	return errors.Join(a.conclude(ctx, c, d.Outcomes, virusIn(findings, source)), err)
}

// uncertifiable deals with err, for which no receipt about the envelope was issued. What
// no receipt of ours can name, no waiting mends: it is as an envelope whose certification
// data is not as it must be, and goes no other way than ordinary mail.
func (a *arrival) uncertifiable(ctx context.Context, c choice, findings []points.Finding, err error) error {
	worst, found := points.Worst(findings)
	switch {
	case !errors.Is(err, issue.ErrEvent):
		return err
	case found:
		return a.reject(ctx, c, worst.Reason)
	}
	return a.wrap(ctx, c, fmt.Errorf("%w: %w", reception.ErrNoData, err))
}

// open leaves those of c of whom nothing final is certified yet; the others are
// settled.
func (a *arrival) open(ctx context.Context, c choice) (open choice, err error) {
	concluded, err := a.office.clerk.Concluded(ctx, a.found, c.to)
	if err != nil {
		return choice{}, err
	}
	for j, done := range concluded {
		if done {
			a.status[c.at[j]] = statusDone
		} else {
			open.add(c.at[j], c.to[j])
		}
	}
	return open, nil
}

// virusIn is the virus for which findings hold an envelope back; nil if it is not one.
func virusIn(findings []points.Finding, source string) *act.Virus {
	switch worst, found := points.Worst(findings); {
	case found && worst.Says == points.Infected:
		return &act.Virus{Name: worst.Virus, Source: source}
	case found && worst.Reason.Cause == points.Virus: // see tellable
		return &act.Virus{Name: worst.Reason.Italian, Source: source}
	}
	return nil
}

// conclude certifies outcomes. A refusal for good has become a non-delivery
// notice: for the MTA the matter is closed, and no bounce of its own must follow.
func (a *arrival) conclude(ctx context.Context, c choice, outcomes []delivery.Outcome, virus *act.Virus) error {
	if err := a.office.clerk.Deliver(ctx, a.found, a.whole(), virus, c.to, outcomes); err != nil {
		return err
	}
	for j, o := range outcomes {
		if o.Kind != "" {
			a.status[c.at[j]] = statusDone
		}
	}
	return nil
}

// infected tells the sender's provider of the virus, once for each recipient of
// whom nothing is certified yet, and keeps the envelope apart (RFC 6109, 3.2.3).
func (a *arrival) infected(ctx context.Context, c choice, why points.Reason) error {
	c, err := a.open(ctx, c)
	if err != nil || len(c.to) == 0 {
		return err
	}
	a.log.Warn("virus in an envelope", "virus", why.Italian)
	a.metrics.infected.WithLabelValues(infectedEnvelope).Inc()
	if a.found.Provider.ServiceMailbox == "" {
		return a.envelope(ctx, c, []points.Finding{{Says: points.Refused, Reason: why}}) // see tellable
	}
	outcomes := make([]delivery.Outcome, len(c.to))
	for i := range outcomes {
		outcomes[i] = delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: why.Italian}
	}
	err = a.conclude(ctx, c, outcomes, &act.Virus{Name: why.Italian, Source: logstore.KeptReception})
	return a.uncertifiable(ctx, c, []points.Finding{{Says: points.Refused, Reason: why}}, err)
}

// receipt delivers a receipt unchanged and registers its arrival.
func (a *arrival) receipt(ctx context.Context, fates []reception.Fate) error {
	var ours, ends choice
	for i, f := range fates {
		switch r := pec.Address(a.env.Recipients[i]); f.Way {
		case reception.Service:
			ours.add(i, a.office.provider.ServiceMailbox)
		case reception.Ended:
			ends.add(i, r)
		case reception.Passed:
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
	ctx, cancel := closing(ctx)
	defer cancel()
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
