package conform

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"pecd/pec/message"
)

// A mail is a message to ask about.
type mail struct {
	what   string
	source message.Source
	facts  message.Facts
}

func mailOf(what, raw string) mail {
	var s message.Scanner
	s.Write([]byte(raw)) // a Scanner never fails
	return mail{what, message.Bytes(raw), s.Facts()}
}

// header is that of a plain message; its addresses are those of the questions.
const header = "Received: from client.alfa.example by mx.alfa.example; Sun, 22 Nov 2026 10:45:00 +0100\r\n" +
	"From: Alice Rossi <alice@alfa.example>\r\nTo: bob@beta.example\r\nSubject: Offerta n. 12\r\n" +
	"Date: Sun, 22 Nov 2026 10:45:00 +0100\r\nMessage-ID: <check-1@alfa.example>\r\n"

const mime = "MIME-Version: 1.0\r\n"

// plain is a message to which nobody should object.
func plain() mail {
	return mailOf("a plain message", header+mime+"Content-Type: text/plain; charset=utf-8\r\n\r\nBuongiorno.\r\n")
}

// filed is a message that is too large to travel in the call.
func filed() mail {
	return mailOf("a message of 200 kB", header+"\r\n"+strings.Repeat("Buongiorno, e a presto.\r\n", 8000))
}

// oddities are messages that nobody writes, but somebody sends.
func oddities() []mail {
	word := strings.Repeat("x", 60) + "\r\n "
	return []mail{
		mailOf("no octets at all", ""),
		mailOf("an empty header", "\r\nBuongiorno.\r\n"),
		mailOf("a header and nothing else", strings.TrimSuffix(header, "\r\n")),
		mailOf("no empty line after the header", header+"this is no field\r\n"),
		mailOf("no body", header+"\r\n"),
		mailOf("no line end at the end", header+"\r\nBuongiorno"),
		mailOf("only blanks", "   \r\n\t\r\n  "),
		mailOf("NUL octets", strings.Replace(header, "Offerta", "Off\x00erta", 1)+"\r\na\x00b\r\n\x00\x00\r\n"),
		mailOf("octets over 127", strings.Replace(header, "Offerta", "Perch\xe9 \xff\xfe", 1)+"\r\nCos\xec \x80\x81\r\n"),
		mailOf("bare CR and LF", strings.ReplaceAll(header, "\r\n", "\n")+"\nuno\rdue\ntre\r\r\n"),
		mailOf("lines of 998 octets", header+"\r\n"+strings.Repeat(strings.Repeat("x", 998)+"\r\n", 300)),
		mailOf("a line of 1 MB", header+"\r\n"+strings.Repeat("x", 1<<20)+"\r\n"),
		mailOf("a subject of 900 kB", strings.Replace(header, "n. 12", strings.Repeat(word, 14000)+"n. 12", 1)+"\r\nx\r\n"),
		mailOf("9,000 header fields", strings.Repeat("X-Field: value\r\n", 9000)+header+"\r\nx\r\n"),
		mailOf("encoded words that are none", strings.Replace(header, "Offerta", "=?x-none?q?=ZZ?= =?utf-8?b?////?= =?utf-8?b?=?=", 1)+"\r\nx\r\n"),
		mailOf("MIME nested 200 deep", header+mime+nested(200)),
		mailOf("5,000 MIME parts", header+mime+"Content-Type: multipart/mixed; boundary=b\r\n\r\n"+
			strings.Repeat("--b\r\nContent-Type: text/plain\r\n\r\nx\r\n", 5000)+"--b--\r\n"),
		mailOf("a multipart without boundary", header+mime+"Content-Type: multipart/mixed\r\n\r\nx\r\n"),
		mailOf("a multipart that never ends", header+mime+"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n--b"),
		mailOf("a media type that is none", header+mime+"Content-Type: ;;=\"\\\r\nContent-Disposition: attachment; filename*=x''%\r\nContent-Transfer-Encoding: base64\r\n\r\n===*\r\n"),
		mailOf("a zip that is none", header+mime+"Content-Type: application/zip; name=\"a.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\nUEsDBBQAAAAIAAAA\r\nUEsFBgAAAAD/////////////////\r\n"),
	}
}

// nested is a MIME entity with depth multiparts in each other.
func nested(depth int) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	b.WriteString("Content-Type: text/plain\r\n\r\nx\r\n")
	for i := range depth {
		fmt.Fprintf(&b, "--b%d--\r\n", depth-1-i)
	}
	return b.String()
}

// A fileSource is a message in a file, which the host need not copy.
type fileSource struct {
	*os.File
	size int64
}

func (f fileSource) Size() int64          { return f.size }
func (f fileSource) Path() (string, bool) { return f.Name(), true }

// largeSize is the size of a message that everybody must be able to send, in
// octets (docs/rules.md, S1).
const largeSize = 30_000_000

// largeMail writes a message of largeSize with an attachment. Its source is to be
// closed.
func (k *kit) largeMail() (mail, io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(k.dir, "large.eml"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return mail{}, nil, err
	}
	var s message.Scanner
	w := bufio.NewWriterSize(io.MultiWriter(f, &s), 1<<20)
	head := header + mime + "Content-Type: application/octet-stream; name=\"foto.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	line := append(bytes.Repeat([]byte("QUJD"), 19), "\r\n"...)
	n, _ := w.WriteString(head) // Flush says what fails
	for n < largeSize {
		w.Write(line)
		n += len(line)
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return mail{}, nil, err
	}
	return mail{"a message of 30 MB", fileSource{f, int64(n)}, s.Facts()}, f, nil
}
