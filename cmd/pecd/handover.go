package main

import (
	"cmp"
	"context"
	"io"
	"time"

	"pecd/lmtp"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/delivery"
	"pecd/points/reception"
)

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
