// Package access is the access point (punto di accesso; RFC 6109, 2.2.1 and
// 3.1.1): it decides whether a message that a user submits enters certified mail.
// It refuses what breaks a formal rule of RFC 6109, 3.1.1, with every reason.
package access

import (
	"context"
	"fmt"
	"strings"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
)

// A Point is an access point: the Builtin one, or one that takes its place. Its
// methods may be called concurrently. An error means doubt: the message is put
// off.
type Point interface {
	Decide(ctx context.Context, s Submission) (Decision, error)
}

// A Submission is a message as its user handed it in, with its circumstances.
type Submission struct {
	Login      string          // who authenticated; empty if nobody did
	Sender     pec.Address     // SMTP reverse path
	SenderOurs bool            // its domain is managed here
	Recipients []pec.Recipient // of SMTP, with their types after the directory
	Message    *message.Message
	Facts      message.Facts // of the whole message
	Limits     Limits
	Findings   []points.Finding // of the checks at submission, in their order
}

// Limits are what a provider sets. A zero limit is none.
type Limits struct {
	// MaxSize is the largest message in octets; MaxRecipients the most
	// recipients of one message. At least 50 recipients must be granted and
	// 30 MB for size times recipients (docs/rules.md, S1).
	MaxSize       int64
	MaxRecipients int
	// MaxTotal bounds size times recipients, in octets.
	MaxTotal int64
	// TrustMTA leaves it to the MTA whether a login may use a sender's address.
	TrustMTA bool
}

// A Decision is what an access point says of a message.
type Decision struct {
	Verdict points.Verdict
	// Reasons are all the rules that the message breaks, where it is refused.
	Reasons []points.Reason
}

// Builtin is the access point of RFC 6109, 3.1.1.
type Builtin struct{}

// Decide applies the formal checks of RFC 6109, 3.1.1, and then what the checks
// found: a virus is told alone, since it decides what becomes of the message.
func (Builtin) Decide(_ context.Context, s Submission) (Decision, error) {
	c := check{Submission: s}
	c.whole()
	c.fields()
	from := c.from()
	c.sender(from)
	c.recipients()
	worst, found := points.Worst(s.Findings)
	switch {
	case found && worst.Says == points.Infected && (len(c.reasons) == 0 || points.Formal(c.reasons)):
		return refuse(points.Reason{Cause: points.Virus, Italian: worst.Virus, English: worst.Virus}), nil
	case len(c.reasons) > 0:
		return refuse(c.reasons...), nil
	case found && worst.Says == points.Refused:
		return refuse(worst.Reason), nil
	case found:
		return Decision{}, nil
	}
	return Decision{Verdict: points.Accept}, nil
}

func refuse(reasons ...points.Reason) Decision {
	return Decision{Verdict: points.Refuse, Reasons: reasons}
}

// check gathers the reasons while the rules are applied one after the other.
type check struct {
	Submission
	reasons []points.Reason
}

func (c *check) refuse(cause points.Cause, italian, english string, args ...any) {
	c.reasons = append(c.reasons, points.Reason{Cause: cause,
		Italian: ascii(fmt.Sprintf(italian, args...)), English: ascii(fmt.Sprintf(english, args...))})
}

// whole checks what concerns the message as bytes.
func (c *check) whole() {
	f, max := c.Facts, c.Limits
	if max.MaxSize > 0 && f.Size > max.MaxSize {
		c.refuse(points.TooLarge, "il messaggio di %d byte supera il limite di %d", "the message of %d octets exceeds the limit of %d", f.Size, max.MaxSize)
	}
	if n := int64(len(c.Recipients)); max.MaxTotal > 0 && f.Size > 0 && n > max.MaxTotal/f.Size {
		c.refuse(points.TooLargeTimes, "%d byte per %d destinatari superano il limite complessivo di %d byte", "%d octets times %d recipients exceed the total limit of %d octets", f.Size, n, max.MaxTotal)
	}
	if max.MaxRecipients > 0 && len(c.Recipients) > max.MaxRecipients {
		c.refuse(points.TooManyRecipients, "%d destinatari, il massimo e' %d", "%d recipients, the most allowed is %d", len(c.Recipients), max.MaxRecipients)
	}
	if f.LongestLine > message.MaxLine {
		c.refuse(points.LineTooLong, "una riga di %d byte supera il limite di %d: la firma non reggerebbe al trasporto",
			"a line of %d octets exceeds the limit of %d: the signature would not survive transport", f.LongestLine, message.MaxLine)
	}
	if f.NUL || f.BareCR || f.BareLF {
		c.refuse(points.BadOctets, "il messaggio contiene NUL oppure CR o LF isolati", "the message holds NUL or a CR or LF that stands alone")
	}
}

// single are the fields that RFC 5322, 3.6 allows once: a second one would leave
// open which of them is certified.
var single = []string{"From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Message-ID", "Subject", "Date"}

func (c *check) fields() {
	h := &c.Message.Header
	for _, name := range single {
		if n := h.Count(name); n > 1 {
			c.refuse(points.FieldRepeated, "il campo %s compare %d volte", "the field %s occurs %d times", name, n)
		}
	}
	for _, f := range h.Fields {
		if f.Name() == "" || strings.ContainsAny(f.Name(), " \t") {
			c.refuse(points.Malformed, "l'intestazione contiene una riga che non e' un campo", "the header holds a line that is not a field")
			return
		}
	}
	if bcc, err := h.Addresses("Bcc"); h.Get("Bcc") != "" && (err != nil || len(bcc) > 0) {
		c.refuse(points.BccPresent, "il campo Bcc (copia nascosta) non e' ammesso", "the field Bcc is not allowed in certified mail")
	}
}

// from returns the address of the field From, which must hold just one.
func (c *check) from() pec.Address {
	list, err := c.Message.Header.Addresses("From")
	if err != nil || len(list) != 1 || !plausible(list[0]) {
		c.refuse(points.FromInvalid, "il campo From manca o non contiene un solo indirizzo valido", "the field From is missing or does not hold just one valid address")
		return ""
	}
	return list[0]
}

// sender checks who sends: authenticated, one of our users, and the same in the
// login, the reverse path and From (RFC 6109, 3.1.1 and 5.2).
func (c *check) sender(from pec.Address) {
	if c.Login == "" {
		c.refuse(points.NotAuthenticated, "il mittente non si e' autenticato", "the sender has not authenticated")
	} else if !c.Limits.TrustMTA && !pec.Address(c.Login).Same(c.Sender) {
		c.refuse(points.LoginNotSender, "l'utente %s non puo' inviare come %s", "the user %s may not send as %s", c.Login, c.Sender)
	}
	if from != "" && !from.Same(c.Sender) {
		c.refuse(points.FromDiffers, "il campo From (%s) non coincide con il mittente SMTP (%s)", "the field From (%s) differs from the SMTP sender (%s)", from, c.Sender)
	}
	if !c.SenderOurs {
		c.refuse(points.SenderNotOurs, "il dominio di %s non e' gestito qui", "the domain of %s is not managed here", c.Sender)
	}
}

// recipients checks that whoever receives the message is named in To or Cc.
func (c *check) recipients() {
	h := &c.Message.Header
	to, err := h.Addresses("To")
	if err != nil || len(to) == 0 || !allPlausible(to) {
		c.refuse(points.ToInvalid, "il campo To manca o contiene indirizzi non validi", "the field To is missing or holds invalid addresses")
	}
	cc, err := h.Addresses("Cc")
	if err != nil || !allPlausible(cc) {
		c.refuse(points.ToInvalid, "il campo Cc contiene indirizzi non validi", "the field Cc holds invalid addresses")
	}
	named := make(map[string]bool, len(to)+len(cc))
	for _, a := range append(to, cc...) {
		named[a.Key()] = true
	}
	for _, r := range c.Recipients {
		if !named[r.Address.Key()] {
			c.refuse(points.RecipientNotInField, "il destinatario %s non compare in To o Cc", "the recipient %s is in neither To nor Cc", r.Address)
		}
	}
}

// Event is what is certified of s in the name of provider; of a message that
// breaks a rule it tells what can be told. Instant, identifier and kind are still
// to be set.
func (s Submission) Event(provider string) pec.Event {
	h := &s.Message.Header
	ev := pec.Event{
		Provider: provider,
		MsgID:    messageID(h.Get("Message-ID")),
		Sender:   s.author(),
		Subject:  h.Text("Subject"),
		Receipt:  receiptType(h.Get(pec.HeaderReceiptType)),
		Error:    pec.NoError,
	}
	ev.ReplyTo = string(ev.Sender)
	if list, err := h.Addresses("Reply-To"); err == nil && len(list) > 0 {
		ev.ReplyTo = join(list)
	}
	seen := make(map[string]bool, len(s.Recipients))
	for _, r := range s.Recipients {
		if !seen[r.Address.Key()] {
			seen[r.Address.Key()] = true
			ev.Recipients = append(ev.Recipients, r)
		}
	}
	return ev
}

// author is the sender as From spells him, who is the reverse path's.
func (s Submission) author() pec.Address {
	if list, err := s.Message.Header.Addresses("From"); err == nil && len(list) == 1 && list[0].Same(s.Sender) {
		return list[0]
	}
	return s.Sender
}

// receiptType reads X-TipoRicevuta; what it does not know means the default, a
// complete receipt (RFC 6109, 3.3.2.1).
func receiptType(v string) pec.ReceiptType {
	switch t := pec.ReceiptType(strings.ToLower(strings.TrimSpace(v))); t {
	case pec.Brief, pec.Concise:
		return t
	}
	return pec.Complete
}

// messageID returns the client's Message-ID in angle brackets, which readers of
// daticert.xml strip blindly (docs/rules.md, W9); empty if v holds none.
func messageID(v string) string {
	v = ascii(strings.Join(strings.Fields(v), ""))
	v = strings.Trim(v, "<>")
	if v == "" || len(v) > 900 {
		return ""
	}
	return "<" + v + ">"
}

func join(list []pec.Address) string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = string(a)
	}
	return strings.Join(s, ", ")
}

// plausible reports whether a can be carried by SMTP and certified: a local part
// and a domain, neither with blanks or control characters.
func plausible(a pec.Address) bool {
	local, domain := a.Split()
	return local != "" && domain != "" && len(a) <= 254 && strings.IndexFunc(string(a), func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '<' || r == '>'
	}) < 0
}

func allPlausible(list []pec.Address) bool {
	for _, a := range list {
		if !plausible(a) {
			return false
		}
	}
	return true
}

// ascii replaces what an SMTP reply or a header field of ours cannot hold.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
