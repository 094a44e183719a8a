package act

import (
	"context"
	"fmt"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points/reception"
)

// virusTerm is how many months an infected message is kept (RFC 6109, 2.2.4).
const virusTerm = 30

func keep(c message.Content, virus, source string, at time.Time) *logstore.Kept {
	return &logstore.Kept{Content: c, Virus: virus, Source: source, Until: at.AddDate(0, virusTerm, 0)}
}

// infected are the acts that follow from a virus notice f: a non-delivery notice
// to the sender, if the message was ours and nothing else is certified about the
// recipient.
func (c *Clerk) infected(ctx context.Context, f reception.Found, at time.Time) ([]logstore.Act, error) {
	ev, ok, err := c.sent(ctx, f.Event.Identifier)
	if err != nil || !ok {
		return nil, err
	}
	ledger, err := c.Store.Awaited(ctx, f.Event.Identifier)
	if err != nil {
		return nil, err
	}
	rcpt := named(ledger, f.Event.Recipient)
	if !waiting(ledger, rcpt) {
		return nil, nil
	}
	ev.At, ev.Provider = at, c.Issuer.Name
	ev.Recipient, ev.Error = rcpt, pec.ErrorVirus
	ev.Detail = fmt.Sprintf("5.5.1 - %s - %s", c.Issuer.Name, f.Event.Detail)
	s, err := c.sign(c.Issuer.NonDelivery(ev, c.Rand))
	if err != nil {
		return nil, fmt.Errorf("non-delivery notice for a virus: %w", err)
	}
	a := c.act(s, c.Issuer.Name, "")
	// Not a virus notice: that may be ours to ourselves, and this is what follows from it.
	delivered := a.Keys[0]
	delivered.Kind = string(pec.KindDelivery)
	a.Unless = []logstore.Key{delivered}
	a.Answer = &logstore.Answer{Identifier: ev.Identifier, Recipients: []pec.Address{ev.Recipient}, Kind: pec.KindNonDelivery, First: true}
	return []logstore.Act{a}, nil
}

// RefuseInfected registers that ordinary mail with a virus is refused at SMTP.
// The message is not kept: it was never certified (RFC 6109, 2.2.2).
func (c *Clerk) RefuseInfected(ctx context.Context, m *message.Message, sender pec.Address, rcpts []pec.Address, virus, queueID string) error {
	at := c.instant()
	id, err := issue.NewIdentifier(at, c.Issuer.Address.Domain(), c.Rand)
	if err != nil {
		return err
	}
	e := logstore.Entry{At: at, Type: logstore.EntryVirus, Identifier: id, Sender: sender, Recipients: []pec.Recipient{},
		Subject: m.Header.Text("Subject"), MsgID: m.Header.Get("Message-ID"), Error: pec.ErrorVirus, Detail: virus, QueueID: queueID}
	for _, r := range rcpts {
		e.Recipients = append(e.Recipients, pec.Recipient{Address: r})
	}
	_, err = c.Store.Commit(ctx, logstore.Tx{At: at, Acts: []logstore.Act{{Entry: e}}})
	return err
}

// Purge removes all infected messages whose term is over, registers that, and
// returns how many there were.
func (c *Clerk) Purge(ctx context.Context) (int, error) {
	for all := 0; ; {
		n, err := c.Store.PurgeInfected(ctx, c.instant())
		all += n
		if err != nil || n == 0 {
			return all, err
		}
	}
}
