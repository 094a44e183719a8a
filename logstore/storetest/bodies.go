package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
)

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
		b.access(size, "bob@beta.example")
		ev := b.NewEvent(b, "carla@beta.example")
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

// testBodyPath: a body in a file can be read there, before the commit and after.
func testBodyPath(b *bench) {
	for _, size := range []int{1000, 300_000} {
		ev := b.NewEvent(b, "bob@beta.example")
		original := Original(ev, size)
		body := b.body(original)
		check := func(when string) {
			path, ok := body.Path()
			if !ok && size < 100_000 {
				return // it may be in memory
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != string(original) {
				b.Errorf("size %d, %s: %q is not the body, %v", size, when, path, err)
			}
		}
		check("before the commit")
		b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(b.Transport(b, ev, body))}})
		check("after it")
		b.closeBody(body)
		if path, ok := body.Path(); ok {
			b.Errorf("a closed body is at %s", path)
		}
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
