package main

import (
	"context"
	"errors"
	"fmt"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/points/reception"
)

// other receives what is neither envelope nor receipt, because of why: a
// notification about a message of ours, or ordinary mail.
func (a *arrival) other(ctx context.Context, c choice, why error) error {
	if b, ok := reception.ReadBounce(a.m, pec.Address(a.env.Sender), a.office.clerk.Owner); ok {
		a.log.Info("notification about a message of ours", "identifier", b.Identifier, "failed", len(b.Failed))
		ordinary, err := a.office.clerk.Bounced(ctx, b)
		if err != nil {
			return err
		}
		if !ordinary {
			a.settle(c, statusDone)
			return nil
		}
		return a.wrap(ctx, c, reception.ErrBounce)
	}
	var users, ends choice
	for j, r := range c.to {
		if r.Same(a.office.issuer.Address) && a.env.Sender == "" {
			ends.add(c.at[j], r)
		} else {
			users.add(c.at[j], r)
		}
	}
	if len(ends.to) > 0 {
		if err := a.office.clerk.Drop(ctx, a.messageID(), "notification to "+string(a.office.issuer.Address)); err != nil {
			return err
		}
		a.settle(ends, statusDone)
	}
	return a.ordinary(ctx, users, why)
}

// ordinary refuses or wraps ordinary mail, as each mailbox has it. What a
// provider of the directory has signed is always handed on (RFC 6109, 2.2.2).
func (a *arrival) ordinary(ctx context.Context, c choice, why error) error {
	if reception.FromProvider(why) {
		return a.wrap(ctx, c, why)
	}
	var wanted choice
	for j, r := range c.to {
		p, err := a.policy(ctx, r)
		if err != nil {
			return err
		}
		if p == policyRefuse {
			a.status[c.at[j]] = statusOrdinary
			continue
		}
		wanted.add(c.at[j], r)
	}
	return a.wrap(ctx, wanted, why)
}

// wrap delivers the message in an anomaly envelope; the store's own status is
// the answer, so that the MTA tells an ordinary sender what happened.
func (a *arrival) wrap(ctx context.Context, c choice, why error) error {
	if len(c.to) == 0 {
		return nil
	}
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
