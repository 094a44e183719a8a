package act_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points/access"
	"pecd/points/act"
	"pecd/points/delivery"
	"pecd/points/pointstest"
	"pecd/points/reception"
)

// ours submits a message to anna, who is of the same provider, and lets it arrive.
func (d *desk) ours(t *testing.T) reception.Found {
	t.Helper()
	raw := strings.Replace(original, "bob@beta.example", "anna@alfa.example", 1)
	m, _ := d.spool(t, []byte(raw))
	s := access.Submission{Login: "alice@alfa.example", Sender: "alice@alfa.example", SenderOurs: true,
		Recipients: d.classified("anna@alfa.example"), Message: m}
	if _, err := d.Accept(t.Context(), s.Event(d.Issuer.Name), m, message.Facts{}, "Q"); err != nil {
		t.Fatal(err)
	}
	return d.arrive(t, octets(t, d.outgoing(t)[0].Content))
}

// finals counts the last words in the register.
func (d *desk) finals(t *testing.T, f reception.Found) (n int) {
	t.Helper()
	for _, e := range d.entries(t, f.Event.Identifier) {
		switch pec.Kind(e.Type) {
		case pec.KindDelivery, pec.KindNonDelivery, pec.KindVirus:
			n++
		}
	}
	return n
}

// bounced brings a notification that f did not reach anna.
func (d *desk) bounced(t *testing.T, f reception.Found) {
	t.Helper()
	id := f.Event.Identifier
	m := bounce(d.EnvelopeID(id), string(id), "anna@alfa.example failed")
	b, ok, err := reception.ReadBounce(m, "", d.Owner)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, err := d.Bounced(t.Context(), b, m); err != nil {
		t.Fatal(err)
	}
}

var anna = []pec.Address{"anna@alfa.example"}

// TestOneLastWord: of two that are said about one recipient, whoever says them, the
// first stands and the second is not issued. Nobody looks before but the store.
func TestOneLastWord(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	infected := []delivery.Outcome{{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: virus}}
	says := map[string]func(*desk, reception.Found) error{
		"delivered": func(d *desk, f reception.Found) error {
			return d.deliver(ctx, f, []delivery.Result{{Recipient: anna[0], Answer: delivery.Delivered}})
		},
		"refused": func(d *desk, f reception.Found) error {
			return d.deliver(ctx, f, []delivery.Result{{Recipient: "anna@ALFA.example", Answer: delivery.Never, Code: "5.2.2"}})
		},
		"infected": func(d *desk, f reception.Found) error {
			return d.Deliver(ctx, f, message.Text([]byte(original)), &act.Virus{Name: virus, Source: logstore.KeptReception}, anna, infected)
		},
		"bounced": func(d *desk, f reception.Found) error { d.bounced(t, f); return nil },
	}
	for first, say := range says {
		for second, sayToo := range says {
			t.Run(first+", "+second, func(t *testing.T) {
				d := newDesk(t, w, w.Alfa)
				d.Secret = []byte("secret")
				f := d.ours(t)
				for _, act := range []func(*desk, reception.Found) error{say, sayToo} {
					if err := act(d, f); err != nil {
						t.Fatal(err)
					}
				}
				if n := d.finals(t, f); n != 1 {
					t.Errorf("%d last words about one recipient", n)
				}
			})
		}
	}
}

// TestOneLastWordInATransaction: the MTA gives one mailbox twice, and the mailbox store
// takes the message once.
func TestOneLastWordInATransaction(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	f := d.ours(t)
	err := d.deliver(t.Context(), f, []delivery.Result{{Recipient: "anna@alfa.example", Answer: delivery.Delivered},
		{Recipient: "anna@Alfa.example", Answer: delivery.Never, Code: "5.2.2"}})
	if n := d.finals(t, f); err != nil || n != 1 {
		t.Errorf("%d last words about one recipient, %v", n, err)
	}
}

// TestVirusAmongOurs: a virus notice of ours to ourselves becomes the non-delivery
// notice to the sender (RFC 6109, 3.2.3 and 3.2.4), and not the bounce that comes before.
func TestVirusAmongOurs(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	d.Secret = []byte("secret")
	f := d.ours(t)
	o := delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: virus}
	if err := d.Deliver(ctx, f, message.Text([]byte(original)), &act.Virus{Name: virus, Source: logstore.KeptReception}, anna, []delivery.Outcome{o}); err != nil {
		t.Fatal(err)
	}
	d.bounced(t, f)
	notice := d.outgoing(t)[2] // after envelope and acceptance receipt
	for range 2 {
		if err := d.Receive(ctx, d.arrive(t, octets(t, notice.Content)), notice.MessageID, notice.To, ""); err != nil {
			t.Fatal(err)
		}
	}
	out := d.outgoing(t)
	if last := out[len(out)-1]; len(out) != 4 || notice.Kind != pec.KindVirus || last.Kind != pec.KindNonDelivery ||
		d.arrive(t, octets(t, last.Content)).Event.Error != pec.ErrorVirus {
		t.Errorf("%d messages, the last %s to %v", len(out), last.Kind, last.To)
	}
}

// TestNoTimeoutOfOurOwn: what we have certified of a recipient of ours is on its way to
// the sender. He is not told that nothing was heard.
func TestNoTimeoutOfOurOwn(t *testing.T) {
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	f := d.ours(t)
	if err := d.TakeCharge(t.Context(), f, anna, ""); err != nil {
		t.Fatal(err)
	}
	d.accept(t, "bob@beta.example") // of whom nothing is heard
	if err := d.deliver(t.Context(), f, []delivery.Result{{Recipient: anna[0], Answer: delivery.Delivered}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.later(25 * time.Hour)
		if err := d.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range d.entries(t, f.Event.Identifier) {
		if e.Type == logstore.EntryType(pec.KindTimeout) {
			t.Errorf("told of %s: %s", e.Recipient, e.Detail)
		}
	}
	if n := d.kinds(t)[pec.KindTimeout]; n != 2 {
		t.Errorf("%d notices about the other, want 2", n)
	}
}
