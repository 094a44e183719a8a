package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/plugins/protocol"
	"pecd/plugins/protocol/pointwire"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// A Question is a message with its circumstances, for checks.
type Question struct {
	Identifier pec.Identifier // the provider's own; empty if it has none yet
	Login      string         // who authenticated; empty if nobody did
	Client     string         // IP address of the SMTP client; empty if not known
	TLS        string         // version of TLS; empty without, or if not known
	QueueID    string         // the MTA's; empty if not known
	Sender     pec.Address    // SMTP reverse path
	Recipients []pec.Recipient
	// Source holds the message, which is Range of it. If it has a method
	// Path() (path string, ok bool) that names the file it lies in, the kernel
	// copies it for plugins.
	Source message.Source
	Range  message.Range
	Facts  message.Facts // of the message
}

// An asker makes a call of a plugin about a message, which is nil where there is none,
// and returns the outcome for Options.Observe.
type asker func(context.Context, *session, *pluginv1.Message) (string, error)

// errNotAsked says that a call did not come to be.
var errNotAsked = errors.New("the plugin could not be asked in time: too many calls are under way, or the disk is too slow for the message")

// call has f ask the plugin about what c holds, nothing if c is nil, and notes how it
// went.
func (p *supervised) call(ctx context.Context, c *content, f asker) error {
	if !p.enterCall() {
		return p.note(nil, "not-running", 0, fmt.Errorf("plugin %s: %w", p.spec.Name, ErrNotRunning))
	}
	defer p.calls.Done()
	begun := p.host.opts.Now()
	s, outcome, err := p.ask(ctx, c, f)
	if err != nil {
		err = fmt.Errorf("plugin %s: %w", p.spec.Name, curtail(err))
	}
	return p.note(s, outcome, p.host.opts.Now().Sub(begun), err)
}

// ask makes the call and returns the session that was asked, nil if none was. The
// plugin's timeout begins with the question: how long that took is our doing, or that
// of the other calls, and not held against it.
func (p *supervised) ask(ctx context.Context, c *content, f asker) (_ *session, outcome string, _ error) {
	m, release, outcome, err := p.prepare(ctx, c)
	if err != nil {
		return nil, outcome, err
	}
	defer release()
	s := p.current()
	if s == nil {
		return nil, "not-running", ErrNotRunning
	}
	within, cancel := context.WithTimeout(ctx, p.spec.Timeout)
	defer cancel()
	if outcome, err = f(within, s, m); err != nil {
		outcome, err = judge(ctx, within, err)
	}
	return s, outcome, err
}

// prepare waits for a slot and makes the message reachable, until release is called. It
// may take as long as the plugin.
func (p *supervised) prepare(ctx context.Context, c *content) (m *pluginv1.Message, release func(), outcome string, err error) {
	within, cancel := context.WithTimeout(ctx, p.spec.Timeout)
	defer cancel()
	leave, forget := func() {}, func() {}
	select {
	case p.slots <- struct{}{}:
		leave = func() { <-p.slots }
		if c != nil {
			m, forget, err = c.reach(within, p)
		}
	case <-within.Done():
		err = within.Err()
	}
	if err == nil {
		return m, func() { forget(); leave() }, "", nil
	}
	leave()
	if outcome, err = judge(ctx, within, err); errors.Is(err, ErrTimeout) {
		err = errNotAsked
	}
	return nil, nil, outcome, err
}

// enterCall counts a call under way, unless the host is closing.
func (p *supervised) enterCall() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.session == nil {
		return false
	}
	p.calls.Add(1)
	return true
}

func (p *supervised) current() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session
}

// judge says what err means: whether the caller gave up, the plugin was late, or
// something else.
func judge(ctx, within context.Context, err error) (outcome string, _ error) {
	switch {
	case ctx.Err() != nil:
		return "cancelled", ctx.Err()
	case errors.Is(err, ErrNotRunning):
		return "not-running", err
	case errors.Is(err, wire.ErrAnswer) || status.Code(err) == codes.ResourceExhausted:
		return "nonsense", fmt.Errorf("%w: %w", ErrNonsense, err)
	case within.Err() == nil && status.Code(err) != codes.DeadlineExceeded:
		return "error", err
	case hasty(ctx, within):
		return "cancelled", context.DeadlineExceeded
	}
	return "timeout", ErrTimeout
}

// hasty reports whether the deadline of within is the caller's own.
func hasty(ctx, within context.Context) bool {
	own, ok := ctx.Deadline()
	d, _ := within.Deadline()
	return ok && !own.After(d)
}

// note counts a call that was answered, or not because of err, and returns err.
// s is the session that was asked, nil if none was.
func (p *supervised) note(s *session, outcome string, took time.Duration, err error) error {
	o := p.host.opts
	o.Observe(p.spec.Name, outcome, took)
	p.mu.Lock()
	p.count.calls++
	if s != nil {
		p.latency.add(took)
	}
	switch {
	case err == nil:
		p.strikes, p.misses = 0, 0
	case s != nil && (outcome == "timeout" || status.Code(err) == codes.Unavailable):
		p.strike(s, &p.strikes)
	}
	if err != nil && outcome != "cancelled" {
		p.count.failures++
		p.lastErr = err.Error()
	}
	p.mu.Unlock()
	if err != nil {
		o.Log.Warn("a plugin did not answer", "plugin", p.spec.Name, "outcome", outcome, "took", took, "error", err)
	}
	return err
}

// check asks a check about q. Whatever goes wrong, the check has said nothing.
func (p *supervised) check(ctx context.Context, stage points.Stage, q Question, c *content) points.Finding {
	var f points.Finding
	err := p.call(ctx, c, func(ctx context.Context, s *session, m *pluginv1.Message) (string, error) {
		r, err := s.check.Check(ctx, &pluginv1.CheckRequest{
			Stage: wire.Stage(stage), Identifier: wire.Text(string(q.Identifier)), Login: []byte(q.Login), ClientAddress: wire.Text(q.Client),
			Tls: wire.Text(q.TLS), QueueId: wire.Text(q.QueueID), Sender: []byte(q.Sender), Recipients: wire.Recipients(q.Recipients), Message: m,
		})
		if err != nil {
			return "", err
		}
		if f, err = wire.Answer(p.spec.Name, r); err != nil {
			return "", err
		}
		p.tell(q, f, r.GetDetail())
		return f.Says.String(), nil
	})
	if err != nil {
		return points.Finding{Check: p.spec.Name}
	}
	return f
}

// tell writes to the log what a check found.
func (p *supervised) tell(q Question, f points.Finding, detail string) {
	if f.Says == points.Clean && detail == "" {
		return
	}
	p.host.opts.Log.Info("a check found something", "plugin", p.spec.Name, "says", f.Says.String(), "reason", f.Reason.English, "virus", f.Virus,
		"detail", detail[:min(len(detail), protocol.MaxDetail)], "id", string(q.Identifier), "qid", q.QueueID)
}

type accessPoint struct{ plugin *supervised }

// Decide implements access.Point.
func (a accessPoint) Decide(ctx context.Context, s access.Submission) (d access.Decision, err error) {
	h := a.plugin.host
	c := h.newContent(s.Message.Source, s.Message.Range(), s.Facts)
	err = a.plugin.call(ctx, c, func(ctx context.Context, t *session, m *pluginv1.Message) (string, error) {
		r, err := t.access.Decide(ctx, pointwire.Access(s, m))
		if err != nil {
			return "", err
		}
		d, err = pointwire.AccessDecisionOf(r)
		return "decided", err
	})
	if err != nil {
		return access.Decision{}, err
	}
	return d, nil
}

type receptionPoint struct{ plugin *supervised }

// Decide implements reception.Point.
func (p receptionPoint) Decide(ctx context.Context, a reception.Arrival) (d reception.Decision, err error) {
	c := p.plugin.host.newContent(a.Message.Source, a.Message.Range(), message.Facts{Size: a.Message.Range().Len})
	err = p.plugin.call(ctx, c, func(ctx context.Context, t *session, m *pluginv1.Message) (string, error) {
		r, err := t.recept.Decide(ctx, pointwire.Reception(a, m))
		if err != nil {
			return "", err
		}
		d, err = pointwire.ReceptionDecisionOf(r, a)
		return "decided", err
	})
	if err != nil {
		return reception.Decision{}, err
	}
	return d, nil
}

type deliveryPoint struct{ plugin *supervised }

// Decide implements delivery.Point.
func (p deliveryPoint) Decide(ctx context.Context, h delivery.Handover) (d delivery.Decision, err error) {
	err = p.plugin.call(ctx, nil, func(ctx context.Context, t *session, _ *pluginv1.Message) (string, error) {
		r, err := t.deliv.Decide(ctx, pointwire.Delivery(h))
		if err != nil {
			return "", err
		}
		d, err = pointwire.DeliveryDecisionOf(r, h)
		return "decided", err
	})
	if err != nil {
		return delivery.Decision{}, err
	}
	return d, nil
}
