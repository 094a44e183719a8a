package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pecd/cmd/pecd/availability"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/plugins/host"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/act"
)

// An office is one installation at work. The doors take the office in force
// when a message begins, so a reload never changes a message half way.
type office struct {
	*installation
	clerk  *act.Clerk
	points deciders
}

// doors are what all doors share.
type doors struct {
	office  *atomic.Pointer[office]
	store   logstore.Store
	mailbox *lmtp.Store // the mailbox store behind us
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time
	atStep  func(string)
	time    clockGuard
	watch   *availability.Stopwatch
	turns   turns // of messages that arrive, by their digest
	// An arrival could not be settled: of what must be made sure, see dispel.
	doubtStore, doubtKey atomic.Bool
	// storeTime is how long the mailbox store may take for one message; zero means
	// storeTime, the constant.
	storeTime time.Duration
	crowd     crowd // of messages that are being accepted
}

// spool receives a message into the store and watches its octets go by.
type spool struct {
	body logstore.Body
	scan message.Scanner
}

func (s *spool) Write(p []byte) (int, error) {
	if _, err := s.scan.Write(p); err != nil {
		return 0, err
	}
	return s.body.Write(p)
}

// question is what a check is shown of the message itself.
func (s *spool) question() host.Question {
	return host.Question{Source: s.body, Range: message.Range{Len: s.body.Size()}, Facts: s.scan.Facts()}
}

// unwrappable reports whether no anomaly envelope can hold the message.
func (s *spool) unwrappable() bool {
	return !s.scan.Facts().Carriable()
}

// Abort drops the message; the MTA still has it, or its client knows.
func (s *spool) Abort() { s.body.Close() }

// accessDoor is where the MTA's submission service calls: every message there
// goes to the access point.
type accessDoor struct{ *doors }

// Begin opens a body for the message that is coming.
func (d accessDoor) Begin(_ context.Context, _ milter.Envelope) (milter.Message, error) {
	body, err := d.store.NewBody()
	if err != nil {
		return nil, err
	}
	return &submission{spool: spool{body: body}, accessDoor: d, office: d.office.Load(), leave: sync.OnceFunc(d.crowd.enter())}, nil
}

type submission struct {
	spool
	accessDoor
	office *office
	extra  []logstore.Body // what was written anew of it
	leave  func()          // ends its part in the crowd
}

// Abort drops the message.
func (s *submission) Abort() {
	s.leave()
	s.spool.Abort()
}

// End decides about the message and carries the decision out. DISCARD is said
// only after the commit.
func (s *submission) End(ctx context.Context, env milter.Envelope) milter.Verdict {
	defer s.body.Close()
	defer func() {
		for _, b := range s.extra {
			b.Close()
		}
	}()
	start := s.now()
	defer s.observe("access", start)
	defer s.leave()
	v, word := s.decide(ctx, env)
	if word == "accept" {
		if err := s.watch.Observe(start.In(s.office.location), s.now().Sub(start)); err != nil {
			s.log.Warn("how long acceptances take cannot be noted", "err", err)
		}
	}
	s.metrics.submissions.WithLabelValues(word).Inc()
	return v
}

func (s *submission) decide(ctx context.Context, env milter.Envelope) (milter.Verdict, string) {
	log := s.log.With("qid", env.QueueID, "client", env.ClientAddr)
	if err := s.time.stops(); err != nil {
		log.Error("message put off", "err", err)
		return later, "defer"
	}
	m, err := message.Read(s.body)
	if errors.Is(err, message.ErrLimit) || errors.Is(err, message.ErrMalformed) {
		log.Info("message refused", "cause", points.Malformed, "err", err)
		return refusal([]points.Reason{{Cause: points.Malformed, Italian: "l'intestazione non e' leggibile", English: "the header cannot be read"}}), "refuse"
	}
	if err != nil {
		log.Error("message put off: the spooled message cannot be read", "err", err)
		return later, "defer"
	}
	sub := s.office.submission(env, m, s.scan.Facts())
	sub.Findings = s.office.points.look(ctx, points.Submission, s.subject(env, sub.Recipients))
	d, err := s.office.points.access.Decide(ctx, sub)
	if err != nil {
		log.Error("message put off: the access point could not decide", "err", err)
		return later, "defer"
	}
	ev := sub.Event(s.office.issuer.Name)
	switch {
	case d.Verdict == points.Accept:
		return s.accept(ctx, log, ev, sub, env.QueueID)
	case d.Verdict == points.Refuse && points.Formal(d.Reasons):
		return s.nonAccept(ctx, log, ev, sub, d.Reasons, env.QueueID)
	case d.Verdict == points.Refuse:
		return s.refuse(ctx, log, sub, d.Reasons, env.QueueID)
	}
	log.Warn("message put off", "findings", describe(sub.Findings))
	return later, "defer"
}

// accept certifies the message, or refuses it if it can never be certified: for an
// address, say, that no header field holds.
func (s *submission) accept(ctx context.Context, log *slog.Logger, ev pec.Event, sub access.Submission, queueID string) (milter.Verdict, string) {
	m, facts, err := s.carried(sub.Message, log)
	if err != nil {
		log.Error("message put off: it could not be brought to 7 bits", "err", err)
		return later, "defer"
	}
	id, err := s.office.clerk.Accept(ctx, ev, m, facts, queueID)
	if errors.Is(err, issue.ErrEvent) {
		log.Info("message cannot be certified", "err", err)
		return s.refuse(ctx, log, sub, []points.Reason{uncertifiable}, queueID)
	}
	if err != nil {
		log.Error("message put off: it could not be committed", "err", err)
		return later, "defer"
	}
	log.Info("message accepted", "id", id)
	s.atStep(stepAccepted)
	return discard, "accept"
}

var uncertifiable = points.Reason{Cause: points.Malformed, Italian: "gli indirizzi o gli identificativi del messaggio non sono certificabili",
	English: "addresses or identifiers of the message cannot be certified"}

// submission is what the access point is asked about m.
func (o *office) submission(env milter.Envelope, m *message.Message, facts message.Facts) access.Submission {
	a := o.config.Access
	sub := access.Submission{Login: env.Auth, Sender: pec.Address(env.Sender), Message: m, Facts: facts,
		SenderOurs: o.provider.Manages(pec.Address(env.Sender).Domain()),
		Limits:     access.Limits{MaxSize: a.MaxSize, MaxRecipients: a.MaxRecipients, MaxTotal: a.MaxTotal, TrustMTA: a.SenderLogin == "mta"}}
	for _, r := range addresses(env.Recipients) {
		sub.Recipients = append(sub.Recipients, pec.Recipient{Address: r, Type: o.directory.Classify(r)})
	}
	return sub
}

// subject is what checks are shown of the submission.
func (s *submission) subject(env milter.Envelope, rcpts []pec.Recipient) host.Question {
	q := s.question()
	q.Login, q.Client, q.TLS, q.QueueID = env.Auth, env.ClientAddr, env.TLSVersion, env.QueueID
	q.Sender, q.Recipients = pec.Address(env.Sender), rcpts
	return q
}

// carried returns the original as it is certified: as it came, or in 7 bits where
// the configuration wants that and the message allows it.
func (s *submission) carried(m *message.Message, log *slog.Logger) (*message.Message, message.Facts, error) {
	facts := s.scan.Facts()
	if !facts.EightBit || s.office.config.Access.EightBit != "convert" {
		return m, facts, nil
	}
	content, err := message.SevenBit(m, func() (message.Spool, error) {
		body, err := s.store.NewBody()
		if err == nil {
			s.extra = append(s.extra, body)
		}
		return body, err
	})
	if errors.Is(err, message.ErrSevenBit) || errors.Is(err, message.ErrLimit) {
		log.Info("the original stays in 8 bits", "err", err)
		return m, facts, nil
	}
	if err != nil {
		return nil, facts, err
	}
	if m, err = message.Read(content); err != nil {
		return nil, facts, err
	}
	facts, err = message.ScanContent(content)
	return m, facts, err
}

// nonAccept answers formal exceptions and viruses by a signed notice to the
// sender, who is known: the client hears 250, and the mailbox says why not
// (RFC 6109, 3.1.2 and 3.1.3).
func (s *submission) nonAccept(ctx context.Context, log *slog.Logger, ev pec.Event, sub access.Submission, reasons []points.Reason, queueID string) (milter.Verdict, string) {
	id, err := s.office.clerk.NonAccept(ctx, ev, reasons, sub.Message, queueID)
	if errors.Is(err, issue.ErrEvent) {
		return s.refuse(ctx, log, sub, reasons, queueID)
	}
	if err != nil {
		log.Error("message put off: its non-acceptance notice could not be committed", "err", err)
		return later, "defer"
	}
	log.Info("message not accepted", "id", id, "causes", causes(reasons))
	if _, infected := points.Find(reasons, points.Virus); infected {
		s.metrics.infected.WithLabelValues(infectedSubmission).Inc()
	}
	s.atStep(stepAccepted)
	return discard, "non-accept"
}

// refuse registers the refusal before the client hears it.
func (s *submission) refuse(ctx context.Context, log *slog.Logger, sub access.Submission, reasons []points.Reason, queueID string) (milter.Verdict, string) {
	if err := s.office.clerk.Refuse(ctx, reasons, sub, queueID); err != nil {
		log.Error("message put off: its refusal could not be registered", "err", err)
		return later, "defer"
	}
	log.Info("message refused", "causes", causes(reasons))
	return refusal(reasons), "refuse"
}

func causes(reasons []points.Reason) string {
	s := make([]string, len(reasons))
	for i, r := range reasons {
		s[i] = string(r.Cause)
	}
	return strings.Join(s, ",")
}

func (d *doors) observe(door string, start time.Time) {
	d.metrics.duration.WithLabelValues(door).Observe(d.now().Sub(start).Seconds())
}

func addresses(list []string) []pec.Address {
	out := make([]pec.Address, len(list))
	for i, s := range list {
		out[i] = pec.Address(s)
	}
	return out
}

// dispel makes sure after a failure that the key signs, where something is going to be
// signed, and that the store can be written, before the mailbox store gets anything. Else
// each attempt of the MTA would leave one more copy in the mailbox: with the key away, or
// a disk that has room for little.
func (d *doors) dispel(ctx context.Context, signs bool) error {
	if signs && d.doubtKey.Load() {
		if err := d.office.Load().clerk.Signer.Try(ctx, d.now()); err != nil {
			return fmt.Errorf("a trial signature after a failure: %w", err)
		}
		d.doubtKey.Store(false)
	}
	if d.doubtStore.Load() {
		if err := d.store.Try(ctx); err != nil {
			return fmt.Errorf("a trial commit after a failure: %w", err)
		}
		d.doubtStore.Store(false)
	}
	return nil
}
