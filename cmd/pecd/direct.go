package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/pec"
)

const (
	// directPatience is for all that becomes of one message on the direct way, until the
	// mailbox store has all of it. The MTA, which gets it then, has more, and holds up
	// nobody else with it.
	directPatience = time.Minute
	// directPause is how long nothing goes straight after the mailbox store failed.
	directPause = time.Minute
)

// A directWay carries messages of the outbox to those recipients who are our own
// users, on the way that they would take through the MTA: reception point, mailbox
// store, delivery point (docs/decisions/0016-direct.md).
type directWay struct {
	arrivalDoor
	barrier barrier
	// after has f called when d is over, unless stop is called before.
	after func(d time.Duration, f func()) (stop func() bool)
}

func newDirectWay(d *doors) *directWay {
	return &directWay{arrivalDoor: arrivalDoor{d}, after: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }}
}

// take returns those recipients of m whose matter is closed; the MTA gets the message
// for all others, as if nobody had tried. A mailbox store that hangs is not waited for
// by all: the courier's senders have mail for others too.
func (w *directWay) take(ctx context.Context, m logstore.Outgoing) []pec.Address {
	office := w.office.Load()
	if !*office.config.Delivery.Direct {
		return nil
	}
	var ours []pec.Address
	for _, to := range m.To {
		if office.provider.Manages(to.Domain()) {
			ours = append(ours, to)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	trial, ok := w.barrier.enter(w.now())
	if !ok {
		return nil
	}
	failures, answers := w.mailbox.Failures(), w.mailbox.Answers()
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &patience{cancel: cancel, late: func() { w.tell(w.barrier.fall(w.now())) }}
	stop := w.after(directPatience, p.end)
	taken := w.carry(limited, p, office, m, ours)
	stop()
	// At the end of the daemon it is not the store that failed.
	failed := (w.mailbox.Failures() != failures || p.wasLate()) && ctx.Err() == nil
	w.tell(w.barrier.leave(w.now(), trial, failed, w.mailbox.Answers() != answers))
	return taken
}

// tell says that the barrier fell, if it did.
func (w *directWay) tell(fell bool) {
	if fell {
		w.log.Warn("the mailbox store does not answer: the MTA gets what could go straight", "pause", directPause)
	}
}

// carry brings m to ours, and returns those for whom it is done.
func (w *directWay) carry(ctx context.Context, p *patience, office *office, m logstore.Outgoing, ours []pec.Address) (taken []pec.Address) {
	body, err := w.store.NewBody()
	if err != nil {
		return nil // the store is closing
	}
	a := &arrival{spool: spool{body: body}, arrivalDoor: w.arrivalDoor, office: office, direct: true, wait: p}
	// As at the LMTP door. A panic that ended the daemon would end it again after the
	// restart: the message is still the first of the outbox.
	defer func() {
		if v := recover(); v != nil {
			w.metrics.doors.WithLabelValues(doorDirect, lmtp.EventPanic).Inc()
			w.log.Error("panic on the direct way: the MTA gets the message", "panic", v, "message_id", m.MessageID, "stack", string(debug.Stack()))
			a.Abort()
			taken = nil
		}
	}()
	if err := a.copy(m); err != nil {
		w.log.Warn("the MTA gets a message that could have gone straight", "message_id", m.MessageID, "err", err)
		a.Abort()
		return nil
	}
	env := lmtp.Envelope{Sender: string(m.From), EnvelopeID: m.EnvelopeID}
	for _, to := range ours {
		env.Recipients = append(env.Recipients, string(to))
	}
	for i, s := range a.End(ctx, env) {
		if s.OK() {
			taken = append(taken, ours[i])
		}
	}
	return taken
}

// copy spools the message with a trace field, as each hop adds one (RFC 5321, 4.4).
func (a *arrival) copy(m logstore.Outgoing) error {
	domain := a.office.config.Provider.Domain
	_, err := fmt.Fprintf(a, "Received: from %s by %s (pecd)\r\n with LMTP id P%s; %s\r\n", domain, domain, strconv.FormatInt(m.ID, 10),
		a.now().In(a.office.location).Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	if err != nil {
		return err
	}
	_, err = m.Content.WriteTo(a)
	return err
}

// A patience ends an attempt when its time is over, but not while the mailbox store has
// all of a message and owes the answer: cut off then it delivers, and gets the message
// again by the MTA. A nil patience has no end.
type patience struct {
	cancel func() // ends the attempt
	late   func() // called when the time is over and an answer is owed

	mu                  sync.Mutex // guards what follows
	over, owed, waiting bool       // waiting: past the time, at least once
}

// end says that the time is over.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if !p.owed {
		p.cancel()
		return
	}
	p.waiting = true
	p.late()
}

// owes says that the store has all of a message.
func (p *patience) owes() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed = true
}

// owesNot says that it has answered, or will not.
func (p *patience) owesNot() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed = false
	if p.over {
		p.cancel()
	}
}

// wasLate reports whether an answer was owed when the time was over.
func (p *patience) wasLate() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// A barrier is down for a while after something behind it has failed. Then it lets one
// through, and the others when that one has come back well. The zero value is up.
type barrier struct {
	mu    sync.Mutex // guards what follows
	down  bool
	until time.Time // nobody passes before, if it is down
	trial bool      // one is through, if it is down
}

// enter reports whether one may pass, and whether on trial; who may calls leave.
func (b *barrier) enter(now time.Time) (trial, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down {
		return false, true
	}
	if b.trial || now.Before(b.until) {
		return false, false
	}
	b.trial = true
	return true, true
}

// leave says how it went, and reports whether the barrier went down for that. Only the
// one on trial lifts it: others had passed before. Where what is behind it was not
// reached, so that nobody knows, the next is on trial.
func (b *barrier) leave(now time.Time, trial, failed, answered bool) (fell bool) {
	if failed {
		fell = b.fall(now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if trial {
		b.trial = false
		b.down = failed || !answered
	}
	return fell
}

// fall lets nobody through from now on, and reports whether it is new.
func (b *barrier) fall(now time.Time) (fell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fell = !b.down
	b.down, b.until = true, now.Add(directPause)
	return fell
}
