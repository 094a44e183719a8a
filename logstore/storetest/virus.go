package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
)

// virusName is what the scanner of these tests finds.
const virusName = "Win.Test.EICAR_HDB-1"

// Term is the Until of KeepAct.
var Term = At.AddDate(0, 30, 0)

// KeepAct returns an act that keeps c, which was found in the message of ev.
func KeepAct(ev pec.Event, c message.Content) logstore.Act {
	return logstore.Act{
		Entry: logstore.Entry{Type: logstore.EntryVirus, Identifier: ev.Identifier, Sender: ev.Sender, Recipients: ev.Recipients,
			Subject: ev.Subject, Error: pec.ErrorVirus, Detail: virusName},
		Keep: &logstore.Kept{Content: c, Virus: virusName, Until: Term, Source: logstore.KeptReception},
	}
}

func (b *bench) infected(q logstore.InfectedQuery) []logstore.Infected {
	b.Helper()
	list, err := b.store.Infected(context.Background(), q)
	if err != nil {
		b.Fatalf("Infected(%+v): %v", q, err)
	}
	return list
}

func (b *bench) readInfected(id int64) string {
	b.Helper()
	r, err := b.store.OpenInfected(context.Background(), id)
	if err != nil {
		b.Fatalf("OpenInfected(%d): %v", id, err)
	}
	text, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		b.Errorf("reading infected message %d: %v", id, err)
	}
	return string(text)
}

func (b *bench) purge(at time.Time) int {
	b.Helper()
	n, err := b.store.PurgeInfected(context.Background(), at)
	if err != nil {
		b.Fatalf("PurgeInfected: %v", err)
	}
	return n
}

// keep commits an act that keeps text and returns its event.
func (b *bench) keep(text string, until time.Time) pec.Event {
	b.Helper()
	ev := b.NewEvent(b, "bob@beta.example")
	act := KeepAct(ev, message.Text([]byte(text)))
	act.Keep.Until = until
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{act}})
	return ev
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// What was kept is there octet for octet, whatever it was made of, and says who
// sent it, what was found, and until when it stays.
func testKept(b *bench) {
	ctx := context.Background()
	for i, size := range []int{1, 1000, 300_000} {
		ev := b.NewEvent(b, "bob@beta.example")
		text := Original(ev, size)
		body := b.body(text)
		parts := message.Content{{Text: []byte(text[:5])}, {Source: body, Range: message.Range{Off: 5, Len: 10}},
			{Source: message.Section(body, message.Range{Len: body.Size()}), Range: message.Range{Off: 15, Len: body.Size() - 15}}}
		notice := ActOf(b.Virus(b, ev))
		notice.Keep = &logstore.Kept{Content: parts, Virus: virusName, Until: Term, Source: logstore.KeptReception}
		notice.Entry.Kept = "what the caller says"
		nothing := entry("1", At)
		nothing.Entry.Kept = notice.Entry.Kept
		b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{nothing, notice}})
		for _, m := range b.outgoing(At) {
			b.taken(m.ID, m.To...)
		}
		b.closeBody(body)
		if i == 1 {
			b.reopen()
		}

		entries := b.search(logstore.Query{Identifier: ev.Identifier})
		if len(entries) != 1 || entries[0].Kept != digestOf(text) || entries[0].Error != pec.ErrorVirus {
			b.Fatalf("register: %+v", entries)
		}
		want := []logstore.Infected{{
			ID: int64(i + 1), Seq: entries[0].Seq, At: At.UTC(), Identifier: ev.Identifier, Sender: ev.Sender, Virus: virusName,
			Source: logstore.KeptReception, Size: int64(len(text)), Digest: digestOf(text), Until: Term.UTC(),
		}}
		if got := b.infected(logstore.InfectedQuery{Identifier: ev.Identifier}); !reflect.DeepEqual(got, want) {
			b.Errorf("kept\n%+v, want\n%+v", got, want)
		}
		if b.readInfected(want[0].ID) != text {
			b.Errorf("a message of %d octets was kept otherwise", size)
		}
		if s := b.stats(); s.Infected != int64(i+1) {
			b.Errorf("stats %+v after %d messages", s, i+1)
		}
	}
	if e := b.search(logstore.Query{Identifier: "1"}); len(e) != 3 || e[0].Kept != "" {
		b.Errorf("an act that keeps nothing: %+v", e)
	}
	for _, id := range []int64{0, 4, -1} {
		if r, err := b.store.OpenInfected(ctx, id); !errors.Is(err, logstore.ErrNotKept) || errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("OpenInfected(%d): %v, %v", id, r, err)
		}
	}
}

// One content that is kept twice is two messages: each has its own term.
func testKeptTwice(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	text := Original(ev, 300_000)
	body := b.body(text)
	all := message.Section(body, message.Range{Len: body.Size()})
	first, second := KeepAct(ev, all), KeepAct(ev, all)
	first.Keep.Until = At.Add(time.Hour)
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{first, second}})
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{KeepAct(b.NewEvent(b, "bob@beta.example"), all)}})
	b.closeBody(body)
	if n := b.purge(At.Add(time.Hour)); n != 1 {
		b.Errorf("purged %d, want 1", n)
	}
	list := b.infected(logstore.InfectedQuery{})
	if len(list) != 2 || list[0].ID != 2 || list[1].ID != 3 {
		b.Fatalf("left: %+v", list)
	}
	for _, m := range list {
		if b.readInfected(m.ID) != text {
			b.Errorf("message %d changed", m.ID)
		}
	}
}

// An act that is left out keeps nothing.
func testKeptLeftOut(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	act := KeepAct(ev, message.Text([]byte(Original(ev, 300))))
	act.Keys = []logstore.Key{KeyOf(pec.KindVirus, ev.Identifier, "bob@beta.example")}
	other := KeepAct(b.NewEvent(b, "bob@beta.example"), act.Keep.Content)
	for i, want := range []bool{true, false, false} {
		if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act, other}}); done[0] != want || !done[1] {
			b.Errorf("time %d: %v", i, done)
		}
	}
	if n := len(b.infected(logstore.InfectedQuery{Identifier: ev.Identifier})); n != 1 {
		b.Errorf("kept %d times, want once", n)
	}
	if n := b.stats().Infected; n != 4 {
		b.Errorf("%d messages, want 4", n)
	}
}

func testInfectedQuery(b *bench) {
	for i, id := range []pec.Identifier{"1@alfa.example", "2@alfa.example", "1@alfa.example", ""} {
		act := KeepAct(pec.Event{Identifier: id}, message.Text([]byte("x")))
		b.mustCommit(logstore.Tx{At: At.Add(time.Duration(i) * time.Hour), Acts: []logstore.Act{act}})
	}
	for _, c := range []struct {
		q    logstore.InfectedQuery
		want string
	}{
		{logstore.InfectedQuery{}, "[1 2 3 4]"},
		{logstore.InfectedQuery{ID: 2}, "[2]"},
		{logstore.InfectedQuery{ID: 5}, "[]"},
		{logstore.InfectedQuery{Identifier: "1@alfa.example"}, "[1 3]"},
		{logstore.InfectedQuery{Identifier: "1@ALFA.example"}, "[]"},
		{logstore.InfectedQuery{Since: At.Add(time.Hour)}, "[2 3 4]"},
		{logstore.InfectedQuery{Since: At.Add(time.Hour + 1)}, "[3 4]"},
		{logstore.InfectedQuery{Since: time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)}, "[1 2 3 4]"},
		{logstore.InfectedQuery{Identifier: "1@alfa.example", Since: At.Add(1)}, "[3]"},
		{logstore.InfectedQuery{ID: 1, Identifier: "2@alfa.example"}, "[]"},
	} {
		ids := []int64{}
		for _, m := range b.infected(c.q) {
			ids = append(ids, m.ID)
		}
		if got := fmt.Sprint(ids); got != c.want {
			b.Errorf("%+v finds %s, want %s", c.q, got, c.want)
		}
	}
}

// A message goes when its term is over and not before, with a register entry,
// and its id is not used again.
func testPurge(b *bench) {
	text := Original(b.NewEvent(b, "bob@beta.example"), 200_000)
	early, late := b.keep(text, At.Add(time.Hour)), b.keep(text+"2", At.Add(time.Hour+1))
	if n := b.purge(At.Add(time.Hour - 1)); n != 0 {
		b.Errorf("purged %d before any term", n)
	}
	open, err := b.store.OpenInfected(context.Background(), 1)
	if err != nil {
		b.Fatal(err)
	}
	when := At.Add(time.Hour)
	if n := b.purge(when); n != 1 {
		b.Errorf("purged %d, want 1", n)
	}
	// Who reads it already may read on.
	if got, err := io.ReadAll(open); err != nil || string(got) != text {
		b.Errorf("read %d octets of %d, %v", len(got), len(text), err)
	}
	if err := open.Close(); err != nil {
		b.Error(err)
	}
	if r, err := b.store.OpenInfected(context.Background(), 1); !errors.Is(err, logstore.ErrNotKept) {
		b.Errorf("OpenInfected of what was purged: %v, %v", r, err)
	}
	if n := b.purge(when); n != 0 {
		b.Errorf("purged %d again", n)
	}
	entries := b.search(logstore.Query{Identifier: early.Identifier})
	if len(entries) != 2 {
		b.Fatalf("register: %+v", entries)
	}
	e := entries[1]
	if e.Type != logstore.EntryPurged || !e.At.Equal(when) || e.Sender != early.Sender || e.Kept != digestOf(text) ||
		!strings.Contains(e.Detail, virusName) || !strings.Contains(e.Detail, digestOf(text)) {
		b.Errorf("the entry of the purge is %+v", e)
	}
	if list := b.infected(logstore.InfectedQuery{}); len(list) != 1 || list[0].Identifier != late.Identifier || b.readInfected(2) != text+"2" {
		b.Errorf("left: %+v", list)
	}
	if n := b.purge(At.AddDate(1, 0, 0)); n != 1 || b.stats().Infected != 0 {
		b.Errorf("purged %d, want the last one", n)
	}
	b.reopen()
	b.keep(text, Term)
	if list := b.infected(logstore.InfectedQuery{}); len(list) != 1 || list[0].ID != 3 || b.readInfected(3) != text {
		b.Errorf("after two that are gone: %+v", list)
	}
}

func testPurgeMany(b *bench) {
	var acts []logstore.Act
	for i := range 250 {
		acts = append(acts, KeepAct(pec.Event{Identifier: pec.Identifier(fmt.Sprint(i))}, message.Text([]byte(fmt.Sprint(i)))))
	}
	acts[70].Keep.Until = Term.Add(1)
	b.mustCommit(logstore.Tx{At: At, Acts: acts})
	if n := b.purge(Term); n != 249 {
		b.Errorf("purged %d, want 249", n)
	}
	if s := b.stats(); s.Infected != 1 || s.Entries != 250+249 || b.readInfected(71) != "70" {
		b.Errorf("left: %+v", s)
	}
	if _, err := b.store.PurgeInfected(context.Background(), time.Time{}); !errors.Is(err, logstore.ErrInvalid) {
		b.Errorf("a purge at no time: %v", err)
	}
}

func testKeptRefused(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	for name, edit := range map[string]func(*logstore.Kept){
		"no virus":         func(k *logstore.Kept) { k.Virus = "" },
		"no source":        func(k *logstore.Kept) { k.Source = "" },
		"a foreign source": func(k *logstore.Kept) { k.Source = "somewhere" },
		"no term":          func(k *logstore.Kept) { k.Until = time.Time{} },
		"a term at once":   func(k *logstore.Kept) { k.Until = At },
		"an endless term":  func(k *logstore.Kept) { k.Until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		act := KeepAct(ev, message.Text([]byte("x")))
		edit(act.Keep)
		_, err := b.store.Commit(context.Background(), logstore.Tx{At: At, Acts: []logstore.Act{act}})
		if !errors.Is(err, logstore.ErrInvalid) || errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	failure := errors.New("a bad sector")
	src := &broken{message.Bytes("x"), &failure}
	good, bad := KeepAct(ev, message.Text([]byte("x"))), KeepAct(ev, message.Section(src, message.Range{Len: 1}))
	if _, err := b.store.Commit(context.Background(), logstore.Tx{At: At, Acts: []logstore.Act{good, bad}}); !errors.Is(err, failure) {
		b.Errorf("Commit of what cannot be read: %v", err)
	}
	short := KeepAct(ev, message.Section(message.Bytes("x"), message.Range{Len: 2}))
	if _, err := b.store.Commit(context.Background(), logstore.Tx{At: At, Acts: []logstore.Act{short}}); err == nil {
		b.Error("Commit of more than there is succeeds")
	}
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("something of it was committed: %+v", s)
	}
}

// The notices about a virus are found as all others, and a query by what was
// generated finds them too.
func testVirusEntries(b *bench) {
	ev := b.NewEvent(b, "Bob@beta.example")
	signed := b.NonAcceptanceVirus(b, ev)
	act := ActOf(signed)
	act.Keep = KeepAct(ev, message.Text([]byte("x"))).Keep
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{act}})
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(b.NonDeliveryVirus(b, ev))}})
	for _, c := range []struct {
		q    logstore.Query
		want int
	}{
		{logstore.Query{Identifier: ev.Identifier}, 2},
		{logstore.Query{Address: "bob@beta.example"}, 2},
		{logstore.Query{Address: ev.Sender}, 2},
		{logstore.Query{MessageID: ev.MsgID}, 2},
		{logstore.Query{MessageID: signed.MessageID()}, 1},
	} {
		list := b.search(c.q)
		if len(list) != c.want {
			b.Fatalf("%+v finds %d entries, want %d", c.q, len(list), c.want)
		}
		if e := list[0]; e.Type != "non-accettazione" || e.Error != pec.ErrorVirus || e.Detail != virusName {
			b.Errorf("%+v finds %+v", c.q, e)
		}
	}
}
