package main

import (
	"context"
	"slices"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/reception"
	"pecd/signer"
)

// What was taken in charge must come to an end of which its sender hears, however often
// the MTA has to bring it. So the verdict of the take-charge holds at each further
// attempt, for those recipients for whom that receipt was issued, whatever directory,
// authorities and clock say by then (docs/decisions/0003-addressed-recipients.md).

// each deals with the message for each recipient as what it is for him: what it was when
// it was taken in charge, or else what it is now. Copies of a message that come at the
// same time go one after the other.
func (a *arrival) each(ctx context.Context, rep *signer.Report) (err error) {
	claim, digest := a.found, a.found.Digest
	if a.found.Class == reception.Other {
		if claim, err = reception.Claim(a.m, rep, a.office.location); err != nil {
			return err
		}
		digest = claim.Digest
	}
	if digest != "" {
		done, err := a.turns.take(ctx, digest)
		if err != nil {
			return err
		}
		defer done()
	}
	parts, err := a.parts(ctx, claim, rep)
	for _, p := range parts {
		if p.from != "" {
			a.log.Info("taken in charge before: what was found then holds", "id", claim.Event.Identifier, "provider", p.from,
				"recipients", len(p.at), "now", a.found.Class, "why", a.found.Why)
		}
		p.dealWith(ctx)
		for j, i := range p.at {
			a.status[i] = p.status[j]
		}
	}
	return err
}

// A part is a message as it arrives for some of its recipients.
type part struct {
	*arrival
	at   []int  // their places among all
	from string // the provider from which it was taken in charge for them; empty if it was not
}

// parts divides the arrival by what holds for its recipients. claim is the envelope that
// the message is, or would be.
func (a *arrival) parts(ctx context.Context, claim reception.Found, rep *signer.Report) (list []*part, err error) {
	rcpts := addresses(a.env.Recipients)
	names, from := claim.Names(rcpts), make([]string, len(rcpts))
	if claim.Class == reception.Envelope {
		if from, err = a.office.clerk.TakenFrom(ctx, claim, names); err != nil {
			return nil, err
		}
	}
	for i, name := range from {
		if a.found.Class == reception.Envelope && name == a.found.Provider.Name {
			name = "" // it is now what it was
		}
		at := slices.IndexFunc(list, func(p *part) bool { return p.from == name })
		if at < 0 {
			at, list = len(list), append(list, a.part(name, claim, rep))
		}
		p := list[at]
		p.at, p.status, p.env.Recipients = append(p.at, i), append(p.status, a.status[i]), append(p.env.Recipients, a.env.Recipients[i])
		if name != "" || a.found.Class != reception.Other {
			p.call(len(p.at)-1, names[i])
		}
	}
	return list, nil
}

// part is the arrival without recipients, of claim if it was taken in charge from a
// provider.
func (a *arrival) part(from string, claim reception.Found, rep *signer.Report) *part {
	p := *a
	p.env.Recipients, p.status = nil, nil
	if from != "" {
		p.found = claim
		p.found.Provider = a.office.sentBy(from, rep.Signer.Raw)
	}
	return &part{arrival: &p, from: from}
}

// call calls recipient i by the name n, which the envelope gives him.
func (a *arrival) call(i int, n pec.Address) {
	if string(n) == a.env.Recipients[i] {
		return
	}
	if a.mailboxes == nil {
		a.mailboxes = map[pec.Address]string{}
	}
	a.mailboxes[n] = a.env.Recipients[i]
	a.env.Recipients[i] = string(n)
}

// sentBy is the provider from which a message was taken in charge, as far as what follows
// asks for it. The name is that of the register's entry about the take-charge: it stands
// in the keys by which nothing is said twice. The service mailbox, where nothing goes any
// more but a notice of a virus, is not in the register, nor in the certification data. It
// is that of today's record with the certificate, or else of the name, whose it is however
// its domains have changed; empty if the directory has neither.
func (o *office) sentBy(name string, certificate []byte) *directory.Provider {
	p := &directory.Provider{Name: name}
	for _, now := range o.directory.Named(name) {
		if now.Unit == "" {
			p.ServiceMailbox = now.ServiceMailbox
		}
	}
	if now, ok := o.directory.ByCertificate(certificate); ok {
		p.ServiceMailbox = now.ServiceMailbox
	}
	return p
}

// tellable returns findings as they can be acted on. Where the sender's provider has left
// the directory nobody can be told of a virus: the sender himself hears of it, in a
// non-delivery notice.
func (a *arrival) tellable(findings []points.Finding) []points.Finding {
	worst, _ := points.Worst(findings)
	if worst.Says != points.Infected || a.found.Provider.ServiceMailbox != "" {
		return findings
	}
	return []points.Finding{{Check: worst.Check, Says: points.Refused, Reason: points.Reason{Cause: points.Virus, Italian: worst.Virus, English: worst.Virus}}}
}

// taken reports whether m was taken in charge for one of rcpts. Then port 25 must not
// refuse it: its sender would hear both that and what becomes of the copy that is here.
func (o *office) taken(ctx context.Context, m *message.Message, rep *signer.Report, rcpts []string) (bool, error) {
	claim, err := reception.Claim(m, rep, o.location)
	if err != nil || claim.Class != reception.Envelope {
		return false, err
	}
	from, err := o.clerk.TakenFrom(ctx, claim, claim.Names(addresses(rcpts)))
	return slices.ContainsFunc(from, func(name string) bool { return name != "" }), err
}
