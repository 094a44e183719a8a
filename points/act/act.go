// Package act carries out what the points decide: it renders what is to be
// issued, signs it, and commits it with its register entries in one
// transaction. Each function reads the clock once; everything it issues carries
// that instant (RFC 6109, 4.1). When it returns nil all of it is on stable
// storage, and whoever called may tell the MTA so.
package act

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
	"pecd/signer"
)

// ErrRace says that somebody else certified the same at the same time; nothing
// was committed, and the MTA is to try again.
var ErrRace = errors.New("certified by another transaction at the same time")

// A Clerk issues in the name of one provider. Its methods may be called
// concurrently.
type Clerk struct {
	Issuer issue.Issuer
	Signer *signer.Signer
	Store  logstore.Store
	// Secret is the store's; see EnvelopeID.
	Secret []byte
	// Witness says whether receipts bear how far the register is
	// (docs/decisions/0014-witness-field.md).
	Witness bool
	// BriefHash is the hash of brief receipts (RFC 6109, 3.3.2.2).
	BriefHash func() hash.Hash
	// Now is the clock, Location the legal time, Rand the source of identifiers
	// and boundaries.
	Now      func() time.Time
	Location *time.Location
	Rand     io.Reader
}

// instant reads the clock: whole seconds of legal time, which is all that the
// texts and the certification data can say.
func (c *Clerk) instant() time.Time {
	return c.Now().In(c.Location).Truncate(time.Second)
}

// Accept issues the transport envelope and the acceptance receipt of a message
// that the access point accepted (RFC 6109, 3.1.4 and 3.1.5), and opens the
// ledger for each certified recipient.
func (c *Clerk) Accept(ctx context.Context, ev pec.Event, original *message.Message, facts message.Facts, queueID string) (pec.Identifier, error) {
	ev.At = c.instant()
	id, err := issue.NewIdentifier(ev.At, c.Issuer.Address.Domain(), c.Rand)
	if err != nil {
		return "", err
	}
	ev.Identifier = id
	envelope, err := c.sign(c.Issuer.Transport(ev, original, facts, c.Rand))
	if err != nil {
		return "", fmt.Errorf("transport envelope: %w", err)
	}
	// The acceptance receipt is about the whole message; it does not carry the
	// wish for a kind of delivery receipt.
	ev.Receipt = ""
	receipt, err := c.sign(c.witnessed(ctx).Acceptance(ev, c.Rand))
	if err != nil {
		return "", fmt.Errorf("acceptance receipt: %w", err)
	}
	tx := logstore.Tx{At: ev.At, Acts: []logstore.Act{
		c.act(envelope, c.Issuer.Name, queueID),
		c.act(receipt, c.Issuer.Name, queueID),
	}}
	tx.Acts[0].EnvelopeID = c.EnvelopeID(id)
	for _, r := range ev.Recipients {
		if r.Type == pec.Certified {
			tx.Acts[0].Await = append(tx.Acts[0].Await, r.Address)
		}
	}
	return id, c.commitAll(ctx, tx)
}

// NonAccept issues the notice that a message was not accepted, to the reverse
// path: for formal exceptions with all reasons (RFC 6109, 3.1.2), or for a virus
// (3.1.3), and then the original is kept apart.
func (c *Clerk) NonAccept(ctx context.Context, ev pec.Event, reasons []points.Reason, original *message.Message, queueID string) (pec.Identifier, error) {
	ev.At = c.instant()
	id, err := issue.NewIdentifier(ev.At, c.Issuer.Address.Domain(), c.Rand)
	if err != nil {
		return "", err
	}
	ev.Identifier, ev.Receipt = id, ""
	ev.Error, ev.Detail = pec.ErrorOther, points.Italian(reasons)
	virus, infected := points.Find(reasons, points.Virus)
	if infected {
		ev.Error, ev.Detail = pec.ErrorVirus, virus.Italian
	}
	s, err := c.sign(c.Issuer.NonAcceptance(ev, c.Rand))
	if err != nil {
		return "", fmt.Errorf("non-acceptance notice: %w", err)
	}
	a := c.act(s, c.Issuer.Name, queueID)
	if infected {
		a.Keep = keep(content(original), virus.Italian, logstore.KeptAccess, ev.At)
	}
	return id, c.commitAll(ctx, logstore.Tx{At: ev.At, Acts: []logstore.Act{a}})
}

// Refuse writes into the register that a message was refused at the access
// point. Nothing is issued: the sender hears it in the SMTP reply.
func (c *Clerk) Refuse(ctx context.Context, reasons []points.Reason, s access.Submission, queueID string) error {
	at := c.instant()
	id, err := issue.NewIdentifier(at, c.Issuer.Address.Domain(), c.Rand)
	if err != nil {
		return err
	}
	e := logstore.Entry{At: at, Type: logstore.EntryRefused, Identifier: id, Sender: s.Sender, Recipients: []pec.Recipient{},
		Subject: s.Message.Header.Text("Subject"), MsgID: s.Message.Header.Get("Message-ID"), SendingProvider: c.Issuer.Name,
		Error: pec.ErrorOther, Detail: points.Describe(reasons), QueueID: queueID}
	for _, r := range s.Recipients {
		e.Recipients = append(e.Recipients, pec.Recipient{Address: r.Address})
	}
	_, err = c.Store.Commit(ctx, logstore.Tx{At: at, Acts: []logstore.Act{{Entry: e}}})
	return err
}

// TakeCharge issues one take-charge receipt for those of rcpts that have none
// yet (RFC 6109, 3.2.1). What was judged then is remembered with it: see TakenFrom.
func (c *Clerk) TakeCharge(ctx context.Context, f reception.Found, rcpts []pec.Address, queueID string) error {
	keys := make([]logstore.Key, len(rcpts))
	for i, r := range rcpts {
		keys[i] = key(pec.KindTakeCharge, f, r)
	}
	issued, err := c.Store.Issued(ctx, keys)
	if err != nil {
		return err
	}
	var fresh []logstore.Key
	var taken []pec.Address
	for i, done := range issued {
		if !done {
			fresh, taken = append(fresh, keys[i], takenKey(f, rcpts[i])), append(taken, rcpts[i])
		}
	}
	if len(taken) == 0 {
		return nil
	}
	ev := c.follow(f, c.instant())
	ev.Receipt, ev.Taken = "", taken
	s, err := c.sign(c.witnessed(ctx).TakeCharge(ev, f.Provider.ServiceMailbox, c.Rand))
	if err != nil {
		return fmt.Errorf("take-charge receipt: %w", err)
	}
	a := c.act(s, f.Provider.Name, queueID)
	a.Keys = fresh
	return c.commitAll(ctx, logstore.Tx{At: ev.At, Acts: []logstore.Act{a}})
}

// takenKey says that what f was judged by was taken in charge for rcpt. It bears no name
// of a provider: under another name it is the same message.
func takenKey(f reception.Found, rcpt pec.Address) logstore.Key {
	return logstore.Key{Kind: string(pec.KindTakeCharge) + ":" + f.Basis, Identifier: f.Event.Identifier, Recipient: rcpt}
}

// TakenFrom returns for each of rcpts the name of the provider from which we took the
// envelope f in charge for him, as the register has it; empty where we did not, or where
// an earlier version did, which remembered no Basis. f need not be what anybody would
// judge so today; its Provider does not count.
func (c *Clerk) TakenFrom(ctx context.Context, f reception.Found, rcpts []pec.Address) ([]string, error) {
	keys := make([]logstore.Key, len(rcpts))
	for i, r := range rcpts {
		keys[i] = takenKey(f, r)
	}
	since, err := c.Store.IssuedAt(ctx, keys)
	if err != nil {
		return nil, err
	}
	names, from := make([]string, len(rcpts)), map[string]string{}
	for i, r := range rcpts {
		if since[i].IsZero() {
			continue
		}
		if from[r.Key()] == "" {
			if err := c.takenAt(ctx, f, r, since[i], from); err != nil {
				return nil, err
			}
		}
		if names[i] = from[r.Key()]; names[i] == "" {
			return nil, fmt.Errorf("%s was taken in charge for %s, and the register does not say from whom: pecd log verify", f.Event.Identifier, r)
		}
	}
	return names, nil
}

// takenAt enters into from, by recipient, whose envelope was taken in charge for rcpt, and
// for others with him, at the instant at. Another provider may have used its identifier in the same second, but for
// a sender of its own.
func (c *Clerk) takenAt(ctx context.Context, f reception.Found, rcpt pec.Address, at time.Time, from map[string]string) error {
	q := logstore.Query{Identifier: f.Event.Identifier, Since: at, Until: at.Add(1)}
	err := c.Store.Search(ctx, q, func(e logstore.Entry) error {
		if e.Type != logstore.EntryType(pec.KindTakeCharge) || !e.Sender.Same(f.Event.Sender) {
			return nil
		}
		for _, r := range e.Taken {
			from[r.Key()] = e.SendingProvider
		}
		if from[rcpt.Key()] != "" {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

// Concluded returns for each of rcpts whether its delivery receipt, non-delivery
// notice or virus notice is issued: then a further copy is not delivered.
func (c *Clerk) Concluded(ctx context.Context, f reception.Found, rcpts []pec.Address) ([]bool, error) {
	var keys []logstore.Key
	for _, r := range rcpts {
		keys = append(keys, others("", key("", f, r))...)
	}
	issued, err := c.Store.Issued(ctx, keys)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(rcpts))
	for i, done := range issued {
		out[i/len(finals)] = out[i/len(finals)] || done
	}
	return out, nil
}

// finals are the last words about a recipient. Whoever commits one of them has the store
// look for the others in the transaction: no two are said of one recipient.
var finals = []pec.Kind{pec.KindDelivery, pec.KindNonDelivery, pec.KindVirus}

// others are the keys of the last words about whom k names, but for that of kind.
func others(kind pec.Kind, k logstore.Key) (keys []logstore.Key) {
	for _, f := range finals {
		if f != kind {
			k.Kind = string(f)
			keys = append(keys, k)
		}
	}
	return keys
}

// A Virus is what was found in an envelope, and by which point: logstore.KeptReception or
// logstore.KeptDelivery.
type Virus struct{ Name, Source string }

// errNotKept says that a virus would be certified of which nothing were kept.
var errNotKept = errors.New("a notice of a virus without the virus that is kept")

// Deliver issues what a delivery point decided about each of rcpts: a delivery
// receipt, a non-delivery notice (RFC 6109, 3.3.2 and 3.3.3), or a notice to the
// sender's provider that a virus was found (3.2.3). Where there is a virus, whoever is
// told of it, envelope, the whole of the message that arrived, is kept apart: no outcome
// may be a virus without one. It is all one transaction.
func (c *Clerk) Deliver(ctx context.Context, f reception.Found, envelope message.Content, virus *Virus, rcpts []pec.Address, outcomes []delivery.Outcome) error {
	tx := logstore.Tx{At: c.instant()}
	facts, err := originalFacts(f, outcomes)
	if err != nil {
		return err
	}
	var kept *logstore.Kept
	if virus != nil {
		kept = keep(envelope, virus.Name, virus.Source, tx.At)
	}
	for i, o := range outcomes {
		switch {
		case o.Kind == "":
			continue
		case o.Kind == pec.KindVirus && virus == nil:
			return errNotKept
		}
		s, err := c.conclude(ctx, f, rcpts[i], o, tx.At, facts)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Kind, err)
		}
		a := c.act(s, f.Provider.Name, "")
		a.Keys = []logstore.Key{key(o.Kind, f, rcpts[i])}
		a.Unless = others(o.Kind, a.Keys[0])
		if o.Kind != pec.KindVirus && f.Provider.Name == c.Issuer.Name {
			// The message is of a user of ours: no notice of 12 or 24 hours must contradict
			// this, however long the receipt is on its way to him.
			a.Answer = &logstore.Answer{Identifier: f.Event.Identifier, Recipients: []pec.Address{rcpts[i]}, Kind: o.Kind}
		}
		a.Keep = kept // once, whichever act is left out
		tx.Acts = append(tx.Acts, a)
	}
	if len(tx.Acts) == 0 {
		return nil
	}
	// However long it took to sign all this: thrown away, the mailbox store would get
	// the message again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	// Of whom an act is left out the last word was said before: nothing is owed.
	_, err = c.Store.Commit(ctx, tx)
	return err
}

// commitTime bounds the commit of what was signed about a delivery.
const commitTime = time.Minute

// originalFacts returns what must be known of the original to put it into a receipt.
// It is read once for all receipts, and only where one will carry it.
func originalFacts(f reception.Found, outcomes []delivery.Outcome) (message.Facts, error) {
	if f.Original == nil {
		return message.Facts{}, nil
	}
	for _, o := range outcomes {
		if o.Kind == pec.KindDelivery {
			return message.ScanContent(content(f.Original))
		}
	}
	return message.Facts{}, nil
}

func content(m *message.Message) message.Content { return message.Section(m.Source, m.Range()) }

// witnessed is the issuer of receipts that say how far the register is, if they
// shall. A register that cannot be asked now is no reason to put anything off here:
// the commit that follows needs it, too.
func (c *Clerk) witnessed(ctx context.Context) issue.Issuer {
	i := c.Issuer
	if !c.Witness {
		return i
	}
	if l, err := c.Store.Head(ctx); err == nil && l.Seq > 0 {
		i.Register = l.Field()
	}
	return i
}

// conclude renders and signs what o certifies for rcpt.
func (c *Clerk) conclude(ctx context.Context, f reception.Found, rcpt pec.Address, o delivery.Outcome, at time.Time, facts message.Facts) (*signer.Signed, error) {
	ev := c.follow(f, at)
	ev.Recipient, ev.Error, ev.Detail = rcpt, o.Error, o.Detail
	switch o.Kind {
	case pec.KindNonDelivery:
		ev.Receipt = ""
		return c.sign(c.Issuer.NonDelivery(ev, c.Rand))
	case pec.KindVirus:
		ev.Receipt = ""
		return c.sign(c.Issuer.Virus(ev, f.Provider.ServiceMailbox, c.Rand))
	}
	var original message.Content
	// What another provider let in may not survive a second signature. It is in the
	// mailbox by now: a receipt without the original is due all the same.
	if facts.Carriable() && issue.Primary(f.Original, rcpt) {
		original = content(f.Original)
	}
	if original != nil && ev.Receipt == pec.Brief {
		var err error
		if original, err = issue.Brief(f.Original, c.BriefHash); err != nil {
			return nil, fmt.Errorf("brief receipt: %w", err)
		}
	}
	return c.sign(c.witnessed(ctx).Delivery(ev, original, facts.EightBit, c.Rand))
}

// Receive writes into the register that a receipt arrived, once, and clears what
// the ledger awaited. A virus notice about a message of ours becomes a
// non-delivery notice to its sender (RFC 6109, 3.2.4). delivered are the recipients into whose mailbox it went.
func (c *Clerk) Receive(ctx context.Context, f reception.Found, messageID string, delivered []pec.Address, queueID string) error {
	at := c.instant()
	e := c.entry(f.Event, f.Provider.Name, queueID)
	e.At, e.Type, e.Detail = at, logstore.EntryReceived, describe(f)
	e.Messages, e.Digest = []string{messageID}, f.Digest
	arrival := logstore.Act{Keys: []logstore.Key{arrivalKey(f, "")}, Entry: e}
	if who := f.Answers(); len(who) > 0 {
		// Only what names the true sender is about our message: a provider may certify a
		// failure to a sender of its own, and could name any identifier with it.
		sent, ok, err := c.sent(ctx, f.Event.Identifier)
		if err != nil {
			return err
		}
		if ok && strings.EqualFold(string(sent.Sender), string(f.Event.Sender)) {
			arrival.Answer = &logstore.Answer{Identifier: f.Event.Identifier, Recipients: who, Kind: f.Event.Kind}
		}
	}
	tx := logstore.Tx{At: at, Acts: []logstore.Act{arrival}}
	if f.Event.Kind == pec.KindVirus {
		notice, err := c.infected(ctx, f, at)
		if err != nil {
			return err
		}
		tx.Acts = append(tx.Acts, notice...)
	}
	for _, r := range delivered {
		d := e
		d.Type, d.Recipient = logstore.EntryDelivered, r
		tx.Acts = append(tx.Acts, logstore.Act{Keys: []logstore.Key{arrivalKey(f, r)}, Entry: d})
	}
	_, err := c.Store.Commit(ctx, tx)
	return err
}

// Received returns for each of rcpts whether the receipt is in his mailbox
// already.
func (c *Clerk) Received(ctx context.Context, f reception.Found, rcpts []pec.Address) ([]bool, error) {
	keys := make([]logstore.Key, len(rcpts))
	for i, r := range rcpts {
		keys[i] = arrivalKey(f, r)
	}
	return c.Store.Issued(ctx, keys)
}

// follow is the event that follows from what f certifies, issued by us at at.
func (c *Clerk) follow(f reception.Found, at time.Time) pec.Event {
	ev := f.Event
	ev.At, ev.Provider = at, c.Issuer.Name
	ev.Error, ev.Detail = pec.NoError, ""
	return ev
}

func (c *Clerk) sign(d issue.Draft, err error) (*signer.Signed, error) {
	if err != nil {
		return nil, err
	}
	return c.Signer.Sign(d)
}

// act is the act of issuing s about a message of the provider sending.
func (c *Clerk) act(s *signer.Signed, sending, queueID string) logstore.Act {
	ev := s.Event()
	e := c.entry(ev, sending, queueID)
	digest := s.Digest()
	e.Messages, e.Digest = []string{s.MessageID()}, hex.EncodeToString(digest[:])
	return logstore.Act{
		Keys:  []logstore.Key{{Kind: string(ev.Kind), Origin: sending, Identifier: ev.Identifier, Recipient: ev.Recipient}},
		Entry: e,
		Send:  s,
	}
}

func (c *Clerk) entry(ev pec.Event, sending, queueID string) logstore.Entry {
	return logstore.Entry{At: ev.At, Type: logstore.EntryType(ev.Kind), Identifier: ev.Identifier, MsgID: ev.MsgID,
		Sender: ev.Sender, Recipients: ev.Recipients, ReplyTo: ev.ReplyTo, Subject: ev.Subject, SendingProvider: sending, Receipt: ev.Receipt,
		Recipient: ev.Recipient, Taken: ev.Taken, Error: ev.Error, Detail: ev.Detail, QueueID: queueID}
}

// commitAll commits tx and wants every act of it done.
func (c *Clerk) commitAll(ctx context.Context, tx logstore.Tx) error {
	done, err := c.Store.Commit(ctx, tx)
	if err != nil {
		return err
	}
	for _, d := range done {
		if !d {
			return ErrRace
		}
	}
	return nil
}

func key(k pec.Kind, f reception.Found, rcpt pec.Address) logstore.Key {
	return logstore.Key{Kind: string(k), Origin: f.Provider.Name, Identifier: f.Event.Identifier, Recipient: rcpt}
}

// arrivalKey names a receipt that arrived by the digest of what was signed: its
// header, Message-ID included, is not under the signature.
func arrivalKey(f reception.Found, rcpt pec.Address) logstore.Key {
	k := key(f.Event.Kind, f, rcpt)
	k.Kind = string(logstore.EntryReceived) + ":" + f.Digest
	return k
}

// describe says in the register which receipt arrived.
func describe(f reception.Found) string {
	if f.Event.Detail == "" {
		return string(f.Event.Kind)
	}
	return string(f.Event.Kind) + ": " + f.Event.Detail
}
