package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/pec"
)

// directPatience is for all that becomes of one message on the direct way. The MTA,
// which gets it then, has more, and holds up nobody else with it.
const directPatience = time.Minute

// takeDirect carries a message of the outbox to those recipients who are our own
// users, on the way that it would take through the MTA: reception point, mailbox
// store, delivery point. It returns those whose matter is closed; the MTA gets the
// message for all others, as if nobody had tried (docs/decisions/0016-direct.md).
func (d arrivalDoor) takeDirect(ctx context.Context, m logstore.Outgoing) (taken []pec.Address) {
	office := d.office.Load()
	if !*office.config.Delivery.Direct {
		return nil
	}
	var ours []pec.Address
	env := lmtp.Envelope{Sender: string(m.From), EnvelopeID: m.EnvelopeID}
	for _, to := range m.To {
		if office.provider.Manages(to.Domain()) {
			ours, env.Recipients = append(ours, to), append(env.Recipients, string(to))
		}
	}
	if len(ours) == 0 {
		return nil
	}
	body, err := d.store.NewBody()
	if err != nil {
		return nil // the store is closing
	}
	ctx, cancel := context.WithTimeout(ctx, directPatience)
	defer cancel()
	a := &arrival{spool: spool{body: body}, arrivalDoor: d, office: office, direct: true}
	// As at the LMTP door. A panic that ended the daemon would end it again after the
	// restart: the message is still the first of the outbox.
	defer func() {
		if v := recover(); v != nil {
			d.metrics.doors.WithLabelValues("direct", lmtp.EventPanic).Inc()
			d.log.Error("panic on the direct way: the MTA gets the message", "panic", v, "message_id", m.MessageID, "stack", string(debug.Stack()))
			a.Abort()
			taken = nil
		}
	}()
	if err := a.copy(m); err != nil {
		d.log.Warn("the MTA gets a message that could have gone straight", "message_id", m.MessageID, "err", err)
		a.Abort()
		return nil
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
