package test

import (
	"bytes"
	"html"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"

	"pecd/pec"
)

// prefixes are the beginnings of Subject, by kind; RFC 6109, 3.1.2 to 3.3.3.
var prefixes = map[pec.Kind]string{
	pec.KindTransport:     "POSTA CERTIFICATA: ",
	pec.KindAcceptance:    "ACCETTAZIONE: ",
	pec.KindNonAcceptance: "AVVISO DI NON ACCETTAZIONE: ",
	pec.KindTakeCharge:    "PRESA IN CARICO: ",
	pec.KindDelivery:      "CONSEGNA: ",
	pec.KindNonDelivery:   "AVVISO DI MANCATA CONSEGNA: ",
	pec.KindTimeout:       "AVVISO DI MANCATA CONSEGNA PER SUP. TEMPO MASSIMO: ",
	pec.KindVirus:         "PROBLEMA DI SICUREZZA: ",
}

// virusPrefixes are those of notices about a virus; RFC 6109, 3.1.3 and 3.2.4.
var virusPrefixes = map[pec.Kind]string{
	pec.KindNonAcceptance: "AVVISO DI NON ACCETTAZIONE PER VIRUS: ",
	pec.KindNonDelivery:   "AVVISO DI MANCATA CONSEGNA PER VIRUS: ",
	pec.KindVirus:         "PROBLEMA DI SICUREZZA: ",
}

// checkForm reads a system message as a mail client does, with the standard
// library alone: header, addressee, text, HTML, and that they say the same as the
// certification data.
func checkForm(t *testing.T, address string, m mail) {
	t.Helper()
	msg, err := netmail.ReadMessage(bytes.NewReader(m.raw))
	if err != nil {
		t.Fatal(err)
	}
	ev := m.event
	get := func(name string) string {
		if v := msg.Header[name]; len(v) > 1 {
			t.Errorf("%s: %d fields %s", ev.Kind, len(v), name)
		}
		return msg.Header.Get(name)
	}
	domain := map[string]string{"Alfa PEC S.p.A.": "alfa.example", "Beta PEC S.p.A.": "beta.example"}[ev.Provider]
	receipt, transport, from, to := string(ev.Kind), "", "posta-certificata@"+domain, string(ev.Sender)
	author := "" // X-Mittente
	switch ev.Kind {
	case pec.KindTransport:
		receipt, transport = "", pec.TransportCertified
		from, to = `"Per conto di: `+string(ev.Sender)+`" <posta-certificata@`+domain+`>`, get("To")
	case pec.KindTakeCharge:
		to = address
	case pec.KindVirus:
		to, author = address, string(ev.Sender)
	}
	prefix, security := prefixes[ev.Kind], ""
	if ev.Error == pec.ErrorVirus {
		prefix = virusPrefixes[ev.Kind]
		if ev.Kind != pec.KindVirus {
			security = pec.SecurityError
		}
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(get("Subject"))
	if err != nil {
		t.Error(err)
	}
	date, err := msg.Header.Date()
	if err != nil {
		t.Error(err)
	}
	for what, pair := range map[string][2]string{
		"X-Ricevuta": {get("X-Ricevuta"), receipt}, "X-Trasporto": {get("X-Trasporto"), transport}, "From": {get("From"), from},
		"To": {get("To"), to}, "Subject": {subject, prefix + ev.Subject}, "X-Mittente": {get("X-Mittente"), author},
		"X-VerificaSicurezza": {get("X-Verificasicurezza"), security}, "Date": {date.Format("02/01/2006 15:04:05 -0700"), ev.At.Format("02/01/2006 15:04:05 -0700")},
		"X-Riferimento-Message-ID": {get("X-Riferimento-Message-Id"), ev.MsgID}, "X-TipoRicevuta": {get("X-Tiporicevuta"), transportOnly(ev)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s is %q, want %q", ev.Kind, what, pair[0], pair[1])
		}
	}
	text, page := bodies(t, msg.Header.Get("Content-Type"), msg.Body)
	says := []string{ev.At.Format("Il giorno 02/01/2006 alle ore 15:04:05 (-0700)"), string(ev.Sender), "Identificativo messaggio: " + string(ev.Identifier), ev.Detail, string(ev.Recipient)}
	switch {
	case ev.Kind == pec.KindTimeout:
		says[3] = "" // the text says it in words of its own
	case ev.Kind == pec.KindNonDelivery && ev.Error == pec.ErrorVirus:
		says[1] = "" // RFC 6109, 3.2.4 names the recipient only
	}
	for _, want := range says {
		if !strings.Contains(text, want) || !strings.Contains(page, want) {
			t.Errorf("%s: text or HTML lacks %q:\n%s\n%s", ev.Kind, want, text, page)
		}
	}
	if strings.Contains(page, "http") || strings.Contains(page, "<img") || strings.Contains(page, "style") || strings.Contains(page, "script") {
		t.Errorf("%s: the HTML refers to something outside:\n%s", ev.Kind, page)
	}
}

func transportOnly(ev pec.Event) string {
	if ev.Kind == pec.KindTransport {
		return string(ev.Receipt)
	}
	return ""
}

var tag = regexp.MustCompile(`<[^>]*>`)

// bodies returns the plain text, and the HTML with its tags left in only as far
// as they refer to something.
func bodies(t *testing.T, contentType string, body io.Reader) (text, page string) {
	t.Helper()
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err != nil {
			return text, page
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(kind, "multipart/"):
			inner, innerPage := bodies(t, p.Header.Get("Content-Type"), p)
			text, page = text+inner, page+innerPage
		case kind == "text/plain" || kind == "text/html":
			b, err := io.ReadAll(charmap.ISO8859_1.NewDecoder().Reader(quotedprintable.NewReader(p)))
			if err != nil {
				t.Fatal(err)
			}
			if s := strings.ReplaceAll(string(b), "\r\n", "\n"); kind == "text/plain" {
				text += s
			} else {
				page += html.UnescapeString(tag.ReplaceAllStringFunc(s, func(tag string) string {
					if strings.ContainsAny(tag, "=") {
						return tag
					}
					return ""
				}))
			}
		}
	}
}
