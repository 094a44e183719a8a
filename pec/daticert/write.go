package daticert

import (
	"bytes"
	"encoding/xml"
	"fmt"

	"pecd/pec"
)

// Marshal returns the daticert.xml of ev: UTF-8, no DOCTYPE, every attribute
// and the element risposte explicit, since those who read it load no DTD
// (docs/rules.md, D1). Texts are written in their Normal form. An event without
// recipients, sender, identifier, provider or instant is ErrInvalid, one of more
// than MaxRecipients or MaxSize is ErrLimit.
func Marshal(ev pec.Event) ([]byte, error) {
	ev = Normal(ev)
	if err := check(ev); err != nil {
		return nil, err
	}
	w := &writer{}
	w.line(0, `<?xml version="1.0" encoding="UTF-8"?>`)
	w.line(0, `<postacert tipo="%s" errore="%s">`, ev.Kind, ev.Error)
	w.heading(ev)
	w.data(ev)
	w.line(0, "</postacert>")
	if w.Len() > MaxSize {
		return nil, fmt.Errorf("%w: %d octets", ErrLimit, w.Len())
	}
	return w.Bytes(), nil
}

// A writer writes one element a line, indented.
type writer struct{ bytes.Buffer }

func (w *writer) heading(ev pec.Event) {
	w.line(1, "<intestazione>")
	w.leaf("mittente", string(ev.Sender))
	for _, r := range ev.Recipients {
		w.line(2, `<destinatari tipo="%s">%s</destinatari>`, r.Type, escape(string(r.Address)))
	}
	w.leaf("risposte", ev.ReplyTo)
	w.optional("oggetto", ev.Subject)
	w.line(1, "</intestazione>")
}

func (w *writer) data(ev pec.Event) {
	w.line(1, "<dati>")
	w.leaf("gestore-emittente", ev.Provider)
	w.line(2, `<data zona="%s">`, ev.At.Format(zoneLayout))
	w.line(3, "<giorno>%s</giorno>", ev.At.Format(dayLayout))
	w.line(3, "<ora>%s</ora>", ev.At.Format(hourLayout))
	w.line(2, "</data>")
	w.leaf("identificativo", string(ev.Identifier))
	w.optional("msgid", ev.MsgID)
	if ev.Receipt != "" {
		w.line(2, `<ricevuta tipo="%s"/>`, ev.Receipt)
	}
	w.optional("consegna", string(ev.Recipient))
	for _, a := range ev.Taken {
		w.leaf("ricezione", string(a))
	}
	w.optional("errore-esteso", ev.Detail)
	w.line(1, "</dati>")
}

// line writes one line; args are already escaped.
func (w *writer) line(depth int, format string, args ...any) {
	for range depth {
		w.WriteString("    ")
	}
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *writer) leaf(name, text string) {
	w.line(2, "<%s>%s</%[1]s>", name, escape(text))
}

func (w *writer) optional(name, text string) {
	if text != "" {
		w.leaf(name, text)
	}
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a bytes.Buffer never fails
	return b.String()
}
