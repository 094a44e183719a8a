package courier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/courier"
	"pecd/logstore/storetest"
)

func TestSends(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.run(f.store)
	const n = 20
	want := map[string]bool{}
	for i := range n {
		e, a := f.access([]int{500, 200_000}[i%2], "bob@beta.example", "bruna@beta.example")
		want[e], want[a] = true, true
	}
	for range 2 * n {
		r := l.next()
		if !want[r.text] {
			t.Errorf("a message differs from what was signed, or came twice")
		}
		delete(want, r.text)
		if r.mail.Return != smtp.DSNReturnHeaders || r.mail.Size != int64(len(r.text)) || r.mail.UTF8 || r.mail.Body != smtp.Body8BitMIME {
			t.Errorf("MAIL options %+v of %d octets", r.mail, len(r.text))
		}
		if !strings.HasSuffix(r.mail.EnvelopeID, "@alfa.example") || !strings.Contains(r.text, r.mail.EnvelopeID) {
			t.Errorf("ENVID %q", r.mail.EnvelopeID)
		}
		for _, o := range r.rcpt {
			if !reflect.DeepEqual(o.Notify, []smtp.DSNNotify{smtp.DSNNotifyFailure}) {
				t.Errorf("NOTIFY=%v", o.Notify)
			}
		}
		switch r.from {
		case "alice@alfa.example":
			if !slices.Equal(r.to, []string{"bob@beta.example", "bruna@beta.example"}) {
				t.Errorf("envelope to %v", r.to)
			}
		case "posta-certificata@alfa.example":
			if !slices.Equal(r.to, []string{"alice@alfa.example"}) {
				t.Errorf("acceptance to %v", r.to)
			}
		default:
			t.Errorf("from %q", r.from)
		}
	}
	f.empty()
	f.halt()
	if messages, connections := l.count(); messages != 2*n || connections > f.o.Connections {
		t.Errorf("%d messages over %d connections, want %d over %d at most", messages, connections, 2*n, f.o.Connections)
	}
	if len(f.outcomes) != 2*n || slices.ContainsFunc(f.outcomes, func(o string) bool { return o != courier.OutcomeTaken }) {
		t.Errorf("outcomes %v", f.outcomes)
	}
	if strings.Contains(f.log.String(), "level=ERROR") {
		t.Errorf("errors in the log:\n%s", f.log)
	}
}

func TestSteps(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	var mu sync.Mutex
	var steps []string
	f.o.AtStep = func(s string) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, s)
	}
	f.access(500, "bob@beta.example")
	f.run(f.store)
	f.empty()
	f.halt()
	// The store hears of the first message while the second is sent.
	taken := 0
	sent := slices.DeleteFunc(slices.Clone(steps), func(s string) bool {
		if s == courier.StepTaken {
			taken++
		}
		return s == courier.StepTaken || s == courier.StepReplied
	})
	message := []string{courier.StepBegun, courier.StepSent}
	if want := slices.Concat([]string{courier.StepConnected}, message, message); !slices.Equal(sent, want) || taken != 2 {
		t.Errorf("steps %v, want %v and two taken", steps, want)
	}
}

// The listener is not there yet.
func TestUnreachable(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := hole.Addr().String()
	if err := hole.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, addr)
	f.access(500, "bob@beta.example")
	f.run(f.store)
	f.until("a failed connection", func() bool { return f.observed(courier.OutcomeUnreachable) })
	out, err := f.store.Outgoing(context.Background(), clock(), 10, nil)
	if err != nil || len(out) != 2 || out[0].Attempts != 0 {
		t.Errorf("outbox %+v, %v; want two messages without attempts", out, err)
	}
	l := listen(t, &listener{}, addr)
	l.next()
	l.next()
	f.empty()
}

// A refusal, for now or for good and at whatever stage, means a later attempt.
func TestRefused(t *testing.T) {
	for _, code := range []int{421, 451, 550} {
		for _, stage := range []string{"MAIL", "RCPT", "DATA", "end of message"} {
			t.Run(fmt.Sprint(stage, code), func(t *testing.T) {
				t.Parallel()
				hook := times(3, reply(code, "no room on the moon"))
				l := &listener{}
				switch stage {
				case "MAIL":
					l.onMail = hook
				case "RCPT":
					l.onRcpt = hook
				case "DATA":
					l.onData = func(*session, io.Reader) error { return hook("") }
				default:
					l.afterAll = func(*session) error { return hook("") }
				}
				listen(t, l, "")
				f := newFixture(t, l.addr)
				e, a := f.access(100_000, "bob@beta.example")
				f.run(f.store)
				got := []string{l.next().text, l.next().text}
				if !slices.Contains(got, e) || !slices.Contains(got, a) {
					t.Error("the messages differ from what was signed")
				}
				f.empty()
				f.halt()
				if messages, _ := l.count(); messages != 2 {
					t.Errorf("%d messages taken, want 2", messages)
				}
				if !f.observed(courier.OutcomeRefused) && code != 421 {
					t.Errorf("outcomes %v", f.outcomes)
				}
				if loud := f.log.has("level=ERROR", "misconfigured", "no room on the moon"); loud != (code >= 500) {
					t.Errorf("%d: loud %t; log:\n%s", code, loud, f.log)
				}
			})
		}
	}
}

// A connection that breaks after the final dot leaves open whether the message
// was taken: it is sent again.
func TestReplyLost(t *testing.T) {
	var cuts atomic.Int32
	l := listen(t, &listener{afterAll: func(s *session) error {
		if cuts.Add(1) <= 2 {
			return s.conn.Conn().Close()
		}
		return nil
	}}, "")
	f := newFixture(t, l.addr)
	f.access(100_000, "bob@beta.example")
	f.run(f.store)
	seen := map[string]int{}
	for range 4 {
		seen[l.next().text]++
	}
	f.empty()
	f.halt()
	if len(seen) != 2 {
		t.Errorf("%d different messages, want 2", len(seen))
	}
	if !f.log.has("level=WARN", "second time") {
		t.Errorf("nothing said about a duplicate:\n%s", f.log)
	}
}

func TestBrokenOff(t *testing.T) {
	var cuts atomic.Int32
	l := listen(t, &listener{onData: func(s *session, r io.Reader) error {
		if cuts.Add(1) <= 2 {
			if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
				return err
			}
			return s.conn.Conn().Close()
		}
		return nil
	}}, "")
	f := newFixture(t, l.addr)
	e, _ := f.access(10_000_000, "bob@beta.example")
	f.run(f.store)
	f.empty()
	f.halt()
	whole := false
	for _, r := range l.taken {
		whole = whole || r.text == e
	}
	if !whole || !f.observed(courier.OutcomeFailed) {
		t.Errorf("the envelope did not arrive whole after it was broken off; outcomes %v", f.outcomes)
	}
}

// Recipients that are refused stay, the others are done.
func TestSomeRecipients(t *testing.T) {
	refuse := times(2, reply(452, "too many recipients"))
	l := listen(t, &listener{onRcpt: func(to string) error {
		if to == "bruna@beta.example" {
			return refuse(to)
		}
		return nil
	}}, "")
	f := newFixture(t, l.addr)
	f.access(500, "bob@beta.example", "bruna@beta.example", "carla@beta.example")
	f.run(f.store)
	f.empty()
	f.halt()
	var got [][]string
	for _, r := range l.taken {
		if r.from == "alice@alfa.example" {
			got = append(got, r.to)
		}
	}
	want := [][]string{{"bob@beta.example", "carla@beta.example"}, {"bruna@beta.example"}}
	if !reflect.DeepEqual(got, want) || !f.observed(courier.OutcomePartial) {
		t.Errorf("sent to %v, want %v; outcomes %v", got, want, f.outcomes)
	}
}

// What is being sent when Run is to end is finished.
func TestDrains(t *testing.T) {
	arrived, goOn := make(chan bool, 10), make(chan bool)
	l := listen(t, &listener{afterAll: func(*session) error { arrived <- true; <-goOn; return nil }}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	f.access(500, "bob@beta.example")
	f.run(f.store)
	<-arrived
	halted := make(chan bool)
	go func() { f.halt(); close(halted) }()
	goOn <- true
	<-halted
	if s := f.stats(); s.Outbox != 1 {
		t.Errorf("%d messages are left, want the one that was not begun", s.Outbox)
	}
	if messages, _ := l.count(); messages != 1 {
		t.Errorf("%d messages were sent, want 1", messages)
	}
}

// What is not finished in time is cut off, and sent by the next Run.
func TestCutOff(t *testing.T) {
	arrived, goOn := make(chan bool, 10), make(chan bool)
	l := listen(t, &listener{onData: func(s *session, r io.Reader) error {
		arrived <- true
		<-goOn
		return nil
	}}, "")
	f := newFixture(t, l.addr)
	f.o.Connections, f.o.Drain = 1, 20*time.Millisecond
	f.o.Command, f.o.Final = time.Hour, time.Hour    // so that only Drain ends it
	e, a := f.access(30_000_000, "bob@beta.example") // more than the sockets hold
	f.run(f.store)
	<-arrived
	if f.stats().Outbox == 2 { // the acceptance goes first
		goOn <- true
		f.until("the acceptance", func() bool { return f.stats().Outbox == 1 })
		<-arrived
	}
	f.halt()
	close(goOn)
	if s := f.stats(); s.Outbox != 1 {
		t.Errorf("%d messages are left, want 1", s.Outbox)
	}
	if messages, _ := l.count(); messages != 1 {
		t.Errorf("%d messages were taken, want 1", messages)
	}

	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.run(f.store)
	f.empty()
	f.halt()
	if messages, _ := l.count(); messages != 2 || l.taken[0].text != a || l.taken[1].text != e {
		t.Errorf("%d messages were taken in the end, or they differ", messages)
	}
}

// A message that was put off before a restart is sent when it is due, without
// being woken.
func TestPutOffBeforeRestart(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.access(500, "bob@beta.example")
	out, err := f.store.Outgoing(context.Background(), clock(), 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	due := clock().Add(300 * time.Millisecond)
	for _, m := range out {
		if err := f.store.Postpone(context.Background(), m.ID, due, ""); err != nil {
			t.Fatal(err)
		}
	}
	<-f.store.Wake()
	f.run(f.store)
	l.next()
	l.next()
	if now := clock(); now.Before(due) {
		t.Errorf("sent %v too early", due.Sub(now))
	}
	f.empty()
}

// The listener closes connections that are idle; that is no failure.
func TestIdleClosed(t *testing.T) {
	server := smtp.NewServer(nil)
	server.ReadTimeout = time.Second // long enough never to strike within a message
	l := listen(t, &listener{server: server}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	f.run(f.store)
	for range 3 {
		f.access(500, "bob@beta.example")
		f.empty()
		f.until("the listener to have had enough", l.deserted)
	}
	f.halt()
	if slices.ContainsFunc(f.outcomes, func(o string) bool { return o != courier.OutcomeTaken }) {
		t.Errorf("outcomes %v", f.outcomes)
	}
	if _, connections := l.count(); connections < 2 {
		t.Errorf("%d connections: none was closed", connections)
	}
}

// The courier hangs up when there is nothing to do.
func TestHangsUp(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.o.Connections, f.o.Idle = 1, time.Millisecond
	f.run(f.store)
	for range 2 {
		f.access(500, "bob@beta.example")
		f.empty()
		f.until("the end of the connection", l.deserted)
	}
}

// A hiding connection does not let the client see extensions.
type hiding struct {
	net.Conn
	names []string
}

func (c hiding) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for _, name := range c.names {
		copy(p, bytes.ReplaceAll(p[:n], []byte(name), []byte("X"+name[1:])))
	}
	return n, err
}

func (f *fixture) hide(names ...string) {
	dial := f.o.Dial
	f.o.Dial = func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return hiding{c, names}, err
	}
}

func TestNo8BitMIME(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.hide("8BITMIME")
	ev := f.NewEvent(t, "bob@beta.example")
	e, a := f.accessOf(ev, storetest.Original(ev, 500)+"perché sì\r\n")
	f.run(f.store)
	if got := l.next().text; got != a {
		t.Error("the 7-bit message does not come first")
	}
	f.until("several attempts", func() bool {
		out, err := f.store.Outgoing(context.Background(), clock().Add(time.Hour), 10, nil)
		return err == nil && len(out) == 1 && out[0].Attempts > 3
	})
	f.halt()
	if messages, _ := l.count(); messages != 1 {
		t.Errorf("%d messages were sent: an 8-bit message among them", messages)
	}
	if n := strings.Count(f.log.String(), "8-bit messages wait"); n != 1 {
		t.Errorf("said %d times", n)
	}
	f.o.Dial = newFixture(t, l.addr).o.Dial
	f.run(f.store)
	if got := l.next().text; got != e {
		t.Error("the 8-bit message differs")
	}
	f.empty()
}

// TestNotInSMTP: a message to an address that would end the brackets waits, and the log
// does not tell the address.
func TestNotInSMTP(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	_, receipt := f.access(500, "bob@beta.example", `bru"na@beta.example`)
	f.run(f.store)
	if got := l.next().text; got != receipt {
		t.Error("the receipt does not come first")
	}
	f.until("an attempt", func() bool {
		out, err := f.store.Outgoing(context.Background(), clock().Add(time.Hour), 10, nil)
		return err == nil && len(out) == 1 && out[0].Attempts > 0
	})
	f.halt()
	if log := f.log.String(); !strings.Contains(log, "address 2 of 2 cannot be written") || strings.Contains(log, "bru") {
		t.Errorf("the log: %s", log)
	}
}

// A parting connection is closed at its second EHLO.
type parting struct {
	net.Conn
	greeted *bool
}

func (c parting) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("EHLO")) {
		if *c.greeted {
			return 0, errors.Join(net.ErrClosed, c.Close())
		}
		*c.greeted = true
	}
	return c.Conn.Write(p)
}

// A connection that ends after a refusal is not taken for a listener without 8BITMIME:
// the next message goes over another one.
func TestClosedAfterRefusal(t *testing.T) {
	l := listen(t, &listener{onMail: times(1, reply(451, "later"))}, "")
	f := newFixture(t, l.addr)
	f.o.Connections = 1
	dial := f.o.Dial
	f.o.Dial = func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return parting{c, new(bool)}, err
	}
	ev := f.NewEvent(t, "bob@beta.example")
	e, a := f.accessOf(ev, storetest.Original(ev, 500)+"perché sì\r\n")
	f.run(f.store)
	if got := []string{l.next().text, l.next().text}; !slices.Contains(got, e) || !slices.Contains(got, a) {
		t.Error("the messages differ from what was signed")
	}
	f.empty()
	f.halt()
	if f.log.has("8BITMIME") {
		t.Errorf("the listener offers it:\n%s", f.log)
	}
}

func TestNoDSN(t *testing.T) {
	l := listen(t, &listener{}, "")
	f := newFixture(t, l.addr)
	f.hide("DSN")
	f.access(500, "bob@beta.example")
	f.access(500, "bob@beta.example")
	f.run(f.store)
	for range 4 {
		if r := l.next(); r.mail.EnvelopeID != "" || r.mail.Return != "" || r.rcpt[0].Notify != nil {
			t.Errorf("DSN parameters for a listener without DSN: %+v %+v", r.mail, r.rcpt)
		}
	}
	f.empty()
	f.halt()
	if n := strings.Count(f.log.String(), "does not offer DSN"); n != 1 {
		t.Errorf("said %d times:\n%s", n, f.log)
	}
}

func (unreadable) Size() int64                       { return 100 }
func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.New("a bad sector") }
