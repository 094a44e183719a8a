package act

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/signer"
)

// A Wanted selects receipts and notices that we have issued; zero fields match all.
type Wanted struct {
	Identifier pec.Identifier `json:"identifier"`
	Kind       pec.Kind       `json:"kind,omitempty"`
	Recipient  pec.Address    `json:"recipient,omitempty"`
}

// ErrNotIssued says that the register has no receipt that matches.
var ErrNotIssued = errors.New("no receipt or notice of ours in the register matches")

// ErrNotAsIssued says that a receipt cannot be rendered as it was: the provider had
// another name then, for example.
var ErrNotAsIssued = errors.New("cannot be rendered as it was issued")

// maxDuplicates bounds how many are made at once.
const maxDuplicates = 1000

// Duplicate renders the receipts and notices that w selects once more, from the
// register, signs them anew and registers that; docs/decisions/0015-duplicates.md.
// service returns the service mailbox of a provider, empty if it is not known. They
// are for whoever lost them, and are not sent.
func (c *Clerk) Duplicate(ctx context.Context, w Wanted, service func(provider string) pec.Address) ([]*signer.Signed, error) {
	issued, err := c.issued(ctx, w)
	if err != nil {
		return nil, err
	}
	tx := logstore.Tx{At: c.Now()}
	var made []*signer.Signed
	for _, e := range issued {
		s, err := c.duplicate(ctx, e, issue.Duplicate{Made: tx.At.In(c.Location), Of: e.Messages[0]}, service)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Seq, err)
		}
		digest := s.Digest()
		made = append(made, s)
		tx.Acts = append(tx.Acts, logstore.Act{Entry: logstore.Entry{Type: logstore.EntryDuplicate, Identifier: e.Identifier, MsgID: e.MsgID,
			Sender: e.Sender, Recipients: e.Recipients, Subject: e.Subject, SendingProvider: e.SendingProvider, Recipient: e.Recipient,
			Messages: []string{s.MessageID()}, Digest: hex.EncodeToString(digest[:]),
			Detail: fmt.Sprintf("%s, entry %d, <%s>", e.Type, e.Seq, e.Messages[0])}})
	}
	return made, c.commitAll(ctx, tx)
}

// issued returns the entries of what w selects.
func (c *Clerk) issued(ctx context.Context, w Wanted) (list []logstore.Entry, err error) {
	err = c.Store.Search(ctx, logstore.Query{Identifier: w.Identifier}, func(e logstore.Entry) error {
		switch {
		case !Receipt(e) || w.Kind != "" && string(w.Kind) != string(e.Type) || w.Recipient != "" && !w.Recipient.Same(e.Recipient):
			return nil
		case len(list) == maxDuplicates:
			return fmt.Errorf("more than %d match; name kind and recipient", maxDuplicates)
		}
		list = append(list, e)
		return nil
	})
	if err == nil && len(list) == 0 {
		err = ErrNotIssued
	}
	return list, err
}

// Receipt reports whether e says that we issued a receipt or a notice, one that can
// be rendered again from e alone.
func Receipt(e logstore.Entry) bool {
	k := pec.Kind(e.Type)
	return k.Valid() && k != pec.KindTransport && e.Digest != "" && len(e.Messages) == 1
}

func (c *Clerk) duplicate(ctx context.Context, e logstore.Entry, of issue.Duplicate, service func(string) pec.Address) (*signer.Signed, error) {
	ev := pec.Event{Kind: pec.Kind(e.Type), At: e.At.In(c.Location), Provider: c.Issuer.Name, Identifier: e.Identifier, MsgID: e.MsgID, Sender: e.Sender,
		Recipients: e.Recipients, ReplyTo: e.ReplyTo, Subject: e.Subject, Receipt: e.Receipt, Recipient: e.Recipient, Taken: e.Taken, Error: e.Error, Detail: e.Detail}
	to := ev.Sender
	if ev.Kind == pec.KindTakeCharge || ev.Kind == pec.KindVirus {
		if to = service(e.SendingProvider); to == "" {
			to = c.Issuer.Address // it is not sent there
		}
	}
	d, err := c.Issuer.Duplicate(ev, to, of, c.Rand)
	if err != nil {
		return nil, err
	}
	if d.Event.Detail != e.Detail || d.Event.Receipt != e.Receipt || d.Event.Error != e.Error {
		return nil, fmt.Errorf("%w: %q, %q, %q become %q, %q, %q", ErrNotAsIssued, e.Receipt, e.Error, e.Detail, d.Event.Receipt, d.Event.Error, d.Event.Detail)
	}
	return c.Signer.SignContext(ctx, d)
}
