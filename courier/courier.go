// Package courier hands the signed messages of the outbox to the MTA's
// re-injection listener by SMTP and retries until it takes them; who gives it a
// direct way for some recipients is asked first. The MTA is the only queue: the
// courier talks to one place, resolves no name, and neither
// drops nor bounces anything. A message leaves the outbox only after the reply to
// its final dot; if that reply is lost the message is sent again, as RFC 5321,
// 6.1 has it.
package courier

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// The steps at which Options.AtStep is called, in the order of a message's way.
const (
	StepConnected = "courier-connected" // the listener has answered EHLO
	StepBegun     = "courier-begun"     // it has answered DATA with 354
	StepSent      = "courier-sent"      // all but the final dot has been sent
	StepReplied   = "courier-replied"   // it has taken the message, the store does not know yet
	StepTaken     = "courier-taken"     // the store knows
)

// Outcomes of an attempt, for Options.Observe.
const (
	OutcomeTaken       = "taken"       // for all recipients
	OutcomePartial     = "partial"     // for some
	OutcomeRefused     = "refused"     // the listener said no, for now or for good
	OutcomeFailed      = "failed"      // the connection broke or the message could not be read
	OutcomeUnreachable = "unreachable" // no connection could be made
	OutcomeDirect      = "direct"      // taken by Options.Direct, for some or all
)

// Outcomes returns all of them.
func Outcomes() []string {
	return []string{OutcomeTaken, OutcomePartial, OutcomeRefused, OutcomeFailed, OutcomeUnreachable, OutcomeDirect}
}

// Options are what New needs. Dial, Hostname and Now must be set.
type Options struct {
	// Dial opens a connection to the re-injection listener.
	Dial func(ctx context.Context) (net.Conn, error)
	// Hostname is the name for EHLO.
	Hostname string
	// Connections is how many messages are sent at a time; zero means 4.
	Connections int
	// Direct, if set, is asked first: it may take m to some of its recipients without
	// the MTA, and returns them. What it returns is settled as what the MTA has taken
	// is; the MTA gets the message for the others. It is called from several
	// goroutines, and must be ready to get a message again that it has taken.
	Direct func(ctx context.Context, m logstore.Outgoing) []pec.Address
	// Yield, if set, is called before a message is sent that was put into the outbox
	// at created, and returns when it may be.
	Yield func(ctx context.Context, created time.Time)
	// Now is the clock against which messages are due.
	Now func() time.Time
	// Log receives what the operator should know; nil discards it.
	Log *slog.Logger
	// AtStep is called at each step, from several goroutines; nil in production.
	AtStep func(step string)
	// Retry returns how long to wait after so many failed attempts, 1 or more; nil
	// means 1, 2, 5, 15 and then always 60 seconds.
	Retry func(attempts int) time.Duration
	// Observe is called after each attempt with its outcome and how long it took,
	// from several goroutines; may be nil.
	Observe func(outcome string, d time.Duration)
	Timeouts
}

// Timeouts bound what the courier waits for; zero means the default.
type Timeouts struct {
	Connect time.Duration // to open a connection; 10 s
	Command time.Duration // for the reply to a command, and for each block of data to be taken; 1 min
	Final   time.Duration // for the reply to the final dot; 10 min (RFC 5321, 4.5.3.2.6)
	Idle    time.Duration // to keep a connection without work; 30 s
	Drain   time.Duration // for what is being sent when Run is to end; 15 s
}

// Courier sends the outbox of one store.
type Courier struct {
	Options
	store logstore.Store

	work chan logstore.Outgoing // from dispatch to the senders; unbuffered
	done chan result            // back

	saidNo8BitMIME, saidNoDSN atomic.Bool  // logged once
	deaf                      atomic.Int32 // messages of which the store could not be told yet
	absence                   absence
}

// A result is what became of a message that was given to a sender.
type result struct {
	id int64
	// park is until when the message must not be tried although the store does
	// not know that; zero if it does.
	park time.Time
	// away says that only the listener, which cannot be reached, could take it.
	away bool
}

// New returns a courier for the outbox of store. There must be only one for a
// store at a time.
func New(store logstore.Store, o Options) *Courier {
	setDefault(&o.Connections, 4)
	setDefault(&o.Connect, 10*time.Second)
	setDefault(&o.Command, time.Minute)
	setDefault(&o.Final, 10*time.Minute)
	setDefault(&o.Idle, 30*time.Second)
	setDefault(&o.Drain, 15*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retry == nil {
		o.Retry = retry
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	if o.AtStep == nil {
		o.AtStep = func(string) {}
	}
	return &Courier{Options: o, store: store, work: make(chan logstore.Outgoing), done: make(chan result),
		absence: absence{over: make(chan struct{}, 1)}}
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// retry is the default of Options.Retry: the listener is next door and usually
// back within seconds.
func retry(attempts int) time.Duration {
	steps := [...]time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 15 * time.Second}
	if attempts >= 1 && attempts <= len(steps) {
		return steps[attempts-1]
	}
	return time.Minute
}

// Run sends what is due, now and later, until ctx is done. Then it starts nothing
// more, waits for what is being sent as long as Timeouts.Drain says, and returns
// nil. It must be called once.
func (c *Courier) Run(ctx context.Context) error {
	// hard outlives ctx by the time to drain.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var senders sync.WaitGroup
	for range c.Connections {
		senders.Add(1)
		go func() {
			defer senders.Done()
			(&sender{courier: c}).run(ctx, hard)
		}()
	}
	d := dispatch{courier: c, busy: map[int64]bool{}, parked: map[int64]time.Time{}, waiting: map[int64]bool{}}
	d.run(ctx)

	drain := time.AfterFunc(c.Drain, cut)
	defer drain.Stop()
	close(c.work)
	ended := make(chan struct{})
	go func() { senders.Wait(); close(ended) }()
	for {
		select {
		case <-c.done:
		case <-ended:
			return nil
		}
	}
}

// A dispatch gives messages to the senders. It belongs to the goroutine of Run.
type dispatch struct {
	courier *Courier
	ready   []logstore.Outgoing // fetched, not yet given out
	busy    map[int64]bool      // in ready or with a sender
	parked  map[int64]time.Time // failed, and the store could not be told
	waiting map[int64]bool      // until the listener is there; for the store they are due
	fetch   bool                // the store may have more
	next    time.Time           // when to look again without being woken; zero: not
}

// maxFetch is how many messages are fetched for each connection at a time.
const maxFetch = 4

// maxWaiting is how many messages may wait for a listener that cannot be reached. Each is
// passed over at each look for what goes straight, so beyond that nobody looks.
const maxWaiting = 5000

func (d *dispatch) run(ctx context.Context) {
	c := d.courier
	d.fetch = true
	for ctx.Err() == nil {
		if d.fetch && len(d.ready) == 0 {
			d.refill(ctx)
		}
		var work chan<- logstore.Outgoing
		var first logstore.Outgoing
		if len(d.ready) > 0 {
			work, first = c.work, d.ready[0]
		}
		timer := d.timer()
		select {
		case work <- first:
			d.ready = d.ready[1:]
		case r := <-c.done:
			d.finished(r)
		case <-c.store.Wake():
			d.fetch = true
		case <-timer.C:
			d.next, d.fetch = time.Time{}, true
		case <-c.absence.over:
			d.anew()
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// timer fires when it is time to look again; never, if there is nothing to look
// for.
func (d *dispatch) timer() *time.Timer {
	if d.next.IsZero() {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTimer(d.next.Sub(d.courier.Now()))
}

// lookAt has the store looked at again at t at the latest.
func (d *dispatch) lookAt(t time.Time) {
	if d.next.IsZero() || t.Before(d.next) {
		d.next = t
	}
}

func (d *dispatch) finished(r result) {
	delete(d.busy, r.id)
	if r.away && d.courier.absence.lasts() {
		d.waiting[r.id] = true
		return // the store has nothing new to tell
	}
	if !r.park.IsZero() {
		d.parked[r.id] = r.park
		d.lookAt(r.park)
	}
	// It may have been put off, or given back by a sender that must end.
	d.fetch = true
}

// anew begins again with what has been due longest, also before what is fetched
// already.
func (d *dispatch) anew() {
	for _, m := range d.ready {
		delete(d.busy, m.ID)
	}
	clear(d.waiting)
	d.ready, d.fetch = nil, true
}

// refill fetches what is due. If that is all, it finds out when to look again.
func (d *dispatch) refill(ctx context.Context) {
	c := d.courier
	if len(d.waiting) >= maxWaiting {
		d.fetch = false
		return
	}
	now := c.Now()
	limit := maxFetch * c.Connections
	var err error
	d.ready, err = c.store.Outgoing(ctx, now, limit, d.except(now))
	for _, m := range d.ready {
		d.busy[m.ID] = true
	}
	if err == nil && len(d.ready) < limit {
		d.fetch = false
		err = d.plan(ctx, now)
	}
	if err != nil && ctx.Err() == nil {
		c.Log.Error("courier: the outbox cannot be read", "error", err)
		d.fetch = false
		d.lookAt(now.Add(c.Retry(1)))
	}
}

// plan sets the time of the earliest message that is due later.
func (d *dispatch) plan(ctx context.Context, now time.Time) error {
	later, err := d.courier.store.Outgoing(ctx, now.Add(100*24*time.Hour), 1, d.except(now))
	if err != nil {
		return err
	}
	for _, m := range later {
		d.lookAt(m.Due)
	}
	return nil
}

// except returns the messages that are not to be fetched at now.
func (d *dispatch) except(now time.Time) []int64 {
	var ids []int64
	for id := range d.busy {
		ids = append(ids, id)
	}
	for id := range d.waiting {
		ids = append(ids, id)
	}
	for id, until := range d.parked {
		if until.After(now) {
			ids = append(ids, id)
			d.lookAt(until)
		} else {
			delete(d.parked, id)
		}
	}
	slices.Sort(ids)
	return ids
}
