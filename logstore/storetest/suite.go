package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
)

// Test runs the suite. open opens the store in dir, which is new or has been
// closed before; it ends the test if it cannot.
func Test(t *testing.T, open func(t *testing.T, dir string) logstore.Store) {
	p := NewProvider(t)
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"Entries", testEntries},
		{"Search", testSearch},
		{"SearchPages", testSearchPages},
		{"SearchStops", testSearchStops},
		{"Once", testOnce},
		{"OnceWithinTx", testOnceWithinTx},
		{"KeysTogether", testKeysTogether},
		{"Ledger", testLedger},
		{"LedgerOrder", testLedgerOrder},
		{"Outbox", testOutbox},
		{"TakenByParts", testTakenByParts},
		{"Postpone", testPostpone},
		{"OldestFirst", testOldestFirst},
		{"BodyStoredOnce", testBodyShared},
		{"BodyUsedAgain", testBodyUsedAgain},
		{"BodyFromOutbox", testBodyFromOutbox},
		{"BodyKeptByHandle", testBodyKeptByHandle},
		{"BodyReads", testBodyReads},
		{"ForeignSource", testForeignSource},
		{"BrokenSource", testBrokenSource},
		{"Wake", testWake},
		{"Stats", testStats},
		{"Reopened", testReopened},
		{"Refused", testRefused},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, Provider: p, dir: t.TempDir(), openStore: open}
			b.open()
			defer func() { b.close() }()
			c.run(b)
		})
	}
}

// A bench is one test with its store.
type bench struct {
	*testing.T
	*Provider
	dir       string
	openStore func(*testing.T, string) logstore.Store
	store     logstore.Store
}

func (b *bench) open() {
	b.Helper()
	b.store = b.openStore(b.T, b.dir)
}

func (b *bench) close() {
	b.Helper()
	if err := b.store.Close(); err != nil {
		b.Errorf("closing the store: %v", err)
	}
}

func (b *bench) reopen() {
	b.Helper()
	b.close()
	b.open()
}

func (b *bench) commit(tx logstore.Tx) []bool {
	b.Helper()
	done, err := b.store.Commit(context.Background(), tx)
	if err != nil {
		b.Fatalf("Commit: %v", err)
	}
	if len(done) != len(tx.Acts) {
		b.Fatalf("Commit told the outcome of %d acts of %d", len(done), len(tx.Acts))
	}
	return done
}

// mustCommit commits tx, of which every act must be done.
func (b *bench) mustCommit(tx logstore.Tx) {
	b.Helper()
	for i, d := range b.commit(tx) {
		if !d {
			b.Fatalf("act %d was left out", i)
		}
	}
}

// body returns an open body with text.
func (b *bench) body(text string) logstore.Body {
	b.Helper()
	body, err := b.store.NewBody()
	if err != nil {
		b.Fatalf("NewBody: %v", err)
	}
	if _, err := io.WriteString(body, text); err != nil {
		b.Fatalf("writing a body: %v", err)
	}
	return body
}

func (b *bench) closeBody(body logstore.Body) {
	b.Helper()
	if err := body.Close(); err != nil {
		b.Fatalf("closing a body: %v", err)
	}
}

// access commits the access transaction of an original of size octets and
// returns its event and the texts of the two messages, by Message-ID.
func (b *bench) access(size int, recipients ...pec.Address) (pec.Event, map[string]string) {
	b.Helper()
	ev := b.NewEvent(b, recipients...)
	body := b.body(Original(ev, size))
	defer b.closeBody(body)
	envelope, acceptance := b.Transport(b, ev, body), b.Acceptance(b, ev)
	texts := map[string]string{
		envelope.MessageID():   Text(b, envelope.Content()),
		acceptance.MessageID(): Text(b, acceptance.Content()),
	}
	b.mustCommit(Access(envelope, acceptance))
	return ev, texts
}

func (b *bench) outgoing(at time.Time) []logstore.Outgoing {
	b.Helper()
	out, err := b.store.Outgoing(context.Background(), at, 1000, nil)
	if err != nil {
		b.Fatalf("Outgoing: %v", err)
	}
	return out
}

func (b *bench) taken(id int64, by ...pec.Address) {
	b.Helper()
	if err := b.store.Taken(context.Background(), id, by); err != nil {
		b.Fatalf("Taken: %v", err)
	}
}

func (b *bench) search(q logstore.Query) []logstore.Entry {
	b.Helper()
	var out []logstore.Entry
	err := b.store.Search(context.Background(), q, func(e logstore.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		b.Fatalf("Search(%+v): %v", q, err)
	}
	return out
}

func (b *bench) stats() logstore.Stats {
	b.Helper()
	s, err := b.store.Stats(context.Background())
	if err != nil {
		b.Fatalf("Stats: %v", err)
	}
	return s
}

// entry returns an act with nothing but an entry.
func entry(id pec.Identifier, at time.Time) logstore.Act {
	return logstore.Act{Entry: logstore.Entry{At: at, Type: logstore.EntryReceived, Identifier: id}}
}

func testEntries(b *bench) {
	full := logstore.Entry{
		At: At.Add(123456789), Type: "avvenuta-consegna", Identifier: "1@alfa.example", MsgID: "<a@client>",
		Sender:     "Alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "m@ordinary.example", Type: pec.External}},
		Subject:    "Perché «sì» €", Messages: []string{"x@alfa.example", "y@alfa.example"}, SendingProvider: "Alfa PEC",
		Receipt: pec.Complete, Recipient: "bob@beta.example", Taken: []pec.Address{"bob@beta.example"},
		Error: pec.NoError, Detail: "un dettaglio", Digest: "00ff", QueueID: "84CEF9A4925",
	}
	b.mustCommit(logstore.Tx{At: full.At, Acts: []logstore.Act{{Entry: full}}})
	second := entry("2@alfa.example", time.Time{}) // takes the instant of the transaction
	b.mustCommit(logstore.Tx{At: At.Add(time.Second), Acts: []logstore.Act{second, second}})

	got := b.search(logstore.Query{})
	if len(got) != 3 {
		b.Fatalf("the register has %d entries, 3 were written", len(got))
	}
	if !got[0].At.Equal(full.At) || got[0].At.Format(time.RFC3339Nano) != full.At.Format(time.RFC3339Nano) {
		b.Errorf("instant %v, written %v", got[0].At, full.At)
	}
	full.Seq, full.At = 1, got[0].At
	if !reflect.DeepEqual(got[0], full) {
		b.Errorf("entry\n%+v, written\n%+v", got[0], full)
	}
	for i, e := range got {
		if e.Seq != int64(i+1) {
			b.Errorf("entry %d has number %d", i+1, e.Seq)
		}
	}
	if !got[2].At.Equal(At.Add(time.Second)) {
		b.Errorf("an entry without instant has %v, its transaction %v", got[2].At, At.Add(time.Second))
	}
}

func testSearch(b *bench) {
	at := func(s int) time.Time { return At.Add(time.Duration(s) * time.Second) }
	for i, e := range []logstore.Entry{
		{Identifier: "1@alfa.example", MsgID: "<c1@client>", Sender: "alice@alfa.example", Messages: []string{"1@alfa.example"},
			Recipients: []pec.Recipient{{Address: "Bob@Beta.example"}, {Address: "bruna@beta.example"}}},
		{Identifier: "1@alfa.example", MsgID: "<c1@client>", Sender: "alice@alfa.example", Recipient: "bob@beta.example"},
		{Identifier: "2@alfa.example", MsgID: "c2@client", Sender: "anna@alfa.example", Taken: []pec.Address{"bob@beta.example"}, Messages: []string{"<g2@alfa.example>"}},
		{Identifier: "3@beta.example", Sender: "bob@beta.example", Messages: []string{"c1@client"}},
	} {
		e.Type = "prova"
		// The third is older than the second, as with a clock set back.
		when := at([]int{0, 20, 10, 30}[i])
		b.mustCommit(logstore.Tx{At: when, Acts: []logstore.Act{{Entry: e}}})
	}
	for _, c := range []struct {
		q    logstore.Query
		want []int64
	}{
		{logstore.Query{}, []int64{1, 3, 2, 4}},
		{logstore.Query{Identifier: "1@alfa.example"}, []int64{1, 2}},
		{logstore.Query{Identifier: "1@ALFA.example"}, nil},
		{logstore.Query{MessageID: "<c1@client>"}, []int64{1, 2, 4}},
		{logstore.Query{MessageID: "c1@client"}, []int64{1, 2, 4}},
		{logstore.Query{MessageID: "c2@client"}, []int64{3}},
		{logstore.Query{MessageID: " <g2@alfa.example> "}, []int64{3}},
		{logstore.Query{MessageID: "client"}, nil},
		{logstore.Query{Address: "BOB@beta.example"}, []int64{1, 3, 2, 4}},
		{logstore.Query{Address: "bruna@beta.example"}, []int64{1}},
		{logstore.Query{Address: "anna@alfa.example"}, []int64{3}},
		{logstore.Query{Since: at(10)}, []int64{3, 2, 4}},
		{logstore.Query{Until: at(20)}, []int64{1, 3}},
		{logstore.Query{Since: at(10), Until: at(20)}, []int64{3}},
		{logstore.Query{Since: at(20), Until: at(20)}, nil},
		{logstore.Query{Since: time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), Until: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, []int64{1, 3, 2, 4}},
		{logstore.Query{Identifier: "1@alfa.example", Address: "bob@beta.example", Since: at(1)}, []int64{2}},
		{logstore.Query{Identifier: "1@alfa.example", MessageID: "c1@client", Address: "bruna@beta.example"}, []int64{1}},
		{logstore.Query{Address: "bob@beta.example", MessageID: "c1@client", Until: at(30)}, []int64{1, 2}},
		{logstore.Query{Identifier: "2@alfa.example", MessageID: "c1@client"}, nil},
	} {
		var got []int64
		for _, e := range b.search(c.q) {
			got = append(got, e.Seq)
		}
		if !reflect.DeepEqual(got, c.want) {
			b.Errorf("Search(%+v) finds %v, want %v", c.q, got, c.want)
		}
	}
}

func testSearchPages(b *bench) {
	const n = 1203 // more than any page; many share an instant
	tx := logstore.Tx{At: At}
	for i := range n {
		a := entry("p@alfa.example", time.Time{})
		a.Entry.Sender, a.Entry.MsgID = "alice@alfa.example", "<p@client>"
		tx.Acts = append(tx.Acts, a)
		if i%400 == 399 || i == n-1 {
			b.mustCommit(tx)
			tx = logstore.Tx{At: tx.At.Add(time.Second)}
		}
	}
	for _, q := range []logstore.Query{{}, {Identifier: "p@alfa.example"}, {MessageID: "p@client"}, {Address: "alice@alfa.example"}} {
		for i, e := range b.search(q) {
			if e.Seq != int64(i+1) {
				b.Fatalf("Search(%+v): entry %d is number %d", q, i+1, e.Seq)
			}
			if i+1 == n {
				q.Identifier = "all"
			}
		}
		if q.Identifier != "all" {
			b.Errorf("Search(%+v) does not find all %d", q, n)
		}
	}
}

func testSearchStops(b *bench) {
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{entry("1", At), entry("2", At)}})
	stop, calls := errors.New("enough"), 0
	err := b.store.Search(context.Background(), logstore.Query{}, func(logstore.Entry) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		b.Errorf("Search returned %v after %d calls, want the callback's error after 1", err, calls)
	}
	// The callback may use the store.
	err = b.store.Search(context.Background(), logstore.Query{}, func(e logstore.Entry) error {
		_, err := b.store.Commit(context.Background(), logstore.Tx{At: At.Add(-time.Hour), Acts: []logstore.Act{entry(e.Identifier+"+", time.Time{})}})
		return err
	})
	if err != nil {
		b.Errorf("committing from within Search: %v", err)
	}
}

func testOnce(b *bench) {
	ev, _ := b.access(1000, "bob@beta.example")
	before := b.stats()
	again := b.Acceptance(b, ev)
	act := ActOf(again)
	act.Await = []pec.Address{"other@beta.example"}
	act.Answer = &logstore.Answer{Identifier: ev.Identifier, Recipients: []pec.Address{"bob@beta.example"}, Kind: pec.KindDelivery}
	done := b.commit(logstore.Tx{At: ev.At, Acts: []logstore.Act{act, entry("new@alfa.example", ev.At)}})
	if done[0] || !done[1] {
		b.Errorf("done = %v, want the first act left out and the second done", done)
	}
	after := b.stats()
	if after.Entries != before.Entries+1 || after.Outbox != before.Outbox || after.Open != before.Open {
		b.Errorf("an act with a known key changed the store: %+v, before %+v", after, before)
	}

	key := KeyOf(pec.KindAcceptance, ev.Identifier, "")
	others := []logstore.Key{key, key, key, key, key}
	others[1].Kind = "other"
	others[2].Origin = "beta.example"
	others[3].Identifier = "other@alfa.example"
	others[4].Recipient = "bob@beta.example"
	issued, err := b.store.Issued(context.Background(), others)
	if err != nil || !reflect.DeepEqual(issued, []bool{true, false, false, false, false}) {
		b.Errorf("Issued: %v, %v", issued, err)
	}
	// The recipient is compared without regard to case.
	act = entry("1@alfa.example", At)
	act.Keys = []logstore.Key{KeyOf(pec.KindDelivery, "1@alfa.example", "Bob@Beta.example")}
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{act}})
	act.Keys = []logstore.Key{KeyOf(pec.KindDelivery, "1@alfa.example", "bob@beta.example")}
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act}}); done[0] {
		b.Error("a receipt can be issued once for each spelling of an address")
	}
}

func testOnceWithinTx(b *bench) {
	act := entry("1@alfa.example", At)
	act.Keys = []logstore.Key{KeyOf("k", "1@alfa.example", ""), KeyOf("k", "1@alfa.example", "")}
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act, act}}); !done[0] || done[1] {
		b.Errorf("two acts of one transaction with the same key: done = %v, want the first only", done)
	}
}

// An act with a known and a new key leaves the new one new.
func testKeysTogether(b *bench) {
	known, fresh := KeyOf("k", "1@alfa.example", "a@b.example"), KeyOf("k", "1@alfa.example", "c@b.example")
	act := entry("1@alfa.example", At)
	act.Keys = []logstore.Key{known}
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{act}})
	act.Keys = []logstore.Key{fresh, known}
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act}}); done[0] {
		b.Error("an act with a known key was done")
	}
	if issued, err := b.store.Issued(context.Background(), []logstore.Key{fresh, known}); err != nil || issued[0] || !issued[1] {
		b.Errorf("Issued: %v, %v; want the key of the act that was left out to be new", issued, err)
	}
}

func testLedger(b *bench) {
	const id = "1@alfa.example"
	answer := func(s int, kind pec.Kind, to ...pec.Address) {
		b.Helper()
		act := entry("r@beta.example", time.Time{})
		act.Answer = &logstore.Answer{Identifier: id, Recipients: to, Kind: kind}
		b.mustCommit(logstore.Tx{At: At.Add(time.Duration(s) * time.Second), Acts: []logstore.Act{act}})
	}
	send := entry(id, At)
	send.Await = []pec.Address{"Bob@beta.example", "bruna@beta.example", "zeno@beta.example", "carla@beta.example"}
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{send}})

	answer(1, pec.KindTakeCharge, "bob@beta.example", "bruna@beta.example", "stranger@beta.example")
	answer(2, pec.KindTakeCharge, "bob@beta.example")
	answer(3, pec.KindDelivery, "BOB@beta.example")
	answer(4, pec.KindNonDelivery, "bob@beta.example", "zeno@beta.example")
	answer(5, pec.KindDelivery, "zeno@beta.example")
	answer(6, pec.KindTakeCharge, "zeno@beta.example")
	answer(7, pec.KindTakeCharge)

	at := func(s int) time.Time { return At.Add(time.Duration(s) * time.Second) }
	want := []logstore.Awaited{
		{Recipient: "Bob@beta.example", TakenAt: at(1), EndedAt: at(3), Outcome: pec.KindDelivery},
		{Recipient: "bruna@beta.example", TakenAt: at(1)},
		{Recipient: "zeno@beta.example", EndedAt: at(4), Outcome: pec.KindNonDelivery},
		{Recipient: "carla@beta.example"},
	}
	got, err := b.store.Awaited(context.Background(), id)
	if err != nil || len(got) != len(want) {
		b.Fatalf("Awaited: %d rows, %v", len(got), err)
	}
	for i, w := range want {
		g := got[i]
		if g.Identifier != id || g.Recipient != w.Recipient || !g.Sent.Equal(At) || !g.TakenAt.Equal(w.TakenAt) ||
			!g.EndedAt.Equal(w.EndedAt) || g.Outcome != w.Outcome {
			b.Errorf("row %d is %+v, want %+v", i, g, w)
		}
	}
	if open := b.stats().Open; open != 2 {
		b.Errorf("%d rows are open, want 2", open)
	}
	if rows, err := b.store.Awaited(context.Background(), "r@beta.example"); err != nil || len(rows) != 0 {
		b.Errorf("a message that is not ours has rows: %v, %v", rows, err)
	}
}

func testLedgerOrder(b *bench) {
	send := entry("1@alfa.example", At)
	send.Await = []pec.Address{"z@b.example", "a@b.example", "Z@b.example", "m@b.example"}
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{send}})
	var got []pec.Address
	rows, err := b.store.Awaited(context.Background(), "1@alfa.example")
	for _, r := range rows {
		got = append(got, r.Recipient)
	}
	if want := []pec.Address{"z@b.example", "a@b.example", "m@b.example"}; err != nil || !reflect.DeepEqual(got, want) {
		b.Errorf("rows of %v, %v; want %v", got, err, want)
	}
}

func testOutbox(b *bench) {
	for _, size := range []int{300, 20_000, 300_000} {
		ev, texts := b.access(size, "bob@beta.example", "bruna@beta.example")
		out := b.outgoing(At)
		if len(out) != 2 {
			b.Fatalf("the outbox holds %d messages, 2 were sent", len(out))
		}
		for _, m := range out {
			if Text(b, m.Content) != texts[m.MessageID] {
				b.Errorf("message %s of %d octets differs from what was signed", m.Kind, size)
			}
			want := logstore.Outgoing{
				Kind: pec.KindAcceptance, From: "posta-certificata@alfa.example", To: []pec.Address{"alice@alfa.example"},
			}
			if m.Kind == pec.KindTransport {
				want = logstore.Outgoing{Kind: m.Kind, From: "alice@alfa.example", To: []pec.Address{"bob@beta.example", "bruna@beta.example"}}
			}
			if m.Kind != want.Kind || m.From != want.From || !reflect.DeepEqual(m.To, want.To) || m.Envelope != ev.Identifier ||
				m.EightBit || m.Attempts != 0 || !m.Created.Equal(At) || !m.Due.Equal(At) {
				b.Errorf("message %+v", m)
			}
			b.taken(m.ID, m.To...)
		}
		if out := b.outgoing(At); len(out) != 0 {
			b.Fatalf("%d messages are left after all were taken", len(out))
		}
	}
}

func testTakenByParts(b *bench) {
	_, texts := b.access(300_000, "bob@beta.example", "Bruna@beta.example", "carla@beta.example")
	var envelope logstore.Outgoing
	for _, m := range b.outgoing(At) {
		if m.Kind == pec.KindTransport {
			envelope = m
		}
	}
	for _, step := range []struct {
		by   []pec.Address
		left []pec.Address
	}{
		{nil, []pec.Address{"bob@beta.example", "Bruna@beta.example", "carla@beta.example"}},
		{[]pec.Address{"bruna@beta.example", "stranger@beta.example"}, []pec.Address{"bob@beta.example", "carla@beta.example"}},
		{[]pec.Address{"bruna@beta.example", "carla@beta.example"}, []pec.Address{"bob@beta.example"}},
		{[]pec.Address{"bob@beta.example"}, nil},
		{[]pec.Address{"bob@beta.example"}, nil}, // once more: nothing to do
	} {
		b.taken(envelope.ID, step.by...)
		var left []pec.Address
		for _, m := range b.outgoing(At) {
			if m.ID == envelope.ID {
				left = m.To
				if Text(b, m.Content) != texts[m.MessageID] {
					b.Error("the content changed")
				}
			}
		}
		if !reflect.DeepEqual(left, step.left) {
			b.Errorf("after %v was taken %v are left, want %v", step.by, left, step.left)
		}
	}
	b.taken(123456, "bob@beta.example") // of no message
	if n := len(b.outgoing(At)); n != 1 {
		b.Errorf("%d messages in the outbox, want the acceptance only", n)
	}
}

func testPostpone(b *bench) {
	b.access(300, "bob@beta.example")
	out := b.outgoing(At)
	late := At.Add(5 * time.Second)
	if err := b.store.Postpone(context.Background(), out[0].ID, late, "451 try later"); err != nil {
		b.Fatal(err)
	}
	if got := b.outgoing(At.Add(4 * time.Second)); len(got) != 1 || got[0].ID != out[1].ID {
		b.Errorf("%d messages are due before the time of the postponed one", len(got))
	}
	got := b.outgoing(late)
	if len(got) != 2 || got[0].ID != out[1].ID || got[1].Attempts != 1 || !got[1].Due.Equal(late) {
		b.Errorf("at the time: %+v", got)
	}
	if err := b.store.Postpone(context.Background(), 123456, late, "of no message"); err != nil {
		b.Errorf("postponing a message that is gone: %v", err)
	}
}

func testOldestFirst(b *bench) {
	var ids []int64
	for range 4 {
		b.access(300, "bob@beta.example")
	}
	for _, m := range b.outgoing(At) {
		ids = append(ids, m.ID)
	}
	for _, c := range []struct {
		limit  int
		except []int64
		want   []int64
	}{
		{3, nil, ids[:3]},
		{3, ids[:2], ids[2:5]},
		{3, []int64{ids[1], ids[3], 99999}, []int64{ids[0], ids[2], ids[4]}},
		{100, ids[1:], ids[:1]},
		{0, nil, nil},
	} {
		out, err := b.store.Outgoing(context.Background(), At, c.limit, c.except)
		var got []int64
		for _, m := range out {
			got = append(got, m.ID)
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			b.Errorf("Outgoing(%d, except %v): %v, %v; want %v", c.limit, c.except, got, err, c.want)
		}
	}
	if out := b.outgoing(At.Add(-time.Nanosecond)); len(out) != 0 {
		b.Errorf("%d messages are due before their transaction", len(out))
	}
}

// Two messages of one transaction and one of another carry the same body.
func testBodyShared(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	body := b.body(Original(ev, 300_000))
	envelope := b.Transport(b, ev, body)
	original := message.Section(body, message.Range{Len: body.Size()})
	delivery := b.Delivery(b, ev, original)
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(envelope), ActOf(delivery)}})
	other := b.NewEvent(b, "bruna@beta.example")
	third := b.Delivery(b, other, original)
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(third)}})
	want := map[string]string{}
	for _, m := range []interface {
		MessageID() string
		Content() message.Content
	}{envelope, delivery, third} {
		want[m.MessageID()] = Text(b, m.Content())
	}
	b.closeBody(body)
	b.reopen()
	for len(want) > 0 {
		out := b.outgoing(At)
		if len(out) != len(want) {
			b.Fatalf("%d messages, want %d", len(out), len(want))
		}
		for _, m := range out {
			if Text(b, m.Content) != want[m.MessageID] {
				b.Errorf("%s differs", m.Kind)
			}
		}
		b.taken(out[0].ID, out[0].To...)
		delete(want, out[0].MessageID)
	}
}

// The delivery point commits a receipt without the body first, receipts with it
// later, perhaps after the first of them has been taken.
func testBodyUsedAgain(b *bench) {
	for _, size := range []int{1000, 300_000} {
		ev := b.NewEvent(b, "bob@beta.example")
		body := b.body(Original(ev, size))
		b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(b.TakeCharge(b, ev))}})
		for range 3 {
			next := b.NewEvent(b, "bob@beta.example")
			m := b.Delivery(b, next, message.Section(body, message.Range{Len: body.Size()}))
			want := Text(b, m.Content())
			b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(m)}})
			for _, o := range b.outgoing(At) {
				if o.MessageID == m.MessageID() && Text(b, o.Content) != want {
					b.Errorf("the receipt differs")
				}
				b.taken(o.ID, o.To...)
			}
		}
		b.closeBody(body)
	}
}

func testBodyFromOutbox(b *bench) {
	for _, size := range []int{1000, 300_000} {
		ev, _ := b.access(size, "bob@beta.example")
		ev = b.NewEvent(b, "carla@beta.example")
		for _, m := range b.outgoing(At) {
			if m.Kind != pec.KindTransport {
				continue
			}
			// A message around what is on its way out.
			around := b.Delivery(b, ev, m.Content)
			want := Text(b, around.Content())
			b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(around)}})
			b.taken(m.ID, m.To...)
			for _, o := range b.outgoing(At) {
				if o.MessageID == around.MessageID() && Text(b, o.Content) != want {
					b.Error("the message around differs")
				}
			}
		}
		for _, m := range b.outgoing(At) {
			b.taken(m.ID, m.To...)
		}
	}
}

func testBodyKeptByHandle(b *bench) {
	for _, size := range []int{1000, 300_000} {
		ev := b.NewEvent(b, "bob@beta.example")
		text := Original(ev, size)
		body := b.body(text)
		b.mustCommit(Access(b.Transport(b, ev, body), b.Acceptance(b, ev)))
		for _, m := range b.outgoing(At) {
			b.taken(m.ID, m.To...)
		}
		if Text(b, message.Section(body, message.Range{Len: body.Size()})) != text {
			b.Error("an open body changed when its messages were taken")
		}
		b.closeBody(body)
	}
}

func testBodyReads(b *bench) {
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 300_000} {
		body, err := b.store.NewBody()
		if err != nil {
			b.Fatal(err)
		}
		var want []byte
		for i := 0; len(want) < size; i++ {
			piece := []byte(fmt.Sprintf("%d,", i))
			if i%100 == 0 {
				piece = append(piece, make([]byte, 10_000)...)
			}
			piece = piece[:min(len(piece), size-len(want))]
			if n, err := body.Write(piece); err != nil || n != len(piece) {
				b.Fatalf("Write: %d, %v", n, err)
			}
			want = append(want, piece...)
		}
		if body.Size() != int64(size) {
			b.Errorf("Size is %d after %d octets", body.Size(), size)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				got, err := io.ReadAll(io.NewSectionReader(body, 0, int64(size)+10))
				if err != nil || string(got) != string(want) {
					b.Errorf("reads %d octets of %d, %v", len(got), size, err)
				}
			}()
		}
		wg.Wait()
		if n, err := body.ReadAt(make([]byte, 5), int64(size)); n != 0 || err != io.EOF {
			b.Errorf("ReadAt at the end: %d, %v", n, err)
		}
		if _, err := body.ReadAt(make([]byte, 5), -1); err == nil {
			b.Error("ReadAt before the start succeeds")
		}
		if _, err := body.Write([]byte("more")); err == nil {
			b.Error("Write after ReadAt succeeds")
		}
		b.closeBody(body)
		b.closeBody(body)
		if _, err := body.ReadAt(make([]byte, 1), 0); err == nil {
			b.Error("ReadAt after Close succeeds")
		}
	}
}

// A source is a message.Source of nobody's.
type source struct{ message.Bytes }

func testForeignSource(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	text := Original(ev, 300_000)
	small := Original(ev, 300)
	for name, src := range map[string]message.Source{
		"pointer": &source{message.Bytes(text)}, "value": source{message.Bytes(text)}, "bytes": message.Bytes(text),
		"small pointer": &source{message.Bytes(small)}, "small bytes": message.Bytes(small),
		"content":        message.Text([]byte(text)),
		"nested content": message.Content{{Text: []byte(text[:10])}, {Source: message.Text([]byte(text)), Range: message.Range{Off: 10, Len: int64(len(text) - 10)}}},
	} {
		ev := b.NewEvent(b, "bob@beta.example")
		first := b.Transport(b, ev, src)
		second := b.Delivery(b, ev, message.Content{{Text: []byte("X: y\r\n")}, {Source: src, Range: message.Range{Off: 5, Len: src.Size() - 5}}})
		b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(first), ActOf(second)}})
		want := map[string]string{first.MessageID(): Text(b, first.Content()), second.MessageID(): Text(b, second.Content())}
		for _, m := range b.outgoing(At) {
			if Text(b, m.Content) != want[m.MessageID] {
				b.Errorf("%s: %s differs", name, m.Kind)
			}
			b.taken(m.ID, m.To...)
		}
	}
}

// A broken source can be read until it is broken.
type broken struct {
	message.Bytes
	err *error
}

func (s *broken) ReadAt(p []byte, off int64) (int, error) {
	if *s.err != nil {
		return 0, *s.err
	}
	return s.Bytes.ReadAt(p, off)
}

func testBrokenSource(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	var failure error
	m := b.Transport(b, ev, &broken{message.Bytes(Original(ev, 1000)), &failure})
	failure = errors.New("a bad sector")
	if _, err := b.store.Commit(context.Background(), Access(m, b.Acceptance(b, ev))); !errors.Is(err, failure) {
		b.Errorf("Commit of what cannot be read: %v", err)
	}
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("something of it was committed: %+v", s)
	}
}

func testWake(b *bench) {
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{entry("1@alfa.example", At)}})
	select {
	case <-b.store.Wake():
		b.Error("woken by a commit that sends nothing")
	default:
	}
	b.access(300, "bob@beta.example")
	b.access(300, "bob@beta.example") // nobody listens: must not block
	select {
	case <-b.store.Wake():
	default:
		b.Error("not woken by a commit that sends something")
	}
}

func testStats(b *bench) {
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("a new store has %+v", s)
	}
	b.access(300, "bob@beta.example", "bruna@beta.example")
	s := b.stats()
	if s.Entries != 2 || s.Outbox != 2 || s.Open != 2 || !s.Oldest.Equal(At) {
		b.Errorf("after an access transaction: %+v", s)
	}
}

func testReopened(b *bench) {
	ev, texts := b.access(300_000, "bob@beta.example")
	_, more := b.access(1000, "bruna@beta.example")
	for id, text := range more {
		texts[id] = text
	}
	b.reopen()
	if e := b.search(logstore.Query{Identifier: ev.Identifier}); len(e) != 2 {
		b.Errorf("%d entries of 2 are left", len(e))
	}
	if rows, err := b.store.Awaited(context.Background(), ev.Identifier); err != nil || len(rows) != 1 {
		b.Errorf("ledger: %v, %v", rows, err)
	}
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(b.Acceptance(b, ev))}}); done[0] {
		b.Error("a receipt can be issued again")
	}
	out := b.outgoing(At)
	if len(out) != 4 {
		b.Errorf("%d messages of 4 are left", len(out))
	}
	for _, m := range out {
		if Text(b, m.Content) != texts[m.MessageID] {
			b.Errorf("%s differs", m.Kind)
		}
	}
	last := out[len(out)-1].ID
	b.access(300, "bob@beta.example")
	for _, m := range out {
		b.taken(m.ID, m.To...)
	}
	for _, m := range b.outgoing(At) {
		if m.ID <= last {
			b.Errorf("id %d is used again", m.ID)
		}
	}
}

func testRefused(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	good := ActOf(b.Acceptance(b, ev))
	for name, change := range map[string]func(*logstore.Tx){
		"no instant":      func(tx *logstore.Tx) { tx.At = time.Time{} },
		"another instant": func(tx *logstore.Tx) { tx.Acts[1].Entry.At = At.Add(time.Second) },
		"no type":         func(tx *logstore.Tx) { tx.Acts[1].Entry.Type = "" },
		"odd answer": func(tx *logstore.Tx) {
			tx.Acts[1].Answer = &logstore.Answer{Identifier: "1@alfa.example", Kind: pec.KindTimeout}
		},
		"awaits nothing": func(tx *logstore.Tx) {
			tx.Acts[1].Entry.Identifier, tx.Acts[1].Await = "", []pec.Address{"bob@beta.example"}
		},
	} {
		tx := logstore.Tx{At: At, Acts: []logstore.Act{good, entry("1@alfa.example", At)}}
		change(&tx)
		_, err := b.store.Commit(context.Background(), tx)
		if !errors.Is(err, logstore.ErrInvalid) || errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("something of them was committed: %+v", s)
	}
	b.mustCommit(logstore.Tx{At: At})
}

func testCancelled(b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ev := b.NewEvent(b, "bob@beta.example")
	tx := Access(b.Transport(b, ev, message.Bytes(Original(ev, 1000))), b.Acceptance(b, ev))
	_, err := b.store.Commit(ctx, tx)
	if err != nil && (!errors.Is(err, logstore.ErrUnavailable) || !errors.Is(err, context.Canceled)) {
		b.Errorf("Commit with a context that is done: %v", err)
	}
	issued, lookupErr := b.store.Issued(context.Background(), tx.Acts[0].Keys)
	if lookupErr != nil || issued[0] != (err == nil) {
		b.Errorf("Commit returned %v, and it is there: %v, %v", err, issued, lookupErr)
	}
}

func testClosed(b *bench) {
	ctx := context.Background()
	ev, _ := b.access(300, "bob@beta.example")
	b.close()
	for name, call := range map[string]func() error{
		"Commit": func() error {
			_, err := b.store.Commit(ctx, logstore.Tx{At: At, Acts: []logstore.Act{entry("1", At)}})
			return err
		},
		"NewBody":  func() error { _, err := b.store.NewBody(); return err },
		"Issued":   func() error { _, err := b.store.Issued(ctx, []logstore.Key{KeyOf("k", "1", "")}); return err },
		"Awaited":  func() error { _, err := b.store.Awaited(ctx, ev.Identifier); return err },
		"Outgoing": func() error { _, err := b.store.Outgoing(ctx, At, 1, nil); return err },
		"Taken":    func() error { return b.store.Taken(ctx, 1, nil) },
		"Postpone": func() error { return b.store.Postpone(ctx, 1, At, "") },
		"Search": func() error {
			return b.store.Search(ctx, logstore.Query{}, func(logstore.Entry) error { return nil })
		},
		"Stats": func() error { _, err := b.store.Stats(ctx); return err },
	} {
		if err := call(); !errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("%s on a closed store: %v, want ErrUnavailable", name, err)
		}
	}
}

func testConcurrent(b *bench) {
	const sessions, messages = 8, 6
	var wg sync.WaitGroup
	for range sessions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range messages {
				ev := b.NewEvent(b, "bob@beta.example")
				body := b.body(Original(ev, []int{500, 100_000}[i%2]))
				tx := Access(b.Transport(b, ev, body), b.Acceptance(b, ev))
				if done, err := b.store.Commit(context.Background(), tx); err != nil || !done[0] || !done[1] {
					b.Errorf("Commit: %v, %v", done, err)
				}
				if err := body.Close(); err != nil {
					b.Errorf("Close: %v", err)
				}
			}
		}()
	}
	taken, want := 0, 2*sessions*messages
	for taken < want && !b.Failed() {
		out, err := b.store.Outgoing(context.Background(), At, 7, nil)
		if err != nil {
			b.Fatalf("Outgoing: %v", err)
		}
		for _, m := range out {
			if n := int64(len(Text(b, m.Content))); n != m.Content.Size() {
				b.Errorf("a content of %d octets says %d", n, m.Content.Size())
			}
			b.taken(m.ID, m.To...)
			taken++
		}
		if len(out) == 0 {
			select {
			case <-b.store.Wake():
			case <-time.After(30 * time.Second):
				b.Fatalf("nothing comes after %d messages", taken)
			}
		}
	}
	wg.Wait()
	s := b.stats()
	if s.Entries != int64(want) || s.Outbox != 0 || s.Open != sessions*messages {
		b.Errorf("at the end: %+v", s)
	}
}
