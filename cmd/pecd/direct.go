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
	// directPatience is for all that becomes of one message on the direct way. The
	// MTA, which gets it then, has more, and holds up nobody else with it.
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
}

func newDirectWay(d *doors) *directWay {
	return &directWay{arrivalDoor: arrivalDoor{d}}
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
	failures := w.mailbox.Failures()
	limited, cancel := context.WithTimeout(ctx, directPatience)
	defer cancel()
	taken := w.carry(limited, office, m, ours)
	// At the end of the daemon it is not the store that failed.
	failed := w.mailbox.Failures() != failures && ctx.Err() == nil
	if w.barrier.leave(w.now(), trial, failed) {
		w.log.Warn("the mailbox store does not answer: the MTA gets what could go straight", "pause", directPause)
	}
	return taken
}

// carry brings m to ours, and returns those for whom it is done.
func (w *directWay) carry(ctx context.Context, office *office, m logstore.Outgoing, ours []pec.Address) (taken []pec.Address) {
	body, err := w.store.NewBody()
	if err != nil {
		return nil // the store is closing
	}
	a := &arrival{spool: spool{body: body}, arrivalDoor: w.arrivalDoor, office: office, direct: true}
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
// one on trial lifts it: others had passed before.
func (b *barrier) leave(now time.Time, trial, failed bool) (fell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if trial {
		b.trial, b.down = false, false
	}
	fell = failed && !b.down && !trial
	if failed {
		b.down, b.until = true, now.Add(directPause)
	}
	return fell
}
