package daticert

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pecd/pec"
)

// sample is certification data in the form that many providers emit.
const sample = `<?xml version="1.0" encoding="UTF-8"?>
<postacert tipo="accettazione" errore="nessuno">
  <intestazione>
    <mittente>alice@alfa.example</mittente>
    <destinatari tipo="certificato">bob@beta.example</destinatari>
    <risposte></risposte>
    <oggetto>Prova</oggetto>
  </intestazione>
  <dati>
    <gestore-emittente>Alfa</gestore-emittente>
    <data zona="+0200">
      <giorno>04/07/2031</giorno>
      <ora>09:05:03</ora>
    </data>
    <identificativo>id1@alfa.example</identificativo>
    <msgid>&lt;m@alfa.example&gt;</msgid>
  </dati>
</postacert>`

func sampleEvent() pec.Event {
	return pec.Event{
		Kind: pec.KindAcceptance, At: time.Date(2031, 7, 4, 9, 5, 3, 0, summer),
		Provider: "Alfa", Identifier: "id1@alfa.example", MsgID: "<m@alfa.example>",
		Sender:     "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}},
		Subject:    "Prova", Error: pec.NoError,
	}
}

// replaced returns sample with pairs of old and new text replaced; each old one
// must be there.
func replaced(t *testing.T, pairs ...string) string {
	t.Helper()
	s := sample
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			t.Fatalf("no %q in the sample", pairs[i])
		}
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	return s
}

// TestTolerated are forms of real providers that mean the same as sample.
func TestTolerated(t *testing.T) {
	const head = `<?xml version="1.0" encoding="UTF-8"?>`
	cases := map[string]string{
		"as it is":         sample,
		"trailing lines":   sample + "\n\r\n",
		"CRLF":             strings.ReplaceAll(sample, "\n", "\r\n"),
		"byte order mark":  "\ufeff" + sample,
		"no declaration":   replaced(t, head+"\n", ""),
		"single quotes":    replaced(t, `tipo="accettazione"`, `tipo='accettazione'`),
		"no errore":        replaced(t, ` errore="nessuno"`, ""),
		"no tipo":          replaced(t, ` tipo="certificato"`, ""),
		"empty risposte":   replaced(t, "<risposte></risposte>", "<risposte />"),
		"space in element": replaced(t, ">alice@alfa.example<", ">\n\t alice@alfa.example \n<"),
		"space in tags":    replaced(t, `<destinatari tipo="certificato">`, "<destinatari\n tipo = 'certificato' >"),
		"comments": replaced(t, "<dati>", "<!-- a --><dati><!--b-->", "Prova", "Pro<!--x-->va",
			head, head+"<!-- c -->", "</postacert>", "</postacert><!-- d -->"),
		"CDATA":            replaced(t, "Prova", "<![CDATA[Prova]]>"),
		"characters":       replaced(t, "Prova", "&#80;ro&#x76;a"),
		"DOCTYPE":          replaced(t, head, head+`<!DOCTYPE postacert SYSTEM "daticert.dtd">`),
		"DOCTYPE, no file": replaced(t, head, head+"\n<!DOCTYPE postacert >"),
		"DOCTYPE PUBLIC":   replaced(t, head, head+`<!DOCTYPE postacert PUBLIC '-//X' "http://x.example/d.dtd">`),
		"zone with colon":  replaced(t, "+0200", "+02:00"),
		"brackets":         replaced(t, "id1@alfa.example", "&lt;id1@alfa.example&gt;"),
		"US-ASCII":         replaced(t, "UTF-8", "US-ASCII"),
		"leap second":      replaced(t, "09:05:03", "09:04:60", "04/07/2031", "04/07/2031"),
	}
	for name, text := range cases {
		want := sampleEvent()
		if name == "leap second" {
			want.At = want.At.Add(-3 * time.Second)
		}
		got, err := Parse([]byte(text), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Run(name, func(t *testing.T) { sameEvent(t, got, want) })
	}
}

func TestParseFields(t *testing.T) {
	text := replaced(t, "    <msgid>&lt;m@alfa.example&gt;</msgid>\n", `
		<ricevuta tipo="breve" /><consegna>bob@beta.example</consegna>
		<ricezione>x@beta.example</ricezione><ricezione>y@beta.example</ricezione>
		<errore-esteso>5.1.1 - Beta - no</errore-esteso>`,
		"    <oggetto>Prova</oggetto>\n", "", `errore="nessuno"`, `errore="altro"`,
		"<risposte></risposte>", "<risposte>a@b, &quot;c&quot;</risposte>",
		`tipo="certificato">bob@beta.example</destinatari>`,
		`tipo="esterno">mario@ordinary.example</destinatari><destinatari>bob@beta.example</destinatari>`)
	want := sampleEvent()
	want.MsgID, want.Subject, want.ReplyTo = "", "", `a@b, "c"`
	want.Receipt, want.Recipient, want.Error = pec.Brief, "bob@beta.example", pec.ErrorOther
	want.Taken = []pec.Address{"x@beta.example", "y@beta.example"}
	want.Detail = "5.1.1 - Beta - no"
	want.Recipients = []pec.Recipient{
		{Address: "mario@ordinary.example", Type: pec.External},
		{Address: "bob@beta.example", Type: pec.Certified},
	}
	got, err := Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	sameEvent(t, got, want)
}

func TestCharsets(t *testing.T) {
	for charset, subject := range map[string]string{
		"UTF-8": "è € ł", "utf-8": "è € ł",
		"ISO-8859-1": "\xe8 \xfc", "windows-1252": "\xe8 \x80", "Windows-1252": "\x93q\x94",
	} {
		want := map[string]string{"è € ł": "è € ł", "\xe8 \xfc": "è ü", "\xe8 \x80": "è €", "\x93q\x94": "“q”"}[subject]
		ev, err := Parse([]byte(replaced(t, "UTF-8", charset, "Prova", subject)), nil)
		if err != nil || ev.Subject != want {
			t.Errorf("%s: %q, %v, want %q", charset, ev.Subject, err, want)
		}
	}
}

func TestZone(t *testing.T) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	ev, err := Parse([]byte(sample), rome)
	if err != nil || ev.At.Location() != rome {
		t.Errorf("offset of Rome: location %v, %v", ev.At.Location(), err)
	}
	ev, err = Parse([]byte(replaced(t, "+0200", "+0100")), rome)
	if err != nil || ev.At.Location() == rome || ev.At.Format("15:04:05 -0700") != "09:05:03 +0100" {
		t.Errorf("other offset: %v in %v, %v", ev.At, ev.At.Location(), err)
	}
}

func TestRefused(t *testing.T) {
	const head, dtd = `<?xml version="1.0" encoding="UTF-8"?>`, `<!DOCTYPE postacert SYSTEM "d">`
	msgid := "<msgid>&lt;m@alfa.example&gt;</msgid>"
	cases := map[string]string{
		"nothing":            "",
		"blanks":             " \n",
		"declaration only":   head,
		"not XML":            "Received: from x",
		"cut off":            sample[:len(sample)-5],
		"two roots":          sample + sample[len(head):],
		"text after":         sample + "x",
		"text between":       replaced(t, "<dati>", "a<dati>"),
		"text before":        replaced(t, head, head+"a"),
		"two declarations":   replaced(t, head, head+head),
		"other root":         replaced(t, "<postacert ", "<posta ", "</postacert>", "</posta>"),
		"unknown element":    replaced(t, "<dati>", "<dati><novita/>"),
		"unknown at end":     replaced(t, "</dati>", "<novita/></dati>"),
		"unknown attribute":  replaced(t, "<dati>", `<dati id="1">`),
		"attribute twice":    replaced(t, `errore="nessuno"`, `errore="nessuno" errore="altro"`),
		"namespace":          replaced(t, "<postacert ", `<postacert xmlns="urn:x" `),
		"prefix":             replaced(t, "<dati>", "<x:dati>", "</dati>", "</x:dati>"),
		"prefixed attribute": replaced(t, `tipo="accettazione"`, `x:tipo="accettazione"`),
		"element in text":    replaced(t, "Prova", "<b>Prova</b>"),
		"element twice":      replaced(t, msgid, msgid+msgid),
		"wrong order":        replaced(t, "<msgid>", "<ricevuta tipo='breve'/><msgid>"),
		"dati first":         replaced(t, "<intestazione>", "<dati></dati><intestazione>"),
		"no dati":            sample[:strings.Index(sample, "<dati>")] + "</postacert>",
		"no mittente":        replaced(t, "<mittente>alice@alfa.example</mittente>", ""),
		"empty mittente":     replaced(t, "alice@alfa.example</mitt", "</mitt"),
		"no destinatari":     replaced(t, `<destinatari tipo="certificato">bob@beta.example</destinatari>`, ""),
		"no risposte":        replaced(t, "<risposte></risposte>", ""),
		"no identifier":      replaced(t, "<identificativo>id1@alfa.example</identificativo>", ""),
		"no provider":        replaced(t, ">Alfa<", "><"),
		"no kind":            replaced(t, `tipo="accettazione" `, ""),
		"other kind":         replaced(t, "accettazione", "accettata"),
		"other error":        replaced(t, "nessuno", "tanti"),
		"empty error":        replaced(t, "nessuno", ""),
		"other type":         replaced(t, "certificato", "interno"),
		"receipt with text":  replaced(t, msgid, msgid+"<ricevuta tipo='breve'>x</ricevuta>"),
		"receipt, no type":   replaced(t, msgid, msgid+"<ricevuta/>"),
		"receipt, odd type":  replaced(t, msgid, msgid+"<ricevuta tipo=''/>"),
		"no zone":            replaced(t, ` zona="+0200"`, ""),
		"zone name":          replaced(t, "+0200", "CEST"),
		"zone of a day":      replaced(t, "+0200", "+2400"),
		"zone minutes":       replaced(t, "+0200", "+0260"),
		"no such day":        replaced(t, "04/07/2031", "31/02/2031"),
		"year first":         replaced(t, "04/07/2031", "2031/07/04"),
		"short day":          replaced(t, "04/07/2031", "4/7/2031"),
		"no such hour":       replaced(t, "09:05:03", "24:00:00"),
		"fraction":           replaced(t, "09:05:03", "9:05:03.1"),
		"own entity":         replaced(t, "Prova", "&prova;"),
		"HTML entity":        replaced(t, "Prova", "&egrave;"),
		"internal subset":    replaced(t, head, head+`<!DOCTYPE postacert [<!ENTITY prova "x">]>`),
		"subset and file":    replaced(t, head, head+`<!DOCTYPE postacert SYSTEM "d" [<!ENTITY a "x">]>`),
		"DOCTYPE of other":   replaced(t, head, head+`<!DOCTYPE html>`),
		"two DOCTYPE":        replaced(t, head, head+dtd+dtd),
		"late DOCTYPE":       replaced(t, "<dati>", dtd+"<dati>"),
		"element outside":    replaced(t, head, head+`<!ENTITY a "b">`),
		"instruction":        replaced(t, "<dati>", "<?php x ?><dati>"),
		"other charset":      replaced(t, "UTF-8", "UTF-16"),
		"shift":              replaced(t, "UTF-8", "Shift_JIS"),
		"8-bit in US-ASCII":  replaced(t, "UTF-8", "US-ASCII", "Prova", "è"),
		"Latin-1 in UTF-8":   replaced(t, "Prova", "\xe8"),
		"XML 1.1":            replaced(t, `version="1.0"`, `version="1.1"`),
		"control character":  replaced(t, "Prova", "\x01"),
		"reference to one":   replaced(t, "Prova", "&#1;"),
		"mismatched tags":    replaced(t, "</dati>", "</data>"),
	}
	for name, text := range cases {
		ev, err := Parse([]byte(text), nil)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
		if !reflect.DeepEqual(ev, pec.Event{}) {
			t.Errorf("%s: an event beside the error", name)
		}
	}
}

func TestLimits(t *testing.T) {
	one := `<destinatari tipo="certificato">bob@beta.example</destinatari>`
	taken := "<ricezione>a@b</ricezione>"
	cases := map[string]string{
		"size":       sample + strings.Repeat("\n", MaxSize),
		"recipients": replaced(t, one, strings.Repeat("<destinatari>a@b</destinatari>", MaxRecipients+1)),
		"taken":      replaced(t, "</dati>", strings.Repeat(taken, MaxRecipients+1)+"</dati>"),
	}
	for name, text := range cases {
		if _, err := Parse([]byte(text), nil); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := replaced(t, one, strings.Repeat("<destinatari>a@b</destinatari>", MaxRecipients))
	if ev, err := Parse([]byte(text), nil); err != nil || len(ev.Recipients) != MaxRecipients {
		t.Errorf("as many as allowed: %d, %v", len(ev.Recipients), err)
	}
	if _, err := Parse([]byte(strings.Repeat("<a>", MaxSize/3)), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("depth: %v", err)
	}
}
