package issue

import (
	"strings"
	"testing"
	"unicode/utf8"

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
		"delivery-brief":    "Ricevuta di avvenuta consegna\n" + delivered,
		"delivery-copy":     "Ricevuta sintetica di avvenuta consegna\n" + delivered,
		"delivery-concise":  "Ricevuta sintetica di avvenuta consegna\n" + delivered,
		"non-delivery": "Avviso di mancata consegna\n" + first + "nel messaggio\n" + second +
			"e destinato all'utente \"bob@beta.example\"\n" +
			"è stato rilevato un errore 5.1.1 - Beta Servizi - indirizzo non valido.\n" +
			"Il messaggio è stato rifiutato dal sistema.\n" + last,
	}
	ev := newEvent()
	ev.Subject = "Oggetto"
	models := map[string]model{
		"acceptance": acceptance, "transport": transport, "take-charge": takeCharge, "non-delivery": nonDelivery,
		"delivery-complete": deliveryComplete, "delivery-brief": deliveryComplete,
		"delivery-copy": deliveryConcise, "delivery-concise": deliveryConcise,
	}
	for name, d := range all(t, ev, original) {
		got, err := models[name].plain(d.Event)
		if err != nil {
			t.Fatal(err)
		}
		italian, english, ok := strings.Cut(got, "\n\n"+rule+"\n\n")
		if italian != want[name] {
			t.Errorf("%s:\n%s\nwant\n%s", name, italian, want[name])
		}
		if !ok || !strings.HasSuffix(english, "\nMessage identifier: 20310704070503000abc@alfa.example\n") {
			t.Errorf("%s in English:\n%s", name, english)
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
		ev.Error, ev.Detail = "", ""
		raw := "Subject: x\r\nMessage-ID: <x@y>\r\n\r\n" + strings.NewReplacer("\r", "", "\n", "\r\n", "\x00", "").Replace(body)
		if fact := facts(t, raw); fact.LongestLine <= 998 {
			d, err := i.Delivery(ev, message.Text([]byte(raw)), fact.EightBit, rnd())
			if err == nil && d.Event.Subject == subject {
				checkDraft(t, made{d, raw}, subject)
			}
		}
	})
}
