// Package lmtp is the door at which the MTA hands over messages that have
// arrived, by LMTP (RFC 2033), and the way out to the mailbox store. On both sides
// every recipient has a status of its own, and every doubt is a delay: unknown
// errors, panics, broken connections and answers that did not come are 4xx. It
// knows nothing of certified mail.
//
// It is built on emersion/go-smtp, whose readers and writers of message data are
// replaced by ones that work block by block and change no octet. It refuses BDAT
// and addresses that go-smtp would change.
package lmtp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// A Status is what becomes of a message for one recipient, as an SMTP reply. The
// zero Status means that the recipient is deferred.
type Status struct {
	Code     int    // 2xx, 4xx or 5xx
	Enhanced [3]int // RFC 3463; zero: x.0.0
	Text     string // without the codes
}

// OK reports whether the message was taken for the recipient.
func (s Status) OK() bool { return s.Code/100 == 2 }

// Refused reports whether it was refused for good.
func (s Status) Refused() bool { return s.Code/100 == 5 }

// Deferred reports whether it is neither.
func (s Status) Deferred() bool { return !s.OK() && !s.Refused() }

// String returns the status as one line, "550 5.1.1 text".
func (s Status) String() string {
	s = s.clean()
	return fmt.Sprintf("%d %d.%d.%d %s", s.Code, s.Enhanced[0], s.Enhanced[1], s.Enhanced[2], s.Text)
}

// clean returns the status as it may be sent: with a code and an enhanced code of
// one class, and a text of one line of printable ASCII.
func (s Status) clean() Status {
	class := s.Code / 100
	if class != 2 && class != 4 && class != 5 {
		s = Status{Code: 451, Enhanced: [3]int{4, 3, 0}, Text: s.Text}
		class = 4
	}
	e := s.Enhanced
	if e[0] != class || e[1] < 0 || e[1] > 999 || e[2] < 0 || e[2] > 999 {
		s.Enhanced = [3]int{class, 0, 0}
	}
	s.Text = oneLine(s.Text)
	if s.Text == "" {
		s.Text = map[int]string{2: "Ok", 4: "Temporary failure, try again later", 5: "Refused"}[class]
	}
	return s
}

// reply returns the status as go-smtp wants it: also success is an "error", since
// any other one would become a permanent refusal.
func (s Status) reply() *smtp.SMTPError {
	s = s.clean()
	return &smtp.SMTPError{Code: s.Code, EnhancedCode: s.Enhanced, Message: s.Text}
}

// statusOf returns the status that a reply of the store gives.
func statusOf(e *smtp.SMTPError) Status {
	s := Status{Code: e.Code, Enhanced: e.EnhancedCode, Text: e.Message}
	return s.clean()
}

// statusOfText returns the status of a reply 250 with a text.
func statusOfText(text string) Status {
	s := Status{Code: 250, Text: text}
	code, rest, _ := strings.Cut(text, " ")
	parts := strings.Split(code, ".")
	if len(parts) != 3 {
		return s.clean()
	}
	var enhanced [3]int
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return s.clean()
		}
		enhanced[i] = n
	}
	s.Enhanced, s.Text = enhanced, rest
	return s.clean()
}

// oneLine returns text as at most 400 octets of printable ASCII.
func oneLine(text string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(text) {
		switch {
		case r < ' ' || r == 0x7f:
			r = ' '
		case r > 0x7f:
			r = '?'
		}
		if b.Len() == 400 {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// An Envelope is what the MTA tells of a message beside its bytes. Addresses are
// as in SMTP without the angle brackets; the null sender is empty.
type Envelope struct {
	Sender     string
	Recipients []string // in order; an address may come twice
	ClientAddr string   // the MTA's network address; empty on a Unix socket
	EnvelopeID string   // ENVID, decoded (RFC 3461, 4.4); empty: none
	// OriginalRecipients holds the ORCPT address of each recipient, decoded and
	// without its type (RFC 3461, 4.2); empty: none.
	OriginalRecipients []string
	UTF8               bool // SMTPUTF8 was asked for (RFC 6531)
}
