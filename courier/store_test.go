package courier_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pecd/courier"
	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// A store that does not hear for a while.
type deaf struct {
	logstore.Store
	taken, postponed, outgoing atomic.Int32 // how often it will not hear
}

var errDeaf = fmt.Errorf("%w: deaf", logstore.ErrUnavailable)

func (d *deaf) Taken(ctx context.Context, id int64, by []pec.Address) error {
	if d.taken.Add(-1) >= 0 {
		return errDeaf
	}
	return d.Store.Taken(ctx, id, by)
}

func (d *deaf) Postpone(ctx context.Context, id int64, next time.Time, why string) error {
	if d.postponed.Add(-1) >= 0 {
		return errDeaf
	}
	return d.Store.Postpone(ctx, id, next, why)
}

func (d *deaf) Outgoing(ctx context.Context, now time.Time, limit int, except []int64) ([]logstore.Outgoing, error) {
	if d.outgoing.Add(-1) >= 0 {
		return nil, errDeaf
	}
	return d.Store.Outgoing(ctx, now, limit, except)
}

// A message that the MTA has is not sent again while the store cannot note it.
func TestTakenFails(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	store := &deaf{Store: f.store}
	store.taken.Store(10)
	f.access(500, "bob@beta.example")
	f.run(store)
	f.empty()
	f.halt()
	if messages, _ := l.count(); messages != 2 {
		t.Errorf("%d messages were sent, want 2", messages)
	}
	if !f.log.has("level=ERROR", "cannot note it") {
		t.Errorf("nothing said:\n%s", f.log)
	}
}

func TestTakenFailsUntilTheEnd(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.o.Drain = 20 * time.Millisecond
	store := &deaf{Store: f.store}
	store.taken.Store(1 << 30)
	f.access(500, "bob@beta.example")
	f.run(store)
	l.next()
	l.next()
	f.halt()
	if s := f.stats(); s.Outbox != 2 {
		t.Errorf("%d messages in the outbox, want 2", s.Outbox)
	}
	if messages, _ := l.count(); messages != 2 {
		t.Errorf("%d messages were sent, want 2", messages)
	}
}

// A failed attempt that the store cannot note is not followed by the next at
// once.
func TestPostponeFails(t *testing.T) {
	hook := times(3, reply(451, "later"))
	l := listen(t, &listener{onMail: hook}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	const pause = 100 * time.Millisecond
	f.o.Retry = func(int) time.Duration { return pause }
	store := &deaf{Store: f.store}
	store.postponed.Store(1 << 30)
	act := storetest.ActOf(f.Acceptance(t, f.NewEvent(t, "bob@beta.example")))
	if _, err := f.store.Commit(context.Background(), logstore.Tx{At: storetest.At, Acts: []logstore.Act{act}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f.run(store)
	l.next()
	f.empty()
	if d := time.Since(begin); d < 3*pause {
		t.Errorf("four attempts within %v", d)
	}
}

func TestOutboxUnreadable(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	store := &deaf{Store: f.store}
	store.outgoing.Store(4)
	f.access(500, "bob@beta.example")
	f.run(store)
	l.next()
	l.next()
	f.empty()
	f.halt()
	if !f.log.has("level=ERROR", "outbox cannot be read") {
		t.Errorf("nothing said:\n%s", f.log)
	}
}

// A list is a store whose outbox is made by hand.
type list struct {
	logstore.Store
	mu   sync.Mutex
	out  []logstore.Outgoing
	wake chan struct{}
}

func (l *list) Outgoing(_ context.Context, now time.Time, limit int, except []int64) ([]logstore.Outgoing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []logstore.Outgoing
	for _, m := range l.out {
		if !m.Due.After(now) && !slices.Contains(except, m.ID) && len(out) < limit {
			out = append(out, m)
		}
	}
	return out, nil
}

func (l *list) Taken(_ context.Context, id int64, _ []pec.Address) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = slices.DeleteFunc(l.out, func(m logstore.Outgoing) bool { return m.ID == id })
	return nil
}

func (l *list) Postpone(_ context.Context, id int64, next time.Time, _ string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.out {
		if l.out[i].ID == id {
			l.out[i].Due, l.out[i].Attempts = next, l.out[i].Attempts+1
		}
	}
	return nil
}

func (l *list) Wake() <-chan struct{} { return l.wake }

func (l *list) attempts(id int64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.out {
		if m.ID == id {
			return m.Attempts
		}
	}
	return -1
}

func TestAddresses(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	text := message.Text([]byte("Subject: x\r\n\r\ny\r\n"))
	long := strings.Repeat("x", 100) // the longest
	for _, c := range []struct {
		from, to pec.Address
		envelope string
		sent     bool
		utf8     bool
		envid    string
	}{
		{from: "a@b.example", to: "c@d.example", envelope: "1@b.example", sent: true, envid: "1@b.example"},
		{from: "", to: "c@d.example", envelope: "a+b=c@b.example", sent: true, envid: "a+b=c@b.example"},
		{from: "a@b.example", to: "cà@d.example", envelope: "1@b.example", sent: true, utf8: true, envid: "1@b.example"},
		{from: "à@b.example", to: "c@d.example", envelope: "è@b.example", sent: true, utf8: true},
		{from: "a@b.example", to: `"x > y\" z"@d.example`, envelope: long, sent: true, envid: long},
		{from: "a@b.example", to: "c@d.example", envelope: long + "x", sent: true},
		{from: "a@b.example", to: "c@d.example", envelope: long[2:] + "+", sent: true}, // 101 when encoded
		{from: "a@b.example", to: "c@d.example", sent: true},
		{from: "a@b.example", to: "c@d.example", envelope: "a b@b.example", sent: true},
		{from: "a@b.example> SIZE=1", to: "c@d.example"},
		{from: "a@b.example", to: "c@d.example>\r\nRCPT TO:<e@f.example"},
		{from: "a@b.example", to: `"c@d.example`},
		{from: "a@b.example", to: `"c\`},
		{from: "a@b.example", to: "c d@e.example"},
		{from: "a@b.example", to: "c\x7f@e.example"},
	} {
		store := &list{wake: make(chan struct{}), out: []logstore.Outgoing{{
			ID: 1, From: c.from, To: []pec.Address{c.to}, EnvelopeID: c.envelope, Content: text,
		}}}
		f.run(store)
		if !c.sent {
			f.until("several attempts", func() bool { return store.attempts(1) > 1 })
			f.halt()
			continue
		}
		r := l.next()
		f.until("the note", func() bool { return store.attempts(1) == -1 })
		f.halt()
		if r.from != string(c.from) || r.mail.UTF8 != c.utf8 || r.mail.EnvelopeID != c.envid {
			t.Errorf("%+v is sent as %+v", c, r)
		}
	}
	if messages, _ := l.count(); messages != 9 {
		t.Errorf("%d messages were sent, want 9", messages)
	}
}

// A generated source takes no memory of its own.
type generated int64

var generatedLines = []byte(strings.Repeat("Una riga lunga quanto basta.\r\n.e un punto\r\n", 2000))

func (g generated) Size() int64 { return int64(g) }

func (g generated) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], generatedLines[(off+int64(n))%int64(len(generatedLines)):])
	}
	return n, nil
}

// A large message passes in bounded memory.
func TestLargeMessage(t *testing.T) {
	const size = 43 * 510_000 // whole lines, 22 MB
	var sum atomic.Int64
	l := listen(t, &listener{onData: func(_ *session, r io.Reader) error {
		n, err := io.Copy(io.Discard, r)
		sum.Add(n)
		return err
	}}, "")
	f := newFixture(t, l.addr)
	store := &list{wake: make(chan struct{}), out: []logstore.Outgoing{{
		ID: 1, From: "a@b.example", To: []pec.Address{"c@d.example"},
		Content: message.Section(generated(size), message.Range{Len: size}),
	}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f.run(store)
	f.until("the message", func() bool { return store.attempts(1) == -1 })
	f.halt()
	runtime.ReadMemStats(&after)
	if sum.Load() != size {
		t.Errorf("%d octets arrived of %d", sum.Load(), size)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d octets were allocated for %d", n, size)
	}
}

// A message whose body cannot be read is not sent by half.
func TestUnreadableBody(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	fine := message.Text([]byte("Subject: fine\r\n\r\n"))
	store := &list{wake: make(chan struct{}), out: []logstore.Outgoing{
		{ID: 1, From: "a@b.example", To: []pec.Address{"c@d.example"}, Content: append(fine[:1:1],
			message.Piece{Source: unreadable{}, Range: message.Range{Len: 100}})},
		{ID: 2, From: "a@b.example", To: []pec.Address{"c@d.example"}, Content: fine},
	}}
	f.run(store)
	l.next()
	f.until("several attempts", func() bool { return store.attempts(1) > 2 })
	f.halt()
	if messages, _ := l.count(); messages != 1 {
		t.Errorf("%d messages were taken, want only the readable one", messages)
	}
}

type unreadable struct{}

func BenchmarkSend(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			l := listen(b, &listener{onData: func(_ *session, r io.Reader) error {
				_, err := io.Copy(io.Discard, r)
				return err
			}}, "")
			store := &list{wake: make(chan struct{})}
			for i := range b.N {
				store.out = append(store.out, logstore.Outgoing{ID: int64(i), From: "a@b.example", To: []pec.Address{"c@d.example"},
					Content: message.Section(generated(size), message.Range{Len: int64(size)})})
			}
			done := make(chan struct{}, b.N)
			c := courier.New(store, courier.Options{
				Dial:     func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", l.addr) },
				Hostname: "pecd.test", Now: clock, Observe: func(string, time.Duration) { done <- struct{}{} },
			})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- c.Run(ctx) }()
			for range b.N {
				<-done
			}
			b.StopTimer()
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
	}
}
