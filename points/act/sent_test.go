package act_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/act"
	"pecd/points/delivery"
	"pecd/points/pointstest"
	"pecd/points/reception"
	"pecd/signer"
)

// later moves the desk's clock.
func (d *desk) later(by time.Duration) {
	d.Now = func() time.Time { return pointstest.At.Add(by) }
}

// kinds counts what the outbox holds.
func (d *desk) kinds(t *testing.T) map[pec.Kind]int {
	t.Helper()
	n := map[pec.Kind]int{}
	out, err := d.store.Outgoing(context.Background(), pointstest.At.AddDate(1, 0, 0), 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		n[o.Kind]++
	}
	return n
}

// bounce is a notification about the message with that ENVID.
func bounce(envelopeID, messageID string, failed ...string) *message.Message {
	b := "From: MAILER-DAEMON@mx.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
		"--b\r\n\r\nNo.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\nOriginal-Envelope-Id: " + envelopeID + "\r\n"
	for _, f := range failed {
		rcpt, action, _ := strings.Cut(f, " ")
		b += "\r\nFinal-Recipient: rfc822; " + rcpt + "\r\nAction: " + action + "\r\nStatus: 5.1.1\r\n"
	}
	b += "\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <" + messageID + ">\r\n\r\n--b--\r\n"
	m, err := message.Read(message.Bytes(b))
	if err != nil {
		panic(err)
	}
	return m
}

func TestBounced(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.Secret = []byte("secret")
	id, out := d.accept(t, "bob@beta.example", "bruna@beta.example")
	envid := d.EnvelopeID(id)
	if out[0].EnvelopeID != envid || out[1].EnvelopeID == envid {
		t.Errorf("ENVIDs %q and %q, want %q on the envelope only", out[0].EnvelopeID, out[1].EnvelopeID, envid)
	}
	for name, m := range map[string]*message.Message{
		"no code":         bounce(string(id), string(id), "bob@beta.example failed"),
		"another code":    bounce(envid[:len(envid)-1]+"!", string(id), "bob@beta.example failed"),
		"another message": bounce(envid, "other@alfa.example", "bob@beta.example failed"),
		"not a report":    mustRead(original),
	} {
		if _, ok, err := reception.ReadBounce(m, "", d.Owner); ok || err != nil {
			t.Errorf("%s: taken for a notification about our message", name)
		}
	}
	good := bounce(envid, string(id), "bob@beta.example failed", "bruna@beta.example delayed", "stranger@beta.example failed")
	if _, ok, err := reception.ReadBounce(good, "somebody@beta.example", d.Owner); ok || err != nil {
		t.Error("a notification with a return path was believed")
	}
	b, ok, err := reception.ReadBounce(good, "", d.Owner)
	if err != nil || !ok || b.Identifier != id {
		t.Fatalf("%v %+v", ok, b)
	}
	for range 2 {
		if visible, err := d.Bounced(ctx, b, good); err != nil || visible {
			t.Errorf("visible %v, %v", visible, err)
		}
	}
	if n := d.kinds(t); n[pec.KindNonDelivery] != 1 {
		t.Errorf("issued %v, want one notice", n)
	}
	if n := d.bounces(t, id); n != 1 {
		t.Errorf("registered %d times, want once", n)
	}
	ledger, err := d.store.Awaited(ctx, id)
	if err != nil || ledger[0].Outcome != pec.KindNonDelivery || ledger[1].Outcome != "" {
		t.Errorf("ledger %+v, %v", ledger, err)
	}
}

// bounces counts the notifications about id in the register.
func (d *desk) bounces(t *testing.T, id pec.Identifier) (n int) {
	t.Helper()
	for _, e := range d.entries(t, id) {
		if e.Type == logstore.EntryBounce {
			n++
		}
	}
	return n
}

// TestBouncedUnknown: a store that was restored does not have a message that we sent.
// The notification is registered once, and the sender sees it: nobody else tells him.
func TestBouncedUnknown(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.Secret = []byte("secret")
	const lost = pec.Identifier("20261122x@alfa.example")
	for i, action := range []string{"failed", "failed", "delayed"} {
		m := bounce(d.EnvelopeID(lost), string(lost), "bob@beta.example "+action)
		b, ok, err := reception.ReadBounce(m, "", d.Owner)
		visible, berr := d.Bounced(t.Context(), b, m)
		if !ok || err != nil || berr != nil || visible != (action == "failed") {
			t.Errorf("%s: recognised %v, visible %v, %v, %v", action, ok, visible, err, berr)
		}
		if n := d.bounces(t, lost); n != 1+i/2 {
			t.Errorf("registered %d times", n)
		}
	}
	if n := d.kinds(t); len(n) != 0 {
		t.Errorf("issued %v about what nobody knows", n)
	}
}

// An ordinary recipient's server has the ENVID of the envelope and could say what it
// likes about the certified ones: the sender sees it, and nothing is certified.
func TestBouncedShared(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.Secret = []byte("secret")
	id, _ := d.accept(t)
	for _, failed := range []string{"bob@beta.example failed", "mario@ordinary.example failed", "Mario@elsewhere.example failed"} {
		m := bounce(d.EnvelopeID(id), string(id), failed)
		b, ok, err := reception.ReadBounce(m, "", d.Owner)
		if visible, berr := d.Bounced(ctx, b, m); !ok || err != nil || berr != nil || !visible {
			t.Errorf("%s: recognised %v, visible %v, %v, %v", failed, ok, visible, err, berr)
		}
	}
	if n := d.kinds(t); n[pec.KindNonDelivery] != 0 {
		t.Errorf("issued %v on the word of somebody who is no provider", n)
	}
	ledger, err := d.store.Awaited(ctx, id)
	if err != nil || ledger[0].Outcome != "" || ledger[1].Outcome != "" {
		t.Errorf("ledger %+v, %v", ledger, err)
	}
}

// TestRenamed: a provider may change its name while messages are under way. Their
// notices are due all the same.
func TestRenamed(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.Secret = []byte("secret")
	id, _ := d.accept(t, "bob@beta.example", "bruna@beta.example")
	d.Issuer.Name, d.renamed = "Alfa Certificata S.r.l.", true
	m := bounce(d.EnvelopeID(id), string(id), "bob@beta.example failed")
	b, ok, err := reception.ReadBounce(m, "", d.Owner)
	if _, berr := d.Bounced(ctx, b, m); !ok || err != nil || berr != nil {
		t.Fatalf("%v %v %v", ok, err, berr)
	}
	d.later(13 * time.Hour)
	if err := d.Expire(ctx); err != nil {
		t.Error(err)
	}
	if n := d.kinds(t); n[pec.KindNonDelivery] != 1 || n[pec.KindTimeout] != 1 {
		t.Errorf("issued %v, want a notice about each", n)
	}
}

// TestExpireGoesOn: a row about which nothing can be said holds up no other.
func TestExpireGoesOn(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	_, err := d.store.Commit(ctx, logstore.Tx{At: pointstest.At.Add(-time.Hour), Acts: []logstore.Act{{
		Entry: logstore.Entry{Type: "other", Identifier: "x@alfa.example"}, Await: []pec.Address{"bob@beta.example"}}}})
	if err != nil {
		t.Fatal(err)
	}
	d.accept(t, "bob@beta.example")
	d.later(25 * time.Hour)
	if err := d.Expire(ctx); err == nil || !strings.Contains(err.Error(), "x@alfa.example") {
		t.Errorf("the row that is wrong is not told: %v", err)
	}
	if n := d.kinds(t)[pec.KindTimeout]; n != 2 {
		t.Errorf("%d notices about the other, want 2", n)
	}
}

// TestExpirePastABatch: nor do as many as are looked at together.
func TestExpirePastABatch(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	var many []pec.Address
	for i := range 250 {
		many = append(many, pec.Address(fmt.Sprintf("u%d@beta.example", i)))
	}
	_, err := d.store.Commit(ctx, logstore.Tx{At: pointstest.At.Add(-time.Hour), Acts: []logstore.Act{{
		Entry: logstore.Entry{Type: "other", Identifier: "x@alfa.example"}, Await: many}}})
	if err != nil {
		t.Fatal(err)
	}
	d.accept(t, "bob@beta.example")
	d.later(25 * time.Hour)
	if err := d.Expire(ctx); err == nil {
		t.Error("the rows that are wrong are not told")
	}
	if n := d.kinds(t)[pec.KindTimeout]; n != 2 {
		t.Errorf("%d notices about the other, want 2", n)
	}
}

// awayKey is as a key that is away: nothing is made with it.
type awayKey struct{ asked *int }

func (k awayKey) Read([]byte) (int, error) {
	*k.asked++
	return 0, signer.ErrKeyUnavailable
}

// TestExpireWithoutKey: where nothing can be signed, not every row waits for that.
func TestExpireWithoutKey(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.accept(t)
	d.later(25 * time.Hour)
	asked, random := 0, d.Rand
	d.Rand = awayKey{&asked}
	if err := d.Expire(t.Context()); !errors.Is(err, signer.ErrKeyUnavailable) || asked != 2 {
		t.Errorf("asked %d times for two kinds of notices about two recipients: %v", asked, err)
	}
	d.Rand = random
	if err := d.Expire(t.Context()); err != nil || d.kinds(t)[pec.KindTimeout] != 4 {
		t.Errorf("%d notices, %v", d.kinds(t)[pec.KindTimeout], err)
	}
}

// brokenSource cannot be read.
type brokenSource struct{}

func (brokenSource) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is away") }
func (brokenSource) Size() int64                       { return 1000 }

// TestBounceUnread: what cannot be read now is not taken for ordinary mail.
func TestBounceUnread(t *testing.T) {
	m := mustRead("Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n")
	m.Source = brokenSource{}
	if _, ok, err := reception.ReadBounce(m, "", (&act.Clerk{}).Owner); ok || err == nil {
		t.Errorf("%v %v", ok, err)
	}
}

func mustRead(raw string) *message.Message {
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		panic(err)
	}
	return m
}

// TestExpire goes through the matrix of RFC 6109, 3.1.6 for two recipients.
func TestExpire(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	for name, tt := range map[string]struct {
		taken, ended bool // of both recipients, before 12 hours
		at           []time.Duration
		want         string
	}{
		"too soon":            {false, false, []time.Duration{12*time.Hour - time.Second}, "0"},
		"nothing, 12 h":       {false, false, []time.Duration{12 * time.Hour}, "2"},
		"nothing, 24 h":       {false, false, []time.Duration{12 * time.Hour, 24 * time.Hour}, "4"},
		"nothing, daemon off": {false, false, []time.Duration{30 * time.Hour}, "4"},
		"once each":           {false, false, []time.Duration{13 * time.Hour, 14 * time.Hour, 25 * time.Hour, 26 * time.Hour}, "4"},
		"clock set back":      {false, false, []time.Duration{13 * time.Hour, -time.Hour, 13 * time.Hour}, "2"},
		"taken, 12 h":         {true, false, []time.Duration{12 * time.Hour}, "0"},
		"taken, 24 h":         {true, false, []time.Duration{12 * time.Hour, 24 * time.Hour}, "2"},
		"ended":               {true, true, []time.Duration{12 * time.Hour, 30 * time.Hour}, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, w, w.Alfa)
			id, _ := d.accept(t)
			both := []pec.Address{"bob@beta.example", "bruna@beta.example"}
			for kind, heard := range map[pec.Kind]bool{pec.KindTakeCharge: tt.taken, pec.KindDelivery: tt.ended} {
				if heard {
					d.answer(t, id, kind, both)
				}
			}
			for _, at := range tt.at {
				d.later(at)
				if err := d.Expire(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if n := d.kinds(t)[pec.KindTimeout]; fmt.Sprint(n) != tt.want {
				t.Errorf("%d notices, want %s", n, tt.want)
			}
		})
	}
}

func (d *desk) answer(t *testing.T, id pec.Identifier, kind pec.Kind, who []pec.Address) {
	t.Helper()
	_, err := d.store.Commit(context.Background(), logstore.Tx{At: pointstest.At, Acts: []logstore.Act{{
		Entry:  logstore.Entry{Type: logstore.EntryReceived, Identifier: id},
		Answer: &logstore.Answer{Identifier: id, Recipients: who, Kind: kind}}}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNonAccept(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	m, _ := d.spool(t, []byte(strings.Replace(original, "Subject:", "Bcc: x@beta.example\r\nSubject:", 1)))
	s := access.Submission{Login: "alice@alfa.example", Sender: "alice@alfa.example", SenderOurs: true,
		Recipients: d.classified("bob@beta.example", "carla@beta.example"), Message: m}
	o := decide(t, s)
	if o.Verdict != points.Refuse || !points.Formal(o.Reasons) {
		t.Fatalf("%v %v", o.Verdict, o.Reasons)
	}
	id, err := d.NonAccept(context.Background(), s.Event(d.Issuer.Name), o.Reasons, m, "Q")
	if err != nil {
		t.Fatal(err)
	}
	out := d.outgoing(t)
	if len(out) != 1 || out[0].Kind != pec.KindNonAcceptance || out[0].To[0] != "alice@alfa.example" {
		t.Fatalf("%+v", out)
	}
	f := d.arrive(t, octets(t, out[0].Content))
	if f.Event.Identifier != id || !strings.Contains(f.Event.Detail, "Bcc") || !strings.Contains(f.Event.Detail, "carla@beta.example") || f.Original != nil {
		t.Errorf("%+v", f.Event)
	}
}

func TestWrap(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Beta)
	raw := []byte("From: mario@ordinary.example\r\nSubject: Ciao\r\n\r\nX\r\n")
	m, _ := d.spool(t, raw)
	rcpts := []pec.Address{"bob@beta.example", "bruna@beta.example"}
	for _, sender := range []pec.Address{"mario@ordinary.example", ""} {
		a, err := d.Wrap(m, message.Facts{Size: int64(len(raw))}, sender, rcpts, "manca la firma")
		if err != nil {
			t.Fatal(err)
		}
		whole := octets(t, a.Envelope.Content())
		if !bytes.Contains(whole, raw) || !bytes.Contains(whole, []byte("X-Trasporto: errore\r\n")) || bytes.Contains(whole, []byte("daticert.xml")) {
			t.Errorf("envelope\n%s", whole)
		}
		wrapped, err := message.Read(message.Bytes(whole))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Verifier.Verify(wrapped, pointstest.At); err != nil {
			t.Errorf("signature: %v", err)
		}
		results := []delivery.Result{{Recipient: rcpts[0], Answer: delivery.Delivered}, {Recipient: rcpts[1]}}
		if err := d.Delivered(ctx, a, results); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.Wrapped(ctx, m, rcpts); err != nil || !got[0] || got[1] {
		t.Errorf("wrapped %v (%v), want bob only", got, err)
	}
	n := 0
	if err := d.store.Search(ctx, logstore.Query{}, func(e logstore.Entry) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d entries (%v), want one", n, err)
	}
}

func TestGiveUp(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	bob := []pec.Address{"bob@beta.example"}
	if err := beta.TakeCharge(ctx, f, bob, ""); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]bool{act.PatienceOfStore - time.Second: false, act.PatienceOfStore: true} {
		beta.later(at)
		results := []delivery.Result{{Recipient: bob[0], Answer: delivery.NotNow}, {Recipient: "bruna@beta.example"}}
		if err := beta.GiveUp(ctx, f, results); err != nil || results[0].Overdue != want || results[1].Overdue {
			t.Errorf("after %v: %+v, %v", at, results, err)
		}
	}
}

// TestClockBehind: what was accepted, or taken in charge, while the clock was behind is no
// older than what was before. When the clock is right again no notice is due, and the first
// "later" of the mailbox store is not the last word; in the end they come.
func TestClockBehind(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	const right = 40 * time.Hour
	bob := []pec.Address{"bob@beta.example"}
	alfa.later(right)
	_, sent := alfa.accept(t, bob...)
	first := beta.arrive(t, octets(t, sent[0].Content))
	beta.later(right)
	if err := beta.TakeCharge(ctx, first, bob, ""); err != nil {
		t.Fatal(err)
	}
	alfa.later(right - 30*time.Hour)
	_, sent = alfa.accept(t, bob...)
	f := beta.arrive(t, octets(t, sent[0].Content)) // due earlier than the first, by its date
	if f.Event.Identifier == first.Event.Identifier {
		t.Fatal("the first came again")
	}
	beta.later(right - 30*time.Hour)
	if err := beta.TakeCharge(ctx, f, bob, ""); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after   time.Duration // since then
		notices int           // about both messages
		overdue bool
	}{{time.Minute, 0, false}, {11 * time.Hour, 0, false}, {12 * time.Hour, 2, false}, {22 * time.Hour, 2, true}, {24 * time.Hour, 4, true}} {
		alfa.later(right + step.after)
		if err := alfa.Expire(ctx); err != nil {
			t.Fatal(err)
		}
		if n := alfa.kinds(t)[pec.KindTimeout]; n != step.notices {
			t.Errorf("after %v: %d notices, want %d", step.after, n, step.notices)
		}
		beta.later(right + step.after)
		results := []delivery.Result{{Recipient: bob[0], Answer: delivery.NotNow}}
		if err := beta.GiveUp(ctx, f, results); err != nil || results[0].Overdue != step.overdue {
			t.Errorf("after %v: given up %v, %v; want %v", step.after, results[0].Overdue, err, step.overdue)
		}
	}
}

func TestSetPolicy(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Beta)
	for _, value := range []string{"refuse", ""} {
		if err := d.SetPolicy(context.Background(), logstore.Policy{Subject: "bob@beta.example", Ordinary: value}); err != nil {
			t.Fatal(err)
		}
		list, err := d.store.Policies(context.Background(), "bob@beta.example", "beta.example")
		if err != nil || len(list) != len(value)/len("refuse") {
			t.Errorf("policies %+v, %v", list, err)
		}
	}
	if list := d.entries(t, ""); len(list) != 2 || list[0].Type != logstore.EntryPolicy || list[0].Recipient != "bob@beta.example" {
		t.Errorf("entries %+v", list)
	}
}
