package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/daticert"
)

// oddMessage has what a signature and a byte range must survive: odd spacing and
// folding of fields, a subject of several encoded words, 8-bit text, dots, blanks
// at line ends, and an attachment of 1 MB.
func oddMessage() []byte {
	attachment := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(attachment)
	var b bytes.Buffer
	b.WriteString("Received: from [192.0.2.7] by client.example;\r\n\tSun, 22 Nov 2026 10:00:00 +0100\r\n" +
		"X-Odd:no blank after the colon\r\n" +
		"X-Empty:\r\nX-Blank: \r\n" +
		"X-Tab:\ttab first,   and   runs of blanks   \r\n" +
		"fRoM:  \"Rossi, Alice\"  <alice@alfa.example>\r\n" +
		"To: Bob <bob@beta.example>,\r\n  \t bruna@beta.example ,\r\n anna@alfa.example\r\n" +
		"CC:mario@ordinary.example\r\n" +
		"Subject: =?utf-8?q?Perch=C3=A9_la_societ=C3=A0_=C3=A8_lieta_di_confermare_?=\r\n" +
		" =?utf-8?q?l=27offerta=3A_modalit=C3=A0=2C_quantit=C3=A0_e_validit=C3=A0_=E2=82=AC?=\r\n" +
		"Message-Id:   <odd-1@client.alfa.example>  \r\n" +
		"X-Raw: citt\xc3\xa0 8-bit \xe0\r\n" +
		"Date: Sun, 22 Nov 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed;\r\n boundary=\"= odd boundary ?=\"\r\n\r\n" +
		"preamble\r\n--= odd boundary ?=\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		"Perch\xc3\xa9 no? \xe2\x82\xac 100   \r\n.\r\n..\r\n.dot\r\nFrom here on\r\n\t\r\n" + strings.Repeat("x", 998) + "\r\n\r\n" +
		"--= odd boundary ?=\r\nContent-Type: application/octet-stream; name=\"dati.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	enc := base64.StdEncoding.EncodeToString(attachment)
	for len(enc) > 76 {
		b.WriteString(enc[:76] + "\r\n")
		enc = enc[76:]
	}
	b.WriteString(enc + "\r\n--= odd boundary ?=--\r\nepilogue\r\n\r\n\r\n")
	return b.Bytes()
}

const oddSubject = "Perché la società è lieta di confermare l'offerta: modalità, quantità e validità €"

// mail is a message in a mailbox, read with as little of our own code as will do.
type mail struct {
	raw      []byte
	event    pec.Event
	xml      []byte
	original []byte // postacert.eml, nil without one
}

// TestMessage sends one message to two recipients of another provider, one of
// the same, and one of ordinary mail, and looks at all that follows.
func TestMessage(t *testing.T) {
	s := newStage(t)
	raw := oddMessage()
	certified := []string{"bob@beta.example", "bruna@beta.example", "anna@alfa.example"}
	reply, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", append(certified, "mario@ordinary.example"), raw)
	if err != nil {
		t.Fatalf("%v (%s)", err, reply)
	}
	want := map[string]map[pec.Kind]int{
		"alice@alfa.example":             {pec.KindAcceptance: 1, pec.KindDelivery: 3},
		"anna@alfa.example":              {pec.KindTransport: 1},
		"ricevute@alfa.example":          {pec.KindTakeCharge: 2},
		"posta-certificata@alfa.example": {},
		"bob@beta.example":               {pec.KindTransport: 1},
		"bruna@beta.example":             {pec.KindTransport: 1},
		"ricevute@beta.example":          {},
		"posta-certificata@beta.example": {},
		"mario@ordinary.example":         {pec.KindTransport: 1},
	}
	boxes := collect(t, s, want)
	settled(t, s)
	for address, n := range want {
		if mails, err := s.Mailbox(within(t), address); err != nil || len(mails) != total(n) {
			t.Errorf("%s has %d messages at the end (%v), want %d", address, len(mails), err, total(n))
		}
	}

	id := boxes["bob@beta.example"][0].event.Identifier
	original := relabelled(t, raw, id)
	for address, mails := range boxes {
		kinds := map[pec.Kind]int{}
		for _, m := range mails {
			kinds[m.event.Kind]++
			checkSigned(t, s, address, m)
			checkEvent(t, address, m.event, id)
			if carries := m.event.Kind == pec.KindTransport || m.event.Kind == pec.KindDelivery; carries != (m.original != nil) {
				t.Errorf("%s: %s carries the original: %v", address, m.event.Kind, m.original != nil)
			} else if carries && !bytes.Equal(m.original, original) {
				t.Errorf("%s: postacert.eml of %s is not what was sent: %s", address, m.event.Kind, firstDifference(m.original, original))
			}
		}
		for kind, n := range kinds {
			if want[address][kind] != n {
				t.Errorf("%s has %d %s, want %d", address, n, kind, want[address][kind])
			}
		}
	}
	checkReceipts(t, boxes["alice@alfa.example"], certified)
	checkTaken(t, boxes["ricevute@alfa.example"], certified)
	checkInherited(t, boxes["bob@beta.example"][0].raw)
	checkRegister(t, s, id)
}

// collect waits until every mailbox holds as many messages as it should.
func collect(t *testing.T, s *stage.Stage, want map[string]map[pec.Kind]int) map[string][]mail {
	t.Helper()
	boxes := map[string][]mail{}
	for address, kinds := range want {
		mails, err := s.WaitMail(within(t), address, stage.Count(total(kinds)))
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		for _, raw := range mails {
			boxes[address] = append(boxes[address], read(t, raw))
		}
	}
	return boxes
}

func total(kinds map[pec.Kind]int) (n int) {
	for _, k := range kinds {
		n += k
	}
	return n
}

// settled waits until nothing is under way: no outbox, no queue.
func settled(t *testing.T, s *stage.Stage) {
	t.Helper()
	ctx := within(t)
	for {
		busy := ""
		for _, p := range s.Providers() {
			queue, err := p.Queue(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if n := metric(t, p, "pecd_outbox_messages"); n != 0 || len(queue) > 0 {
				busy = fmt.Sprintf("%s: %v messages in the outbox, queue %v", p.Label, n, queue)
			}
		}
		if busy == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it does not come to rest: %s", busy)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var (
	dataPart     = regexp.MustCompile(`(?s)Content-Type: application/xml; name="daticert\.xml"\r\n.*?\r\n\r\n(.*?)\r\n--`)
	originalPart = regexp.MustCompile(`(?s)\r\n--([^\r\n]+)\r\nContent-Type: message/rfc822; name="postacert\.eml"\r\n.*?\r\n\r\n`)
)

// read takes a message apart by searching for what must be there.
func read(t *testing.T, raw []byte) mail {
	t.Helper()
	m := mail{raw: raw}
	data := dataPart.FindSubmatch(raw)
	if data == nil {
		t.Fatalf("no daticert.xml in\n%.3000s", raw)
	}
	var err error
	if m.xml, err = base64.StdEncoding.DecodeString(strings.NewReplacer("\r", "", "\n", "").Replace(string(data[1]))); err != nil {
		t.Fatal(err)
	}
	if m.event, err = daticert.Parse(m.xml, nil); err != nil {
		t.Fatal(err)
	}
	if at := originalPart.FindSubmatchIndex(raw); at != nil {
		rest := raw[at[1]:]
		end := bytes.Index(rest, []byte("\r\n--"+string(raw[at[2]:at[3]])))
		if end < 0 {
			t.Fatal("postacert.eml does not end")
		}
		m.original = rest[:end]
	}
	return m
}

// relabelled is raw with what RFC 6109, 2.2.1 changes, done by hand.
func relabelled(t *testing.T, raw []byte, id pec.Identifier) []byte {
	t.Helper()
	old := []byte("Message-Id:   <odd-1@client.alfa.example>  \r\n")
	if !bytes.Contains(raw, old) {
		t.Fatal("the message has another Message-ID")
	}
	out := bytes.Replace(raw, old, []byte("Message-Id: <"+string(id)+">\r\n"), 1)
	return bytes.Replace(out, []byte("\r\n\r\n"), []byte("\r\nX-Riferimento-Message-ID: <odd-1@client.alfa.example>\r\n\r\n"), 1)
}

func firstDifference(a, b []byte) string {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return fmt.Sprintf("octet %d: %q, want %q", i, a[max(0, i-40):min(len(a), i+40)], b[max(0, i-40):min(len(b), i+40)])
		}
	}
	return fmt.Sprintf("%d octets, want %d", len(a), len(b))
}

// checkSigned reads the message as a mail client would, has OpenSSL verify the message and xmllint its certification data.
func checkSigned(t *testing.T, s *stage.Stage, address string, m mail) {
	t.Helper()
	checkForm(t, address, m)
	signer, err := s.Verify(within(t), m.raw)
	if err != nil {
		t.Errorf("%s: %s: %v", address, m.event.Kind, err)
	}
	if from := "posta-certificata@" + map[string]string{"Alfa PEC S.p.A.": "alfa.example", "Beta PEC S.p.A.": "beta.example"}[m.event.Provider]; signer != from {
		t.Errorf("%s: %s by %s is signed by %s", address, m.event.Kind, m.event.Provider, signer)
	}
	file := filepath.Join(t.TempDir(), "daticert.xml")
	if err := os.WriteFile(file, m.xml, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("xmllint", "--noout", "--dtdvalid", "../pec/daticert/testdata/daticert.dtd", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %s: xmllint: %v\n%s", address, m.event.Kind, err, out)
	}
}

func checkEvent(t *testing.T, address string, ev pec.Event, id pec.Identifier) {
	t.Helper()
	if ev.Identifier != id || ev.MsgID != "<odd-1@client.alfa.example>" || ev.Subject != oddSubject || ev.Sender != "alice@alfa.example" || ev.Error != pec.NoError {
		t.Errorf("%s: %s certifies %+v", address, ev.Kind, ev)
	}
	kinds := map[pec.Address]pec.RecipientType{}
	for _, r := range ev.Recipients {
		kinds[r.Address] = r.Type
	}
	if len(kinds) != 4 || kinds["bob@beta.example"] != pec.Certified || kinds["bruna@beta.example"] != pec.Certified ||
		kinds["anna@alfa.example"] != pec.Certified || kinds["mario@ordinary.example"] != pec.External {
		t.Errorf("%s: %s names %v", address, ev.Kind, ev.Recipients)
	}
}

// checkReceipts wants a delivery receipt for each certified recipient by his own
// provider, and the acceptance receipt's text to tell the kinds.
func checkReceipts(t *testing.T, mails []mail, certified []string) {
	t.Helper()
	about := map[string]string{}
	for _, m := range mails {
		switch m.event.Kind {
		case pec.KindDelivery:
			about[string(m.event.Recipient)] += m.event.Provider
		case pec.KindAcceptance:
			for _, line := range []string{`bob@beta.example ("posta certificata")`, `anna@alfa.example ("posta certificata")`, `mario@ordinary.example ("posta ordinaria")`} {
				if !bytes.Contains(m.raw, []byte(line)) {
					t.Errorf("the acceptance receipt lacks %s", line)
				}
			}
		}
	}
	for _, r := range certified {
		if want := map[bool]string{true: "Beta PEC S.p.A.", false: "Alfa PEC S.p.A."}[strings.HasSuffix(r, "@beta.example")]; about[r] != want {
			t.Errorf("delivery to %s is certified by %q, want %q", r, about[r], want)
		}
	}
}

func checkTaken(t *testing.T, mails []mail, certified []string) {
	t.Helper()
	taken := map[pec.Address]int{}
	for _, m := range mails {
		for _, a := range m.event.Taken {
			taken[a]++
		}
	}
	for _, r := range certified {
		if taken[pec.Address(r)] != 1 {
			t.Errorf("%s was taken charge of %d times", r, taken[pec.Address(r)])
		}
	}
	if len(taken) != len(certified) {
		t.Errorf("taken charge of %v", taken)
	}
}

// checkInherited wants the fields that an envelope inherits as they were sent
// (RFC 6109, 2.1.1.2) and the delivery to the sender's own address on top.
func checkInherited(t *testing.T, raw []byte) {
	t.Helper()
	for _, field := range []string{
		"Received: from [192.0.2.7] by client.example;\r\n\tSun, 22 Nov 2026 10:00:00 +0100\r\n",
		map[string]string{
			stage.MTAPostfix:  "To: Bob <bob@beta.example>,\r\n  \t bruna@beta.example ,\r\n anna@alfa.example\r\nCC:mario@ordinary.example\r\n",
			stage.MTASendmail: "bruna@beta.example", // it folds lists of addresses anew
		}[*mta],
		"Return-Path: <alice@alfa.example>\r\n",
		"Reply-To: alice@alfa.example\r\n",
		`From: "Per conto di: alice@alfa.example" <posta-certificata@alfa.example>` + "\r\n",
		"X-Trasporto: posta-certificata\r\n",
		"X-TipoRicevuta: completa\r\n",
		"X-Riferimento-Message-ID: <odd-1@client.alfa.example>\r\n",
		"Content-Transfer-Encoding: 8bit\r\n",
	} {
		header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		if !bytes.Contains(append(header, "\r\n"...), []byte(field)) {
			t.Errorf("the envelope lacks %q:\n%s", field, header)
		}
	}
}

// checkRegister wants each event once in the registers of both providers.
func checkRegister(t *testing.T, s *stage.Stage, id pec.Identifier) {
	t.Helper()
	want := map[string]string{
		"alfa": "accettazione avvenuta-consegna posta-certificata presa-in-carico recapito*6 ricezione*6",
		"beta": "avvenuta-consegna*2 presa-in-carico",
	}
	for _, p := range s.Providers() {
		if got := registered(t, p, id); got != want[p.Label] {
			t.Errorf("register of %s: %s, want %s", p.Label, got, want[p.Label])
		}
	}
}

// metric reads a figure of a provider's pecd.
func metric(t testing.TB, p *stage.Provider, name string) float64 {
	t.Helper()
	return metrics(t, context.Background(), p)[name]
}
