package main

import (
	"context"
	"slices"

	"pecd/milter"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/reception"
)

// gateDoor is where the MTA's port 25 asks before it takes a message: what the
// reception point would refuse is refused while the sender's server still
// listens, so that no bounce goes to a sender who may be forged.
type gateDoor struct{ *doors }

// Recipient keeps transactions apart whose recipients treat ordinary mail
// differently: a message has one answer only. It also holds providers to TLS.
func (d gateDoor) Recipient(ctx context.Context, env milter.Envelope, recipient string) milter.Verdict {
	o := d.office.Load()
	if v, ok := d.tls(o, env); !ok {
		return v
	}
	p, err := d.policy(ctx, pec.Address(recipient))
	if err != nil {
		d.log.Error("recipient put off", "err", err)
		return later
	}
	if len(env.Recipients) == 0 {
		return milter.Verdict{Action: milter.Continue}
	}
	first, err := d.policy(ctx, pec.Address(env.Recipients[0]))
	if err != nil {
		d.log.Error("recipient put off", "err", err)
		return later
	}
	if p != first {
		return oneByOne
	}
	return milter.Verdict{Action: milter.Continue}
}

// tls holds senders of directory domains to an encrypted connection (RFC 6109,
// 5.3).
func (d gateDoor) tls(o *office, env milter.Envelope) (milter.Verdict, bool) {
	mode := o.config.Gate.TLS
	if mode == "off" || env.TLSVersion != "" {
		return milter.Verdict{}, true
	}
	p, ok := o.directory.ProviderOf(pec.Address(env.Sender).Domain())
	if !ok {
		return milter.Verdict{}, true
	}
	d.metrics.doors.WithLabelValues(doorGate, eventWithoutTLS).Inc()
	d.log.Warn("a provider's message comes without TLS", "provider", p.Name, "client", env.ClientAddr)
	return needTLS, mode != "require"
}

// malformed is the verdict on what the MTA cannot show here to the octet. What could be
// certified mail or a notification about a message of ours passes: it comes whole by
// LMTP, where the reception point decides. The To field of an envelope may be such a
// one, and its provider cannot send it otherwise. Ordinary mail would pass unseen, and
// be refused when its sender, who may be forged, can only hear of it by a bounce.
func (d gateDoor) malformed(env milter.Envelope) milter.Verdict {
	if env.Sender == "" {
		return milter.Verdict{Action: milter.Continue}
	}
	if _, ok := d.office.Load().directory.ProviderOf(pec.Address(env.Sender).Domain()); ok {
		return milter.Verdict{Action: milter.Continue}
	}
	return malformed
}

// Begin spools the message; it is looked at if its recipients refuse ordinary
// mail, if a check looks at what comes in, or if no anomaly envelope could hold
// it.
func (d gateDoor) Begin(_ context.Context, _ milter.Envelope) (milter.Message, error) {
	body, err := d.store.NewBody()
	if err != nil {
		return nil, err
	}
	return &visitor{spool: spool{body: body}, gateDoor: d, office: d.office.Load()}, nil
}

// A visitor is a message at the gate.
type visitor struct {
	spool
	gateDoor
	office *office
}

// End asks the reception point about ordinary mail and says what it says.
// Certified mail, what a provider has signed, what was taken in charge before, and
// notifications about messages of ours pass: they are dealt with when they arrive.
func (v *visitor) End(ctx context.Context, env milter.Envelope) milter.Verdict {
	defer v.body.Close()
	log := v.log.With("qid", env.QueueID, "client", env.ClientAddr)
	fates, findings, err := v.decide(ctx, env)
	if err != nil {
		log.Error("message put off", "err", err)
		return later
	}
	why, refused := refusedByAll(fates)
	switch {
	case putOff(fates):
		log.Warn("message put off", "findings", describe(findings))
		return later
	case !refused:
		return milter.Verdict{Action: milter.Continue}
	}
	log.Info("ordinary mail refused", "cause", why.Cause)
	if why.Cause == points.Virus {
		v.metrics.infected.WithLabelValues(infectedGate).Inc()
		if err := v.registerVirus(ctx, env, why); err != nil {
			log.Error("message put off: its refusal could not be registered", "err", err)
			return later
		}
	}
	return refusedMail(why)
}

// decide returns what becomes of the message for each recipient; nothing if it
// passes.
func (v *visitor) decide(ctx context.Context, env milter.Envelope) ([]reception.Fate, []points.Finding, error) {
	rcpts, err := v.recipients(ctx, addresses(env.Recipients))
	if err != nil || len(rcpts) == 0 {
		return nil, nil, err
	}
	unwrappable := v.unwrappable()
	checked := v.office.points.has(points.Incoming)
	if !unwrappable && !checked && !rcpts[0].RefusesOrdinary { // they all do or none does, see Recipient
		return nil, nil, nil
	}
	m, err := message.Read(v.body) // it is within the limits, since the milter's are lower
	if err != nil {
		return nil, nil, err
	}
	rep, verr := v.office.trust.verifier.VerifyContext(ctx, m, v.now())
	q := v.office.arrival(m, reception.Examine(m, rep, verr, v.office.directory, v.office.location), pec.Address(env.Sender))
	if q.Found.Class != reception.Other || reception.FromProvider(q.Found.Why) && !unwrappable {
		return nil, nil, nil
	}
	if taken, err := v.office.taken(ctx, m, rep, env.Recipients); err != nil || taken {
		return nil, nil, err
	}
	if _, ours, err := reception.ReadBounce(m, q.Sender, v.office.clerk.Owner); err != nil || ours {
		return nil, nil, err
	}
	q.Gate, q.Recipients, q.Unwrappable = true, rcpts, unwrappable
	shown := v.question()
	shown.Client, shown.TLS, shown.QueueID = env.ClientAddr, env.TLSVersion, env.QueueID
	shown.Sender, shown.Recipients = q.Sender, certified(addresses(env.Recipients))
	q.Findings = v.office.points.look(ctx, points.Incoming, shown)
	d, err := v.office.points.reception.Decide(ctx, q)
	if err == nil && len(d.Fates) == 0 {
		d.Fates = make([]reception.Fate, len(rcpts))
	}
	return d.Fates, q.Findings, err
}

// refusedByAll returns why all fates refuse the message.
func refusedByAll(fates []reception.Fate) (points.Reason, bool) {
	for _, f := range fates {
		if f.Way != reception.Rejected {
			return points.Reason{}, false
		}
	}
	if len(fates) == 0 {
		return points.Reason{}, false
	}
	return fates[0].Reason, true
}

func putOff(fates []reception.Fate) bool {
	return slices.ContainsFunc(fates, func(f reception.Fate) bool { return f.Way == reception.Later })
}

// registerVirus writes into the register what is refused for a virus.
func (v *visitor) registerVirus(ctx context.Context, env milter.Envelope, why points.Reason) error {
	m, err := message.Read(v.body)
	if err != nil {
		return err
	}
	return v.office.clerk.RefuseInfected(ctx, m, pec.Address(env.Sender), addresses(env.Recipients), why.Italian, env.QueueID)
}
