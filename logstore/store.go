// Package logstore keeps what the law and the mail must not lose: the register
// of all events, the outbox of signed messages, the ledger of awaited answers
// and the infected messages, each change of them in one transaction. The outbox
// takes nothing that was not signed here; what is infected never leaves.
package logstore

import (
	"context"
	"errors"
	"io"
	"time"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/signer"
)

// ErrUnavailable wraps every failure that may pass: a full disk, a locked or
// unwritable file, a store that is closing. The MTA is to try again.
var ErrUnavailable = errors.New("store unavailable")

// A Store is the register, the outbox, the ledger and the virus store. All methods
// may be called concurrently.
type Store interface {
	Evidence
	// NewBody returns an empty body to spool a message into.
	NewBody() (Body, error)
	// Commit makes all acts of tx durable or none. It returns after they are on
	// stable storage. An act one of whose keys exists already, or one of its Unless, is
	// left out whole, and its element of done is false; so is an act whose Notice is not
	// due, or whose Answer should be the first and is not.
	// Bodies that the messages point to are stored once and kept until the last of
	// them has been taken.
	Commit(ctx context.Context, tx Tx) (done []bool, err error)
	// Try writes as much as the commit of a receipt does, the same way and as durably,
	// and removes it again. No other method shows anything of it. After a failure it
	// tells whether the next Commit has a chance.
	Try(ctx context.Context) error
	// Issued reports for each key whether an act with it was committed.
	Issued(ctx context.Context, keys []Key) ([]bool, error)
	// IssuedAt returns for each key the date of the act that was committed with it; zero
	// where there is none.
	IssuedAt(ctx context.Context, keys []Key) ([]time.Time, error)
	// LongIssued reports for each key whether an act was committed with it, and as long
	// ago as term by the clock that shows now. It does not believe the act's date where
	// the act is known to be younger; see Overdue.
	LongIssued(ctx context.Context, keys []Key, now time.Time, term time.Duration) ([]bool, error)
	// Overdue returns up to limit open ledger rows that have waited for as long as term
	// by the clock that shows now, and are not Expired, the oldest first. With warned false
	// only those that are neither Warned nor taken charge of. It is cheap enough for every
	// second: it sees no other rows.
	// The date of a row is what a clock showed that may have been wrong. So those are left
	// out that are known to be younger: an entry before theirs is dated within the term, or
	// the store has not been open for as long since, by Options.Elapsed. Those dated
	// after now are overdue when that is known by Options.Elapsed.
	Overdue(ctx context.Context, now time.Time, term time.Duration, warned bool, limit int) ([]Awaited, error)
	// Policies returns what was set for the given subjects, sorted by subject;
	// subjects without an entry are left out. Without subjects it returns all.
	Policies(ctx context.Context, subjects ...string) ([]Policy, error)
	// Secret returns 32 random octets that belong to this store and never change.
	Secret(ctx context.Context) ([]byte, error)
	// Awaited returns the ledger rows of a message of ours, in the order of
	// their recipients; none if the identifier is not ours.
	Awaited(ctx context.Context, id pec.Identifier) ([]Awaited, error)
	// Outgoing returns up to limit messages of the outbox that are due at now and
	// not among except, those due longest first. What is due more than MaxPutOff later
	// is due too: it was written while the clock was ahead. Their contents can be read
	// until they have been taken.
	Outgoing(ctx context.Context, now time.Time, limit int, except []int64) ([]Outgoing, error)
	// Taken records that the MTA took the message for the given recipients. When
	// none are left it leaves the outbox, and its bodies go with their last
	// message.
	Taken(ctx context.Context, id int64, by []pec.Address) error
	// Postpone records a failed attempt: the message is due again at next, which is
	// not more than MaxPutOff away.
	Postpone(ctx context.Context, id int64, next time.Time, why string) error
	// Wake returns a channel that receives a value, possibly merged with others,
	// after a commit that put something into the outbox, or may have: of one that
	// was uncertain the store finds out later.
	Wake() <-chan struct{}
	// Search calls f for each register entry that matches q, the oldest first,
	// until f returns an error, which it returns.
	Search(ctx context.Context, q Query, f func(Entry) error) error
	// Infected returns the infected messages that are kept and match q, in the order
	// of their ids, without their contents.
	Infected(ctx context.Context, q InfectedQuery) ([]Infected, error)
	// OpenInfected returns the octets of infected message id, to be closed by the
	// caller. Whoever reads to the end hears ErrAltered there instead of io.EOF if
	// they are not those that were kept. ErrNotKept if there is no such message.
	OpenInfected(ctx context.Context, id int64) (io.ReadCloser, error)
	// PurgeInfected removes the infected messages whose Until is at or before at,
	// which is the instant of the EntryPurged that each leaves, and returns how many
	// it removed, also with an error.
	PurgeInfected(ctx context.Context, at time.Time) (n int, err error)
	// Stats returns figures for metrics.
	Stats(ctx context.Context) (Stats, error)
	// Close waits for commits under way and closes the store.
	Close() error
}

// A Body is a message being spooled, and then a Source. Write and ReadAt are not
// mixed: all is written first. Close drops what no commit has taken and must
// always be called; after a commit that took the body it only lets go of it.
type Body interface {
	io.Writer
	message.Source
	io.Closer
	// Path returns the file that holds the whole message, so that others can read
	// it without a copy; ok is false if it is in memory. The name is good until
	// Commit or Close.
	Path() (path string, ok bool)
}

// A Key is what a system message certifies, so that nothing is certified twice:
// the kind, the provider whose identifier it is, the identifier, and the
// recipient, empty where the event concerns the whole message.
type Key struct {
	Kind       string
	Origin     string
	Identifier pec.Identifier
	Recipient  pec.Address
}

// A Tx is one transaction: what one event makes durable at one instant.
type Tx struct {
	// At is the instant of all acts (RFC 6109, 4.1).
	At   time.Time
	Acts []Act
}

// An Act is one register entry with all that follows from it.
type Act struct {
	// Keys must all be new, or the act is left out.
	Keys []Key
	// Unless are keys of other acts with which this one cannot be: if one exists, the act
	// is left out. They do not become its own.
	Unless []Key
	// Entry is written to the register. Its Seq is given by the store.
	Entry Entry
	// Send is put into the outbox; nil if the act sends nothing.
	Send *signer.Signed
	// Await are the recipients whose answers the ledger shall wait for.
	Await []pec.Address
	// Answer is what arrived for a message of ours; nil if nothing.
	Answer *Answer
	// EnvelopeID is the ENVID under which Send is handed to the MTA; empty: the
	// identifier.
	EnvelopeID string
	// Notice marks a ledger row: the sender has been told that he waits in vain;
	// nil if not. The act is left out if the row does not call for the notice
	// (any more); see Notice.
	Notice *Notice
	// Policy is set for its subject; nil if nothing is.
	Policy *Policy
	// Keep is put into the virus store; nil if nothing is. Acts of one transaction may
	// share one: it is put there once, with the first of them that is not left out.
	Keep *Kept
}

// A Notice says that a timeout notice was issued (RFC 6109, 3.1.6). It is due
// while Overdue would return its row for it: the row exists, has no outcome, has
// not expired, and for the notice of 12 hours is neither warned nor taken charge
// of. That is checked in the transaction of the act, so that an answer which
// arrives meanwhile comes wholly before the notice or wholly after it.
type Notice struct {
	Identifier pec.Identifier
	Recipient  pec.Address
	// Last is the notice of 24 hours; without it the one of 12.
	Last bool
}

// A Policy is what becomes of ordinary mail for a mailbox or a whole domain.
type Policy struct {
	// Subject is a mailbox's address in the form of pec.Address.Key, or a domain in
	// lower case.
	Subject string
	// Ordinary is the setting, a word that the store does not interpret; empty
	// removes the entry.
	Ordinary string
}

// An Answer clears rows of the ledger. It is about the row of a recipient's key.
// If the message has none of that key it is about all rows that differ from it
// only in the case of the local part: the other provider may have folded it.
type Answer struct {
	Identifier pec.Identifier
	Recipients []pec.Address
	Kind       pec.Kind // KindTakeCharge, KindDelivery or KindNonDelivery
	// First has the act left out if the answer changes no row, because another was
	// first. That is checked in the transaction of the act.
	First bool
}

// Awaited is a ledger row: a certified recipient of a message of ours and what
// has been heard about him. Zero times mean not yet.
type Awaited struct {
	Identifier pec.Identifier
	Recipient  pec.Address
	Sent       time.Time
	TakenAt    time.Time
	EndedAt    time.Time
	Outcome    pec.Kind // KindDelivery or KindNonDelivery; empty while open
	// WarnedAt and ExpiredAt are when the notices of 12 and 24 hours were issued.
	// A row that has expired may still get an outcome.
	WarnedAt, ExpiredAt time.Time
}

// An Entry is one line of the register; RFC 6109, 2.3, and docs/rules.md, L1.
type Entry struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Type EntryType `json:"type"`
	// Identifier is the provider's id of the message that the event is about.
	Identifier pec.Identifier `json:"identifier"`
	// MsgID is the Message-ID that the user's client gave, with its brackets.
	MsgID      string          `json:"msgid,omitempty"`
	Sender     pec.Address     `json:"sender"`
	Recipients []pec.Recipient `json:"recipients"`
	// ReplyTo is what the certification data have as risposte.
	ReplyTo string `json:"reply_to,omitempty"`
	Subject string `json:"subject"`
	// Messages are the Message-IDs of the messages generated by the event, or of
	// the message received, without brackets.
	Messages []string `json:"messages,omitempty"`
	// SendingProvider is the provider whose user sent the message.
	SendingProvider string          `json:"sending_provider"`
	Receipt         pec.ReceiptType `json:"receipt,omitempty"`
	Recipient       pec.Address     `json:"recipient,omitempty"` // consegna
	Taken           []pec.Address   `json:"taken,omitempty"`     // ricezione
	Error           pec.ErrorCode   `json:"error,omitempty"`
	Detail          string          `json:"detail,omitempty"`
	// Digest is the SHA-256 digest of what was signed, in hexadecimal; empty if
	// nothing was.
	Digest string `json:"digest,omitempty"`
	// QueueID is the id under which the MTA handed the message over.
	QueueID string `json:"queue_id,omitempty"`
	// Kept is the SHA-256 digest, in hexadecimal, of the message that this event put
	// into the virus store or took from it. It is given by the store.
	Kept string `json:"kept,omitempty"`
}

// An EntryType says what happened. For messages that we issue it is their
// pec.Kind.
type EntryType string

// Entry types of events that issue nothing.
const (
	EntryReceived  EntryType = "ricezione"      // a receipt arrived
	EntryDelivered EntryType = "recapito"       // a receipt that arrived went into a mailbox
	EntryRefused   EntryType = "rifiuto"        // a message was refused at SMTP
	EntryBounce    EntryType = "rimbalzo"       // a delivery status notification arrived and ended here
	EntryDuplicate EntryType = "duplicato"      // a receipt was rendered once more; Detail says which
	EntryPolicy    EntryType = "configurazione" // a policy was changed
	EntryVirus     EntryType = "virus"          // an infected ordinary message was refused or dropped
	EntryPurged    EntryType = "cancellazione"  // the term of an infected message, or of entries of the register, was over
)

// A Query selects register entries; zero fields match everything.
type Query struct {
	Identifier pec.Identifier
	// MessageID matches the client's Message-ID and those of generated messages,
	// with or without brackets.
	MessageID string
	// Address matches the sender and every recipient, without regard to case.
	Address pec.Address
	// Since and Until bound At: Since <= At < Until.
	Since, Until time.Time
}

// Outgoing is a signed message on its way to the MTA.
type Outgoing struct {
	ID        int64
	Kind      pec.Kind
	MessageID string
	// EnvelopeID is the ENVID of the hand-over, so that a bounce can name it.
	EnvelopeID string
	From       pec.Address
	To         []pec.Address // those not taken yet
	Content    message.Content
	EightBit   bool
	Attempts   int
	Created    time.Time
	// Due is when it may be sent: Created, or what Postpone said.
	Due time.Time
}

// Stats are figures about the store.
type Stats struct {
	Entries int64
	Outbox  int64
	// Oldest is when the oldest message of the outbox was committed; zero if it
	// is empty.
	Oldest time.Time
	// Open is the number of ledger rows that have neither an outcome nor expired.
	Open int64
	// Infected is the number of infected messages that are kept.
	Infected int64
}
