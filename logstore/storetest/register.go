package storetest

import (
	"context"
	"errors"
	"reflect"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

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
	// Domains are compared without regard to case, local parts are not.
	act = entry("1@alfa.example", At)
	for _, c := range []struct {
		recipient pec.Address
		fresh     bool
	}{
		{"Bob@Beta.example", true}, {"Bob@beta.EXAMPLE", false}, {"bob@beta.example", true}, {"BOB@beta.example", true},
	} {
		act.Keys = []logstore.Key{KeyOf(pec.KindDelivery, "1@alfa.example", c.recipient)}
		if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act}}); done[0] != c.fresh {
			b.Errorf("a receipt for %s: done %t, want %t", c.recipient, done[0], c.fresh)
		}
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

// An act that cannot be beside another is left out, also within a transaction, and makes
// none of the keys that it looks at.
func testUnless(b *bench) {
	one, other, third := KeyOf("k", "1@alfa.example", "a@b.example"), KeyOf("l", "1@alfa.example", "A@B.example"), KeyOf("m", "1@alfa.example", "")
	other.Recipient = "a@B.example" // the same mailbox
	act := func(key logstore.Key, unless ...logstore.Key) logstore.Act {
		a := entry("1@alfa.example", At)
		a.Keys, a.Unless = []logstore.Key{key}, unless
		return a
	}
	done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act(one, other, third), act(other, third, one), act(third, other)}})
	if !reflect.DeepEqual(done, []bool{true, false, true}) {
		b.Errorf("done = %v, want the second left out", done)
	}
	b.reopen()
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act(other, one)}}); done[0] {
		b.Error("an act was done beside one with which it cannot be")
	}
	if issued, err := b.store.Issued(context.Background(), []logstore.Key{one, other, third}); err != nil || !reflect.DeepEqual(issued, []bool{true, false, true}) {
		b.Errorf("Issued: %v, %v", issued, err)
	}
}

func testLedger(b *bench) {
	const id = "1@alfa.example"
	at := func(s int) time.Time { return At.Add(time.Duration(s) * time.Second) }
	answer := func(s int, kind pec.Kind, to ...pec.Address) {
		b.Helper()
		b.answer(id, at(s), kind, to...)
	}
	b.send(id, At, "Bob@beta.example", "bruna@beta.example", "zeno@beta.example", "carla@beta.example")

	answer(1, pec.KindTakeCharge, "bob@beta.example", "bruna@beta.example", "stranger@beta.example")
	answer(2, pec.KindTakeCharge, "bob@beta.example")
	answer(3, pec.KindDelivery, "BOB@beta.example")
	answer(4, pec.KindNonDelivery, "bob@beta.example", "zeno@beta.example")
	answer(5, pec.KindDelivery, "zeno@beta.example")
	answer(6, pec.KindTakeCharge, "zeno@beta.example")
	answer(7, pec.KindTakeCharge)

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
	send.Await = []pec.Address{"z@b.example", "a@b.example", "z@B.example", "m@b.example"}
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
