package lmtp

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"slices"

	"github.com/emersion/go-smtp"
)

var (
	errPanic     = errors.New("the backend panicked")
	errTooLarge  = errors.New("the message is too large")
	errNoMessage = errors.New("the backend gave no message")
	errCount     = errors.New("the backend gave another number of statuses than there are recipients")
)

var (
	unavailable = Status{Code: 451, Enhanced: [3]int{4, 3, 0}, Text: "Temporary failure, try again later"}
	tooLarge    = Status{Code: 552, Enhanced: [3]int{5, 3, 4}, Text: "The message is too large"}
)

// maxEnvelope is how many octets the commands may have together that name the recipients
// of a message: 1,000 of the longest that RFC 5321 allows, with DSN parameters, have some
// more, and real ones a tenth.
const maxEnvelope = 512 << 10

// A session is what go-smtp calls for one connection. All of it belongs to the
// connection's goroutine, but while LMTPData runs, in another, to that one; the first then
// only writes what became of the message.
type session struct {
	s    *Server
	c    *conn
	open bool // MAIL was accepted
	env  Envelope
	keys []string // recipients as go-smtp names them
	size int      // octets of the commands that named them
}

// newSession is called for LHLO.
func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	x := &session{s: s, c: c.Conn().(*conn)}
	x.c.greet()
	return x, nil
}

// Mail implements smtp.Session.
func (x *session) Mail(from string, opts *smtp.MailOptions) error {
	if x.open { // go-smtp would keep the recipients of the first
		return Status{Code: 503, Enhanced: [3]int{5, 5, 1}, Text: "Nested MAIL command"}.reply()
	}
	if from != "" {
		var err error
		if from, err = mailbox(from); err != nil {
			return Status{Code: 501, Enhanced: [3]int{5, 1, 7}, Text: "Bad sender address"}.reply()
		}
	}
	if !x.c.begin() {
		return Status{Code: 421, Enhanced: [3]int{4, 3, 2}, Text: "Shutting down, try again later"}.reply()
	}
	x.open = true
	x.env = Envelope{Sender: from, EnvelopeID: opts.EnvelopeID, UTF8: opts.UTF8}
	if a := x.c.RemoteAddr(); a != nil && a.Network() != "unix" {
		x.env.ClientAddr = a.String()
	}
	return nil
}

// Rcpt implements smtp.Session.
func (x *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	address, err := mailbox(to)
	if err != nil {
		return Status{Code: 553, Enhanced: [3]int{5, 1, 3}, Text: "Bad recipient address"}.reply()
	}
	if x.size += x.c.last; x.size > maxEnvelope { // go-smtp may keep the whole line
		return Status{Code: 452, Enhanced: [3]int{4, 5, 3}, Text: "Too many recipients"}.reply()
	}
	x.env.Recipients = append(x.env.Recipients, address)
	x.env.OriginalRecipients = append(x.env.OriginalRecipients, opts.OriginalRecipient)
	x.keys = append(x.keys, to)
	return nil
}

// Reset implements smtp.Session. go-smtp calls it after each message too.
func (x *session) Reset() {
	x.open, x.env, x.keys, x.size = false, Envelope{}, nil, 0
	x.c.idle()
}

// Logout implements smtp.Session.
func (x *session) Logout() error { return nil }

// Data implements smtp.Session; go-smtp calls LMTPData instead.
func (x *session) Data(io.Reader) error { return unavailable.reply() }

// LMTPData implements smtp.LMTPSession. It reads past r, block by block, all but
// the final dot, which go-smtp then finds in r.
//
// For BDAT r would be a pipe, filled by go-smtp while this runs, and a RSET may
// come in between. No MTA of ours needs it, so it is not announced and refused.
func (x *session) LMTPData(r io.Reader, statuses smtp.StatusCollector) error {
	if _, ok := r.(*io.PipeReader); ok {
		return Status{Code: 502, Enhanced: [3]int{5, 5, 1}, Text: "BDAT is not supported"}.reply()
	}
	x.c.countAnew()
	_ = x.c.flush() // who does not take it is found out at the next read
	result := x.receive(&content{r: x.c.r})
	for i, key := range x.keys {
		statuses.SetStatus(key, result[i].reply())
	}
	return unavailable.reply() // for recipients without a status; there are none
}

// receive takes one message to its end and returns a status per recipient.
func (x *session) receive(c *content) []Status {
	m, err := x.begin()
	if err == nil {
		err = x.copy(m, c)
	} else {
		err = errors.Join(err, drop(c))
	}
	var result []Status
	if err == nil {
		result, err = x.end(m)
	}
	if err == nil {
		x.observe(result)
		x.c.owed = true
		return result
	}
	x.s.opts.Observe(EventAbort)
	x.s.opts.Log.Warn("lmtp: message not taken", "error", err, "envid", x.env.EnvelopeID)
	if m != nil {
		_ = x.guard(m.Abort) // a panic was logged; there is nothing else to undo
	}
	if errors.Is(err, errTooLarge) {
		return x.all(tooLarge)
	}
	return x.all(unavailable)
}

// begin asks the backend for a message.
func (x *session) begin() (m Message, err error) {
	ctx, cancel := x.context()
	defer cancel()
	if panicked := x.guard(func() { m, err = x.s.opts.Backend.Begin(ctx, x.envelope()) }); panicked != nil {
		return nil, panicked
	}
	if err == nil && m == nil {
		err = errNoMessage
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// copy writes the content to m. After an error the rest is dropped.
func (x *session) copy(m Message, c *content) error {
	var size int64
	for {
		block, err := c.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size += int64(len(block))
		if limit := x.s.opts.MaxMessage; limit > 0 && size > limit {
			return errors.Join(errTooLarge, drop(c))
		}
		if panicked := x.guard(func() { _, err = m.Write(block) }); panicked != nil {
			err = panicked
		}
		if err != nil {
			return errors.Join(err, drop(c))
		}
	}
}

// drop reads the content to its end: the MTA says nothing else before it has sent all.
// go-smtp would do it line by line, and conn.Read would count each as a command.
func drop(c *content) error {
	for {
		if _, err := c.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (x *session) end(m Message) ([]Status, error) {
	ctx, cancel := x.context()
	defer cancel()
	var result []Status
	if err := x.guard(func() { result = m.End(ctx, x.envelope()) }); err != nil {
		return nil, err
	}
	if len(result) != len(x.keys) {
		x.s.opts.Log.Error("lmtp: all recipients deferred", "error", errCount,
			"statuses", len(result), "recipients", len(x.keys))
		return x.all(unavailable), nil
	}
	return result, nil
}

func (x *session) observe(result []Status) {
	for _, s := range result {
		switch {
		case s.OK():
			x.s.opts.Observe(EventDelivered)
		case s.Refused():
			x.s.opts.Observe(EventRefused)
		default:
			x.s.opts.Observe(EventDeferred)
		}
	}
}

func (x *session) all(s Status) []Status {
	return slices.Repeat([]Status{s}, len(x.keys))
}

// envelope returns a copy that the backend may keep.
func (x *session) envelope() Envelope {
	e := x.env
	e.Recipients = slices.Clone(e.Recipients)
	e.OriginalRecipients = slices.Clone(e.OriginalRecipients)
	return e
}

func (x *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.s.keep.Context(), x.s.opts.EndTimeout)
}

// guard calls the backend and turns a panic into an error.
func (x *session) guard(f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			x.s.opts.Observe(EventPanic)
			x.s.opts.Log.Error("lmtp: panic in the backend", "panic", v, "envid", x.env.EnvelopeID,
				"stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	f()
	return nil
}
