package act_test

import (
	"bytes"
	"context"
	"io"
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
)

const virus = "Eicar-Test-Signature"

// kept returns what is in the virus store.
func (d *desk) kept(t *testing.T) []logstore.Infected {
	t.Helper()
	list, err := d.store.Infected(context.Background(), logstore.InfectedQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestNonAcceptVirus: the sender is told, and the original is kept apart
// (RFC 6109, 3.1.3).
func TestNonAcceptVirus(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	m, _ := d.spool(t, []byte(original))
	s := access.Submission{Sender: "alice@alfa.example", Recipients: d.classified("bob@beta.example"), Message: m}
	reasons := []points.Reason{{Cause: points.Virus, Italian: virus, English: virus}}
	id, err := d.NonAccept(ctx, s.Event(d.Issuer.Name), reasons, m, "Q")
	if err != nil {
		t.Fatal(err)
	}
	out := d.outgoing(t)
	if len(out) != 1 || out[0].Kind != pec.KindNonAcceptance || out[0].To[0] != "alice@alfa.example" {
		t.Fatalf("%+v", out)
	}
	whole := octets(t, out[0].Content)
	if f := d.arrive(t, whole); f.Event.Error != pec.ErrorVirus || f.Event.Detail != virus || f.Original != nil ||
		!bytes.Contains(whole, []byte("X-VerificaSicurezza: errore\r\n")) {
		t.Errorf("%+v", f.Event)
	}
	list := d.kept(t)
	if len(list) != 1 || list[0].Identifier != id || list[0].Virus != virus || list[0].Source != logstore.KeptAccess ||
		!list[0].Until.Equal(list[0].At.AddDate(0, 30, 0)) {
		t.Fatalf("kept %+v", list)
	}
	r, err := d.store.OpenInfected(ctx, list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != original {
		t.Errorf("kept %q, %v", b, err)
	}
}

// TestVirusKeptForTheRest: of one recipient the last word was said before the virus was
// known. The envelope is kept for the other.
func TestVirusKeptForTheRest(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	both := []pec.Address{"bob@beta.example", "bruna@beta.example"}
	if err := beta.Deliver(ctx, f, sent[0].Content, nil, both[:1], []delivery.Outcome{{Kind: pec.KindNonDelivery, Error: pec.ErrorOther, Detail: "full"}}); err != nil {
		t.Fatal(err)
	}
	outcome := delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: virus}
	if err := beta.Deliver(ctx, f, sent[0].Content, &act.Virus{Name: virus, Source: logstore.KeptDelivery}, both, []delivery.Outcome{outcome, outcome}); err != nil {
		t.Fatal(err)
	}
	if list := beta.kept(t); len(list) != 1 || list[0].Source != logstore.KeptDelivery {
		t.Errorf("kept %+v", list)
	}
}

// TestVirusNotice: an infected envelope, from the receiving provider's notice to
// the sender's non-delivery notice (RFC 6109, 3.2.3 and 3.2.4).
func TestVirusNotice(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	id, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	both := []pec.Address{"bob@beta.example", "Bruna@beta.example"} // who was written to as bruna@
	outcome := delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: virus}
	if err := beta.Deliver(ctx, f, sent[0].Content, nil, both, []delivery.Outcome{outcome, outcome}); err == nil || len(beta.outgoing(t)) != 0 {
		t.Errorf("a virus of which nothing is kept is certified: %v", err)
	}
	for range 2 { // a copy comes again
		if err := beta.Deliver(ctx, f, sent[0].Content, &act.Virus{Name: outcome.Detail, Source: logstore.KeptReception}, both, []delivery.Outcome{outcome, outcome}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := beta.Concluded(ctx, f, both); err != nil || !got[0] || !got[1] {
		t.Errorf("concluded %v (%v), want both", got, err)
	}
	if list := beta.kept(t); len(list) != 1 || list[0].Source != logstore.KeptReception || list[0].Identifier != id {
		t.Errorf("kept %+v", list)
	}
	notices := beta.outgoing(t)
	if len(notices) != 2 {
		t.Fatalf("%d notices", len(notices))
	}
	for _, o := range notices {
		if o.Kind != pec.KindVirus || o.To[0] != "ricevute@alfa.example" {
			t.Errorf("%s to %v", o.Kind, o.To)
		}
		whole := octets(t, o.Content)
		if !bytes.Contains(whole, []byte("X-Mittente: alice@alfa.example\r\n")) {
			t.Error("X-Mittente is missing")
		}
		r := alfa.arrive(t, whole)
		for range 2 {
			if err := alfa.Receive(ctx, r, o.MessageID, o.To, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	failed := map[pec.Address]bool{}
	for _, o := range alfa.outgoing(t)[2:] { // after envelope and acceptance receipt
		r := alfa.arrive(t, octets(t, o.Content))
		failed[r.Event.Recipient] = true
		if o.Kind != pec.KindNonDelivery || o.To[0] != "alice@alfa.example" || r.Event.Error != pec.ErrorVirus ||
			!strings.HasPrefix(r.Event.Detail, "5.5.1 - Alfa PEC S.p.A. - "+virus) || r.Event.Identifier != id {
			t.Errorf("%s to %v: %+v", o.Kind, o.To, r.Event)
		}
	}
	if len(alfa.outgoing(t)) != 4 || !failed["bob@beta.example"] || !failed["bruna@beta.example"] {
		t.Errorf("notices about %v", failed)
	}
	ledger, err := alfa.store.Awaited(ctx, id)
	if err != nil || ledger[0].Outcome != pec.KindNonDelivery || ledger[1].Outcome != pec.KindNonDelivery {
		t.Errorf("ledger %+v, %v", ledger, err)
	}
}

// TestVirusNoticeComesLate: who has a delivery receipt gets no non-delivery notice
// any more, nor anybody for a message that is not ours.
func TestVirusNoticeComesLate(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	alfa, beta := newDesk(t, w, w.Alfa), newDesk(t, w, w.Beta)
	_, sent := alfa.accept(t)
	f := beta.arrive(t, octets(t, sent[0].Content))
	bob := []pec.Address{"bob@beta.example"}
	if err := beta.deliver(ctx, f, []delivery.Result{{Recipient: bob[0], Answer: delivery.Delivered}}); err != nil {
		t.Fatal(err)
	}
	o := delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: virus}
	forgetful := newDesk(t, w, w.Beta) // the same provider with an empty register
	for _, d := range []*desk{beta, forgetful} {
		if err := d.Deliver(ctx, f, sent[0].Content, &act.Virus{Name: o.Detail, Source: logstore.KeptReception}, bob, []delivery.Outcome{o}); err != nil {
			t.Fatal(err)
		}
	}
	issued := append(beta.outgoing(t), forgetful.outgoing(t)...)
	if len(issued) != 2 || issued[0].Kind != pec.KindDelivery || issued[1].Kind != pec.KindVirus {
		t.Fatalf("%d issued, want one last word each", len(issued))
	}
	stranger := newDesk(t, w, w.Alfa)
	for _, out := range issued {
		r := alfa.arrive(t, octets(t, out.Content))
		for _, d := range []*desk{alfa, stranger} {
			if err := d.Receive(ctx, r, out.MessageID, out.To, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(alfa.outgoing(t)); n != 2 {
		t.Errorf("%d messages, want envelope and acceptance receipt only", n)
	}
	if n := len(stranger.outgoing(t)); n != 0 {
		t.Errorf("%d messages about what is not ours", n)
	}
}

func TestRefuseInfected(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Beta)
	m, err := message.Read(message.Bytes("From: x@y.example\r\nSubject: Ciao\r\n\r\nX\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.RefuseInfected(context.Background(), m, "x@y.example", []pec.Address{"bob@beta.example"}, virus, "Q"); err != nil {
		t.Fatal(err)
	}
	list := d.entries(t, "")
	if len(list) != 1 || list[0].Type != logstore.EntryVirus || list[0].Detail != virus || list[0].Error != pec.ErrorVirus ||
		list[0].Subject != "Ciao" || len(d.kept(t)) != 0 || len(d.outgoing(t)) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestPurge(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	m, _ := d.spool(t, []byte(original))
	s := access.Submission{Sender: "alice@alfa.example", Recipients: d.classified("bob@beta.example"), Message: m}
	reasons := []points.Reason{{Cause: points.Virus, Italian: virus, English: virus}}
	if _, err := d.NonAccept(context.Background(), s.Event(d.Issuer.Name), reasons, m, "Q"); err != nil {
		t.Fatal(err)
	}
	until := d.kept(t)[0].Until
	for _, tt := range []struct {
		at   time.Time
		want int
	}{{until.Add(-time.Second), 0}, {until, 1}, {until.AddDate(1, 0, 0), 0}} {
		d.Now = func() time.Time { return tt.at }
		if n, err := d.Purge(context.Background()); err != nil || n != tt.want {
			t.Errorf("at %s: %d, %v; want %d", tt.at, n, err, tt.want)
		}
	}
}
