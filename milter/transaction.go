package milter

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	gomilter "github.com/emersion/go-milter"
)

// Limits of one message, beside Options.MaxMessage.
const (
	// What passes here comes back with fields that the MTA adds, and must be read then
	// still: up to 1 MiB and 10,000 fields are (message.ReadRange).
	maxHeader     = 1<<20 - 64<<10 // octets of all fields
	maxFields     = 10_000 - 100
	maxRecipients = 10_000
	// Octets that recipients take: those of one message, those that each message has of its
	// own, and what all that are under way at a door may take beyond that.
	maxAddresses    = 1 << 20
	ownAddresses    = 96 << 10
	maxAllAddresses = 32 << 20
	perAddress      = 32 // octets that each takes beside its own
	// keptHeader is how much of the fields is kept before it is written.
	keptHeader = 16 << 10
	// maxField is the longest field in octets, its folds counted as one. Postfix
	// cuts longer ones down before a milter sees them, to 60,000 octets or, where
	// a line of less than about 9,000 is cut, to the line before it. So a field
	// beyond this limit may have lost its end.
	maxField = 50_000
)

var (
	errTooLarge   = errors.New("the message is too large")
	errHeader     = errors.New("the header is too large")
	errField      = errors.New("a header field cannot be told as it was sent")
	errRecipients = errors.New("too many recipients")
	errPanic      = errors.New("the backend panicked")
)

var (
	tooManyRecipients = Verdict{Defer, "452 4.5.3 Too many recipients"}
	tooManyUnderWay   = Verdict{Defer, "452 4.3.1 Too many recipients of other messages are under way, try again later"}
)

func errOutside(code gomilter.Code) error {
	return fmt.Errorf("%w: %q outside a message", errProtocol, code)
}

// stages in the order in which a macro is looked for: the latest word counts.
var stages = []gomilter.Code{
	gomilter.CodeEOB, gomilter.CodeBody, gomilter.CodeEOH, gomilter.CodeHeader, gomilter.CodeData,
	gomilter.CodeRcpt, gomilter.CodeMail,
}

// A transaction is one message from MAIL to its end. Once it has failed it takes
// what still comes, writes nothing, and ends with the verdict of the failure.
type transaction struct {
	sess       *session
	macros     map[gomilter.Code]macros
	sender     string
	recipients []string
	addresses  int64 // octets that recipients take
	full       bool  // a recipient was put off because of their number

	msg     Message // nil before Begin and after its end
	header  []byte  // fields that are not written yet
	inBody  bool    // the empty line is written
	fields  int
	heading int   // octets of all fields
	size    int64 // octets given to msg
	failed  bool
	verdict Verdict // if failed
}

func newTransaction(s *session, sender string) *transaction {
	return &transaction{sess: s, sender: sender, macros: map[gomilter.Code]macros{}}
}

// learn keeps the macros that came with a command.
func (t *transaction) learn(code gomilter.Code) {
	for _, c := range []gomilter.Code{code, gomilter.CodeData} { // DATA itself is not sent to us
		if m := t.sess.take(c); m != nil {
			t.macros[c] = m
		}
	}
}

func (t *transaction) macro(name string) string {
	for _, stage := range stages {
		if v := t.macros[stage][name]; v != "" {
			return v
		}
	}
	return ""
}

func (t *transaction) envelope() Envelope {
	e := Envelope{
		Sender:     t.sender,
		Recipients: slices.Clip(t.recipients), // only appended to, and never changed
		Auth:       t.macro("{auth_authen}"),
		AuthType:   t.macro("{auth_type}"),
		QueueID:    t.macro("i"),
		ClientAddr: t.macro("{client_addr}"),
		ClientName: t.macro("{client_name}"),
	}
	t.sess.client.describe(&e)
	return e
}

func (t *transaction) addRecipient(to string) {
	if refusal, room := t.room(to); !room {
		t.fail(refusal, errRecipients)
		return
	}
	t.recipients = append(t.recipients, to)
	t.sess.s.addresses.Add(shared(t.addresses+taken(to)) - shared(t.addresses))
	t.addresses += taken(to)
}

// room reports whether one more recipient may be taken, and if not what to say.
func (t *transaction) room(to string) (refusal Verdict, ok bool) {
	after := t.addresses + taken(to)
	if len(t.recipients) >= maxRecipients || after > maxAddresses {
		return tooManyRecipients, false
	}
	more := shared(after) - shared(t.addresses)
	if more > 0 && t.sess.s.addresses.Load()+more > maxAllAddresses {
		return tooManyUnderWay, false
	}
	return Verdict{}, true
}

// shared is what a message whose recipients take n octets takes of what all share.
func shared(n int64) int64 { return max(0, n-ownAddresses) }

// taken is how many octets a recipient takes.
func taken(to string) int64 { return int64(len(to)) + perAddress }

// forgetRecipients is called at the end of the transaction.
func (t *transaction) forgetRecipients() {
	t.sess.s.addresses.Add(-shared(t.addresses))
	t.recipients, t.addresses = nil, 0
}

// checkRecipient asks the backend about one recipient, and takes it if it may.
func (t *transaction) checkRecipient(to string) (v Verdict) {
	if refusal, room := t.room(to); !room {
		if !t.full {
			t.full = true
			t.sess.s.opts.Log.Warn("milter: too many recipients: some are put off", "taken", len(t.recipients), "qid", t.sess.queueID())
		}
		return refusal
	}
	ctx, cancel := t.sess.context()
	defer cancel()
	if err := t.guard(func() { v = t.sess.s.check.Recipient(ctx, t.envelope(), to) }); err != nil {
		return Verdict{}
	}
	switch v.Action {
	case Continue:
		t.addRecipient(to)
	case Discard: // would take the whole message from the MTA
		return Verdict{}
	}
	return v
}

// begin asks the backend for a message if it was not asked yet.
func (t *transaction) begin() {
	if t.msg != nil || t.failed {
		return
	}
	ctx, cancel := t.sess.context()
	defer cancel()
	var msg Message
	var err error
	if panicked := t.guard(func() { msg, err = t.sess.s.opts.Backend.Begin(ctx, t.envelope()) }); panicked != nil {
		err = panicked
	} else if err == nil && msg == nil {
		err = errors.New("the backend gave no message")
	}
	if err != nil {
		t.fail(Verdict{}, err)
		return
	}
	t.msg = msg
}

// field takes one header field. The MTA writes its folds as LF.
func (t *transaction) field(name, value []byte) {
	t.begin()
	if t.failed {
		return
	}
	if t.inBody {
		t.sess.c.fail(fmt.Errorf("%w: header field in the body", errProtocol))
		return
	}
	if len(name)+len(":")+len(value) > maxField {
		t.malformed()
		return
	}
	t.fields++
	t.heading += len(name) + len(value) + 3 + bytes.Count(value, []byte{'\n'}) // a fold is CRLF elsewhere
	if t.fields > maxFields || t.heading > maxHeader {
		t.fail(t.sess.s.opts.LargeHeader, errHeader)
		return
	}
	t.header = append(t.header, name...)
	t.header = append(t.header, ':')
	t.header = appendCRLF(t.header, value)
	t.header = append(t.header, '\r', '\n')
	if len(t.header) > keptHeader {
		t.flushHeader()
	}
}

// malformed gives the message up for a field that cannot be told as it was sent.
func (t *transaction) malformed() {
	if t.failed {
		return
	}
	v := t.sess.s.opts.Malformed
	if f := t.sess.s.opts.MalformedFrom; f != nil {
		v = Verdict{}
		_ = t.guard(func() { v = f(t.envelope()) }) // after a panic, which was logged, it is put off
	}
	t.fail(v, errField)
}

// appendCRLF appends s with each LF as CRLF; a CR before it is not doubled.
func appendCRLF(b, s []byte) []byte {
	for {
		line, rest, found := bytes.Cut(s, []byte{'\n'})
		if !found {
			return append(b, line...)
		}
		b = append(b, bytes.TrimSuffix(line, []byte{'\r'})...)
		b = append(b, '\r', '\n')
		s = rest
	}
}

func (t *transaction) flushHeader() {
	t.write(t.header)
	if cap(t.header) > 2*keptHeader {
		t.header = nil
	}
	t.header = t.header[:0]
}

// endHeader writes the empty line.
func (t *transaction) endHeader() {
	if t.inBody {
		return
	}
	t.begin()
	t.inBody = true
	t.header = append(t.header, '\r', '\n')
	t.flushHeader()
	t.header = nil
}

func (t *transaction) body(chunk []byte) {
	t.endHeader()
	t.write(chunk)
}

func (t *transaction) write(p []byte) {
	if t.failed || len(p) == 0 {
		return
	}
	t.size += int64(len(p))
	if limit := t.sess.s.opts.MaxMessage; limit > 0 && t.size > limit {
		t.fail(t.sess.s.opts.TooLarge, errTooLarge)
		return
	}
	var err error
	if panicked := t.guard(func() { _, err = t.msg.Write(p) }); panicked != nil {
		err = panicked
	}
	if err != nil {
		t.fail(Verdict{}, err)
	}
}

// end asks for the verdict.
func (t *transaction) end() Verdict {
	t.endHeader()
	if t.failed {
		return t.verdict
	}
	ctx, cancel := t.sess.context()
	defer cancel()
	msg := t.msg
	var v Verdict
	if err := t.guard(func() { v = msg.End(ctx, t.envelope()) }); err != nil {
		t.fail(Verdict{}, err)
		return t.verdict
	}
	t.msg = nil
	return v
}

// fail gives the message up with a verdict for its end. The first failure counts.
func (t *transaction) fail(v Verdict, err error) {
	if t.failed {
		return
	}
	t.failed, t.verdict, t.header = true, v, nil
	t.sess.s.opts.Log.Warn("milter: message not taken", "error", err, "verdict", v.Action.String(),
		"qid", t.macro("i"))
	t.abort()
}

// abort tells the backend that the message will not end; once.
func (t *transaction) abort() {
	msg := t.msg
	if msg == nil {
		return
	}
	t.msg = nil
	_ = t.guard(msg.Abort) // a panic was logged; there is nothing else to undo
}

// guard calls the backend and turns a panic into an error.
func (t *transaction) guard(f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			t.sess.s.opts.Observe(EventPanic)
			t.sess.s.opts.Log.Error("milter: panic in the backend", "panic", v,
				"qid", t.macro("i"), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	f()
	return nil
}
