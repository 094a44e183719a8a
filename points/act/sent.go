package act

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points/delivery"
	"pecd/points/reception"
	"pecd/signer"
)

// Timeouts of RFC 6109, 3.1.6.
const (
	firstTimeout = 12 * time.Hour
	lastTimeout  = 24 * time.Hour
)

// PatienceOfStore is how long a mailbox store may put a message off before it
// counts as refused for good: the last word must be ours and not that of the
// MTA, whose queue holds 24 hours (RFC 6109, 2.2.2).
const PatienceOfStore = 22 * time.Hour

// GiveUp marks as overdue those recipients whom the mailbox store has put off for
// longer than PatienceOfStore since we took charge of the message. One of whom we took
// charge while the clock was behind is not: logstore.Store, Overdue.
func (c *Clerk) GiveUp(ctx context.Context, f reception.Found, results []delivery.Result) error {
	var at []int
	var keys []logstore.Key
	for i, r := range results {
		if r.Answer == delivery.NotNow {
			at, keys = append(at, i), append(keys, key(pec.KindTakeCharge, f, r.Recipient))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	over, err := c.Store.LongIssued(ctx, keys, c.instant(), PatienceOfStore)
	if err != nil {
		return err
	}
	for j := range over {
		results[at[j]].Overdue = over[j]
	}
	return nil
}

// batch is how many overdue recipients are looked at together.
const batch = 100

var envidCoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// EnvelopeID returns the ENVID of the envelope with this identifier: its local
// part and a code that nobody else can make, so that a notification that brings
// it back comes from somebody to whom the MTA handed the envelope.
func (c *Clerk) EnvelopeID(id pec.Identifier) string {
	local, _ := pec.Address(id).Split()
	mac := hmac.New(sha256.New, c.Secret)
	mac.Write([]byte(id))
	return local + "." + envidCoding.EncodeToString(mac.Sum(nil)[:10])
}

// Owner returns the identifier for an ENVID of ours.
func (c *Clerk) Owner(envelopeID string) (pec.Identifier, bool) {
	local, _, ok := strings.Cut(envelopeID, ".")
	if !ok {
		return "", false
	}
	id := pec.Identifier(local + "@" + c.Issuer.Address.Domain())
	return id, hmac.Equal([]byte(c.EnvelopeID(id)), []byte(envelopeID))
}

// errFound ends a search.
var errFound = errors.New("found")

// sent finds in the register what was certified when id was sent; ok is false if
// id is not ours.
func (c *Clerk) sent(ctx context.Context, id pec.Identifier) (ev pec.Event, ok bool, err error) {
	err = c.Store.Search(ctx, logstore.Query{Identifier: id}, func(e logstore.Entry) error {
		// Envelopes are registered by Accept alone. The name under which we sent does not
		// matter: a provider may change it while messages are under way.
		if e.Type != logstore.EntryType(pec.KindTransport) {
			return nil
		}
		ev = pec.Event{Identifier: e.Identifier, MsgID: e.MsgID, Sender: e.Sender, Recipients: e.Recipients,
			ReplyTo: cmp.Or(e.ReplyTo, string(e.Sender)), Subject: e.Subject, Error: pec.NoError}
		ok = true
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return ev, ok, err
}

// Bounced issues a non-delivery notice for each certified recipient whom the
// envelope did not reach (RFC 6109, 3.3.3), unless something else is certified
// about him already. It returns whether the sender must see the notification
// itself: it is about an ordinary recipient, or does not count.
//
// It does not count about an envelope that also went to ordinary recipients: their
// servers have seen its ENVID and are bound by nothing, so any of them could make
// us certify what did not happen. The timeouts of RFC 6109, 3.1.6 tell the sender.
//
// Nor can anything be certified about a message that the register does not have (any
// more): a store that was restored from a backup. Then no timeout tells him, either.
//
// m is the notification itself: it is registered once, however often it comes.
func (c *Clerk) Bounced(ctx context.Context, b reception.Bounce, m *message.Message) (visible bool, err error) {
	ev, ok, err := c.sent(ctx, b.Identifier)
	if err != nil {
		return false, err
	}
	digest, err := contentDigest(m)
	if err != nil {
		return false, err
	}
	once := []logstore.Key{{Kind: string(logstore.EntryBounce) + ":" + digest, Identifier: b.Identifier}}
	if !ok {
		e := logstore.Entry{Type: logstore.EntryBounce, Identifier: b.Identifier, Recipients: []pec.Recipient{},
			SendingProvider: c.Issuer.Name, Detail: "the register does not have the message"}
		_, err = c.Store.Commit(ctx, logstore.Tx{At: c.instant(), Acts: []logstore.Act{{Keys: once, Entry: e}}})
		return len(b.Failed) > 0, err
	}
	ledger, err := c.Store.Awaited(ctx, b.Identifier)
	if err != nil {
		return false, err
	}
	ev.At, ev.Provider = c.instant(), c.Issuer.Name
	tx := logstore.Tx{At: ev.At, Acts: []logstore.Act{{Keys: once, Entry: bounceEntry(ev)}}}
	shared := slices.ContainsFunc(ev.Recipients, func(r pec.Recipient) bool { return r.Type != pec.Certified })
	for _, f := range b.Failed {
		r, ok := f.Of(ev.Recipients)
		visible = visible || shared
		if !ok || shared || !waiting(ledger, r.Address) {
			continue
		}
		a, err := c.failure(ev, r.Address, f)
		if err != nil {
			return false, err
		}
		tx.Acts = append(tx.Acts, a)
	}
	_, err = c.Store.Commit(ctx, tx)
	return visible, err
}

// failure is the act of issuing the notice of f about rcpt.
func (c *Clerk) failure(ev pec.Event, rcpt pec.Address, f reception.Failure) (logstore.Act, error) {
	ev.Recipient, ev.Error = rcpt, f.Error
	ev.Detail = fmt.Sprintf("%s - %s - %s", f.Code, c.Issuer.Name, f.Text)
	s, err := c.sign(c.Issuer.NonDelivery(ev, c.Rand))
	if err != nil {
		return logstore.Act{}, fmt.Errorf("non-delivery notice: %w", err)
	}
	a := c.act(s, c.Issuer.Name, "")
	// What we said of a recipient of ours stands, though it is still on its way to the
	// sender. (After a virus notice it is infected that tells him.)
	a.Unless = others(pec.KindNonDelivery, a.Keys[0])
	a.Answer = &logstore.Answer{Identifier: ev.Identifier, Recipients: []pec.Address{rcpt}, Kind: pec.KindNonDelivery, First: true}
	return a, nil
}

func bounceEntry(ev pec.Event) logstore.Entry {
	return logstore.Entry{Type: logstore.EntryBounce, Identifier: ev.Identifier, MsgID: ev.MsgID, Sender: ev.Sender,
		Recipients: ev.Recipients, Subject: ev.Subject, SendingProvider: ev.Provider}
}

// named returns a as the ledger calls it: the other provider may have written the local
// part in other letters.
func named(ledger []logstore.Awaited, a pec.Address) pec.Address {
	var other []pec.Address
	for _, row := range ledger {
		if row.Recipient.Same(a) {
			return a
		}
		if row.Recipient.Folded() == a.Folded() {
			other = append(other, row.Recipient)
		}
	}
	if len(other) == 1 {
		return other[0]
	}
	return a
}

func waiting(ledger []logstore.Awaited, a pec.Address) bool {
	for _, row := range ledger {
		if row.Recipient.Same(a) {
			return row.Outcome == ""
		}
	}
	return false
}

// Drop writes into the register that a notification arrived that concerns no
// message of ours, or receipts of ours, and ends here.
func (c *Clerk) Drop(ctx context.Context, messageID, why string) error {
	at := c.instant()
	e := logstore.Entry{Type: logstore.EntryBounce, Recipients: []pec.Recipient{}, SendingProvider: c.Issuer.Name, Detail: why}
	if messageID != "" {
		e.Messages = []string{messageID}
	}
	_, err := c.Store.Commit(ctx, logstore.Tx{At: at, Acts: []logstore.Act{{Entry: e}}})
	return err
}

// Expire issues the timeout notices that are due (RFC 6109, 3.1.6): after 12
// hours without take-charge and outcome, after 24 hours without outcome. A
// recipient of whom nothing at all was heard gets both, also where the daemon
// did not run in between. A message that was accepted while the clock was behind is as
// old as it is, not as its date says: logstore.Store, Overdue.
func (c *Clerk) Expire(ctx context.Context) error {
	var wrong []error
	for _, t := range []struct {
		after time.Duration
		last  bool
	}{{firstTimeout, false}, {lastTimeout, true}} {
		passed := map[ledgerRow]bool{}
		for more := true; more; {
			var err error
			if more, err = c.expire(ctx, t.after, t.last, passed); err != nil {
				wrong = append(wrong, err)
			}
		}
	}
	return errors.Join(wrong...)
}

// A ledgerRow names a row of the ledger.
type ledgerRow struct {
	id   pec.Identifier
	rcpt pec.Address
}

// expire issues one batch of notices and reports whether more may be due. A row for
// which none can be made holds up no other: it goes into passed, the rows that are
// looked past, since they stay the oldest. While nothing can be signed there is no more.
func (c *Clerk) expire(ctx context.Context, after time.Duration, last bool, passed map[ledgerRow]bool) (more bool, err error) {
	at, limit := c.instant(), batch+len(passed)
	rows, err := c.Store.Overdue(ctx, at, after, last, limit)
	if err != nil {
		return false, err
	}
	tx := logstore.Tx{At: at}
	var wrong error // the first
	away := false
	for _, row := range rows {
		name := ledgerRow{row.Identifier, row.Recipient}
		if passed[name] {
			continue
		}
		a, err := c.timeout(ctx, row, at, after, last)
		if errors.Is(err, signer.ErrKeyUnavailable) {
			wrong, away = cmp.Or(wrong, err), true
			break
		}
		if err != nil {
			wrong = cmp.Or(wrong, err)
			passed[name] = true
			continue
		}
		tx.Acts = append(tx.Acts, a)
	}
	if len(tx.Acts) == 0 {
		return !away && len(rows) == limit, wrong
	}
	done, err := c.Store.Commit(ctx, tx)
	if err != nil {
		return false, err
	}
	for i, d := range done {
		if n := tx.Acts[i].Notice; !d {
			passed[ledgerRow{n.Identifier, n.Recipient}] = true
		}
	}
	return !away && len(rows) == limit, wrong
}

// timeout is the act of issuing the notice about row.
func (c *Clerk) timeout(ctx context.Context, row logstore.Awaited, at time.Time, after time.Duration, last bool) (logstore.Act, error) {
	ev, ok, err := c.sent(ctx, row.Identifier)
	if err == nil && !ok {
		err = fmt.Errorf("%s waits in the ledger and is not in the register", row.Identifier)
	}
	if err != nil {
		return logstore.Act{}, err
	}
	ev.At, ev.Provider = at, c.Issuer.Name
	ev.Recipient, ev.Error = row.Recipient, pec.ErrorOther
	s, err := c.sign(c.Issuer.Timeout(ev, int(after/time.Hour), c.Rand))
	if err != nil {
		return logstore.Act{}, fmt.Errorf("timeout notice: %w", err)
	}
	a := c.act(s, c.Issuer.Name, "")
	a.Keys[0].Kind = fmt.Sprintf("%s:%d", pec.KindTimeout, int(after/time.Hour))
	a.Notice = &logstore.Notice{Identifier: row.Identifier, Recipient: row.Recipient, Last: last}
	return a, nil
}
