package issue

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"pecd/pec"
	"pecd/pec/message"
)

// TestItalian holds the Italian texts against the models of the technical rules,
// word for word.
func TestItalian(t *testing.T) {
	const (
		first  = "Il giorno 04/07/2031 alle ore 09:05:03 (+0200) "
		second = "\"Oggetto\" proveniente da \"alice@alfa.example\"\n"
		last   = "Identificativo messaggio: 20310704070503000abc@alfa.example"
	)
	delivered := first + "il messaggio\n" + second + "ed indirizzato a \"bob@beta.example\"\n" +
		"è stato consegnato nella casella di destinazione.\n" + last
	want := map[string]string{
		"acceptance": "Ricevuta di accettazione\n" + first + "il messaggio\n" + second + "ed indirizzato a:\n" +
			"bob@beta.example (\"posta certificata\")\nmario@ordinary.example (\"posta ordinaria\")\n" +
			"è stato accettato dal sistema ed inoltrato.\n" + last,
		"transport": "Messaggio di posta certificata\n" + first + "il messaggio\n" +
			"\"Oggetto\" è stato inviato da \"alice@alfa.example\"\nindirizzato a:\nbob@beta.example\nmario@ordinary.example\n" +
			"Il messaggio originale è incluso in allegato.\n" + last,
		"take-charge": "Ricevuta di presa in carico\n" + first + "il messaggio\n" + second + "ed indirizzato a:\n" +
			"bob@beta.example\nè stato accettato dal sistema.\n" + last,
		"delivery-complete": "Ricevuta di avvenuta consegna\n" + delivered,
		"delivery-brief":    "Ricevuta breve di avvenuta consegna\n" + delivered,
		"delivery-copy":     "Ricevuta sintetica di avvenuta consegna\n" + delivered,
		"delivery-concise":  "Ricevuta sintetica di avvenuta consegna\n" + delivered,
		"non-delivery": "Avviso di mancata consegna\n" + first + "nel messaggio\n" + second +
			"e destinato all'utente \"bob@beta.example\"\n" +
			"è stato rilevato un errore 5.1.1 - Beta Servizi - indirizzo non valido.\n" +
			"Il messaggio è stato rifiutato dal sistema.\n" + last,
	}
	late := first + "il messaggio\n" + second + "e destinato all'utente \"bob@beta.example\"\n"
	want["timeout-12"] = "Avviso di mancata consegna\n" + late +
		"non è stato consegnato nelle prime dodici ore dal suo invio. Non escludendo\n" +
		"che questo possa avvenire in seguito, si ritiene utile considerare che\n" +
		"l'invio potrebbe non andare a buon fine. Il sistema provvederà comunque\n" +
		"ad inviare un ulteriore avviso di mancata consegna se nelle prossime\n" +
		"dodici ore non vi sarà la conferma della ricezione da parte del destinatario.\n" + last
	want["timeout-24"] = "Avviso di mancata consegna\n" + late +
		"non è stato consegnato nelle ventiquattro ore successive al suo invio. Si\n" +
		"ritiene che la spedizione debba considerarsi non andata a buon fine.\n" + last
	want["non-acceptance"] = "Errore nell'accettazione del messaggio\n" + first + "nel messaggio\n" + second + "ed indirizzato a:\n" +
		"bob@beta.example\nmario@ordinary.example\nè stato rilevato un problema che ne impedisce l'accettazione\n" +
		"a causa di: il campo To manca; il campo Bcc non è ammesso.\nIl messaggio non è stato accettato.\n" + last
	want["anomaly"] = "Anomalia nel messaggio\n" + first + "è stato ricevuto\nil messaggio " + second + "ed indirizzato a:\n" +
		"bob@beta.example\nmario@ordinary.example\nTali dati non sono stati certificati per il seguente errore:\n" +
		"il messaggio non è firmato da un gestore\nIl messaggio originale è incluso in allegato."
	want["anomaly-bounce"] = want["anomaly"] // the sender is that of From
	want["non-acceptance-virus"] = "Errore nell'accettazione del messaggio per presenza di virus\n" + first + "nel messaggio\n" + second +
		"ed indirizzato a:\nbob@beta.example\nmario@ordinary.example\n" +
		"è stato rilevato un problema di sicurezza [Win.Test.EICAR_HDB-1].\nIl messaggio non è stato accettato.\n" + last
	want["virus"] = "Avviso di rilevazione virus informatico\n" + first + "nel messaggio\n" + second +
		"e destinato all'utente \"bob@beta.example\"\n" +
		"è stato rilevato un problema di sicurezza [Win.Test.EICAR_HDB-1].\n" + last
	want["non-delivery-virus"] = "Avviso di mancata consegna per virus\n" + first + "nel messaggio\n" +
		"\"Oggetto\" destinato all'utente \"bob@beta.example\"\n" +
		"è stato rilevato un problema di sicurezza [5.5.1 - Beta Servizi - Win.Test.EICAR_HDB-1].\n" +
		"Il messaggio non è stato consegnato.\n" + last
	ev := newEvent()
	ev.Subject = "Oggetto"
	drafts := all(t, ev, original)
	if len(drafts) != len(want) {
		t.Fatalf("%d drafts, %d texts", len(drafts), len(want))
	}
	for name, d := range drafts {
		root, err := read(t, string(signed(t, d.Draft))).Structure()
		if err != nil {
			t.Fatal(err)
		}
		got := latin(t, root.Children[0].Children[0].Children[0])
		italian, english, ok := strings.Cut(got, "\n\n"+rule+"\n\n")
		if italian != want[name] {
			t.Errorf("%s:\n%s\nwant\n%s", name, italian, want[name])
		}
		end := "\nMessage identifier: 20310704070503000abc@alfa.example\n"
		if d.Event.Kind == pec.KindAnomaly {
			end = "\nThe original message is attached.\n"
		}
		if !ok || !strings.HasSuffix(english, end) {
			t.Errorf("%s in English:\n%s", name, english)
		}
	}
}

// latin returns a text part as Unicode with LF.
func latin(t *testing.T, p *message.Part) string {
	t.Helper()
	b, err := charmap.ISO8859_1.NewDecoder().Bytes(readAll(t, p.Decoded()))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

// TestItalianOnly: without the English block nothing of it is left.
func TestItalianOnly(t *testing.T) {
	i := alfa
	i.ItalianOnly = true
	ev := newEvent()
	ev.Subject = "日本"
	ev.Detail = "errore"
	for _, issued := range []func() (Draft, error){
		func() (Draft, error) { return i.Acceptance(ev, rnd()) },
		func() (Draft, error) { return i.Transport(ev, read(t, original), message.Facts{}, rnd()) },
		func() (Draft, error) { return i.Anomaly(ev, read(t, original), message.Facts{}, rnd()) },
	} {
		d, err := issued()
		if err != nil {
			t.Fatal(err)
		}
		root, err := read(t, string(signed(t, d))).Structure()
		if err != nil {
			t.Fatal(err)
		}
		texts := root.Children[0].Children[0]
		plain, markup := latin(t, texts.Children[0]), string(readAll(t, texts.Children[1].Decoded()))
		loss := lossItalian
		if d.Event.Kind == pec.KindAnomaly {
			loss = anomalyLossItalian
		}
		if !strings.HasPrefix(plain, "Ricevuta") && !strings.HasPrefix(plain, "Messaggio") && !strings.HasPrefix(plain, "Anomalia") ||
			!strings.HasSuffix(plain, "\n\n"+loss+"\n") {
			t.Errorf("text\n%s", plain)
		}
		for _, english := range []string{rule, "<hr>", "On 04", "Message identifier", "originating", "Characters"} {
			if strings.Contains(plain, english) || strings.Contains(markup, english) {
				t.Errorf("%s holds %q", d.Event.Kind, english)
			}
		}
	}
}

func TestNearestLatin1(t *testing.T) {
	cases := []struct {
		in, want string
		lost     bool
	}{
		{"", "", false},
		{"Perché «sì» £ ½ ß", "Perché «sì» £ ½ ß", false},
		{"perche\u0301", "perché", false},
		{"‘a’ “b” „c‟ ‹d›", `'a' "b" "c" <d>`, false},
		{"– — − ‐", "- - - -", false},
		{"a… 5 € ™ •", "a... 5 EUR (TM) *", false},
		{"Łódź, Ştefan, București, Đặng, Œuvre, İıĸ", "Lódz, Stefan, Bucuresti, Dang, OEuvre, Iik", false},
		{"ﬁne ＡＢ １ ① ℃ Ⅳ", "fine AB 1 1 °C IV", false},
		{"ŉ ǿ", "'n ø", false},
		{"a\u2003b\u202fc\u200bd\ufeffe\u00adf", "a b cde\u00adf", false},
		{"x\u0323\u0301", "x", false},
		{"日本", "??", true},
		{"한", "?", true},
		{"Привет", "??????", true},
		{"👩‍👧❤️", "???", true},
		{"ﷺ", "?", true},
		{"\ufffd", "?", true},
	}
	for _, c := range cases {
		got, lost := nearestLatin1(c.in)
		if got != c.want || lost != c.lost {
			t.Errorf("%q: %q, lost %v; want %q, %v", c.in, got, lost, c.want, c.lost)
		}
	}
}

// TestAddressesExact: a similar letter would name another mailbox.
func TestAddressesExact(t *testing.T) {
	ev := newEvent()
	ev.Subject = "Oggetto"
	ev.Recipients[1].Address = "łucja@ordinary.example"
	got, err := acceptance.plain(ev)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, "\n?ucja@ordinary.example (") || !strings.HasSuffix(got, "\n\n"+lossItalian+"\n"+lossEnglish+"\n") {
		t.Errorf("text\n%s", got)
	}
}

func TestOneLine(t *testing.T) {
	in := "a\r\nb\tc\x00d\u0085e\u2028f\u2029g\u202eh\u2066i\u200fj\u061ck\x7fl"
	if got, want := oneLine(in), "a  b c d e f ghijk l"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEscapeHTML(t *testing.T) {
	if got, want := escapeHTML(`<a b='c'>&"è€😀`), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;&#232;&#8364;&#128512;"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzDraft: whatever users and other systems write, the drafts stay what
// readers need.
func FuzzDraft(f *testing.F) {
	f.Add("Richiesta", "<m@a.example>", "5.1.1 - B - no", "Testo\r\n", "A")
	f.Add("=?utf-8?q?x?=\r\n\u202e日本</h3><b>“”", "", "a\nb", "--=_\r\n\xff", "B & <figli>")
	f.Fuzz(func(t *testing.T, subject, msgid, detail, body, name string) {
		ev := newEvent()
		ev.Subject, ev.MsgID, ev.Recipient = subject, "", "bob@beta.example"
		ev.Error, ev.Detail = pec.ErrorOther, detail
		if fitsField(msgid) && utf8.ValidString(msgid) {
			ev.MsgID = strings.TrimSpace(msgid)
		}
		i := Issuer{Name: name, Address: beta.Address}
		if d, err := i.NonDelivery(ev, rnd()); err == nil && d.Event.Subject == subject {
			checkDraft(t, made{d, ""}, subject)
		}
		if d, err := i.NonAcceptance(ev, rnd()); err == nil && d.Event.Subject == subject {
			checkDraft(t, made{d, ""}, subject)
		}
		ev.Error = pec.ErrorVirus
		for _, render := range []func() (Draft, error){
			func() (Draft, error) { return i.NonAcceptance(ev, rnd()) },
			func() (Draft, error) { return i.Virus(ev, "ricevute@alfa.example", rnd()) },
			func() (Draft, error) { return i.NonDelivery(ev, rnd()) },
		} {
			if d, err := render(); err == nil && d.Event.Subject == subject {
				checkDraft(t, made{d, ""}, subject)
			}
		}
		ev.Error = pec.ErrorOther
		raw := "Subject: x\r\nMessage-ID: <x@y>\r\n\r\n" + strings.NewReplacer("\r", "", "\n", "\r\n", "\x00", "").Replace(body)
		fact := facts(t, raw)
		if d, err := i.Anomaly(ev, read(t, raw), fact, rnd()); err == nil && d.Event.Subject == subject {
			checkDraft(t, made{d, raw}, subject)
		}
		ev.Error, ev.Detail = "", ""
		if fact.LongestLine <= 998 {
			d, err := i.Delivery(ev, message.Text([]byte(raw)), fact.EightBit, rnd())
			if err == nil && d.Event.Subject == subject {
				checkDraft(t, made{d, raw}, subject)
			}
		}
	})
}
