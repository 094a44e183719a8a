package storetest

import (
	"context"
	"reflect"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

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
			if m.Kind != want.Kind || m.From != want.From || !reflect.DeepEqual(m.To, want.To) || m.EnvelopeID != string(ev.Identifier) ||
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
		{[]pec.Address{"bruna@beta.example"}, []pec.Address{"bob@beta.example", "Bruna@beta.example", "carla@beta.example"}}, // another mailbox
		{[]pec.Address{"Bruna@BETA.example", "stranger@beta.example"}, []pec.Address{"bob@beta.example", "carla@beta.example"}},
		{[]pec.Address{"Bruna@beta.example", "carla@beta.example"}, []pec.Address{"bob@beta.example"}},
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
	// A clock that was set back by hours does not keep them for as long.
	if out := b.outgoing(At.Add(-3 * time.Hour)); len(out) != len(ids) || out[0].ID != ids[0] {
		b.Errorf("%d messages are due after the clock was set back, want %d", len(out), len(ids))
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
