package issue

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/message"
)

const ordinary = "From: Mario <mario@ordinary.example>\r\nTo: bob@beta.example\r\nMessage-ID: <m@ordinary.example>\r\nSubject: x\r\n\r\nTesto.\r\n"

func anomalyEvent() pec.Event {
	ev := newEvent()
	ev.Sender, ev.Identifier, ev.Detail = "mario@ordinary.example", "20310704070503000def@beta.example", "il messaggio non è firmato"
	ev.Recipients = []pec.Recipient{{Address: "bob@beta.example"}}
	return ev
}

// field returns the fields of that name in d's header.
func field(t *testing.T, d Draft, name string) string {
	t.Helper()
	return string(read(t, string(d.Header)+"\r\n").Header.Raw(name))
}

func TestAnomalySender(t *testing.T) {
	const noFrom = "To: bob@beta.example\r\n\r\nTesto.\r\n"
	cases := map[string]struct {
		sender          pec.Address
		raw             string
		shown, from     string
		replyTo, inText string
	}{
		"reverse path": {"eve@ordinary.example", ordinary, "eve@ordinary.example", "eve@ordinary.example", "Reply-To: eve@ordinary.example\r\n", ""},
		"bounce":       {"", ordinary, "mario@ordinary.example", "mario@ordinary.example", "Reply-To: mario@ordinary.example\r\n", ""},
		"bounce of several": {"", strings.Replace(ordinary, "From: ", "From: \"a\" <a@b.example>, ", 1),
			"a@b.example", "a@b.example", "Reply-To: a@b.example\r\n", ""},
		"nobody":      {"", noFrom, "mittente sconosciuto", "mittente sconosciuto", "", ""},
		"broken From": {"", "From: <<x\r\n" + noFrom, "mittente sconosciuto", "mittente sconosciuto", "", ""},
		"no address":  {"", "From: x:;\r\n" + noFrom, "mittente sconosciuto", "mittente sconosciuto", "", ""},
		"brackets in From": {"", "From: \"a> b\"@c.example\r\n" + noFrom,
			"mittente sconosciuto", "mittente sconosciuto", "", ""},
		"quoted in From": {"", "From: \"a b\"@ordinary.example\r\n" + noFrom, `"a b"@ordinary.example`, `\"a b\"@ordinary.example`, "Reply-To: \"a b\"@ordinary.example\r\n", ""},
		"UTF-8, 7-bit":   {"łu@ordinary.example", noFrom, "łu@ordinary.example", "?u@ordinary.example", "", "?u@ordinary.example"},
		"UTF-8, 8-bit":   {"łu@ordinary.example", noFrom + "è\r\n", "łu@ordinary.example", "?u@ordinary.example", "Reply-To: łu@ordinary.example\r\n", "?u@ordinary.example"},
		"its own answer": {"eve@ordinary.example", "reply-to: <<x\r\n" + ordinary, "eve@ordinary.example", "eve@ordinary.example", "reply-to: <<x\r\n", ""},
		"two answers": {"eve@ordinary.example", "Reply-To: a@b.example\r\nReply-To: c@d.example\r\n" + ordinary,
			"eve@ordinary.example", "eve@ordinary.example", "Reply-To: a@b.example\r\n", ""},
	}
	for name, c := range cases {
		ev := anomalyEvent()
		ev.Sender = c.sender
		d, err := beta.Anomaly(ev, read(t, c.raw), facts(t, c.raw), rnd())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.From != c.sender || d.NullSender != (c.sender == "") || d.Event.Sender != c.sender || len(d.To) != 1 || d.To[0] != "bob@beta.example" {
			t.Errorf("%s: envelope from %q (null %v) to %q", name, d.From, d.NullSender, d.To)
		}
		want := `From: "Per conto di: ` + c.from + `" <posta-certificata@beta.example>` + "\r\n"
		if got := field(t, d, "From"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got := field(t, d, "Reply-To"); got != c.replyTo {
			t.Errorf("%s: %q, want %q", name, got, c.replyTo)
		}
		root, err := read(t, string(signed(t, d))).Structure()
		if err != nil {
			t.Fatal(err)
		}
		texts := root.Children[0].Children[0]
		markup := string(readAll(t, texts.Children[1].Decoded()))
		if !strings.Contains(markup, ` proveniente da &quot;`+escapeHTML(c.shown)+"&quot;<br>") {
			t.Errorf("%s: HTML\n%s", name, markup)
		}
		if c.inText == "" {
			c.inText = c.shown
		}
		if plain := latin(t, texts.Children[0]); !strings.Contains(plain, ` proveniente da "`+c.inText+"\"\n") {
			t.Errorf("%s: text\n%s", name, plain)
		}
		checkOriginal(t, made{d, c.raw}, root.Children[0].Children[1])
	}
}

func TestAnomalyMessageID(t *testing.T) {
	const fresh = ""
	long := strings.Repeat("a", 930)
	for given, want := range map[string]string{
		"Message-ID: <m@ordinary.example>\r\n":                       "m@ordinary.example",
		"message-id:\r\n\t<m@ordinary.example> \r\n":                 "m@ordinary.example",
		"Message-ID: <" + long + "@o.example>\r\n":                   long + "@o.example",
		"Message-ID: <no-domain>\r\n":                                "no-domain",
		"":                                                           fresh,
		"Message-ID: m@ordinary.example\r\n":                         fresh,
		"Message-ID: <>\r\n":                                         fresh,
		"Message-ID: <a@b> <c@d>\r\n":                                fresh,
		"Message-ID: <a b@c>\r\n":                                    fresh,
		"Message-ID: <a@b> (comment)\r\n":                            fresh,
		"Message-ID: <a\r\n @b>\r\n":                                 fresh,
		"Message-ID: <\u00e8@b>\r\n":                                 fresh,
		"Message-ID: <" + long + strings.Repeat("a", 20) + "@b>\r\n": fresh,
		"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n":                 fresh,
		"Message-ID: <a@b>\r\nMessage-ID: <a@b>\r\n":                 fresh,
	} {
		raw := "To: bob@beta.example\r\n" + given + "\r\nTesto.\r\n"
		d, err := beta.Anomaly(anomalyEvent(), read(t, raw), facts(t, raw), rnd())
		if err != nil {
			t.Errorf("%q: %v", given, err)
			continue
		}
		line := field(t, d, "Message-ID")
		switch {
		case want == fresh && (!strings.HasPrefix(d.MessageID, "20310704070503") || line != "Message-ID: <"+d.MessageID+">\r\n"):
			t.Errorf("%q became %q, %q", given, d.MessageID, line)
		case want != fresh && (d.MessageID != want || line != given):
			t.Errorf("%q became %q, %q", given, d.MessageID, line)
		}
		if bytes.Contains(d.Header, []byte(pec.HeaderReference)) {
			t.Errorf("%q: a reference to what nobody here accepted", given)
		}
	}
}

// TestAnomalyFields: the envelope is well formed whatever it holds.
func TestAnomalyFields(t *testing.T) {
	raw := "Received: 1\r\nreturn-path: <x@y.example>\r\nTO :a@b.example\r\n c@d.example\r\nReceived: 2\r\nTo: other\r\nCc: e\r\nCC: f\r\n" +
		"X-Ricevuta: accettazione\r\nX-Trasporto: posta-certificata\r\nDate: yesterday\r\nSubject: y\r\nSender: z@y.example\r\n" +
		"MIME-Version: 9\r\nContent-Type: x/y\r\nDKIM-Signature: z\r\n\r\nTesto.\r\n"
	d, err := beta.Anomaly(anomalyEvent(), read(t, raw), facts(t, raw), rnd())
	if err != nil {
		t.Fatal(err)
	}
	want := "return-path: <x@y.example>\r\nReceived: 1\r\nReceived: 2\r\nDate: Fri, 4 Jul 2031 09:05:03 +0200\r\n" +
		"From: \"Per conto di: mario@ordinary.example\" <posta-certificata@beta.example>\r\nReply-To: mario@ordinary.example\r\n" +
		"TO :a@b.example\r\n c@d.example\r\nCc: e\r\nMessage-ID: <" + d.MessageID + ">\r\n" +
		"Subject: ANOMALIA MESSAGGIO: =?UTF-8?B?UGVyY2jDqSBzw6w6IDUg4oKsIHBlciA=?=\r\n =?UTF-8?B?wqvFgcOzZMW6wrs=?=\r\nX-Trasporto: errore\r\n"
	if string(d.Header) != want {
		t.Errorf("header\n%s\nwant\n%s", d.Header, want)
	}
	ev := d.Event
	if ev.Kind != pec.KindAnomaly || ev.Provider != beta.Name || ev.Error != pec.ErrorOther || ev.Receipt != "" || ev.At.Nanosecond() != 0 || !d.Original {
		t.Errorf("event %+v", ev)
	}
	raw = "Cc: bob@beta.example\r\n\r\n"
	d, err = beta.Anomaly(anomalyEvent(), read(t, raw), facts(t, raw), rnd())
	if to := field(t, d, "To"); err != nil || to != "To: undisclosed-recipients:;\r\n" {
		t.Errorf("without To: %q, %v", to, err)
	}
}

func TestAnomalyRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Issuer, *pec.Event){
		"no name":              func(i *Issuer, _ *pec.Event) { i.Name = "" },
		"no address":           func(i *Issuer, _ *pec.Event) { i.Address = "" },
		"no detail":            func(_ *Issuer, ev *pec.Event) { ev.Detail = " \n" },
		"no recipients":        func(_ *Issuer, ev *pec.Event) { ev.Recipients = nil },
		"empty recipient":      func(_ *Issuer, ev *pec.Event) { ev.Recipients[0].Address = "" },
		"recipient, brackets":  func(_ *Issuer, ev *pec.Event) { ev.Recipients[0].Address = "<bob@beta.example>" },
		"recipient, lines":     func(_ *Issuer, ev *pec.Event) { ev.Recipients[0].Address = "bob@beta.example\r\nDATA" },
		"sender, null":         func(_ *Issuer, ev *pec.Event) { ev.Sender = "<>" },
		"sender, no domain":    func(_ *Issuer, ev *pec.Event) { ev.Sender = "mario" },
		"sender, blank":        func(_ *Issuer, ev *pec.Event) { ev.Sender = "a b@ordinary.example" },
		"sender, quoted blank": func(_ *Issuer, ev *pec.Event) { ev.Sender = `"a b"@ordinary.example` },
		"sender, quoted tab":   func(_ *Issuer, ev *pec.Event) { ev.Sender = "\"a\tb>\"@ordinary.example" },
		"sender, quoted end":   func(_ *Issuer, ev *pec.Event) { ev.Sender = `"a> SIZE=1 b"@ordinary.example` },
		"sender, no UTF-8":     func(_ *Issuer, ev *pec.Event) { ev.Sender = "\xe8@ordinary.example" },
		"sender, long":         func(_ *Issuer, ev *pec.Event) { ev.Sender = pec.Address(strings.Repeat("a", 320) + "@b.example") },
		"no instant":           func(_ *Issuer, ev *pec.Event) { ev.At = time.Time{} },
		"before Christ":        func(_ *Issuer, ev *pec.Event) { ev.At = ev.At.AddDate(-3000, 0, 0) },
		"far future":           func(_ *Issuer, ev *pec.Event) { ev.At = ev.At.AddDate(9000, 0, 0) },
	} {
		i, ev := beta, anomalyEvent()
		edit(&i, &ev)
		d, err := i.Anomaly(ev, read(t, ordinary), facts(t, ordinary), rnd())
		if !errors.Is(err, ErrEvent) || errors.Is(err, ErrUnwrappable) || d.Entity != nil || d.Header != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string]string{
		"long line": ordinary + strings.Repeat("x", 999) + "\r\n",
		"NUL":       ordinary + "\x00\r\n",
		"bare CR":   ordinary + "a\rb\r\n",
		"bare LF":   ordinary + "a\nb\r\n",
		"header":    "Cc: " + strings.Repeat("a@b.example,\r\n ", 69750) + "c@d.example\r\n\r\n",
	} {
		d, err := beta.Anomaly(anomalyEvent(), read(t, raw), facts(t, raw), rnd())
		if !errors.Is(err, ErrUnwrappable) || d.Entity != nil || d.Header != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := beta.Anomaly(anomalyEvent(), read(t, ordinary), facts(t, ordinary+strings.Repeat("x", 998)), rnd()); err != nil {
		t.Errorf("a line of 998 octets: %v", err)
	}
	for n := range 75 {
		d, err := beta.Anomaly(anomalyEvent(), read(t, "\r\n"), message.Facts{}, io.LimitReader(rnd(), int64(n)))
		if err == nil || errors.Is(err, ErrEvent) || d.Entity != nil {
			t.Errorf("%d octets of randomness: %v", n, err)
		}
	}
}

// TestAnomalyIsARange: what arrived stays where it is stored, all of it.
func TestAnomalyIsARange(t *testing.T) {
	m := spooled(t, 30<<20)
	d, err := beta.Anomaly(anomalyEvent(), m, message.Facts{}, rnd())
	if err != nil {
		t.Fatal(err)
	}
	var found bool
	for _, p := range d.Entity {
		if p.Source != nil {
			found = p.Range == message.Range{Off: 0, Len: 30 << 20}
		} else if p.Size() > 8<<10 {
			t.Errorf("%d octets are written", p.Size())
		}
	}
	if !found {
		t.Error("the message is not in one piece")
	}
}
