package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime"
	"strings"
	"time"
)

// The cast of the story.
const (
	sender   = "alice@alfa.example"
	bob      = "bob@beta.example"
	bruna    = "bruna@beta.example"
	anna     = "anna@alfa.example"
	mario    = "mario@ordinary.example"
	subject  = "Perché la società conferma l'offerta n. 7: modalità, quantità e validità"
	fileName = "offerta.pdf"
)

var (
	certified  = []string{bob, bruna, anna}
	recipients = append(append([]string{}, certified...), mario)
)

// original writes the message that alice's program sends: a subject that does
// not fit on a line and is not ASCII, 8-bit text, a binary attachment, and a
// header whose spacing must survive as it is.
func original(at time.Time) []byte {
	var b bytes.Buffer
	crlf := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	crlf("Message-ID: <demo.%d@client.alfa.example>", at.UnixNano())
	crlf("Date: %s", at.Format(time.RFC1123Z))
	crlf("From: Alice <%s>", sender)
	crlf("To: %s,\r\n\t%s", bob, bruna)
	crlf("Cc:%s,%s", anna, mario)
	crlf("Subject: %s", strings.ReplaceAll(mime.QEncoding.Encode("UTF-8", subject), "?= =?", "?=\r\n =?"))
	crlf("X-Odd-Spacing:   three blanks, and two at the end  ")
	crlf("MIME-Version: 1.0")
	crlf(`Content-Type: multipart/mixed; boundary="=_demo"`)
	crlf("")
	crlf("--=_demo")
	crlf("Content-Type: text/plain; charset=UTF-8")
	crlf("Content-Transfer-Encoding: 8bit")
	crlf("")
	crlf("Gentili signori,")
	crlf("la società è lieta di confermare: quantità 12, validità fino a lunedì, prezzo 100 €.")
	crlf(".una riga che comincia con un punto")
	crlf("--=_demo")
	crlf("Content-Type: application/pdf; name=%q", fileName)
	crlf("Content-Transfer-Encoding: base64")
	crlf("Content-Disposition: attachment; filename=%q", fileName)
	crlf("")
	encoded := base64.StdEncoding.EncodeToString(attachment(32 << 10))
	for len(encoded) > 76 {
		crlf("%s", encoded[:76])
		encoded = encoded[76:]
	}
	crlf("%s", encoded)
	crlf("--=_demo--")
	return b.Bytes()
}

// attachment is n octets that begin like a PDF.
func attachment(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := []byte("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	for len(b) < n {
		b = append(b, byte(r.Uint32()))
	}
	return b
}
