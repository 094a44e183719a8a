package act_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points/act"
	"pecd/points/pointstest"
	"pecd/points/reception"
)

// rendered are the kinds of which a duplicate was compared with what was issued.
var rendered sync.Map

// TestMain wants the tests of all that a clerk issues to have compared duplicates
// of every kind.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, k := range []string{"accettazione nessuno", "non-accettazione altro", "non-accettazione virus", "presa-in-carico nessuno", "avvenuta-consegna nessuno",
		"errore-consegna altro", "errore-consegna virus", "preavviso-errore-consegna 4.4.1", "preavviso-errore-consegna 5.4.1", "rilevazione-virus virus"} {
		if _, ok := rendered.Load(k); !ok && code == 0 && flag.Lookup("test.run").Value.String() == "" {
			fmt.Fprintf(os.Stderr, "no duplicate of %q was compared with what was issued\n", k)
			code = 1
		}
	}
	os.Exit(code)
}

// duplicates renders all receipts and notices of the outbox once more and compares
// them with what was issued. Every desk does so when its test ends.
func (d *desk) duplicates(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	clerk := *d.Clerk
	clerk.Store, clerk.Now = d.store, func() time.Time { return pointstest.At.Add(72 * time.Hour) }
	out, err := d.store.Outgoing(ctx, pointstest.At.Add(100*24*time.Hour), 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		if !o.Kind.Valid() || o.Kind == pec.KindTransport {
			continue
		}
		first := read(t, o.Content)
		made, err := clerk.Duplicate(ctx, act.Wanted{Identifier: first.ev.Identifier, Kind: o.Kind, Recipient: first.ev.Recipient}, d.service)
		if err != nil {
			t.Errorf("%s: %v", o.Kind, err)
			continue
		}
		same := false
		for _, s := range made {
			second := read(t, s.Content())
			same = same || d.compare(t, o, first, s.MessageID(), second)
		}
		if !same {
			t.Errorf("no duplicate names %s %s", o.Kind, o.MessageID)
		}
	}
}

// compare reports whether second is a duplicate of the message first, and if so
// tells what is not the same.
func (d *desk) compare(t *testing.T, o logstore.Outgoing, first parsed, id string, second parsed) bool {
	t.Helper()
	mark := pointstest.At.Add(72*time.Hour).Format(time.RFC3339) + "; <" + o.MessageID + ">"
	if second.header.Get(pec.HeaderDuplicate) != mark {
		return false
	}
	if !reflect.DeepEqual(first.ev, second.ev) {
		t.Errorf("%s: issued\n%+v, duplicate\n%+v", o.Kind, first.ev, second.ev)
	}
	for _, name := range []string{"Date", "From", "To", pec.HeaderReceipt, pec.HeaderReference, pec.HeaderSecurity, pec.HeaderSender} {
		if a, b := first.header.Get(name), second.header.Get(name); a != b {
			t.Errorf("%s: %s is %q, was %q", o.Kind, name, b, a)
		}
	}
	if id == o.MessageID || !strings.HasPrefix(second.header.Get("Subject"), "DUPLICATO - ") || second.signed.Get(pec.HeaderDuplicate) != mark {
		t.Errorf("%s: not marked as a duplicate:\n%s", o.Kind, second.raw)
	}
	rep, err := d.world.Verifier.Verify(second.message, pointstest.At.Add(72*time.Hour))
	if err != nil || !rep.SigningTime.Equal(pointstest.At.Add(72*time.Hour).Truncate(time.Second)) {
		t.Errorf("%s: %v, signed at %v", o.Kind, err, rep.SigningTime)
	}
	word := string(first.ev.Error)
	if first.ev.Kind == pec.KindTimeout {
		word = first.ev.Detail[:5]
	}
	rendered.Store(string(o.Kind)+" "+word, true)
	return true
}

func (d *desk) service(provider string) pec.Address {
	for _, p := range d.world.Directory.Providers() {
		if p.Name == provider {
			return p.ServiceMailbox
		}
	}
	return ""
}

// A parsed is a system message as its reader sees it.
type parsed struct {
	raw            []byte
	message        *message.Message
	header, signed *message.Header
	ev             pec.Event
}

func read(t *testing.T, c message.Content) (p parsed) {
	t.Helper()
	p.raw = octets(t, c)
	var err error
	if p.message, err = message.Read(message.Bytes(p.raw)); err != nil {
		t.Fatal(err)
	}
	root, err := p.message.Structure()
	if err != nil {
		t.Fatal(err)
	}
	p.header, p.signed = &p.message.Header, &root.Children[0].Header
	data, _, err := reception.Parts(root.Children[0])
	if err != nil {
		t.Fatal(err)
	}
	if p.ev, err = reception.Data(data, pointstest.At.Location()); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDuplicate: what was issued once is rendered as often as somebody asks, each
// time registered; what was not, never; and a duplicate is not sent.
func TestDuplicate(t *testing.T) {
	ctx := context.Background()
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	id, sent := d.accept(t)
	for range 2 {
		made, err := d.Duplicate(ctx, act.Wanted{Identifier: id}, d.service)
		if err != nil || len(made) != 1 || made[0].Event().Kind != pec.KindAcceptance {
			t.Fatalf("%v, %v", made, err)
		}
		if !bytes.Contains(octets(t, made[0].Content()), []byte("ricostruito dal registro")) {
			t.Errorf("no note in\n%s", octets(t, made[0].Content()))
		}
		if _, err := d.store.Commit(ctx, logstore.Tx{At: pointstest.At, Acts: []logstore.Act{{Entry: logstore.Entry{Type: "x"}, Send: made[0]}}}); !errors.Is(err, logstore.ErrInvalid) {
			t.Errorf("a duplicate goes into the outbox: %v", err)
		}
	}
	n := 0
	for _, e := range d.entries(t, id) {
		if e.Type == logstore.EntryDuplicate {
			n++
		}
	}
	if got := d.outgoing(t); n != 2 || len(got) != len(sent) {
		t.Errorf("%d entries of duplicates, %d messages in the outbox, want 2 and %d", n, len(got), len(sent))
	}
	for _, wanted := range []act.Wanted{{Identifier: "none@alfa.example"}, {Identifier: id, Kind: pec.KindDelivery}, {Identifier: id, Kind: pec.KindTransport}} {
		if made, err := d.Duplicate(ctx, wanted, d.service); !errors.Is(err, act.ErrNotIssued) {
			t.Errorf("%+v: %v, %v", wanted, made, err)
		}
	}
}
