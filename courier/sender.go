package courier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/logstore"
	"pecd/pec"
)

// A sender sends one message at a time over a connection that it keeps. It
// belongs to one goroutine of Run.
type sender struct {
	courier *Courier
	conn    net.Conn
	client  *smtp.Client  // nil without a connection
	used    bool          // a message has gone over it
	noting  chan struct{} // holds a place for each message that the store is being told of
	release func() bool   // stops the watch of the hard context
	// failures is how often in a row it got no connection where another sender had one.
	failures int
}

// run sends what comes until the dispatch closes the channel.
func (s *sender) run(ctx, hard context.Context) {
	c := s.courier
	s.noting = make(chan struct{}, maxNoting)
	defer func() {
		s.hangUp()
		for range maxNoting {
			s.noting <- struct{}{} // until all have ended
		}
	}()
	for {
		var idle <-chan time.Time
		if s.client != nil {
			idle = time.After(c.Idle)
		}
		select {
		case m, ok := <-c.work:
			if !ok {
				return
			}
			s.deliver(ctx, hard, m)
		case <-idle:
			s.hangUp()
		}
	}
}

// maxNoting is how many messages of one sender may be taken without that the store
// knows yet. The next message does not wait for the sync of the one before.
const maxNoting = 16

// deliver carries one message through an attempt and tells the store.
func (s *sender) deliver(ctx, hard context.Context, m logstore.Outgoing) {
	c := s.courier
	// What the store does not hear of is sent again after a crash: no more of that
	// until it hears again.
	for n := 1; c.deaf.Load() > 0; n++ {
		if !wait(hard, min(c.Retry(n), time.Second)) {
			c.done <- result{id: m.ID}
			return
		}
	}
	if c.Yield != nil {
		c.Yield(ctx, m.Created)
	}
	if done := s.direct(hard, &m); !done {
		s.handOver(ctx, hard, m)
	}
}

// direct asks Options.Direct. It returns true if nothing is left to do, and
// otherwise leaves in m the recipients for whom the MTA must be given it.
func (s *sender) direct(hard context.Context, m *logstore.Outgoing) (done bool) {
	c := s.courier
	if c.Direct == nil || hard.Err() != nil {
		return false
	}
	start := c.Now()
	taken := c.Direct(hard, *m)
	if len(taken) == 0 {
		return false
	}
	c.Observe(OutcomeDirect, c.Now().Sub(start))
	rest := slices.DeleteFunc(slices.Clone(m.To), func(a pec.Address) bool { return slices.ContainsFunc(taken, a.Same) })
	if len(rest) == 0 {
		s.note(hard, *m, taken)
		return true
	}
	if !s.record(hard, *m, taken) {
		c.done <- result{id: m.ID}
		return true
	}
	m.To = rest
	return false
}

// note tells the store that all recipients of m are settled, while the sender
// goes on with the next message, and then the dispatch.
func (s *sender) note(hard context.Context, m logstore.Outgoing, taken []pec.Address) {
	s.noting <- struct{}{}
	go func() {
		defer func() { <-s.noting }()
		s.record(hard, m, taken)
		s.courier.done <- result{id: m.ID}
	}()
}

// handOver hands the message to the MTA.
func (s *sender) handOver(ctx, hard context.Context, m logstore.Outgoing) {
	c := s.courier
	if err := s.connect(ctx, hard); err != nil {
		s.giveBack(ctx, m, err)
		return
	}
	start := c.Now()
	taken, err := s.send(m)
	if errors.Is(err, errStale) {
		s.handOver(ctx, hard, m) // over a new connection, which is not stale
		return
	}
	c.Observe(outcome(taken, err), c.Now().Sub(start))
	if err == nil {
		s.note(hard, m, taken)
		return
	}
	if len(taken) > 0 {
		s.record(hard, m, taken)
	}
	logFailure(c.Log, m, err)
	c.done <- s.postpone(hard, m, err)
}

func outcome(taken []pec.Address, err error) string {
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return OutcomeTaken
	case len(taken) > 0:
		return OutcomePartial
	case errors.As(err, &reply):
		return OutcomeRefused
	}
	return OutcomeFailed
}

// record tells the store what was taken, until it listens: if it did not know,
// the message would be sent again. It reports false if hard was done first.
func (s *sender) record(hard context.Context, m logstore.Outgoing, taken []pec.Address) bool {
	c := s.courier
	c.AtStep(StepReplied)
	for n := 1; ; n++ {
		err := c.store.Taken(hard, m.ID, taken)
		if err == nil {
			c.AtStep(StepTaken)
			return true
		}
		if n == 1 {
			c.deaf.Add(1)
			defer c.deaf.Add(-1)
		}
		c.Log.Error("courier: the MTA has the message but the store cannot note it; if the process ends now it is sent again",
			"message_id", m.MessageID, "id", identifier(m), "error", err)
		if !wait(hard, c.Retry(n)) {
			return false
		}
	}
}

// postpone tells the store of a failed attempt. If it does not listen the
// dispatch keeps the message back.
func (s *sender) postpone(hard context.Context, m logstore.Outgoing, cause error) result {
	c := s.courier
	next := c.Now().Add(c.Retry(m.Attempts + 1))
	if err := c.store.Postpone(hard, m.ID, next, cause.Error()); err != nil {
		c.Log.Error("courier: the store cannot note a failed attempt", "message_id", m.MessageID, "id", identifier(m), "error", err)
		return result{id: m.ID, park: next}
	}
	return result{id: m.ID}
}

// wait reports whether d passed before ctx was done.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errAway says that the listener cannot be reached, errFull that it has taken another
// connection and not this one.
var (
	errAway = errors.New("the listener cannot be reached")
	errFull = errors.New("the listener takes no further connection")
)

// connect makes sure of a connection.
func (s *sender) connect(ctx, hard context.Context) error {
	c := s.courier
	if s.client != nil {
		return nil
	}
	if !c.absence.enter() {
		return errAway
	}
	start := c.Now()
	err := s.dial(ctx, hard)
	switch {
	case err == nil:
		s.failures = 0
		return nil
	case ctx.Err() != nil:
		return err
	}
	c.Observe(OutcomeUnreachable, c.Now().Sub(start))
	attempt, reason := c.absence.fail(c.Retry), errAway
	if attempt == 0 {
		s.failures++
		attempt, reason = s.failures, errFull
	}
	c.Log.Error("courier: the MTA's re-injection listener cannot be reached", "attempt", attempt, "error", err)
	return reason
}

// giveBack returns a message for which there is no connection. None is marked as failed
// for that: none of them is the reason. While no sender has one they all go on with what
// goes straight. If another has one it gets the message, and this sender pauses.
func (s *sender) giveBack(ctx context.Context, m logstore.Outgoing, why error) {
	c := s.courier
	c.done <- result{id: m.ID, away: errors.Is(why, errAway)}
	if errors.Is(why, errFull) {
		wait(ctx, c.Retry(s.failures))
	}
}

func (s *sender) dial(ctx, hard context.Context) error {
	c := s.courier
	dialCtx, cancel := context.WithTimeout(ctx, c.Connect)
	defer cancel()
	conn, err := c.Dial(dialCtx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	client := smtp.NewClient(conn)
	client.CommandTimeout, client.SubmissionTimeout = c.Command, c.Final
	// Greeting and EHLO end with ctx, what comes later with hard.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = client.Hello(c.Hostname)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("greeting: %w", err)
	}
	s.conn, s.client, s.used = conn, client, false
	c.absence.connected()
	s.release = context.AfterFunc(hard, func() { _ = conn.Close() })
	c.AtStep(StepConnected)
	return nil
}

// hangUp ends the connection politely.
func (s *sender) hangUp() {
	if s.client == nil {
		return
	}
	if err := s.client.Quit(); err != nil {
		s.courier.Log.Debug("courier: QUIT", "error", err)
	}
	s.drop()
}

// drop closes the connection.
func (s *sender) drop() {
	if s.client == nil {
		return
	}
	s.release()
	_ = s.conn.Close() // it may be closed already
	s.conn, s.client = nil, nil
	s.courier.absence.closed()
}
