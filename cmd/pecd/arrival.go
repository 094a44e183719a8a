package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points"
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
	if findings == nil {
		findings = a.look(ctx, points.Delivery)
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
	return errors.Join(a.conclude(ctx, c, d.Outcomes, logstore.KeptDelivery), err)
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

// handOver delivers the envelope, unless findings hold it back.
func (a *arrival) handOver(ctx context.Context, to []pec.Address, findings []points.Finding) ([]delivery.Result, error) {
	worst, found := points.Worst(findings)
	if !found {
		return a.deliver(ctx, to, make([]bool, len(to)), a.whole())
	}
	a.log.Warn("not delivered", "findings", describe(findings))
	results := make([]delivery.Result, len(to))
	for i, r := range to {
		results[i].Recipient = r
		if worst.Says != points.Unavailable {
			results[i].Answer = delivery.Held
		}
	}
	return results, nil
}

// conclude certifies outcomes. A refusal for good has become a non-delivery
// notice: for the MTA the matter is closed, and no bounce of its own must follow.
func (a *arrival) conclude(ctx context.Context, c choice, outcomes []delivery.Outcome, source string) error {
	if err := a.office.clerk.Deliver(ctx, a.found, a.whole(), source, c.to, outcomes); err != nil {
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
	err = a.conclude(ctx, c, outcomes, logstore.KeptReception)
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

// deliver hands c to the mailbox store for those of to that are not done, and
// returns a result for each of to.
func (a *arrival) deliver(ctx context.Context, to []pec.Address, done []bool, c message.Content) ([]delivery.Result, error) {
	results := make([]delivery.Result, len(to))
	var open []int
	var rcpts []string
	for i, r := range to {
		results[i].Recipient = r
		if !done[i] {
			open, rcpts = append(open, i), append(rcpts, cmp.Or(a.mailboxes[r], string(r)))
		}
	}
	if len(rcpts) == 0 {
		return results, nil
	}
	// Of a receipt nothing is signed, but for the notice that follows from one of a virus.
	signs := a.found.Class == reception.Envelope || a.found.Event.Kind == pec.KindVirus
	if err := a.dispel(ctx, signs); err != nil {
		return nil, err
	}
	// Some at a time, and no longer than leaves time to certify what the store has
	// said: its answers come when it is done with all whom it was given.
	asked, cancel := context.WithTimeout(ctx, cmp.Or(a.storeTime, storeTime))
	defer cancel()
	for len(rcpts) > 0 && asked.Err() == nil {
		n := min(len(rcpts), storePortion)
		answers, err := a.mailbox.Deliver(asked, a.env.Sender, rcpts[:n], c.Size(), a.scan.Facts().EightBit,
			func(w io.Writer) error {
				_, err := c.WriteTo(w)
				if err == nil {
					a.wait.owes()
				}
				return err
			})
		a.wait.owesNot()
		if err != nil {
			a.log.Error("mailbox store", "err", err)
			break
		}
		a.atStep(stepStored)
		for j, s := range answers {
			a.answered(&results[open[j]], s)
		}
		open, rcpts = open[n:], rcpts[n:]
	}
	return results, nil
}

// How the mailbox store is asked: how long all in all, and how many recipients of one
// message at a time. The door allows itself five minutes.
const (
	storeTime    = 4 * time.Minute
	storePortion = 50
)

// closingTime is what is left at least for what follows when the mailbox store has
// answered: hundreds of receipts may have to be signed, by a slow key.
const closingTime = time.Minute

// closing is the context of what follows the mailbox store's answers. Also where time
// is over, or pecd is stopping, they must be certified: else the store gets the
// message again, and again nobody hears of it.
func closing(ctx context.Context) (context.Context, context.CancelFunc) {
	until := time.Now().Add(closingTime)
	if end, ok := ctx.Deadline(); ok && end.After(until) {
		until = end
	}
	return context.WithDeadline(context.WithoutCancel(ctx), until)
}

// answered notes what the mailbox store said of one recipient.
func (a *arrival) answered(r *delivery.Result, s lmtp.Status) {
	r.Answer, r.Code = result(s)
	r.Text = s.Text
	if a.direct && r.Answer == delivery.Never {
		// The MTA may know the address by another name. It asks the store again.
		r.Answer = delivery.NotNow
	}
	if r.Answer != delivery.Delivered {
		a.log.Warn("mailbox store refused", "recipient", r.Recipient, "code", s.Code, "enhanced", r.Code, "text", s.Text)
	}
}
