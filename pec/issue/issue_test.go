package issue

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/message"
)

var update = flag.Bool("update", false, "write the .want files anew; read them then")

var (
	alfa = Issuer{Name: "Alfa PEC S.p.A.", Address: "posta-certificata@alfa.example"}
	beta = Issuer{Name: "Beta Servizi", Address: "posta-certificata@beta.example"}
	rome = time.FixedZone("CEST", 2*3600)
)

// rnd returns randomness that is the same in each run.
func rnd() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

func newEvent() pec.Event {
	return pec.Event{
		At:         time.Date(2031, 7, 4, 9, 5, 3, 987654321, rome),
		Identifier: "20310704070503000abc@alfa.example",
		MsgID:      "<client.1@alfa.example>",
		Sender:     "alice@alfa.example",
		Recipients: []pec.Recipient{
			{Address: "bob@beta.example", Type: pec.Certified},
			{Address: "mario@ordinary.example", Type: pec.External},
		},
		ReplyTo: "ufficio@alfa.example",
		Subject: "Perché sì: 5 € per «Łódź»",
		Receipt: pec.Complete,
	}
}

// original has what a client may well send: odd folds and spacing, several
// fields to be inherited, 7-bit body.
const original = "Received: from client.alfa.example ([192.0.2.9])\r\n\tby mx.alfa.example; Fri, 4 Jul 2031 09:05:01 +0200\r\n" +
	"Received:from  inner\r\n" +
	"Return-path: <alice@alfa.example>\r\n" +
	"From: Alice <alice@alfa.example>\r\n" +
	"to:  Bob\r\n <bob@beta.example> ,\r\n\tmario@ordinary.example \r\n" +
	"Cc:\r\n =?UTF-8?Q?Brun=C3=A0?= <bruna@beta.example>\r\n" +
	"Reply-To: ufficio@alfa.example\r\n" +
	"message-id: <client.1@alfa.example>\r\n" +
	"Subject: =?UTF-8?B?UGVyY2jDqQ==?=\r\n" +
	"X-TipoRicevuta: completa\r\n" +
	"\r\n" +
	"Testo.\r\n--=_\r\n.\r\nFrom qui\r\nfine senza riga"

// parcel returns raw with its body as the text of a multipart with attachments of
// the kinds that a brief receipt replaces, and some that it does not.
func parcel(raw string) string {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	return head + "\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\n\r\nPreambolo.\r\n--outer\r\n" +
		"Content-Type: multipart/related; boundary=inner\r\n\r\n--inner\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n" +
		body + "\r\n--inner\r\nContent-ID: <logo>\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: inline; filename=logo.png\r\n\r\niVBORw0KGgo=\r\n--inner--\r\n--outer\r\n" +
		"Content-Type: application/pdf; name=\"=?UTF-8?Q?perch=C3=A9.pdf?=\"\r\nContent-Transfer-Encoding: base64\r\n" +
		"Content-Description: delibera\r\n\r\nJVBERi0xLjQK\r\nJSVFT0YK\r\n\r\n--outer\r\nContent-Type: message/rfc822\r\n\r\n" +
		"Subject: allegato\r\n\r\nTesto dell'allegato.\r\n--outer--\r\nEpilogo.\r\n"
}

func read(t testing.TB, s string) *message.Message {
	t.Helper()
	m, err := message.Read(message.Bytes(s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func facts(t testing.TB, s string) message.Facts {
	t.Helper()
	f, err := message.ScanContent(message.Text([]byte(s)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A made draft is one that a test checks, with what it must carry.
type made struct {
	Draft
	postacert string // "" if none
}

// carries reports whether d is to carry postacert.eml, which may be empty.
func (d made) carries() bool { return d.postacert != "" || d.Event.Kind == pec.KindAnomaly }

// all returns one draft of each kind for base.
func all(t testing.TB, base pec.Event, raw string) map[string]made {
	t.Helper()
	must := func(d Draft, err error) Draft {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	ev := base
	drafts := map[string]made{
		"acceptance": {must(alfa.Acceptance(ev, rnd())), ""},
	}
	m, f := read(t, raw), facts(t, raw)
	d := must(alfa.Transport(ev, m, f, rnd()))
	inside := string(bytesOf(t, message.Relabel(m, ev.Identifier, ev.MsgID)))
	drafts["transport"] = made{d, inside}

	drafts["anomaly"] = made{must(beta.Anomaly(reported(ev), m, f, rnd())), raw}
	bounce := reported(ev)
	bounce.Sender = ""
	drafts["anomaly-bounce"] = made{must(beta.Anomaly(bounce, m, f, rnd())), raw}

	ev.Detail = "il campo To manca; il campo Bcc non è ammesso"
	drafts["non-acceptance"] = made{must(alfa.NonAcceptance(ev, rnd())), ""}

	ev.Taken = []pec.Address{ev.Recipients[0].Address}
	drafts["take-charge"] = made{must(beta.TakeCharge(ev, "ricevute@alfa.example", rnd())), ""}

	ev.Recipient = ev.Recipients[0].Address
	drafts["timeout-12"] = made{must(alfa.Timeout(ev, 12, rnd())), ""}
	drafts["timeout-24"] = made{must(alfa.Timeout(ev, 24, rnd())), ""}
	carried := message.Text([]byte(inside))
	drafts["delivery-complete"] = made{must(beta.Delivery(ev, carried, f.EightBit, rnd())), inside}
	drafts["delivery-copy"] = made{must(beta.Delivery(ev, nil, f.EightBit, rnd())), ""}
	ev.Receipt = pec.Brief
	short, err := Brief(read(t, parcel(inside)), nil)
	if err != nil {
		t.Fatal(err)
	}
	drafts["delivery-brief"] = made{must(beta.Delivery(ev, short, f.EightBit, rnd())), string(bytesOf(t, short))}
	ev.Receipt = pec.Concise
	drafts["delivery-concise"] = made{must(beta.Delivery(ev, carried, f.EightBit, rnd())), ""}

	ev.Error, ev.Detail = pec.ErrorNoDest, "5.1.1 - Beta Servizi - indirizzo non valido"
	drafts["non-delivery"] = made{must(beta.NonDelivery(ev, rnd())), ""}

	ev.Error, ev.Detail = pec.ErrorVirus, "Win.Test.EICAR_HDB-1"
	drafts["virus"] = made{must(beta.Virus(ev, "ricevute@alfa.example", rnd())), ""}
	drafts["non-acceptance-virus"] = made{must(alfa.NonAcceptance(ev, rnd())), ""}
	ev.Detail = "5.5.1 - Beta Servizi - Win.Test.EICAR_HDB-1"
	drafts["non-delivery-virus"] = made{must(alfa.NonDelivery(ev, rnd())), ""}
	return drafts
}

// reported returns ev as the event of an anomaly.
func reported(ev pec.Event) pec.Event {
	ev.Identifier, ev.Detail = "20310704070503000def@beta.example", "il messaggio non è firmato da un gestore"
	return ev
}

func bytesOf(t testing.TB, c message.Content) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// signed returns d in the form that package signer gives it, with a signature
// that signs nothing.
func signed(t testing.TB, d Draft) []byte {
	t.Helper()
	var b bytes.Buffer
	b.Write(d.Header)
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pkcs7-signature\";" +
		" micalg=\"sha-256\";\r\n boundary=\"" + d.Boundary + "\"\r\n")
	if d.EightBit {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n--" + d.Boundary + "\r\n")
	b.Write(bytesOf(t, d.Entity))
	b.WriteString("\r\n--" + d.Boundary + "\r\nContent-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\nTk8=\r\n--" + d.Boundary + "--\r\n")
	return b.Bytes()
}

// TestGolden holds every kind against a file that somebody has read.
func TestGolden(t *testing.T) {
	eight := strings.Replace(original, "Testo.", "Perch\xe9, perch\u00e9?", 1)
	eight = strings.Replace(eight, "to:  Bob", "to:  Bob\xf2", 1)
	hostile := newEvent()
	hostile.Subject = "<b>x</b>\r\nX-Ricevuta: no \u202eabc\u2028日本 &amp; “q” =?UTF-8?Q?a?="
	hostile.MsgID, hostile.ReplyTo = "", ""
	sets := map[string]map[string]made{
		"01": all(t, newEvent(), original),
		"02": all(t, hostile, eight),
	}
	for number, drafts := range sets {
		for name, d := range drafts {
			golden(t, name+"-"+number, signed(t, d.Draft))
			if d.Event.Kind != pec.KindAnomaly {
				lint(t, d.Draft)
			}
		}
	}
}

// TestGoldenRegister: what receipts look like that say how far the register was
// (docs/evidence.md). The field is in what is signed, and nowhere else.
func TestGoldenRegister(t *testing.T) {
	i := alfa
	i.Register = "seq=1234; chain=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	d, err := i.Acceptance(newEvent(), rnd())
	if err != nil {
		t.Fatal(err)
	}
	if field := []byte(pec.HeaderRegister + ":"); bytes.Contains(d.Header, field) || bytes.Count(bytesOf(t, d.Entity), field) != 1 {
		t.Error("the field is not in what is signed alone")
	}
	golden(t, "acceptance-register-01", signed(t, d))
	lint(t, d)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".want")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from %s; see the .got beside it", name, file)
		if err := os.WriteFile(strings.TrimSuffix(file, "want")+"got", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// lint holds the certification data of d against the DTD with xmllint.
func lint(t *testing.T, d Draft) {
	t.Helper()
	root, err := read(t, string(signed(t, d))).Structure()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("xmllint", "--noout", "--nonet", "--dtdvalid", "../daticert/testdata/daticert.dtd", "-")
	cmd.Stdin = root.Children[0].Children[1].Decoded()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
