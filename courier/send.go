package courier

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/emersion/go-smtp"

	"pecd/logstore"
	"pecd/pec"
)

// notify is the NOTIFY of every recipient. Failure reports become non-delivery
// notices (RFC 6109, 3.3.3). Success is what receipts are for, and delays are
// watched by the ledger (RFC 6109, 3.1.6): as reports they would only reach the
// user as mail that is not certified.
var notify = []smtp.DSNNotify{smtp.DSNNotifyFailure}

// maxENVID is the longest ENVID in octets; RFC 3461, 4.4.
const maxENVID = 100

// errLost says that the connection broke between the final dot and its reply.
var errLost = errors.New("the reply to the message was lost; it may have been taken and will be sent again")

// errStale says that a kept connection had been closed by the listener; nothing
// was sent over it.
var errStale = errors.New("the connection was closed while idle")

// send sends m over the connection and returns the recipients for whom it was
// taken. The error tells why others were not. After it the connection is ready
// for the next message, or closed.
func (s *sender) send(m logstore.Outgoing) ([]pec.Address, error) {
	if err := s.fits(m); err != nil {
		return nil, err
	}
	accepted, refusal, reply, err := s.transact(m)
	s.used = true
	if err != nil {
		s.restore(err)
		return nil, errors.Join(err, refusal)
	}
	s.courier.Log.Info("courier: taken by the MTA", "message_id", m.MessageID, "id", identifier(m),
		"qid", queuedAs(reply), "recipients", len(accepted), "reply", reply)
	return accepted, refusal
}

// identifier is the provider's identifier of the message that m belongs to: an
// envelope has it as its Message-ID, and its ENVID is another.
func identifier(m logstore.Outgoing) string {
	if m.Kind == pec.KindTransport {
		return strings.Trim(m.MessageID, "<>")
	}
	return m.EnvelopeID
}

// queuedAs is the MTA's name of the message in its reply: "Ok: queued as 4Q1abc"
// by Postfix, "4Q1abc Message accepted for delivery" by Sendmail; empty if it does
// not say.
func queuedAs(reply string) string {
	words := strings.Fields(reply)
	for i, w := range words {
		if w == "queued" && i+2 < len(words) && words[i+1] == "as" {
			return words[i+2]
		}
		if w == "Message" && i > 0 && i+1 < len(words) && words[i+1] == "accepted" {
			return words[i-1]
		}
	}
	return ""
}

// transact is one mail transaction. It returns the recipients that the listener
// accepted, why it refused the others, and its reply to the message. After an
// error nobody got it, as far as is known.
func (s *sender) transact(m logstore.Outgoing) (accepted []pec.Address, refusal error, reply string, err error) {
	if err := s.mail(m); err != nil {
		return nil, nil, "", err
	}
	accepted, refusal, err = s.recipients(m)
	if err != nil {
		return nil, refusal, "", err
	}
	if len(accepted) == 0 {
		return nil, nil, "", refusal
	}
	reply, err = s.data(m)
	return accepted, refusal, reply, err
}

// fits reports why m cannot go to this listener, which has answered EHLO.
func (s *sender) fits(m logstore.Outgoing) error {
	c := s.courier
	for i, a := range append([]pec.Address{m.From}, m.To...) {
		if !plainPath(string(a)) {
			// This goes into the log; whose address it is the register tells.
			return fmt.Errorf("address %d of %d cannot be written in SMTP", i, len(m.To))
		}
	}
	if ok, _ := s.client.Extension("DSN"); !ok && !c.saidNoDSN.Swap(true) {
		c.Log.Error("courier: the re-injection listener does not offer DSN: bounces cannot be matched to their envelopes")
	}
	if ok, _ := s.client.Extension("8BITMIME"); m.EightBit && !ok {
		// Sent as 7-bit, it would be converted on its way and its signature broken.
		if !c.saidNo8BitMIME.Swap(true) {
			c.Log.Error("courier: the re-injection listener does not offer 8BITMIME: 8-bit messages wait")
		}
		return errors.New("the listener does not offer 8BITMIME")
	}
	return nil
}

// mail sends MAIL. The client declares BODY=8BITMIME wherever it is offered, of
// 7-bit messages too: MTAs go by the content.
func (s *sender) mail(m logstore.Outgoing) error {
	err := s.client.Mail(string(m.From), &smtp.MailOptions{
		Size:       m.Content.Size(),
		UTF8:       !ascii(m),
		Return:     smtp.DSNReturnHeaders,
		EnvelopeID: envid(m.EnvelopeID),
	})
	if s.used && closed(err) {
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return wrap("MAIL", err)
}

// closed reports whether err says that the listener has closed the connection.
func closed(err error) bool {
	var reply *smtp.SMTPError
	if errors.As(err, &reply) {
		return reply.Code == 421 // Postfix: timeout exceeded
	}
	var network net.Error
	return errors.Is(err, io.EOF) || errors.As(err, &network) && !network.Timeout()
}

// envid returns id, or nothing if it cannot be an ENVID: it may hold the
// identifier of another provider. The client encodes it as xtext, and as such it
// is measured.
func envid(id string) string {
	n := 0
	for _, b := range []byte(id) {
		switch {
		case b < '!' || b > '~':
			return ""
		case b == '+' || b == '=':
			n += len("+2B")
		default:
			n++
		}
	}
	if n > maxENVID {
		return ""
	}
	return id
}

// ascii reports whether all envelope addresses of m are.
func ascii(m logstore.Outgoing) bool {
	for _, a := range append([]pec.Address{m.From}, m.To...) {
		if strings.ContainsFunc(string(a), func(r rune) bool { return r > '~' }) {
			return false
		}
	}
	return true
}

// plainPath reports whether a can stand in angle brackets without ending them or
// the line.
func plainPath(a string) bool {
	quoted := false
	for i := 0; i < len(a); i++ {
		switch b := a[i]; {
		case b < ' ' || b == 0x7f:
			return false
		case b == '"':
			quoted = !quoted
		case b == '\\' && quoted:
			i++
			if i == len(a) || a[i] < ' ' || a[i] == 0x7f {
				return false
			}
		case !quoted && (b == '<' || b == '>' || b == ' '):
			return false
		}
	}
	return !quoted
}

// recipients sends RCPT for all and returns those accepted, and why others were
// not. The error is about the connection.
func (s *sender) recipients(m logstore.Outgoing) (accepted []pec.Address, refusal, err error) {
	for _, to := range m.To {
		err := s.client.Rcpt(string(to), &smtp.RcptOptions{Notify: notify})
		var reply *smtp.SMTPError
		switch {
		case err == nil:
			accepted = append(accepted, to)
		case errors.As(err, &reply) && reply.Code != 421:
			refusal = errors.Join(refusal, wrap(fmt.Sprintf("RCPT %s", to), err))
		default:
			return nil, refusal, wrap("RCPT", err)
		}
	}
	return accepted, refusal, nil
}

// data sends the message and returns the listener's reply, which usually names
// the queue id.
func (s *sender) data(m logstore.Outgoing) (string, error) {
	c := s.courier
	w, err := s.client.Data()
	if err != nil {
		return "", wrap("DATA", err)
	}
	c.AtStep(StepBegun)
	dots := &dotWriter{conn: s.conn, timeout: c.Command}
	if _, err = m.Content.WriteTo(dots); err == nil {
		err = dots.finish()
	}
	if err != nil {
		// Closed without the final dot, so that the listener drops what it has.
		s.drop()
		return "", fmt.Errorf("sending the message: %w", err)
	}
	c.AtStep(StepSent)
	// Nothing has gone through w, so that it ends the data with CRLF and the dot.
	response, err := w.CloseWithResponse()
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return response.StatusText, nil
	case errors.As(err, &reply):
		return "", wrap("end of message", err)
	}
	return "", fmt.Errorf("%w: %w", errLost, err)
}

// restore makes the connection ready after err, or closes it. The client wants to say
// EHLO again after RSET. It does so now: failing while the next message is looked at,
// it would read as if nothing were offered.
func (s *sender) restore(err error) {
	var reply *smtp.SMTPError
	if s.client == nil {
		return
	}
	if errors.As(err, &reply) && reply.Code != 421 {
		if s.client.Reset() == nil && s.client.Hello(s.courier.Hostname) == nil {
			return
		}
	}
	s.drop()
}

func wrap(command string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", command, err)
}

// logFailure tells the operator. The listener is ours and has to take
// everything: a refusal for good is a misconfiguration.
func logFailure(log *slog.Logger, m logstore.Outgoing, err error) {
	log = log.With("message_id", m.MessageID, "id", identifier(m), "attempt", m.Attempts+1, "error", err)
	var reply *smtp.SMTPError
	switch {
	case errors.Is(err, errLost):
		log.Warn("courier: sent again later, perhaps for the second time")
	case errors.As(err, &reply) && reply.Code >= 500:
		log.Error("courier: the re-injection listener refuses for good; it is misconfigured, the message waits")
	default:
		log.Warn("courier: not taken, tried again later")
	}
}
