package main

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"
	"time"
)

// What relabelling does to an original; RFC 6109, 2.2.1.
func relabelled(raw []byte, id, msgid string) []byte {
	s := strings.Replace(string(raw), "Message-ID: "+msgid, "Message-ID: <"+id+">", 1)
	return []byte(strings.Replace(s, "\r\n\r\n", "\r\nX-Riferimento-Message-ID: "+msgid+"\r\n\r\n", 1))
}

func TestSameOriginal(t *testing.T) {
	sent := original(time.Unix(0, 42))
	const id, msgid = "123@alfa.example", "<demo.42@client.alfa.example>"
	good := relabelled(sent, id, msgid)
	if err := sameOriginal(sent, good, id); err != nil {
		t.Errorf("what the rules allow: %v", err)
	}
	for what, arrived := range map[string][]byte{
		"nothing":                good[:0],
		"not relabelled":         sent,
		"another identifier":     relabelled(sent, "124@alfa.example", msgid),
		"another msgid":          bytes.Replace(good, []byte("Message-ID: <demo.42"), []byte("Message-ID: <demo.43"), 2),
		"one octet of the body":  bytes.Replace(good, []byte("Gentili"), []byte("gentili"), 1),
		"a blank after a header": bytes.Replace(good, []byte("end  \r\n"), []byte("end \r\n"), 1),
		"another fold":           bytes.Replace(good, []byte(",\r\n\t"), []byte(",\r\n "), 1),
		"a missing last line":    bytes.TrimSuffix(good, []byte("\r\n")),
		"8-bit text converted":   bytes.Replace(good, []byte("\xc3\xa0"), []byte("=C3=A0"), 1),
	} {
		if err := sameOriginal(sent, arrived, id); err == nil {
			t.Errorf("%s passes for the original", what)
		}
	}
}

func TestOriginalIsWhatTheStorySays(t *testing.T) {
	raw := original(time.Unix(0, 42))
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"To", "Cc"} {
		list, err := m.Header.AddressList(field)
		if err != nil || len(list) != 2 {
			t.Errorf("%s: %v, %v", field, list, err)
		}
	}
	lines := bytes.SplitAfter(raw, []byte("\r\n"))
	for _, l := range lines[:len(lines)-1] {
		if len(l) > 200 || bytes.Count(l, []byte("\n")) != 1 {
			t.Errorf("a line of %d octets: %q", len(l), l)
		}
	}
	if !bytes.HasSuffix(raw, []byte("--=_demo--\r\n")) {
		t.Error("the message does not end with its last boundary")
	}
}

const receipt = "X-Ricevuta: presa-in-carico\r\nFrom: posta-certificata@beta.example\r\n" +
	"Content-Type: multipart/signed; boundary=\"o\"\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=\"m\"\r\n\r\n" +
	"--m\r\nContent-Type: multipart/alternative; boundary=\"a\"\r\n\r\n--a\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\n" +
	"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E8 stato accettato\r\n--a--\r\n" +
	"--m\r\nContent-Type: application/xml; name=\"daticert.xml\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"PHBvc3RhY2VydCB0aXBvPSJwcmVzYS1pbi1jYXJpY28iPjxpbnRlc3RhemlvbmU+PGRlc3RpbmF0YXJpIHRpcG89ImNlcnRpZmljYXRvIj5i\r\n" +
	"QGI8L2Rlc3RpbmF0YXJpPjwvaW50ZXN0YXppb25lPjxkYXRpPjxpZGVudGlmaWNhdGl2bz4xQGE8L2lkZW50aWZpY2F0aXZvPjxyaWNlemlvbmU+\r\n" +
	"YkBiPC9yaWNlemlvbmU+PC9kYXRpPjwvcG9zdGFjZXJ0Pg==\r\n--m\r\nContent-Type: message/rfc822; name=\"postacert.eml\"\r\n\r\n" +
	"Subject: x\r\n\r\n8-bit \xe0\r\n\r\n--m--\r\n--o--\r\n"

func TestReadSystem(t *testing.T) {
	s, err := readSystem([]byte(receipt))
	if err != nil {
		t.Fatal(err)
	}
	if s.name() != "take-charge receipt" || s.concerns() != "b@b" || s.data.Identifier != "1@a" || s.data.Recipients[0].Type != "certificato" {
		t.Errorf("%s for %q: %+v", s.name(), s.concerns(), s.data)
	}
	if s.text != "è stato accettato" || string(s.original) != "Subject: x\r\n\r\n8-bit \xe0\r\n" {
		t.Errorf("text %q, original %q", s.text, s.original)
	}
	if plain, err := readSystem([]byte("Subject: x\r\n\r\nhello\r\n")); err != nil || plain.kind != "" {
		t.Errorf("ordinary mail: %v", err)
	}
	for _, bad := range []string{"", strings.Replace(receipt, "PHBv", "????", 1), strings.Replace(receipt, "daticert.xml", "other.xml", 1), receipt[:400]} {
		if _, err := readSystem([]byte(bad)); err == nil {
			t.Errorf("read without a complaint: %.60q", bad)
		}
	}
}
