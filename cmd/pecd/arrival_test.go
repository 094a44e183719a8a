package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/clockwatch"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/act"
	"pecd/points/delivery"
	"pecd/points/pointstest"
	"pecd/points/reception"
)

// newBeta is Beta with a mailbox store behind it.
func newBeta(t *testing.T) *crashWorld {
	t.Helper()
	w := pointstest.New(t)
	root, err := os.MkdirTemp("", "arrival") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	b := &crashWorld{World: w, t: t, provider: w.Beta, dir: filepath.Join(root, "store"), started: time.Now(),
		fault: &fault{died: make(chan struct{})}, mailboxAddr: filepath.Join(root, "mailbox")}
	b.playMailbox()
	b.open()
	t.Cleanup(b.close)
	return b
}

// envelopeTo is an envelope of Alfa to n users of Beta, and their addresses.
func (w *crashWorld) envelopeTo(n int) (raw []byte, to []string) {
	w.t.Helper()
	ev := w.event("")
	ev.Recipients = nil
	for i := range n {
		to = append(to, fmt.Sprintf("u%d@beta.example", i))
		ev.Recipients = append(ev.Recipients, pec.Recipient{Address: pec.Address(to[i]), Type: pec.Certified})
	}
	m, err := message.Read(message.Bytes(fmt.Sprintf(matrixMessage, to[0])))
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := w.Alfa.Issuer.Transport(ev, m, message.Facts{}, rand.Reader)
	return signed(w.t, w.Alfa, d, err), to
}

// bring is one delivery of the MTA to the LMTP door.
func (w *crashWorld) bring(ctx context.Context, raw []byte, to ...string) []lmtp.Status {
	w.t.Helper()
	env := lmtp.Envelope{Sender: "posta-certificata@alfa.example", Recipients: to}
	m, err := arrivalDoor{w.doors}.Begin(ctx, env)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := m.Write(raw); err != nil {
		w.t.Fatal(err)
	}
	return m.End(ctx, env)
}

// TestSlowMailboxStore: a mailbox store that needs longer than there is for all
// recipients has delivered to some. That is certified, and the MTA brings the message
// again for the others only.
func TestSlowMailboxStore(t *testing.T) {
	w := newBeta(t)
	release := make(chan struct{})
	w.slow = func() {
		if w.count(&w.mailbox) == 2 { // the second portion
			<-release
		}
	}
	w.doors.storeTime = 2 * time.Second // far more than the first takes
	raw, to := w.envelopeTo(storePortion + 10)
	status := w.bring(t.Context(), raw, to...)
	close(release)
	var again []string
	for i, s := range status {
		if s.Deferred() {
			again = append(again, to[i])
		}
	}
	if n := w.entries(logstore.EntryType(pec.KindDelivery)); n != storePortion || len(again) != 10 {
		t.Fatalf("%d delivery receipts, %d recipients put off", n, len(again))
	}
	for _, s := range w.bring(t.Context(), raw, again...) {
		if !s.OK() {
			t.Errorf("the repeat hears %v", s)
		}
	}
	if n := w.entries(logstore.EntryType(pec.KindDelivery)); n != len(to) {
		t.Errorf("%d delivery receipts for %d", n, len(to))
	}
	if n := w.entries(logstore.EntryType(pec.KindTakeCharge)); n != 1 {
		t.Errorf("%d take-charge receipts", n)
	}
}

// TestLettersOfTheMTA: a recipient whom the MTA writes otherwise than the envelope is
// certified as the envelope has him, once, and the mailbox store gets the MTA's address.
func TestLettersOfTheMTA(t *testing.T) {
	w := newBeta(t)
	raw, _ := w.envelopeTo(2)
	for range 2 {
		for _, s := range w.bring(t.Context(), raw, "U0@beta.example", "u1@beta.example") {
			if !s.OK() {
				t.Errorf("the MTA hears %v", s)
			}
		}
	}
	if n := w.count(&w.mailbox); n != 1 {
		t.Errorf("the mailbox store was asked %d times", n)
	}
	if !slices.Equal(w.all(&w.stored), []string{"U0@beta.example", "u1@beta.example"}) {
		t.Errorf("delivered to %q", w.all(&w.stored))
	}
	var certified []string
	err := w.store.Search(t.Context(), logstore.Query{}, func(e logstore.Entry) error {
		if e.Type == logstore.EntryType(pec.KindDelivery) {
			certified = append(certified, string(e.Recipient))
		}
		if e.Type == logstore.EntryType(pec.KindTakeCharge) && !slices.Equal(e.Taken, []pec.Address{"u0@beta.example", "u1@beta.example"}) {
			t.Errorf("taken in charge for %q", e.Taken)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(certified)
	if !slices.Equal(certified, []string{"u0@beta.example", "u1@beta.example"}) {
		t.Errorf("delivery certified for %q", certified)
	}
}

// TestOneMailboxTwice: the MTA gives a mailbox twice, in two spellings, and the mailbox
// store would say something else of each. It is asked once, one thing is certified, and
// the MTA hears the same of both.
func TestOneMailboxTwice(t *testing.T) {
	for _, refuses := range []string{"", "u0@BETA.example", "u0@beta.example"} {
		w := newBeta(t)
		w.refuses = refuses
		raw, _ := w.envelopeTo(1)
		status := w.bring(t.Context(), raw, "u0@beta.example", "u0@BETA.example")
		if len(status) != 2 || !status[0].OK() || !status[1].OK() {
			t.Errorf("the MTA hears %v", status)
		}
		delivered, failed := w.entries(logstore.EntryType(pec.KindDelivery)), w.entries(logstore.EntryType(pec.KindNonDelivery))
		if n := w.count(&w.stored); n != delivered || delivered+failed != 1 {
			t.Errorf("%q refused: %d delivered, %d delivery receipts, %d notices", refuses, n, delivered, failed)
		}
	}
}

// pointThat is a delivery point of others.
type pointThat func(delivery.Handover) (delivery.Decision, error)

func (p pointThat) Decide(_ context.Context, h delivery.Handover) (delivery.Decision, error) {
	return p(h)
}

// TestDeliveryPointFails: a delivery point of others is away, or decides what it may not.
// What is in the mailbox is certified, and nobody gets it again.
func TestDeliveryPointFails(t *testing.T) {
	for name, p := range map[string]pointThat{
		"away": func(delivery.Handover) (delivery.Decision, error) { return delivery.Decision{}, errors.New("away") },
		"unlawful": func(h delivery.Handover) (delivery.Decision, error) {
			d, err := delivery.Builtin{}.Decide(context.Background(), h)
			for i := range d.Outcomes {
				d.Outcomes[i].Detail = "\x00"
			}
			return d, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBeta(t)
			w.doors.office.Load().points.delivery = delivery.Guard(p)
			raw, to := w.envelopeTo(2)
			w.refuses = to[1]
			for range 3 {
				if s := w.bring(t.Context(), raw, to...); !s[0].OK() || !s[1].Deferred() {
					t.Errorf("the MTA hears %v", s)
				}
			}
			if n := w.entries(logstore.EntryType(pec.KindDelivery)); n != 1 || w.count(&w.stored) != 1 {
				t.Errorf("%d delivery receipts, %d copies", n, w.count(&w.stored))
			}
			w.doors.office.Load().points.delivery = delivery.Builtin{} // it is mended
			if s := w.bring(t.Context(), raw, to...); !s[0].OK() || !s[1].OK() || w.count(&w.stored) != 1 {
				t.Errorf("the MTA hears %v; %d copies", s, w.count(&w.stored))
			}
		})
	}
}

// TestStopAfterDelivery: pecd is told to end when the mailbox store has the message.
// That it has it is certified all the same.
func TestStopAfterDelivery(t *testing.T) {
	w := newBeta(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.doors.atStep = func(step string) {
		if step == stepStored {
			cancel()
		}
	}
	raw, to := w.envelopeTo(1)
	if s := w.bring(ctx, raw, to...)[0]; !s.OK() {
		t.Errorf("the MTA hears %v", s)
	}
	if n := w.entries(logstore.EntryType(pec.KindDelivery)); n != 1 {
		t.Errorf("%d delivery receipts", n)
	}
}

// TestClosing: what follows on the mailbox store's answers has the time that there is,
// and enough where there is none.
func TestClosing(t *testing.T) {
	for _, left := range []time.Duration{-time.Hour, 2 * closingTime} {
		before := time.Now()
		ctx, end := context.WithDeadline(t.Context(), before.Add(left))
		got, cancel := closing(ctx)
		end()
		until, ok := got.Deadline()
		if have := until.Sub(before); !ok || got.Err() != nil || have < closingTime || left > 0 && have < left {
			t.Errorf("with %v left there are %v; %v", left, have, got.Err())
		}
		cancel()
	}
}

// TestDoubtedClockGivesUpNothing: a clock that has jumped a day ahead, or for which
// nobody has vouched since the start, makes nothing overdue that the mailbox store has
// put off.
func TestDoubtedClockGivesUpNothing(t *testing.T) {
	good, off := clockwatch.Kernel{Synchronised: true}, clockwatch.Kernel{Synchronised: true, Error: 2 * clockwatch.KernelLimit}
	for name, tt := range map[string]struct {
		kernel clockwatch.Kernel
		waits  bool
	}{"right": {good, false}, "off": {off, true}, "nobody knows": {clockwatch.Kernel{}, true}} {
		t.Run(name, func(t *testing.T) {
			w := newBeta(t)
			w.doors.mailbox.Close()
			w.doors.mailbox = &lmtp.Store{MaxIdle: -1, Dial: dialUnix(w.mailboxAddr + ".away")}
			w.doors.time = clockGuard{watch: watchBy(t, tt.kernel)}
			raw, to := w.envelopeTo(1)
			w.bring(t.Context(), raw, to...)
			w.ahead = act.PatienceOfStore + time.Hour
			if s := w.bring(t.Context(), raw, to...)[0]; s.Deferred() != tt.waits {
				t.Errorf("the MTA hears %v", s)
			}
			if n := w.entries(logstore.EntryType(pec.KindNonDelivery)); (n == 0) != tt.waits {
				t.Errorf("%d non-delivery notices", n)
			}
		})
	}
}

// watchBy is a watch that has begun just now, over a clock of which the kernel says k.
func watchBy(t *testing.T, k clockwatch.Kernel) *clockwatch.Watch {
	t.Helper()
	w := clockwatch.New(clockwatch.Options{Hold: clockwatch.Patience, Now: func() time.Time { return pointstest.At },
		Elapsed: func() time.Duration { return time.Hour }, Kernel: func() (clockwatch.Kernel, error) { return k, nil }})
	w.Look(t.Context())
	return w
}

// TestConcludedIsNotTakenAgain: a copy of an envelope in which a virus was found comes
// when the scanner thinks better of it. Nobody takes charge of it any more.
func TestConcludedIsNotTakenAgain(t *testing.T) {
	w := newBeta(t)
	raw, to := w.envelopeTo(1)
	a := &arrival{arrivalDoor: arrivalDoor{w.doors}, office: w.doors.office.Load()}
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := w.Verifier.Verify(m, pointstest.At)
	found := reception.Examine(m, rep, err, w.Directory, pointstest.At.Location())
	o := delivery.Outcome{Kind: pec.KindVirus, Error: pec.ErrorVirus, Detail: "Eicar"}
	if err := a.office.clerk.Deliver(t.Context(), found, message.Text(raw), &act.Virus{Name: "Eicar", Source: logstore.KeptReception}, []pec.Address{pec.Address(to[0])}, []delivery.Outcome{o}); err != nil {
		t.Fatal(err)
	}
	if s := w.bring(t.Context(), raw, to...)[0]; !s.OK() {
		t.Errorf("the MTA hears %v", s)
	}
	if n := w.entries(logstore.EntryType(pec.KindTakeCharge)); n != 0 || w.count(&w.mailbox) != 0 {
		t.Errorf("%d take-charge receipts, %d copies delivered", n, w.count(&w.mailbox))
	}
}

// TestHeaderOverLimit: what no waiting makes readable is refused, and not put off
// until the MTA sends a bounce.
func TestHeaderOverLimit(t *testing.T) {
	w := newBeta(t)
	if s := w.bring(t.Context(), []byte(strings.Repeat("A: b\r\n", 10_001)+"\r\nx\r\n"), "bob@beta.example")[0]; s != statusUnreadable {
		t.Errorf("the MTA hears %v", s)
	}
}

// TestUncertifiable: no receipt of ours can name the sender whom an envelope certifies.
// It is not put off for a day, which would end in a bounce: it is as ordinary mail.
func TestUncertifiable(t *testing.T) {
	refused := []points.Finding{{Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}}}
	for name, tt := range map[string]struct {
		do        func(*arrival, choice) error
		anomalies int
		ok        bool
		virus     int
	}{
		"clean":   {func(a *arrival, c choice) error { return a.envelope(t.Context(), c, nil) }, 1, true, 0},
		"refused": {func(a *arrival, c choice) error { return a.envelope(t.Context(), c, refused) }, 0, false, 0},
		"infected": {func(a *arrival, c choice) error {
			return a.infected(t.Context(), c, points.Reason{Cause: points.Virus, Italian: "Eicar", English: "Eicar"})
		}, 0, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBeta(t)
			raw, to := w.envelopeTo(1)
			m, err := arrivalDoor{w.doors}.Begin(t.Context(), lmtp.Envelope{})
			if err != nil {
				t.Fatal(err)
			}
			a := m.(*arrival)
			defer a.body.Close()
			if _, err := a.Write(raw); err != nil {
				t.Fatal(err)
			}
			if a.m, err = message.Read(a.body); err != nil {
				t.Fatal(err)
			}
			rep, err := w.Verifier.Verify(a.m, pointstest.At)
			a.found = reception.Examine(a.m, rep, err, w.Directory, pointstest.At.Location())
			a.found.Event.Sender = "jos\u00e9@alfa.example"
			a.env = lmtp.Envelope{Sender: "alice@alfa.example", Recipients: to}
			a.status, a.log = []lmtp.Status{statusLater}, w.doors.log
			if err := tt.do(a, choice{[]int{0}, []pec.Address{pec.Address(to[0])}}); err != nil {
				t.Error(err)
			}
			if s := a.status[0]; s.OK() != tt.ok || s.Deferred() {
				t.Errorf("the MTA hears %v", s)
			}
			if n, v := w.entries(logstore.EntryType(pec.KindAnomaly)), w.entries(logstore.EntryVirus); n != tt.anomalies || v != tt.virus || w.count(&w.mailbox) != n {
				t.Errorf("%d anomalies, %d copies, %d refusals for a virus", n, w.count(&w.mailbox), v)
			}
		})
	}
}
