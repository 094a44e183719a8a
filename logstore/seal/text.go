package seal

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A record is what is read of an entry of the register. It names its fields
// itself: FormatText stays as it is when entries get new ones.
type record struct {
	Seq        int64     `json:"seq"`
	At         time.Time `json:"at"`
	Type       string    `json:"type"`
	Identifier string    `json:"identifier"`
	MsgID      string    `json:"msgid"`
	Sender     string    `json:"sender"`
	Recipients []struct {
		Address string `json:"address"`
		Type    string `json:"type"`
	} `json:"recipients"`
	Subject         string   `json:"subject"`
	Messages        []string `json:"messages"`
	SendingProvider string   `json:"sending_provider"`
	Receipt         string   `json:"receipt"`
	Recipient       string   `json:"recipient"`
	Taken           []string `json:"taken"`
	Error           string   `json:"error"`
	Detail          string   `json:"detail"`
	Digest          string   `json:"digest"`
	QueueID         string   `json:"queue_id"`
	ReplyTo         string   `json:"reply_to"`
	Kept            string   `json:"kept"`
}

func readRecord(octets []byte) (r record, err error) {
	if err := json.Unmarshal(octets, &r); err != nil {
		return r, fmt.Errorf("it cannot be read: %w", err)
	}
	return r, nil
}

// labels are the names of events beside the word of RFC 6109, 4.4, as registers
// of providers have them.
var labels = map[string]string{
	"posta-certificata":         "BustaTrasporto",
	"accettazione":              "Accettazione",
	"non-accettazione":          "NonAccettazione",
	"presa-in-carico":           "PresaInCarico",
	"avvenuta-consegna":         "AvvenutaConsegna",
	"errore-consegna":           "MancataConsegna",
	"preavviso-errore-consegna": "SuperamentoTempoMassimo",
	"rilevazione-virus":         "RilevazioneVirus",
	"busta-anomalia":            "BustaAnomalia",
}

// line returns r as a line of text (docs/rules.md, L1): time in the zone, number,
// identifier, and the fields that are not empty, in an order that does not
// change. What stands in a value cannot be taken for another field, nor for
// another line: see escape.
func (r record) line(zone *time.Location) []byte {
	b := []byte(r.At.In(zone).Format("Jan _2 15:04:05 2006 -0700"))
	b = fmt.Appendf(b, " pecd[%d]: %s", r.Seq, escape(r.Identifier))
	field := func(name, value string) {
		if value != "" {
			b = append(append(append(append(b, ": "...), name...), '='), value...)
		}
	}
	field("queueid", escape(r.QueueID))
	field("tipo", r.kind())
	field("mittente", escape(r.Sender))
	field("destinatari", r.recipients())
	field("risposte", escape(r.ReplyTo))
	field("oggetto", escape(r.Subject))
	field("msgid", escape(r.MsgID))
	field("message-id", list(r.Messages))
	field("gestore", escape(r.SendingProvider))
	field("tipo_ricevuta", escape(r.Receipt))
	field("consegna", escape(r.Recipient))
	field("ricezione", list(r.Taken))
	field("errore", escape(r.Error))
	field("errore-esteso", escape(r.Detail))
	field("sha256", escape(r.Digest))
	field("virus-sha256", escape(r.Kept))
	return append(b, '\n')
}

func (r record) kind() string {
	if label := labels[r.Type]; label != "" {
		return r.Type + " (" + label + ")"
	}
	return escape(r.Type)
}

func (r record) recipients() string {
	var out []string
	for _, p := range r.Recipients {
		item := item(p.Address)
		if p.Type != "" {
			item += " (" + escape(p.Type) + ")"
		}
		out = append(out, item)
	}
	return strings.Join(out, ", ")
}

func list(values []string) string {
	var out []string
	for _, v := range values {
		out = append(out, item(v))
	}
	return strings.Join(out, ", ")
}

// item is escape for what stands in a list: commas are escaped too.
func item(s string) string { return strings.ReplaceAll(escape(s), ",", `\,`) }

// escape returns s such that it holds neither ": ", with which fields are parted,
// nor anything that a terminal would act upon: a backslash stands before a
// backslash and before a blank that follows a colon; a colon at the end, controls,
// line separators, marks of direction and what is not UTF-8 are written as \{hex}.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || r == ':' || unsafe(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	before := rune(0)
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == ' ' && before == ':':
			b.WriteString(`\ `)
		case unsafe(r) || r == utf8.RuneError || r == ':' && i+1 == len(s):
			fmt.Fprintf(&b, `\{%X}`, r)
		default:
			b.WriteRune(r)
		}
		before = r
	}
	return b.String()
}

func unsafe(r rune) bool {
	return r < 0x20 || 0x7f <= r && r < 0xa0 || 0x200b <= r && r <= 0x200f || 0x2028 <= r && r <= 0x202e || 0x2060 <= r && r <= 0x206f || r == 0xfeff
}
