// Package issue renders what a provider issues: transport envelopes, receipts
// and notices, from one pec.Event each. What it makes is a Draft: a message that
// nobody has signed yet. It refuses an event that lacks what its kind certifies.
// It reads no clock and draws no randomness of its own.
package issue

import (
	"time"

	"pecd/pec"
	"pecd/pec/message"
)

// A Draft is a system message before its signature; RFC 6109, 2.1 and 4.3. Only
// package signer turns it into something that may leave.
type Draft struct {
	// Event is what the message certifies, in the form of daticert.Normal: with
	// what its kind does not certify left out. Of an anomaly envelope, which
	// certifies nothing, it is what the text says.
	Event pec.Event
	// Header holds the top-level header fields that are not MIME's, each ended
	// by CRLF. MIME-Version and Content-Type are to follow it, and where EightBit
	// is set, Content-Transfer-Encoding: 8bit. It is ASCII but for fields that an
	// envelope inherits with 8-bit characters; the original inside has the same, so
	// EightBit is set then.
	Header []byte
	// Entity is the multipart/mixed with its own header, the bytes to be signed,
	// without the CRLF that belongs to the boundary after it.
	Entity message.Content
	// EightBit says that Entity holds bytes over 127 and declares so.
	EightBit bool
	// Boundary is the one of the multipart/signed to be put around Entity.
	Boundary string
	// MessageID is the message's own Message-ID, without angle brackets.
	MessageID string
	// From and To are the SMTP envelope.
	From pec.Address
	To   []pec.Address
	// NullSender says that From is empty because the reverse path is <>: an
	// anomaly envelope keeps that of what it holds (RFC 6109, 3.2.2), and that may
	// be a bounce. Without NullSender an empty From is a mistake.
	NullSender bool
	// Original says that Entity carries postacert.eml.
	Original bool
	// Register is the value of HeaderRegister in the header of Entity; empty: it has
	// none.
	Register string
	// Duplicate is set where the draft renders once more what was issued before; it
	// is signed, but not sent.
	Duplicate *Duplicate
}

// Signing returns the instant of the signature: that of the event, or of a
// duplicate when it was made.
func (d Draft) Signing() time.Time {
	if d.Duplicate != nil {
		return d.Duplicate.Made
	}
	return d.Event.At
}
