package act

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points/delivery"
	"pecd/signer"
)

// An Anomaly is a message that is not certified mail and goes to its recipients
// in an anomaly envelope (busta di anomalia; RFC 6109, 3.2.2).
type Anomaly struct {
	Envelope *signer.Signed
	event    pec.Event
	digest   string
}

// Wrap makes the anomaly envelope around m for rcpts. text is the concise reason,
// in Italian. An envelope is delivered, not sent: it is registered by Delivered.
func (c *Clerk) Wrap(m *message.Message, facts message.Facts, sender pec.Address, rcpts []pec.Address, text string) (*Anomaly, error) {
	digest, err := contentDigest(m)
	if err != nil {
		return nil, err
	}
	at := c.instant()
	id, err := issue.NewIdentifier(at, c.Issuer.Address.Domain(), c.Rand)
	if err != nil {
		return nil, err
	}
	ev := pec.Event{Kind: pec.KindAnomaly, At: at, Provider: c.Issuer.Name, Identifier: id, Sender: sender,
		Subject: m.Header.Text("Subject"), Error: pec.ErrorOther, Detail: text}
	for _, r := range rcpts {
		ev.Recipients = append(ev.Recipients, pec.Recipient{Address: r, Type: pec.Certified})
	}
	s, err := c.sign(c.Issuer.Anomaly(ev, m, facts, c.Rand))
	if err != nil {
		return nil, fmt.Errorf("anomaly envelope: %w", err)
	}
	return &Anomaly{Envelope: s, event: ev, digest: digest}, nil
}

// anomalyKey keeps a message from being delivered to a mailbox again, when the MTA
// missed our answer. Messages that are alike to the octet are one.
func anomalyKey(digest string, rcpt pec.Address) logstore.Key {
	return logstore.Key{Kind: string(pec.KindAnomaly) + ":" + digest, Recipient: rcpt}
}

// Wrapped returns for each of rcpts whether m is in his mailbox already.
func (c *Clerk) Wrapped(ctx context.Context, m *message.Message, rcpts []pec.Address) ([]bool, error) {
	digest, err := contentDigest(m)
	if err != nil {
		return nil, err
	}
	keys := make([]logstore.Key, len(rcpts))
	for i, r := range rcpts {
		keys[i] = anomalyKey(digest, r)
	}
	return c.Store.Issued(ctx, keys)
}

func contentDigest(m *message.Message) (string, error) {
	h := sha256.New()
	if _, err := content(m).WriteTo(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Delivered registers the anomaly envelope for each recipient into whose mailbox
// it went.
func (c *Clerk) Delivered(ctx context.Context, a *Anomaly, results []delivery.Result) error {
	tx := logstore.Tx{At: a.event.At}
	d := a.Envelope.Digest()
	for _, r := range results {
		if r.Answer != delivery.Delivered {
			continue
		}
		e := c.entry(a.event, "", "")
		e.Recipient, e.Messages, e.Digest = r.Recipient, []string{a.Envelope.MessageID()}, hex.EncodeToString(d[:])
		tx.Acts = append(tx.Acts, logstore.Act{Keys: []logstore.Key{anomalyKey(a.digest, r.Recipient)}, Entry: e})
	}
	if len(tx.Acts) == 0 {
		return nil
	}
	_, err := c.Store.Commit(ctx, tx)
	return err
}

// SetPolicy sets what becomes of ordinary mail for a mailbox or a domain, and
// registers the change.
func (c *Clerk) SetPolicy(ctx context.Context, p logstore.Policy) error {
	at := c.instant()
	value := p.Ordinary
	if value == "" {
		value = "default"
	}
	e := logstore.Entry{Type: logstore.EntryPolicy, Recipients: []pec.Recipient{}, SendingProvider: c.Issuer.Name,
		Detail: p.Subject + ": ordinary-mail " + value}
	if strings.Contains(p.Subject, "@") {
		e.Recipient = pec.Address(p.Subject)
	}
	_, err := c.Store.Commit(ctx, logstore.Tx{At: at, Acts: []logstore.Act{{Entry: e, Policy: &p}}})
	return err
}
