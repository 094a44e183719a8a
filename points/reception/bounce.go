package reception

import (
	"errors"

	"pecd/pec"
	"pecd/pec/dsn"
	"pecd/pec/message"
)

// A Bounce is a delivery status notification about a transport envelope of ours.
type Bounce struct {
	Identifier pec.Identifier
	// Failed are the recipients whom the envelope will not reach.
	Failed []Failure
}

// A Failure is why an envelope does not reach a recipient.
type Failure struct {
	Code  string // X.Y.Z
	Text  string // Italian, ours
	Error pec.ErrorCode

	names func(pec.Address) bool
}

// ReadBounce recognises a delivery status notification about an envelope of ours.
// owner gives the identifier for an ENVID that only we can have made: anybody can
// write a notification, and one without that proof says nothing. If it returns
// the envelope's header, that must be of the same message. An error says that m could
// not be read now.
func ReadBounce(m *message.Message, sender pec.Address, owner func(envelopeID string) (pec.Identifier, bool)) (Bounce, bool, error) {
	if sender != "" {
		return Bounce{}, false, nil // RFC 3464, 2: notifications have no return path
	}
	r, err := dsn.Read(m)
	for _, is := range []error{dsn.ErrOther, dsn.ErrMalformed, dsn.ErrLimit, message.ErrMalformed, message.ErrLimit} {
		if errors.Is(err, is) {
			return Bounce{}, false, nil
		}
	}
	if err != nil {
		return Bounce{}, false, err
	}
	for _, envelopeID := range r.EnvelopeIDs() {
		id, ok := owner(envelopeID)
		if !ok {
			continue
		}
		if returned := r.MessageID(); returned != "" && returned != string(id) {
			return Bounce{}, false, nil
		}
		return Bounce{Identifier: id, Failed: failed(r)}, true, nil
	}
	return Bounce{}, false, nil
}

// failed are the recipients whom the message will not reach. Delays end in a
// failure or a receipt.
func failed(r *dsn.Report) (list []Failure) {
	for _, rcpt := range r.Recipients {
		if rcpt.Action != dsn.Failed {
			continue
		}
		f := Failure{names: rcpt.Names}
		f.Error, f.Code, f.Text = rcpt.Error()
		list = append(list, f)
	}
	return list
}

// Of returns the one of recipients whom the failure concerns.
func (f Failure) Of(recipients []pec.Recipient) (pec.Recipient, bool) {
	for _, r := range recipients {
		if f.names(r.Address) {
			return r, true
		}
	}
	return pec.Recipient{}, false
}
