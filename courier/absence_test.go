package courier_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pecd/courier"
	"pecd/logstore"
	"pecd/pec"
)

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := hole.Close(); err != nil {
		t.Fatal(err)
	}
	return hole.Addr().String()
}

// straight takes messages to users of alfa.example as the direct way does, and counts how
// often it is asked.
type straight struct {
	asked atomic.Int32
	shy   atomic.Int32 // how often it takes none of them
}

func (s *straight) take(_ context.Context, m logstore.Outgoing) (taken []pec.Address) {
	s.asked.Add(1)
	for _, a := range m.To {
		if a.Domain() == "alfa.example" && s.shy.Add(-1) < 0 {
			taken = append(taken, a)
		}
	}
	return taken
}

// Messages for which the listener is needed hold up nobody who does not need it, and go
// in their order when it is there.
func TestUnreachableAndDirect(t *testing.T) {
	addr := nowhere(t)
	f := newFixture(t, addr)
	f.o.Connections = 1
	var way straight
	f.o.Direct = way.take
	const pause = 100 * time.Millisecond
	f.o.Retry = func(int) time.Duration { return pause }
	var dials atomic.Int32
	dial := f.o.Dial
	f.o.Dial = func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx)
	}
	var texts []string
	for range 5 {
		e, _ := f.access(500, "bob@beta.example")
		texts = append(texts, e)
	}
	begun := time.Now()
	f.run(f.store)
	f.until("the receipts", func() bool { return f.stats().Outbox == 5 })
	f.access(500, "anna@alfa.example")
	f.until("the message within the provider", func() bool { return f.stats().Outbox == 5 })
	both, _ := f.access(500, "bruna@beta.example", "anna@alfa.example")
	f.until("the half of a message", func() bool { return f.stats().Outbox == 6 })
	way.shy.Store(2)
	f.access(500, "anna@alfa.example")
	f.until("what went straight at another try only", func() bool { return f.stats().Outbox == 6 })
	tried := dials.Load()
	f.until("three more tries", func() bool { return dials.Load() >= tried+3 })
	rounds := int32(time.Since(begun)/pause) + 2
	if n := dials.Load(); n > rounds || n < 2 {
		t.Errorf("the listener was dialled %d times in %d rounds", n, rounds)
	}
	if n := way.asked.Load(); n > 20+10*rounds {
		t.Errorf("the direct way was asked %d times in %d rounds", n, rounds)
	}
	out, err := f.store.Outgoing(context.Background(), clock(), 10, nil)
	if err != nil || len(out) != 6 {
		t.Fatalf("%d messages in the outbox, %v", len(out), err)
	}
	for _, m := range out {
		if m.Attempts != 0 {
			t.Errorf("%s to %v was postponed %d times", m.Kind, m.To, m.Attempts)
		}
	}
	l := listen(t, &listener{}, addr)
	for i, want := range append(texts, both) {
		if got := l.next(); got.text != want {
			t.Errorf("the message number %d is another, to %v", i, got.to)
		}
	}
	f.empty()
	if !f.observed(courier.OutcomeUnreachable) || !f.log.has("level=ERROR", "cannot be reached", "attempt=2") {
		t.Errorf("outcomes %v, log:\n%s", f.outcomes, f.log)
	}
}

// A listener that takes one connection gets all messages over it: those who get none do
// not put anything off.
func TestOneConnectionOnly(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 4
	f.o.Retry = func(int) time.Duration { return time.Hour }
	dial := f.o.Dial
	var once sync.Once
	f.o.Dial = func(ctx context.Context) (conn net.Conn, err error) {
		err = errors.New("too many connections")
		once.Do(func() { conn, err = dial(ctx) })
		return conn, err
	}
	f.access(500, "bob@beta.example")
	f.run(f.store)
	f.until("the first", func() bool { return f.stats().Outbox == 0 || f.observed(courier.OutcomeTaken) })
	for range 20 {
		f.access(500, "bob@beta.example")
	}
	f.empty()
	if _, connections := l.count(); connections != 1 {
		t.Errorf("%d connections", connections)
	}
}
