package daticert

import (
	"strings"
	"time"
	"unicode/utf8"

	"pecd/pec"
)

// A quick reader reads the form in which Marshal writes, one element a line, as
// reader does but without a decoder of XML: it is what is read most, also of what
// was written a moment ago and is to be signed. It knows nothing of how Marshal
// works, and of anything else it says only that it is not this form.
type quick struct {
	rest string
	odd  bool // not the form
}

// document returns the event as reader.document does; ok is false if the document
// is of another form, right or wrong.
func (q *quick) document(loc *time.Location) (ev pec.Event, ok bool) {
	q.want("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<postacert tipo=\"")
	ev.Kind = pec.Kind(q.word())
	q.want("\" errore=\"")
	ev.Error = pec.ErrorCode(q.word())
	q.want("\">\n    <intestazione>\n")
	ev.Sender = pec.Address(q.leaf("mittente"))
	for q.has("        <destinatari tipo=\"") && len(ev.Recipients) < MaxRecipients {
		kind := pec.RecipientType(q.word())
		q.want("\">")
		ev.Recipients = append(ev.Recipients, pec.Recipient{Address: pec.Address(q.text("destinatari")), Type: kind})
	}
	ev.ReplyTo = q.leaf("risposte")
	ev.Subject = q.optional("oggetto")
	q.want("    </intestazione>\n    <dati>\n")
	q.data(&ev, loc)
	q.want("    </dati>\n</postacert>\n")
	return ev, !q.odd && q.rest == ""
}

func (q *quick) data(ev *pec.Event, loc *time.Location) {
	ev.Provider = q.leaf("gestore-emittente")
	q.want("        <data zona=\"")
	zone := q.word()
	q.want("\">\n            <giorno>")
	day := q.text("giorno")
	q.want("            <ora>")
	hour := q.text("ora")
	q.want("        </data>\n")
	if !q.odd {
		var err error
		ev.At, err = instant(day, hour, zone, loc)
		q.odd = err != nil
	}
	ev.Identifier = pec.Identifier(q.leaf("identificativo"))
	ev.MsgID = q.optional("msgid")
	if q.has("        <ricevuta tipo=\"") {
		ev.Receipt = pec.ReceiptType(q.word())
		q.odd = q.odd || !validReceipt(ev.Receipt)
		q.want("\"/>\n")
	}
	ev.Recipient = pec.Address(q.optional("consegna"))
	for q.begins("ricezione") && len(ev.Taken) < MaxRecipients {
		ev.Taken = append(ev.Taken, pec.Address(q.leaf("ricezione")))
	}
	ev.Detail = q.optional("errore-esteso")
}

// has goes past s, if it comes next.
func (q *quick) has(s string) bool {
	if q.odd || !strings.HasPrefix(q.rest, s) {
		return false
	}
	q.rest = q.rest[len(s):]
	return true
}

func (q *quick) want(s string) {
	if !q.has(s) {
		q.odd = true
	}
}

// word reads the value of an attribute, which has no more than letters, digits,
// signs and hyphens.
func (q *quick) word() string {
	n := 0
	for n < len(q.rest) && isWord(q.rest[n]) {
		n++
	}
	w := q.rest[:n]
	q.rest = q.rest[n:]
	q.odd = q.odd || w == ""
	return w
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '+'
}

const indent = "        <"

// begins reports whether the element name begins next.
func (q *quick) begins(name string) bool {
	after, ok := strings.CutPrefix(q.rest, indent)
	return ok && !q.odd && strings.HasPrefix(after, name) && strings.HasPrefix(after[len(name):], ">")
}

func (q *quick) leaf(name string) string {
	if !q.begins(name) {
		q.odd = true
		return ""
	}
	q.rest = q.rest[len(indent)+len(name)+1:]
	return q.text(name)
}

func (q *quick) optional(name string) string {
	if !q.begins(name) {
		return ""
	}
	return q.leaf(name)
}

// text reads what the element name holds, to the end of its line.
func (q *quick) text(name string) string {
	end := strings.IndexByte(q.rest, '<')
	if end < 0 || q.odd {
		q.odd = true
		return ""
	}
	text := q.rest[:end]
	q.rest = q.rest[end:]
	q.want("</")
	q.want(name)
	q.want(">\n")
	return q.unescaped(text)
}

// unescaped returns text with the references that Marshal writes undone. All else
// that XML does not take as it stands, or does not take at all, is odd.
func (q *quick) unescaped(text string) string {
	ascii, escaped := true, false
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c == '>':
			q.odd = true
			return ""
		case c == '&':
			escaped = true
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if !ascii && (!utf8.ValidString(text) || strings.ContainsAny(text, "\ufffe\uffff")) {
		q.odd = true
		return ""
	}
	if escaped {
		return q.undo(text)
	}
	return text
}

func (q *quick) undo(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "&")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, rest, ended := strings.Cut(after, ";")
		c, known := references[name]
		if !ended || !known {
			q.odd = true
			return ""
		}
		b.WriteByte(c)
		text = rest
	}
}

var references = map[string]byte{"amp": '&', "lt": '<', "gt": '>', "#34": '"', "#39": '\''}
