// Package dsn reads delivery status notifications, the reports that MTAs send
// about the fate of a message (RFC 3461, RFC 3462 and RFC 3464; in UTF-8, RFC
// 6533). With them a sending provider learns that another one could not take a
// transport envelope (RFC 6109, 2.2.2).
//
// A report is recognised by its structure alone. Anybody can write one: it proves
// nothing until whoever reads it has found the envelope that it is about, by its
// envelope identifier and its returned header. What stands in it is hostile. Read
// is total and has limits, texts come without control characters, and words of
// other systems are for the operator's log only: Recipient.Error has texts of its
// own for users.
package dsn

import (
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"time"

	"pecd/pec/message"
)

// The errors of Read, beside those of the source.
var (
	// ErrOther says that the message is not a delivery status notification.
	ErrOther = errors.New("dsn: not a delivery status notification")
	// ErrMalformed says that it is one by its structure, but names no recipient.
	ErrMalformed = errors.New("dsn: malformed")
	// ErrLimit says that it is larger than what is read here.
	ErrLimit = errors.New("dsn: over the limit")
)

// Limits of one report.
const (
	maxStatus     = 1 << 20 // octets of the delivery-status part, decoded
	maxReturned   = 1 << 20 // octets that are looked at for the returned header
	maxRecipients = 1000
	maxText       = 1000 // octets of a text of the report
)

// A Report is what a delivery status notification says.
type Report struct {
	// EnvelopeID is Original-Envelope-Id as it stands; see EnvelopeIDs.
	EnvelopeID string
	// ReportingMTA is the name of the MTA that reports.
	ReportingMTA string
	// ArrivalDate is when the message came to that MTA; zero if it does not say.
	ArrivalDate time.Time
	// Recipients are those about whom it reports, one at least.
	Recipients []Recipient
	// Returned is the header of the message that it is about; without fields if it
	// returns none that can be read.
	Returned message.Header
}

// Read reads the report that m is. It reads the status part and the returned
// header into memory, never a returned body.
func Read(m *message.Message) (*Report, error) {
	status, returned, err := parts(m)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(status.Decoded(), maxStatus+1))
	if err != nil {
		return nil, fmt.Errorf("dsn: status: %w", err)
	}
	if len(b) > maxStatus {
		return nil, fmt.Errorf("%w: status of more than %d octets", ErrLimit, maxStatus)
	}
	r := new(Report)
	for g := range groups(b) {
		if r.add(g); len(r.Recipients) > maxRecipients {
			return nil, fmt.Errorf("%w: more than %d recipients", ErrLimit, maxRecipients)
		}
	}
	if len(r.Recipients) == 0 {
		return nil, fmt.Errorf("%w: no recipient", ErrMalformed)
	}
	if returned != nil {
		if r.Returned, err = header(returned); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// parts finds the status and what is returned, which may be nil; RFC 3462, 1.
func parts(m *message.Message) (status, returned *message.Part, err error) {
	// The tree of what is not a report is not built: it may be any large message.
	mediaType, params, _ := m.Header.MediaType() // what cannot be read is text/plain
	kind := strings.ToLower(params["report-type"])
	if mediaType != "multipart/report" || kind != "" && kind != "delivery-status" {
		return nil, nil, ErrOther
	}
	root, err := m.Structure()
	if errors.Is(err, message.ErrLimit) {
		return nil, nil, fmt.Errorf("%w: %w", ErrLimit, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("dsn: structure: %w", err)
	}
	for _, c := range root.Children {
		switch c.MediaType {
		case "message/delivery-status", "message/global-delivery-status":
			if status == nil {
				status = c
			}
		case "message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers":
			if status != nil && returned == nil {
				returned = c
			}
		}
	}
	if status == nil {
		return nil, nil, fmt.Errorf("%w: no delivery-status part", ErrOther)
	}
	return status, returned, nil
}

// header returns the header in a returned message or header.
func header(p *message.Part) (message.Header, error) {
	b, err := io.ReadAll(io.LimitReader(p.Decoded(), maxReturned))
	if err != nil {
		return message.Header{}, fmt.Errorf("dsn: returned message: %w", err)
	}
	m, err := message.Read(message.Bytes(b))
	if errors.Is(err, message.ErrLimit) {
		return message.Header{}, nil // the report stands without it
	}
	if err != nil {
		return message.Header{}, fmt.Errorf("dsn: returned message: %w", err)
	}
	return m.Header, nil
}

// add takes one group of fields: that of the message, that of a recipient, or
// both in one, as some MTAs write them.
func (r *Report) add(g group) {
	if r.EnvelopeID == "" {
		r.EnvelopeID = text(g["original-envelope-id"])
	}
	if r.ReportingMTA == "" {
		_, r.ReportingMTA = typed(g["reporting-mta"])
	}
	if r.ArrivalDate.IsZero() {
		// A date that cannot be read is as good as none.
		r.ArrivalDate, _ = mail.ParseDate(g["arrival-date"])
	}
	if g["final-recipient"] != "" || g["original-recipient"] != "" {
		r.Recipients = append(r.Recipients, newRecipient(g))
	}
}

// EnvelopeIDs returns what the ENVID of the message may have been, the likeliest
// first. The report is to hold it decoded (RFC 3464, 2.2.1), as Postfix writes it;
// some MTAs copy the xtext of RFC 3461, 4.
func (r *Report) EnvelopeIDs() []string {
	if r.EnvelopeID == "" {
		return nil
	}
	ids := []string{r.EnvelopeID}
	if s, ok := fromXtext(r.EnvelopeID); ok && s != r.EnvelopeID {
		ids = append(ids, s)
	}
	return ids
}

// MessageID returns the Message-ID of the message that the report is about,
// without angle brackets; empty if its header is not returned.
func (r *Report) MessageID() string {
	return strings.Trim(text(r.Returned.Get("Message-ID")), "<> ")
}
