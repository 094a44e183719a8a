package daticert

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"pecd/pec"
)

var summer = time.FixedZone("", 2*3600)

// event returns an event of kind with every field that the DTD has a place for.
func event(kind pec.Kind) pec.Event {
	return pec.Event{
		Kind:       kind,
		At:         time.Date(2031, 7, 4, 9, 5, 3, 0, summer),
		Provider:   "Gestore Alfa S.p.A. & figli",
		Identifier: "20310704070503abc@alfa.example",
		MsgID:      "<client.1@alfa.example>",
		Sender:     "alice@alfa.example",
		Recipients: []pec.Recipient{
			{Address: "bob@beta.example", Type: pec.Certified},
			{Address: "mario@ordinary.example", Type: pec.External},
		},
		ReplyTo: `"Alice <ufficio>" <alice@alfa.example>`,
		Subject: `Perché "sì" & <no>: 5 € 日本`,
		Receipt: pec.Complete,
		Error:   pec.NoError,
	}
}

// events returns one event of each kind as it is issued, and odd ones.
func events() map[string]pec.Event {
	m := map[string]pec.Event{}
	for _, k := range []pec.Kind{pec.KindTransport, pec.KindAcceptance, pec.KindNonAcceptance,
		pec.KindTakeCharge, pec.KindDelivery, pec.KindNonDelivery, pec.KindTimeout, pec.KindVirus} {
		m[string(k)] = event(k)
	}
	edit := func(name string, kind pec.Kind, f func(*pec.Event)) {
		ev := event(kind)
		f(&ev)
		m[name] = ev
	}
	edit("take-charge", pec.KindTakeCharge, func(ev *pec.Event) {
		ev.Receipt, ev.Taken = "", []pec.Address{"bob@beta.example", "bruna@beta.example"}
	})
	edit("non-delivery", pec.KindNonDelivery, func(ev *pec.Event) {
		ev.Receipt, ev.Error = "", pec.ErrorNoDest
		ev.Recipient, ev.Detail = "bob@beta.example", "5.1.1 - Beta - indirizzo non valido"
	})
	edit("virus", pec.KindVirus, func(ev *pec.Event) {
		ev.Error, ev.Recipient, ev.Detail = pec.ErrorVirus, "bob@beta.example", "Eicar"
	})
	edit("bare", pec.KindAcceptance, func(ev *pec.Event) {
		ev.MsgID, ev.ReplyTo, ev.Subject, ev.Receipt = "", "", "", ""
	})
	edit("utc", pec.KindAcceptance, func(ev *pec.Event) { ev.At = ev.At.UTC() })
	edit("west", pec.KindAcceptance, func(ev *pec.Event) {
		ev.At = ev.At.In(time.FixedZone("", -(3*3600 + 30*60)))
	})
	edit("hostile", pec.KindAcceptance, func(ev *pec.Event) {
		ev.Subject = "]]> <!-- &lt; \u202e %s \ufffd </oggetto><script> \U0001f600"
		ev.ReplyTo = "]]>"
		ev.Sender = `"a&b<c>"@alfa.example`
		ev.Recipients[0].Address = `"d&amp;e</destinatari>"@beta.example`
	})
	edit("many", pec.KindTransport, func(ev *pec.Event) {
		for i := range 1000 {
			a := pec.Address(fmt.Sprintf("r%d@beta.example", i))
			ev.Recipients = append(ev.Recipients, pec.Recipient{Address: a, Type: pec.Certified})
		}
	})
	return m
}

func TestRoundTrip(t *testing.T) {
	for name, ev := range events() {
		t.Run(name, func(t *testing.T) {
			data, err := Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(data, ev.At.Location())
			if err != nil {
				t.Fatalf("%v in\n%s", err, data)
			}
			sameEvent(t, got, ev)
		})
	}
}

// sameEvent compares all fields; the instant and its offset, not the name of
// the zone.
func sameEvent(t *testing.T, got, want pec.Event) {
	t.Helper()
	if g, w := got.At.Format(time.RFC3339Nano), want.At.Format(time.RFC3339Nano); g != w {
		t.Errorf("instant %s, want %s", g, w)
	}
	got.At, want.At = time.Time{}, time.Time{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestDTD holds what is written against the DTD with a program of others.
func TestDTD(t *testing.T) {
	for name, ev := range events() {
		t.Run(name, func(t *testing.T) {
			data, err := Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := lint(data); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, data)
			}
		})
	}
	if out, err := lint([]byte(strings.Replace(sample, "<risposte></risposte>", "", 1))); err == nil {
		t.Errorf("xmllint takes what the DTD does not hold: %s", out)
	}
}

func lint(data []byte) ([]byte, error) {
	cmd := exec.Command("xmllint", "--noout", "--nonet", "--dtdvalid", "testdata/daticert.dtd", "-")
	cmd.Stdin = bytes.NewReader(data)
	return cmd.CombinedOutput()
}

func TestMarshalText(t *testing.T) {
	ev := event(pec.KindDelivery)
	ev.Recipient = "bob@beta.example"
	data, err := Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	want := `<?xml version="1.0" encoding="UTF-8"?>
<postacert tipo="avvenuta-consegna" errore="nessuno">
    <intestazione>
        <mittente>alice@alfa.example</mittente>
        <destinatari tipo="certificato">bob@beta.example</destinatari>
        <destinatari tipo="esterno">mario@ordinary.example</destinatari>
        <risposte>&#34;Alice &lt;ufficio&gt;&#34; &lt;alice@alfa.example&gt;</risposte>
        <oggetto>Perché &#34;sì&#34; &amp; &lt;no&gt;: 5 € 日本</oggetto>
    </intestazione>
    <dati>
        <gestore-emittente>Gestore Alfa S.p.A. &amp; figli</gestore-emittente>
        <data zona="+0200">
            <giorno>04/07/2031</giorno>
            <ora>09:05:03</ora>
        </data>
        <identificativo>20310704070503abc@alfa.example</identificativo>
        <msgid>&lt;client.1@alfa.example&gt;</msgid>
        <ricevuta tipo="completa"/>
        <consegna>bob@beta.example</consegna>
    </dati>
</postacert>
`
	if string(data) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
}

func TestMarshalNormal(t *testing.T) {
	ev := event(pec.KindAcceptance)
	ev.At = ev.At.Add(999 * time.Millisecond)
	ev.Identifier = "<" + ev.Identifier + ">"
	ev.Error = ""
	ev.Subject = " a\r\nb\x00c\tö\xff\uffff\u0085d "
	data, err := Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := lint(data); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, data)
	}
	got, err := Parse(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := event(pec.KindAcceptance)
	want.Subject = "a  b c ö\ufffd\ufffd d"
	sameEvent(t, got, want)
	sameEvent(t, Normal(ev), want)
}

func TestMarshalRefuses(t *testing.T) {
	many := make([]pec.Recipient, MaxRecipients+1)
	for i := range many {
		many[i] = pec.Recipient{Address: "a@b", Type: pec.Certified}
	}
	cases := map[string]struct {
		edit func(*pec.Event)
		want error
	}{
		"no kind":        {func(ev *pec.Event) { ev.Kind = "" }, ErrInvalid},
		"no sender":      {func(ev *pec.Event) { ev.Sender = " \n" }, ErrInvalid},
		"no provider":    {func(ev *pec.Event) { ev.Provider = "" }, ErrInvalid},
		"no identifier":  {func(ev *pec.Event) { ev.Identifier = "<>" }, ErrInvalid},
		"no recipients":  {func(ev *pec.Event) { ev.Recipients = nil }, ErrInvalid},
		"no instant":     {func(ev *pec.Event) { ev.At = time.Time{} }, ErrInvalid},
		"far year":       {func(ev *pec.Event) { ev.At = ev.At.AddDate(9000, 0, 0) }, ErrInvalid},
		"odd zone":       {func(ev *pec.Event) { ev.At = ev.At.In(time.FixedZone("", 61)) }, ErrInvalid},
		"wide zone":      {func(ev *pec.Event) { ev.At = ev.At.In(time.FixedZone("", 24*3600)) }, ErrInvalid},
		"empty address":  {func(ev *pec.Event) { ev.Recipients[0].Address = "" }, ErrInvalid},
		"no type":        {func(ev *pec.Event) { ev.Recipients[0].Type = "" }, ErrInvalid},
		"odd error":      {func(ev *pec.Event) { ev.Error = "guasto" }, ErrInvalid},
		"odd receipt":    {func(ev *pec.Event) { ev.Receipt = "lunga" }, ErrInvalid},
		"empty taken":    {func(ev *pec.Event) { ev.Taken = []pec.Address{""} }, ErrInvalid},
		"too many":       {func(ev *pec.Event) { ev.Recipients = many }, ErrLimit},
		"too large":      {func(ev *pec.Event) { ev.Subject = strings.Repeat("&", MaxSize/5) }, ErrLimit},
		"too many taken": {func(ev *pec.Event) { ev.Taken = make([]pec.Address, MaxRecipients+1) }, ErrLimit},
	}
	for name, c := range cases {
		ev := event(pec.KindAcceptance)
		c.edit(&ev)
		if _, err := Marshal(ev); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestNormalLeavesItsArgument(t *testing.T) {
	ev := event(pec.KindTakeCharge)
	ev.Recipients[0].Address, ev.Taken = " bob@beta.example", []pec.Address{" x@y"}
	Normal(ev)
	if ev.Recipients[0].Address != " bob@beta.example" || ev.Taken[0] != " x@y" {
		t.Error("Normal changed the caller's slices")
	}
}

func TestVirusRecipient(t *testing.T) {
	for _, element := range []string{"consegna", "ricezione"} {
		text := strings.Replace(sample, `tipo="accettazione"`, `tipo="rilevazione-virus"`, 1)
		text = strings.Replace(text, "</dati>", "<"+element+">bob@beta.example</"+element+"></dati>", 1)
		ev, err := Parse([]byte(text), nil)
		if err != nil || ev.Recipient != "bob@beta.example" || ev.Taken != nil {
			t.Errorf("%s: recipient %q, taken %q, %v", element, ev.Recipient, ev.Taken, err)
		}
	}
}
