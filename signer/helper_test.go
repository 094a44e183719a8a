package signer_test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
	"pecd/signer/signertest"
)

const (
	alfaName = "Alfa PEC S.p.A."
	alfaPost = "posta-certificata@alfa.example"
)

var rome = time.FixedZone("CEST", 7200)

// testTime has a fraction, which no rendering may carry.
var testTime = time.Date(2026, 9, 19, 13, 41, 20, 987_000_000, rome)

func acceptance() pec.Event {
	return pec.Event{
		Kind: pec.KindAcceptance, At: testTime, Provider: alfaName,
		Identifier: "opec1.20260919134120.1.2.3@alfa.example", MsgID: "<client@alfa.example>",
		Sender:     "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}},
		Subject:    "Perché no", Error: pec.NoError,
	}
}

func transport() pec.Event {
	ev := acceptance()
	ev.Kind, ev.Receipt = pec.KindTransport, pec.Complete
	return ev
}

// A part of a test entity is its header and its body.
type part struct{ header, body string }

func xmlPart(t testing.TB, ev pec.Event) part {
	t.Helper()
	xml, err := daticert.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for s := base64.StdEncoding.EncodeToString(xml); s != ""; {
		n := min(76, len(s))
		b.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	return part{"Content-Type: application/xml; name=\"daticert.xml\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: inline; filename=\"daticert.xml\"\r\n", b.String()}
}

func textPart() part {
	return part{"Content-Type: multipart/alternative; boundary=\"alt\"\r\n",
		"--alt\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\n\r\nRicevuta\r\n" +
			"--alt\r\nContent-Type: text/html; charset=\"iso-8859-1\"\r\n\r\n<p>Ricevuta</p>\r\n--alt--\r\n"}
}

func originalPart(encoding string) part {
	return part{"Content-Type: message/rfc822; name=\"postacert.eml\"\r\n" +
		"Content-Transfer-Encoding: " + encoding + "\r\n" +
		"Content-Disposition: inline; filename=\"postacert.eml\"\r\n", ""}
}

func mixed(encoding string, original message.Content, parts ...part) message.Content {
	c := message.Text([]byte("Content-Type: multipart/mixed; boundary=\"mix\"\r\n" +
		"Content-Transfer-Encoding: " + encoding + "\r\n\r\n"))
	for i, p := range parts {
		c = append(c, message.Piece{Text: []byte("--mix\r\n" + p.header + "\r\n" + p.body)})
		if i == 2 {
			c = append(c, original...)
		}
		c = append(c, message.Piece{Text: []byte("\r\n")})
	}
	return append(c, message.Piece{Text: []byte("--mix--")})
}

func header(ev pec.Event, kind, messageID string) []byte {
	return []byte(kind + "\r\n" +
		"Date: Sat, 19 Sep 2026 13:41:20 +0200\r\n" +
		"Subject: ACCETTAZIONE: x\r\n" +
		"From: \"Per conto di: alice@alfa.example\" <" + alfaPost + ">\r\n" +
		"To: " + string(ev.Sender) + "\r\n" +
		"Message-ID: <" + messageID + ">\r\n")
}

func receiptDraft(t testing.TB) issue.Draft {
	ev := acceptance()
	return issue.Draft{
		Event:    ev,
		Header:   header(ev, "X-Ricevuta: accettazione", "receipt@alfa.example"),
		Entity:   mixed("7bit", nil, textPart(), xmlPart(t, ev)),
		Boundary: "outer", MessageID: "receipt@alfa.example",
		From: alfaPost, To: []pec.Address{"alice@alfa.example"},
	}
}

func transportDraft(t testing.TB, original message.Content, eightBit bool) issue.Draft {
	ev := transport()
	encoding := "7bit"
	if eightBit {
		encoding = "8bit"
	}
	return issue.Draft{
		Event:    ev,
		Header:   header(ev, "X-Trasporto: posta-certificata", string(ev.Identifier)),
		Entity:   mixed(encoding, original, textPart(), xmlPart(t, ev), originalPart(encoding)),
		EightBit: eightBit, Original: true,
		Boundary: "outer", MessageID: string(ev.Identifier),
		From: "alice@alfa.example", To: []pec.Address{"bob@beta.example"},
	}
}

func originalOf(size int) message.Content {
	const line = "All work and no play makes the postman a dull boy, sooner or later, mostly.\r\n"
	body := strings.Repeat(line, size/len(line)+1)
	return message.Text([]byte("From: alice@alfa.example\r\nSubject: x\r\n\r\n" + body))
}

func bytesOf(t testing.TB, c message.Content) []byte {
	t.Helper()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t testing.TB, id *signer.Identity, d issue.Draft) *signer.Signed {
	t.Helper()
	s, err := signer.NewSigner(id).Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t testing.TB, mail []byte) *message.Message {
	t.Helper()
	m, err := message.Read(message.Bytes(mail))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// openssl runs openssl with stdin and returns what it writes to stdout. A
// missing openssl is a failed test.
func openssl(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	out, err := tryOpenSSL(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryOpenSSL(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("openssl %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// wrap puts entity and a signature made elsewhere into a multipart/signed.
func wrap(entity, p7s []byte) []byte {
	var b bytes.Buffer
	b.WriteString("From: x@alfa.example\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/signed; protocol=\"application/x-pkcs7-signature\"; micalg=sha1;\r\n boundary=\"bb\"\r\n\r\n" +
		"--bb\r\n")
	b.Write(entity)
	b.WriteString("\r\n--bb\r\nContent-Type: application/x-pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for s := base64.StdEncoding.EncodeToString(p7s); s != ""; {
		n := min(64, len(s))
		b.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	b.WriteString("--bb--\r\n")
	return b.Bytes()
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newAlfa(t testing.TB) (*signertest.CA, *signertest.Identity) {
	ca := signertest.NewCA(t)
	return ca, ca.Identity(t, alfaName, alfaPost)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
