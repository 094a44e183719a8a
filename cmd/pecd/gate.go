package main

import (
	"context"

	"pecd/milter"
	"pecd/pec"
	"pecd/pec/message"
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
	d.metrics.doors.WithLabelValues("gate", "provider-without-tls").Inc()
	d.log.Warn("a provider's message comes without TLS", "provider", p.Name, "client", env.ClientAddr)
	return needTLS, mode != "require"
}

// Begin spools the message; it is looked at if its recipients refuse ordinary
// mail, or if no anomaly envelope could hold it.
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

// End refuses ordinary mail to those who do not want it, and what no envelope can
// hold. Certified mail, what a provider has signed, and notifications about
// messages of ours pass.
func (v *visitor) End(ctx context.Context, env milter.Envelope) milter.Verdict {
	defer v.body.Close()
	pass := milter.Verdict{Action: milter.Continue}
	refusal := ordinaryRefused
	unwanted, err := v.unwanted(ctx, env)
	if f := v.scan.Facts(); f.LongestLine > maxLine || f.NUL || f.BareCR || f.BareLF {
		unwanted, refusal = true, unwrappable
	}
	if err == nil && !unwanted {
		return pass
	}
	log := v.log.With("queue_id", env.QueueID, "client", env.ClientAddr)
	why, err := v.examine(env, err)
	switch {
	case err != nil:
		log.Error("message put off", "err", err)
		return later
	case why == nil:
		return pass
	}
	log.Info("ordinary mail refused", "why", why)
	return refusal
}

// maxLine is the longest line, in octets, that an anomaly envelope holds.
const maxLine = 998

// unwanted reports whether the recipients refuse ordinary mail; they all do or
// none does, see Recipient.
func (v *visitor) unwanted(ctx context.Context, env milter.Envelope) (bool, error) {
	if len(env.Recipients) == 0 {
		return false, nil
	}
	p, err := v.policy(ctx, pec.Address(env.Recipients[0]))
	return p == policyRefuse, err
}

// examine returns why the message is ordinary mail, nil if it is to pass. err is
// what went wrong before.
func (v *visitor) examine(env milter.Envelope, err error) (why, _ error) {
	if err != nil {
		return nil, err
	}
	m, err := message.Read(v.body)
	if err != nil {
		return nil, err
	}
	rep, verr := v.office.verifier.Verify(m, v.now())
	f := reception.Examine(m, rep, verr, v.office.directory, v.office.location)
	if f.Class != reception.Other || reception.FromProvider(f.Why) {
		return nil, nil
	}
	if _, ok := reception.ReadBounce(m, pec.Address(env.Sender), v.office.clerk.Owner); ok {
		return nil, nil
	}
	if _, known := reception.Anomaly(f.Why); !known {
		return nil, f.Why
	}
	return f.Why, nil
}
