package main

import (
	"context"
	"errors"
	"fmt"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/points"
	"pecd/points/reception"
)

// bounced deals with a notification about a message of ours: notices follow for
// certified recipients; about an ordinary one, and about an envelope that ordinary
// recipients got too, the user gets it himself.
func (a *arrival) bounced(ctx context.Context, c choice) error {
	b := a.bounce
	a.log.Info("notification about a message of ours", "id", b.Identifier, "failed", len(b.Failed))
	visible, err := a.office.clerk.Bounced(ctx, b, a.m)
	if err != nil {
		return err
	}
	if !visible {
		a.settle(c, statusDone)
		return nil
	}
	return a.wrap(ctx, c, reception.ErrBounce)
}

// end registers a notification that concerns nobody.
func (a *arrival) end(ctx context.Context, c choice) error {
	if err := a.office.clerk.Drop(ctx, a.messageID(), "notification to "+string(a.office.issuer.Address)); err != nil {
		return err
	}
	a.settle(c, statusDone)
	return nil
}

// reject refuses ordinary mail; a virus in it is registered first.
func (a *arrival) reject(ctx context.Context, c choice, why points.Reason) error {
	a.log.Info("ordinary mail refused", "msgid", a.messageID(), "cause", why.Cause)
	if why.Cause == points.Virus {
		a.metrics.infected.WithLabelValues(infectedOrdinary).Inc()
		if err := a.office.clerk.RefuseInfected(ctx, a.m, pec.Address(a.env.Sender), c.to, why.Italian, ""); err != nil {
			return err
		}
	}
	a.settle(c, rejected(why))
	return nil
}

// wrap delivers the message in an anomaly envelope; the store's own status is
// the answer, so that the MTA tells an ordinary sender what happened.
func (a *arrival) wrap(ctx context.Context, c choice, why error) error {
	text, ok := reception.Anomaly(why)
	if !ok {
		return fmt.Errorf("it is not known what the message is: %w", why)
	}
	// Copies that come at the same time go one after the other, as for certified
	// mail: the second finds the first delivered.
	finished, err := a.turns.take(ctx, fmt.Sprintf("anomaly %d %s", a.body.Size(), a.messageID()))
	if err != nil {
		return err
	}
	defer finished()
	clerk := a.office.clerk
	done, err := clerk.Wrapped(ctx, a.m, c.to)
	if err != nil {
		return err
	}
	anomaly, err := clerk.Wrap(a.m, a.scan.Facts(), pec.Address(a.env.Sender), c.to, text)
	if errors.Is(err, issue.ErrUnwrappable) || errors.Is(err, issue.ErrEvent) {
		a.log.Info("ordinary mail refused: no envelope can hold it", "msgid", a.messageID(), "err", err)
		a.settle(c, statusUnwrappable)
		return nil
	}
	if err != nil {
		return err
	}
	a.log.Info("anomaly", "msgid", a.messageID(), "why", why)
	results, err := a.deliver(ctx, c.to, done, anomaly.Envelope.Content())
	if err != nil {
		return err
	}
	ctx, cancel := closing(ctx)
	defer cancel()
	if err := clerk.Delivered(ctx, anomaly, results); err != nil {
		return err
	}
	a.pass(c, done, results)
	return nil
}

// What becomes of ordinary mail for a mailbox.
const (
	policyAnomaly = "anomaly" // delivered in an anomaly envelope; the default
	policyRefuse  = "refuse"  // refused at SMTP
)

// recipients tells the reception point what each mailbox wants.
func (d *doors) recipients(ctx context.Context, list []pec.Address) (out []reception.Recipient, err error) {
	for _, r := range list {
		p, err := d.policy(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, reception.Recipient{Address: r, RefusesOrdinary: p == policyRefuse})
	}
	return out, nil
}

// policy returns what was set for the mailbox, or else for its domain.
func (d *doors) policy(ctx context.Context, rcpt pec.Address) (string, error) {
	list, err := d.store.Policies(ctx, rcpt.Key(), rcpt.Domain())
	if err != nil {
		return "", err
	}
	value := policyAnomaly
	for _, p := range list {
		if p.Subject == rcpt.Key() {
			return p.Ordinary, nil
		}
		value = p.Ordinary
	}
	return value, nil
}
