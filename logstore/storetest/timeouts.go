package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// hours returns the instant so many hours after At.
func hours(h int) time.Time { return At.Add(time.Duration(h) * time.Hour) }

// send has the answers of recipients awaited for id from at on.
func (b *bench) send(id pec.Identifier, at time.Time, recipients ...pec.Address) {
	b.Helper()
	act := entry(id, at)
	act.Await = recipients
	b.mustCommit(logstore.Tx{At: at, Acts: []logstore.Act{act}})
}

func (b *bench) answer(id pec.Identifier, at time.Time, kind pec.Kind, recipients ...pec.Address) {
	b.Helper()
	act := entry("r@beta.example", at)
	act.Answer = &logstore.Answer{Identifier: id, Recipients: recipients, Kind: kind}
	b.mustCommit(logstore.Tx{At: at, Acts: []logstore.Act{act}})
}

// notice commits a timeout notice and reports whether it was done.
func (b *bench) notice(id pec.Identifier, at time.Time, recipient pec.Address, last bool) bool {
	b.Helper()
	return b.commit(logstore.Tx{At: at, Acts: []logstore.Act{noticeAct(id, at, recipient, last)}})[0]
}

func noticeAct(id pec.Identifier, at time.Time, recipient pec.Address, last bool) logstore.Act {
	act := entry(id, at)
	act.Entry.Type = logstore.EntryType(pec.KindTimeout)
	act.Notice = &logstore.Notice{Identifier: id, Recipient: recipient, Last: last}
	return act
}

// row returns the ledger row of a recipient as it was sent to.
func (b *bench) row(id pec.Identifier, recipient pec.Address) logstore.Awaited {
	b.Helper()
	rows, err := b.store.Awaited(context.Background(), id)
	if err != nil {
		b.Fatalf("Awaited: %v", err)
	}
	for _, r := range rows {
		if r.Recipient == recipient {
			return r
		}
	}
	b.Fatalf("no row of %s", recipient)
	return logstore.Awaited{}
}

func (b *bench) overdue(sent time.Time, warned bool, limit int) []pec.Address {
	b.Helper()
	rows, err := b.store.Overdue(context.Background(), sent.Add(24*time.Hour), 24*time.Hour, warned, limit)
	if err != nil {
		b.Fatalf("Overdue: %v", err)
	}
	var out []pec.Address
	for _, r := range rows {
		if got := b.row(r.Identifier, r.Recipient); !reflect.DeepEqual(got, r) {
			b.Errorf("Overdue says %+v, Awaited %+v", r, got)
		}
		out = append(out, r.Recipient)
	}
	return out
}

func testOverdue(b *bench) {
	b.send("3@alfa.example", hours(0), "early@b.example", "expired@b.example")
	b.send("2@alfa.example", hours(1), "z@b.example", "taken@b.example", "ended@b.example", "a@b.example", "warned@b.example")
	b.send("1@alfa.example", hours(2), "late@b.example")
	b.answer("2@alfa.example", hours(1), pec.KindTakeCharge, "taken@b.example")
	b.answer("2@alfa.example", hours(1), pec.KindDelivery, "ended@b.example")
	if !b.notice("2@alfa.example", hours(13), "warned@b.example", false) || !b.notice("3@alfa.example", hours(24), "expired@b.example", true) {
		b.Error("a notice was left out")
	}
	type addresses = []pec.Address
	for _, c := range []struct {
		sent   time.Time
		warned bool
		limit  int
		want   addresses
	}{
		{hours(2), false, 10, addresses{"early@b.example", "z@b.example", "a@b.example", "late@b.example"}},
		{hours(2), true, 10, addresses{"early@b.example", "z@b.example", "taken@b.example", "a@b.example", "warned@b.example", "late@b.example"}},
		{hours(2).Add(-time.Nanosecond), false, 10, addresses{"early@b.example", "z@b.example", "a@b.example"}},
		{hours(1), true, 3, addresses{"early@b.example", "z@b.example", "taken@b.example"}},
		{hours(1), false, 2, addresses{"early@b.example", "z@b.example"}},
		{hours(0), true, 10, addresses{"early@b.example"}},
		{hours(-1), true, 10, nil},
		{hours(2), true, 0, nil},
		{hours(2), true, -1, nil},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), false, 1, addresses{"early@b.example"}},
		{time.Time{}, false, 10, nil},
	} {
		if got := b.overdue(c.sent, c.warned, c.limit); !reflect.DeepEqual(got, c.want) {
			b.Errorf("Overdue(%v, %t, %d): %v, want %v", c.sent, c.warned, c.limit, got, c.want)
		}
	}
	if open := b.stats().Open; open != 6 {
		b.Errorf("%d rows are open, want 6", open)
	}
}

// The two notices of a row, each once, and the answer after them.
func testNotices(b *bench) {
	const id = "1@alfa.example"
	b.send(id, At, "Bob@beta.example")
	if b.notice(id, hours(12), "bob@beta.example", false) {
		b.Error("a notice about another local part was done")
	}
	want := logstore.Awaited{Identifier: id, Recipient: "Bob@beta.example", Sent: At.UTC()}
	for _, step := range []struct {
		at   int
		last bool
		done bool
	}{
		{12, false, true}, {13, false, false}, {24, true, true}, {25, true, false}, {26, false, false},
	} {
		if done := b.notice(id, hours(step.at), "Bob@BETA.example", step.last); done != step.done {
			b.Errorf("the notice after %d hours: done %t, want %t", step.at, done, step.done)
		}
		switch {
		case step.done && step.last:
			want.ExpiredAt = hours(step.at).UTC()
		case step.done:
			want.WarnedAt = hours(step.at).UTC()
		}
		if got := b.row(id, "Bob@beta.example"); !reflect.DeepEqual(got, want) {
			b.Errorf("after %d hours %+v, want %+v", step.at, got, want)
		}
	}
	if s := b.stats(); s.Open != 0 || s.Entries != 3 {
		b.Errorf("after the last notice: %+v", s)
	}
	b.answer(id, hours(30), pec.KindDelivery, "Bob@beta.example")
	want.EndedAt, want.Outcome = hours(30).UTC(), pec.KindDelivery
	if got := b.row(id, "Bob@beta.example"); !reflect.DeepEqual(got, want) {
		b.Errorf("after the late receipt %+v, want %+v", got, want)
	}
}

// A notice that is not due leaves its act out whole.
func testNoticeTooLate(b *bench) {
	const id = "1@alfa.example"
	b.send(id, At, "taken@b.example", "ended@b.example", "refused@b.example", "expired@b.example")
	b.answer(id, hours(1), pec.KindTakeCharge, "taken@b.example")
	b.answer(id, hours(1), pec.KindDelivery, "ended@b.example")
	b.answer(id, hours(1), pec.KindNonDelivery, "refused@b.example")
	b.notice(id, hours(24), "expired@b.example", true)
	for _, c := range []struct {
		id        pec.Identifier
		recipient pec.Address
		last      bool
	}{
		{id, "taken@b.example", false},
		{id, "ended@b.example", false}, {id, "ended@b.example", true},
		{id, "refused@b.example", false}, {id, "refused@b.example", true},
		{id, "expired@b.example", false}, {id, "expired@b.example", true},
		{id, "stranger@b.example", false}, {id, "stranger@b.example", true},
		{"2@alfa.example", "taken@b.example", true},
	} {
		ev := b.NewEvent(b, c.recipient)
		act := noticeAct(c.id, At, c.recipient, c.last)
		act.Send = b.Acceptance(b, ev)
		act.Keys = []logstore.Key{KeyOf(pec.KindTimeout, ev.Identifier, "")}
		act.Await = []pec.Address{"more@b.example"}
		act.Policy = &logstore.Policy{Subject: "b.example", Ordinary: "refuse"}
		before := b.stats()
		done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act, entry("other@alfa.example", At)}})
		if done[0] || !done[1] {
			b.Errorf("notice %+v: done = %v, want it left out and the other done", c, done)
		}
		before.Entries++
		if after := b.stats(); after != before {
			b.Errorf("notice %+v left %+v, want %+v", c, after, before)
		}
		if issued, err := b.store.Issued(context.Background(), act.Keys); err != nil || issued[0] {
			b.Errorf("notice %+v: its key %v, %v", c, issued, err)
		}
		if p := b.policies(); p != nil {
			b.Errorf("notice %+v set %v", c, p)
		}
	}
	if !b.notice(id, hours(24), "taken@b.example", true) {
		b.Error("the last notice was left out for what was only taken charge of")
	}
	// One that a known key leaves out marks nothing.
	b.send("3@alfa.example", At, "bob@b.example")
	act := noticeAct("3@alfa.example", At, "bob@b.example", false)
	act.Keys = []logstore.Key{KeyOf("k", "3@alfa.example", "")}
	known := entry("3@alfa.example", At)
	known.Keys = act.Keys
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{known, act}}); done[1] || !b.row("3@alfa.example", "bob@b.example").WarnedAt.IsZero() {
		b.Error("a notice with a known key was done, or marked its row")
	}
}

// An answer that is to be the first is left out, with all of its act, where a row has
// an outcome already, or where there is no row.
func testFirstAnswer(b *bench) {
	const id = "1@alfa.example"
	b.send(id, At, "bob@b.example", "ended@b.example")
	b.answer(id, hours(1), pec.KindDelivery, "ended@b.example")
	for _, c := range []struct {
		recipient pec.Address
		done      bool
	}{{"ended@b.example", false}, {"stranger@b.example", false}, {"BOB@b.example", true}, {"bob@b.example", false}} {
		ev := b.NewEvent(b, c.recipient)
		act := entry(id, At)
		act.Send = b.Acceptance(b, ev)
		act.Keys = []logstore.Key{KeyOf(pec.KindNonDelivery, ev.Identifier, c.recipient)}
		act.Answer = &logstore.Answer{Identifier: id, Recipients: []pec.Address{c.recipient}, Kind: pec.KindNonDelivery, First: true}
		before := b.stats()
		if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act}}); done[0] != c.done {
			b.Errorf("%s: done = %v", c.recipient, done)
		}
		if after := b.stats(); !c.done && after != before {
			b.Errorf("%s left %+v, want %+v", c.recipient, after, before)
		}
	}
	if o := b.row(id, "bob@b.example").Outcome; o != pec.KindNonDelivery {
		b.Errorf("bob's outcome is %q", o)
	}
	if o := b.row(id, "ended@b.example").Outcome; o != pec.KindDelivery {
		b.Errorf("the first outcome became %q", o)
	}
}

// A notice and a receipt at the same time: the notice is done only if it comes
// first.
func testNoticeRace(b *bench) {
	const rounds = 40
	for i := range rounds {
		id := pec.Identifier(fmt.Sprintf("%d@alfa.example", i))
		at := hours(12 + i)
		b.send(id, At, "bob@b.example")
		receipt := entry("r@beta.example", at)
		receipt.Answer = &logstore.Answer{Identifier: id, Recipients: []pec.Address{"bob@b.example"}, Kind: pec.KindDelivery}
		answered := make(chan error)
		go func() {
			_, err := b.store.Commit(context.Background(), logstore.Tx{At: at, Acts: []logstore.Act{receipt}})
			answered <- err
		}()
		done, err := b.store.Commit(context.Background(), logstore.Tx{At: at, Acts: []logstore.Act{noticeAct(id, at, "bob@b.example", false)}})
		if err := errors.Join(err, <-answered); err != nil {
			b.Fatalf("Commit: %v", err)
		}
		row := b.row(id, "bob@b.example")
		if row.Outcome != pec.KindDelivery || row.WarnedAt.IsZero() == done[0] {
			b.Errorf("done = %v and the row is %+v", done, row)
		}
		entries := b.search(logstore.Query{Since: at})
		if last := entries[len(entries)-1]; last.Type != logstore.EntryReceived {
			b.Errorf("the last entry is a %s: the notice was issued after the receipt had come", last.Type)
		}
	}
}

// A receipt that spells an address in another way clears what it must be about.
func testLedgerSpelling(b *bench) {
	const id = "1@alfa.example"
	all := []pec.Address{"anna@b.example", "Anna@b.example", "Carlo@B.example", "carlo@c.example", "a@K.example"}
	b.send(id, At, all...)
	if rows, err := b.store.Awaited(context.Background(), id); err != nil || len(rows) != len(all) {
		b.Fatalf("%d rows, %v; want %d", len(rows), err, len(all))
	}
	taken := map[pec.Address]bool{}
	for _, step := range []struct{ by, clears pec.Address }{
		{"Anna@B.EXAMPLE", "Anna@b.example"},
		{"Anna@b.example", ""},
		{"carlo@b.EXAMPLE", "Carlo@B.example"},
		{"CARLO@c.example", "carlo@c.example"},
		{"a@\u212a.example", ""}, // the Kelvin sign, another domain
		{"ANNA@b.example", "anna@b.example"},
	} {
		b.answer(id, hours(1), pec.KindTakeCharge, step.by)
		if step.clears != "" {
			taken[step.clears] = true
		}
		for _, a := range all {
			if got := !b.row(id, a).TakenAt.IsZero(); got != taken[a] {
				b.Errorf("after the receipt for %s: %s taken %t, want %t", step.by, a, got, taken[a])
			}
		}
	}
	// One name for two mailboxes is about both.
	b.answer(id, hours(2), pec.KindDelivery, "ANNA@b.example", "stranger@b.example", "ANNA@b.example")
	for _, a := range all[:2] {
		if b.row(id, a).Outcome != pec.KindDelivery {
			b.Errorf("%s is open after a receipt for ANNA", a)
		}
	}
	if open := b.stats().Open; open != 3 {
		b.Errorf("%d rows are open, want 3", open)
	}
}
