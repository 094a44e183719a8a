package act_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
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
)

const original = "From: alice@alfa.example\r\nTo: bob@beta.example, mario@ordinary.example\r\nCc: bruna@beta.example\r\n" +
	"Subject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n\r\nTesto.\r\n"

// desk is a clerk with a real store.
type desk struct {
	*act.Clerk
	world *pointstest.World
	store logstore.Store
	// renamed says that the provider's name is not that under which all was issued.
	renamed bool
}

func newDesk(t *testing.T, w *pointstest.World, p *pointstest.Provider) *desk {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := logstore.Open(context.Background(), logstore.Options{Dir: t.TempDir(), Rand: rand.Reader, Now: func() time.Time { return pointstest.At }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	// The clock stands between two seconds: certified is the whole one.
	now := pointstest.At.Add(700 * time.Millisecond)
	d := &desk{world: w, store: s, Clerk: &act.Clerk{Issuer: p.Issuer, Signer: p.Signer, Store: s,
		Now: func() time.Time { return now }, Location: pointstest.At.Location(), Rand: rand.Reader}}
	t.Cleanup(func() { // before the store closes
		if !d.renamed {
			d.duplicates(t)
		}
	})
	return d
}

// spool puts raw into a body of the store.
func (d *desk) spool(t *testing.T, raw []byte) (*message.Message, logstore.Body) {
	t.Helper()
	b, err := d.store.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if _, err := b.Write(raw); err != nil {
		t.Fatal(err)
	}
	m, err := message.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return m, b
}

// accept submits original and returns what went into the outbox.
func (d *desk) accept(t *testing.T, to ...pec.Address) (pec.Identifier, []logstore.Outgoing) {
	t.Helper()
	if len(to) == 0 {
		to = []pec.Address{"bob@beta.example", "mario@ordinary.example", "bruna@beta.example"}
	}
	m, _ := d.spool(t, []byte(original))
	facts, err := message.ScanContent(message.Text([]byte(original)))
	if err != nil {
		t.Fatal(err)
	}
	sub := access.Submission{Login: "alice@alfa.example", Sender: "alice@alfa.example", SenderOurs: true,
		Recipients: d.classified(to...), Message: m, Facts: facts}
	if o := decide(t, sub); o.Verdict != points.Accept {
		t.Fatal(o.Reasons)
	}
	id, err := d.Accept(context.Background(), sub.Event(d.Issuer.Name), m, facts, "4QUEUE1")
	if err != nil {
		t.Fatal(err)
	}
	return id, d.outgoing(t)
}

// classified gives addresses their type after the directory.
func (d *desk) classified(list ...pec.Address) (out []pec.Recipient) {
	for _, a := range list {
		out = append(out, pec.Recipient{Address: a, Type: d.world.Directory.Classify(a)})
	}
	return out
}

// decide asks the built-in access point.
func decide(t *testing.T, s access.Submission) access.Decision {
	t.Helper()
	d, err := access.Builtin{}.Decide(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// deliver certifies what the built-in delivery point makes of results.
func (d *desk) deliver(ctx context.Context, f reception.Found, results []delivery.Result, findings ...points.Finding) error {
	o, err := delivery.Builtin{}.Decide(ctx, delivery.Handover{Provider: d.Issuer.Name, Event: f.Event, Results: results, Findings: findings})
	if err != nil {
		return err
	}
	rcpts := make([]pec.Address, len(results))
	for i, r := range results {
		rcpts[i] = r.Recipient
	}
	return d.Deliver(ctx, f, message.Text([]byte(original)), nil, rcpts, o.Outcomes)
}

func (d *desk) outgoing(t *testing.T) []logstore.Outgoing {
	t.Helper()
	out, err := d.store.Outgoing(context.Background(), pointstest.At.Add(time.Hour), 100, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (d *desk) entries(t *testing.T, id pec.Identifier) (list []logstore.Entry) {
	t.Helper()
	err := d.store.Search(context.Background(), logstore.Query{Identifier: id}, func(e logstore.Entry) error {
		list = append(list, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func octets(t *testing.T, c message.Content) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// arrive examines raw as the desk's provider would.
func (d *desk) arrive(t *testing.T, raw []byte) reception.Found {
	t.Helper()
	m, _ := d.spool(t, raw)
	rep, err := d.world.Verifier.Verify(m, pointstest.At)
	f := reception.Examine(m, rep, err, d.world.Directory, pointstest.At.Location())
	if f.Class == reception.Other {
		t.Fatalf("not recognised: %v\n%s", f.Why, raw)
	}
	return f
}

// An endsAt reader calls end when it is read.
type endsAt struct{ end func() }

func (r endsAt) Read(p []byte) (int, error) {
	r.end()
	return rand.Read(p)
}

// A promptStore commits nothing for whom time is over; the real one may.
type promptStore struct{ logstore.Store }

func (s promptStore) Commit(ctx context.Context, tx logstore.Tx) ([]bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.Store.Commit(ctx, tx)
}

// TestSignedIsCommitted: time that is over while a receipt is signed does not throw it
// away. The mailbox store has the message, and would get it again.
func TestSignedIsCommitted(t *testing.T) {
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, out := alfa.accept(t)
	f := beta.arrive(t, octets(t, out[0].Content))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	beta.Rand, beta.Store = endsAt{cancel}, promptStore{beta.store}
	if err := beta.deliver(ctx, f, []delivery.Result{{Recipient: "bob@beta.example", Answer: delivery.Delivered}}); err != nil {
		t.Error(err)
	}
	if ctx.Err() == nil {
		t.Fatal("the receipt was made without a boundary")
	}
	if n := len(beta.outgoing(t)); n != 1 {
		t.Errorf("%d receipts", n)
	}
}

func TestAccept(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	id, out := d.accept(t)
	if len(out) != 2 || out[0].Kind != pec.KindTransport || out[1].Kind != pec.KindAcceptance {
		t.Fatalf("outbox %+v", out)
	}
	if len(out[0].To) != 3 || out[0].From != "alice@alfa.example" || out[1].To[0] != "alice@alfa.example" || out[1].From != "posta-certificata@alfa.example" {
		t.Errorf("envelopes %+v", out)
	}
	for _, o := range out {
		f := d.arrive(t, octets(t, o.Content))
		if f.Event.Identifier != id || !f.Event.At.Equal(pointstest.At) {
			t.Errorf("%s: identifier %s, instant %s; want %s, %s", o.Kind, f.Event.Identifier, f.Event.At, id, pointstest.At)
		}
	}
	for _, e := range d.entries(t, id) {
		if !e.At.Equal(pointstest.At) || len(e.Messages) != 1 || e.Digest == "" || e.QueueID != "4QUEUE1" || e.MsgID != "<c1@alfa.example>" {
			t.Errorf("entry %+v", e)
		}
	}
	if n := len(d.entries(t, id)); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
	waiting, err := d.store.Awaited(context.Background(), id)
	if err != nil || len(waiting) != 2 {
		t.Errorf("the ledger waits for %+v (%v), want the two certified recipients", waiting, err)
	}
}

func TestRefuseIsRegistered(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	m, _ := d.spool(t, []byte(original))
	reasons := []points.Reason{{Cause: points.BccPresent, Italian: "it", English: "en"}}
	s := access.Submission{Sender: "alice@alfa.example", Recipients: d.classified("bob@beta.example"), Message: m}
	if err := d.Refuse(context.Background(), reasons, s, "Q"); err != nil {
		t.Fatal(err)
	}
	list := d.entries(t, "")
	if len(list) != 1 || list[0].Type != logstore.EntryRefused || list[0].Detail != "it / en" || len(d.outgoing(t)) != 0 {
		t.Errorf("entries %+v", list)
	}
}

// TestReception sends Alfa's envelope through Beta's hands, and twice where the
// MTA could do so.
func TestReception(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	id, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	both := []pec.Address{"bob@beta.example", "bruna@beta.example"}

	for range 2 {
		if err := beta.TakeCharge(ctx, f, both, ""); err != nil {
			t.Fatal(err)
		}
	}
	results := []delivery.Result{{Recipient: "bob@beta.example", Answer: delivery.Delivered}, {Recipient: "bruna@beta.example", Answer: delivery.NotNow}}
	for range 2 {
		if err := beta.deliver(ctx, f, results); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := beta.Concluded(ctx, f, both); err != nil || !got[0] || got[1] {
		t.Errorf("concluded %v (%v), want bob only", got, err)
	}
	results[1] = delivery.Result{Recipient: "bruna@beta.example", Answer: delivery.Never, Code: "5.2.2"}
	if err := beta.deliver(ctx, f, results); err != nil {
		t.Fatal(err)
	}

	out := beta.outgoing(t)
	kinds := map[pec.Kind]int{}
	for _, o := range out {
		kinds[o.Kind]++
		r := alfa.arrive(t, octets(t, o.Content))
		if r.Event.Identifier != id {
			t.Errorf("%s is about %s", o.Kind, r.Event.Identifier)
		}
		if err := alfa.Receive(ctx, r, o.MessageID, o.To, ""); err != nil {
			t.Fatal(err)
		}
		if got, err := alfa.Received(ctx, r, o.To); err != nil || !got[0] {
			t.Errorf("%s is not known as received (%v)", o.Kind, err)
		}
	}
	if len(out) != 3 || kinds[pec.KindTakeCharge] != 1 || kinds[pec.KindDelivery] != 1 || kinds[pec.KindNonDelivery] != 1 {
		t.Errorf("issued %v", kinds)
	}
	if out[0].To[0] != "ricevute@alfa.example" {
		t.Errorf("the take-charge receipt goes to %v", out[0].To)
	}
	ledger, err := alfa.store.Awaited(ctx, id)
	if err != nil || len(ledger) != 2 {
		t.Fatalf("ledger %+v (%v)", ledger, err)
	}
	for _, row := range ledger {
		want := map[pec.Address]pec.Kind{"bob@beta.example": pec.KindDelivery, "bruna@beta.example": pec.KindNonDelivery}[row.Recipient]
		if row.TakenAt.IsZero() || row.Outcome != want {
			t.Errorf("ledger row %+v", row)
		}
	}
}

// TestTakenFrom: who was taken in charge of, by what was judged then. Neither another
// provider's use of the identifier in the same second counts, nor the name of now.
func TestTakenFrom(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	list := []pec.Address{"bruna@beta.example", "bob@Beta.example"}
	taken := func(f reception.Found) string {
		t.Helper()
		from, err := beta.TakenFrom(ctx, f, list)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(from, ", ")
	}
	theirs, other, renamed := f, f, f
	theirs.Basis, theirs.Event.Sender, theirs.Provider = "theirs", "gina@gamma.example", w.Beta.Record
	other.Basis = "other"
	renamed.Provider = w.Beta.Record
	for _, g := range []reception.Found{f, theirs} {
		if err := beta.TakeCharge(ctx, g, []pec.Address{"bob@beta.example"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		f    reception.Found
		want string
	}{{f, ", Alfa PEC S.p.A."}, {renamed, ", Alfa PEC S.p.A."}, {theirs, ", Beta PEC S.p.A."}, {other, ", "}} {
		if got := taken(tt.f); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.f.Basis, tt.f.Event.Sender, got, tt.want)
		}
	}
}

// TestReceiptCarriesOriginal wants the original whole in the receipt for a
// primary recipient, and none for one in Cc.
func TestReceiptCarriesOriginal(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	id, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	err := beta.deliver(ctx, f, []delivery.Result{{Recipient: "bob@beta.example", Answer: delivery.Delivered}, {Recipient: "bruna@beta.example", Answer: delivery.Delivered}})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Replace([]byte(original), []byte("<c1@alfa.example>\r\n"), []byte("<"+string(id)+">\r\nX-Riferimento-Message-ID: <c1@alfa.example>\r\n"), 1)
	for _, o := range beta.outgoing(t) {
		r := alfa.arrive(t, octets(t, o.Content))
		if primary := r.Event.Recipient == "bob@beta.example"; primary != (r.Original != nil) {
			t.Errorf("%s: original %v", r.Event.Recipient, r.Original != nil)
		} else if primary && !bytes.Equal(octets(t, message.Section(r.Original.Source, r.Original.Range())), want) {
			t.Errorf("the original was changed:\n%s", octets(t, message.Section(r.Original.Source, r.Original.Range())))
		}
	}
}

// TestReceiptWithoutOriginal: another provider let in what no second signature
// survives. It is in the mailbox; the receipt that says so goes without it.
func TestReceiptWithoutOriginal(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	for name, body := range map[string]string{"long line": strings.Repeat("x", 1200) + "\r\n", "NUL": "x\x00y\r\n", "CR alone": "x\ry\r\n"} {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []pec.ReceiptType{pec.Complete, pec.Brief} {
				beta := newDesk(t, w, w.Beta)
				m, _ := beta.spool(t, []byte(original+body))
				ev := pec.Event{At: pointstest.At, Kind: pec.KindTransport, Identifier: "20261122x@alfa.example", MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
					Recipients: beta.classified("bob@beta.example"), Subject: "Offerta", Receipt: kind, Error: pec.NoError}
				f := reception.Found{Class: reception.Envelope, Event: ev, Provider: w.Alfa.Record, Original: m}
				if err := beta.deliver(ctx, f, []delivery.Result{{Recipient: "bob@beta.example", Answer: delivery.Delivered}}); err != nil {
					t.Fatalf("%s: it is delivered, and nobody hears of it: %v", kind, err)
				}
				out := beta.outgoing(t)
				if len(out) != 1 || out[0].Kind != pec.KindDelivery {
					t.Fatalf("%+v", out)
				}
				if r := beta.arrive(t, octets(t, out[0].Content)); r.Original != nil {
					t.Error("the original is in it")
				}
			}
		})
	}
}

// TestAnswerOfAStranger: a provider certifies a failure to a sender of its own, with
// the identifier of somebody else's message. That message goes on waiting.
func TestAnswerOfAStranger(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa := newDesk(t, w, w.Alfa)
	id, sent := alfa.accept(t, "bob@beta.example")
	ev := alfa.arrive(t, octets(t, sent[0].Content)).Event
	ev.Sender, ev.Recipient, ev.Error, ev.Detail, ev.Receipt = "carla@beta.example", "bob@beta.example", pec.ErrorNoDest, "5.1.1 - Beta - indirizzo non valido", ""
	for _, sender := range []pec.Address{"carla@beta.example", "Alice@alfa.example"} {
		ev.Sender = sender
		d, err := w.Beta.Issuer.NonDelivery(ev, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.Beta.Signer.Sign(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := alfa.Receive(ctx, alfa.arrive(t, octets(t, s.Content())), s.MessageID(), nil, ""); err != nil {
			t.Fatal(err)
		}
		stranger := sender == "carla@beta.example"
		if ledger, err := alfa.store.Awaited(ctx, id); err != nil || (ledger[0].Outcome == "") != stranger {
			t.Errorf("%s: %+v, %v", sender, ledger, err)
		}
	}
}

// brokenStore fails as a full disk would.
type brokenStore struct{ logstore.Store }

func (brokenStore) Commit(context.Context, logstore.Tx) ([]bool, error) {
	return nil, logstore.ErrUnavailable
}

// racedStore finds that another transaction certified the same.
type racedStore struct{ logstore.Store }

func (racedStore) Commit(_ context.Context, tx logstore.Tx) ([]bool, error) {
	return make([]bool, len(tx.Acts)), nil
}

func TestFailureIsNotSuccess(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	bob := []pec.Address{"bob@beta.example"}
	beta.Store = brokenStore{beta.store}
	if err := beta.TakeCharge(ctx, f, bob, ""); !errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("take charge: %v", err)
	}
	if err := beta.deliver(ctx, f, []delivery.Result{{Recipient: bob[0], Answer: delivery.Delivered}}); !errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("deliver: %v", err)
	}
	beta.Store = racedStore{beta.store}
	if err := beta.TakeCharge(ctx, f, bob, ""); !errors.Is(err, act.ErrRace) {
		t.Errorf("take charge in a race: %v", err)
	}
	if n := len(beta.outgoing(t)); n != 0 {
		t.Errorf("%d messages in the outbox", n)
	}
}
