package signer

import (
	"pecd/pec"
	"pecd/pec/message"
)

// Signed is a system message with its signature. Only Sign makes one, so what
// takes a Signed cannot let anything unsigned leave. It is not changed after it
// was made and may be used concurrently.
type Signed struct {
	event     pec.Event
	content   message.Content
	digest    [32]byte
	messageID string
	from      pec.Address
	to        []pec.Address
	eightBit  bool
	duplicate bool
}

// Event returns what the message certifies.
func (s *Signed) Event() pec.Event { return s.event }

// Content returns the whole message, header and body, with CRLF line ends.
func (s *Signed) Content() message.Content { return s.content }

// Digest returns the SHA-256 digest of the signed entity: the messageDigest
// attribute of the signature.
func (s *Signed) Digest() [32]byte { return s.digest }

// MessageID returns the message's own Message-ID, without angle brackets.
func (s *Signed) MessageID() string { return s.messageID }

// From returns the SMTP envelope sender.
func (s *Signed) From() pec.Address { return s.from }

// To returns the SMTP envelope recipients. The caller does not change it.
func (s *Signed) To() []pec.Address { return s.to }

// EightBit reports whether the message holds bytes over 127.
func (s *Signed) EightBit() bool { return s.eightBit }

// Duplicate reports whether the message renders once more what was issued before:
// it is given to somebody, and not sent.
func (s *Signed) Duplicate() bool { return s.duplicate }
