// Package milter is the door at which an MTA hands over messages while its
// client still waits: it takes them by the milter protocol, version 6, gives
// their bytes as the client sent them to a Backend, and returns its verdict. It
// modifies no message, and knows nothing of certified mail.
//
// It is an adapter around emersion/go-milter that keeps one session for the
// whole of a connection, however many messages and refused recipients it
// carries. It refuses MTAs that cannot show header fields to the octet
// (Sendmail before 8.14, Postfix before 2.6), and every packet that go-milter
// would read wrongly or answer out of turn.
package milter

import (
	"context"
	"io"
	"log/slog"
	"time"
)

// An Action is what becomes of a message.
type Action int

// The zero Action is a delay: doubt never accepts and never refuses.
const (
	Defer    Action = iota // the client is to try again later
	Discard                // the client hears "accepted", the MTA forgets the message
	Continue               // the MTA goes on with the message
	Reject                 // the client is refused for good
)

// String returns the lower case name of the action.
func (a Action) String() string {
	switch a {
	case Discard:
		return "discard"
	case Continue:
		return "continue"
	case Reject:
		return "reject"
	default:
		return "defer"
	}
}

// A Verdict is what the MTA is told. The zero Verdict is a temporary failure.
type Verdict struct {
	Action Action
	// Reply is the whole SMTP reply for Defer and Reject, such as
	// "550 5.7.1 text". It becomes one line of ASCII of at most 480 octets. A
	// reply that is empty, or does not begin with a code of its action's class,
	// leaves the text to the MTA.
	Reply string
}

// An Envelope is what the MTA told of a message beside its bytes. Addresses are
// without angle brackets, and empty for the null sender. What the MTA did not
// tell is empty.
type Envelope struct {
	Sender     string
	Recipients []string // those that this door did not refuse, in order
	Auth       string   // {auth_authen}: the name under which the client authenticated
	AuthType   string   // {auth_type}: the SASL mechanism
	QueueID    string   // the MTA's name of the message; known at End, not surely before
	ClientAddr string   // IP address of the client
	ClientName string   // its name as the MTA found it
	Helo       string   // its name as it said itself
	TLSVersion string   // empty: no TLS
	DaemonName string   // {daemon_name} of the listener at which the client called
}

// A Backend is asked once per message. Its methods may be called concurrently
// for different messages.
type Backend interface {
	// Begin is called at the first header field, or at the end of the header if
	// it has none. After an error the message is deferred.
	Begin(ctx context.Context, env Envelope) (Message, error)
}

// A RecipientChecker is a Backend that is asked about every recipient too. It
// costs a round trip each.
type RecipientChecker interface {
	Backend
	// Recipient may refuse one recipient with Defer or Reject; Continue takes
	// it. The envelope holds what is known, without that recipient.
	Recipient(ctx context.Context, env Envelope, recipient string) Verdict
}

// A Message receives one message. Its methods are never called concurrently. It
// ends with exactly one call of End or of Abort; only if End panics both are
// called.
type Message interface {
	// Write receives the message as the client sent it: fields "name:value CRLF"
	// with their folds, the empty line, the body. After an error nothing more is
	// written, Abort is called, and the message is deferred.
	io.Writer
	// End is called when all bytes are written. The context ends after
	// Options.EndTimeout, and when a shutdown can wait no longer.
	End(ctx context.Context, env Envelope) Verdict
	// Abort is called when the message ends without End: the MTA gave it up, the
	// connection was lost, a limit was passed.
	Abort()
}

// Events that Options.Observe hears, beside the four actions' names for each
// message that came to its end.
const (
	EventConnection = "connection" // a connection was taken
	EventBusy       = "busy"       // a connection was refused: too many
	EventBroken     = "broken"     // a connection ended in the midst or spoke no milter protocol
	EventAbort      = "abort"      // a message was given up before its end
	EventPanic      = "panic"      // the backend panicked
)

// Events returns all that Options.Observe hears.
func Events() []string {
	return []string{EventConnection, EventBusy, EventBroken, EventAbort, EventPanic, Defer.String(), Discard.String(), Continue.String(), Reject.String()}
}

// Options configure a Server. Only Backend is needed.
type Options struct {
	Backend Backend
	Log     *slog.Logger // nil: slog.Default()
	// MaxConnections is how many connections are served at once; further ones
	// are closed at once, so that the MTA applies its default action. 0: 500.
	MaxConnections int
	// MaxMessage is the largest message in octets. What passes it is not
	// written; the message is aborted and its verdict is TooLarge. 0: no limit.
	MaxMessage int64
	TooLarge   Verdict
	// LargeHeader is the verdict on a message whose header has more than 960 KiB or
	// 9,900 fields.
	LargeHeader Verdict
	// Malformed is the verdict on a message with a header field that cannot be
	// told byte for byte: with a NUL, with a name that is none, or of more than
	// 50,000 octets, since Postfix may have cut it.
	Malformed Verdict
	// MalformedFrom, if set, is asked for that verdict, with what is known of the
	// envelope. It may be called concurrently.
	MalformedFrom func(env Envelope) Verdict
	// ReadTimeout is how long an MTA may take for one packet, the pause before
	// it included. It should exceed the time that the MTA lets its clients idle.
	// 0: 10 minutes.
	ReadTimeout time.Duration
	// GreetTimeout is how long the negotiation may take with which a connection
	// begins: an MTA has it ready. 0: 30 seconds.
	GreetTimeout time.Duration
	WriteTimeout time.Duration // for one answer. 0: 30 seconds
	// EndTimeout bounds Begin, Recipient and End each. It should be less than
	// the MTA's own patience (Postfix: milter_content_timeout, 300 s).
	// 0: 2 minutes.
	EndTimeout time.Duration
	// Linger is how long a connection is still served after Shutdown began while no
	// message is under way on it: the MTA's client may be about to send one, and the
	// MTA would have to refuse it. 0: 5 seconds; negative: none.
	Linger time.Duration
	// Sleep waits before more is read from who sends a few octets at a time (see
	// socket.Trickle). It may be called concurrently. nil: time.Sleep.
	Sleep func(time.Duration)
	// Observe is told of events, for metrics. It may be called concurrently.
	Observe func(event string)
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 500
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 10 * time.Minute
	}
	if o.GreetTimeout == 0 {
		o.GreetTimeout = 30 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.EndTimeout == 0 {
		o.EndTimeout = 2 * time.Minute
	}
	if o.Linger == 0 {
		o.Linger = 5 * time.Second
	}
	if o.Sleep == nil {
		o.Sleep = time.Sleep
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	return o
}
