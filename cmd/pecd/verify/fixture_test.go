package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/verify"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points/pointstest"
)

const id pec.Identifier = "20261122094537000abc@alfa.example"

// plainOriginal has a line that mailboxes quote.
const plainOriginal = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n\r\n" +
	"Testo.\r\n\r\nFrom here on 10:45 it is quoted.\r\n>From there too.\r\n"

// attachedOriginal has an attachment, so that its brief form differs.
const attachedOriginal = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\r\nTesto.\r\n" +
	"--b\r\nContent-Type: application/pdf; name=\"offerta.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nQWJjZGVmZ2g=\r\n--b--\r\n"

func event(kind pec.ReceiptType) pec.Event {
	return pec.Event{At: pointstest.At, Identifier: id, MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "mario@ordinary.example", Type: pec.External}},
		Subject:    "Offerta", Receipt: kind, Error: pec.NoError}
}

// office makes the messages of a case.
type office struct {
	*pointstest.World
	t testing.TB
}

func newOffice(t testing.TB) office { return office{pointstest.New(t), t} }

func (o office) sign(p *pointstest.Provider, d issue.Draft, err error) []byte {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
	s, err := p.Signer.Sign(d)
	if err != nil {
		o.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.Content().WriteTo(&b); err != nil {
		o.t.Fatal(err)
	}
	return b.Bytes()
}

func (o office) envelope(ev pec.Event, original string) []byte {
	o.t.Helper()
	m := read(o.t, original)
	d, err := o.Alfa.Issuer.Transport(ev, m, message.Facts{}, rand.Reader)
	return o.sign(o.Alfa, d, err)
}

// carried is original as an envelope carries it.
func carried(t testing.TB, original string) message.Content {
	return message.Relabel(read(t, original), id, "<c1@alfa.example>")
}

func read(t testing.TB, raw string) *message.Message {
	t.Helper()
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (o office) acceptance() []byte {
	o.t.Helper()
	ev := event("")
	d, err := o.Alfa.Issuer.Acceptance(ev, rand.Reader)
	return o.sign(o.Alfa, d, err)
}

func (o office) takeCharge() []byte {
	o.t.Helper()
	ev := event("")
	ev.Taken = []pec.Address{"bob@beta.example"}
	d, err := o.Beta.Issuer.TakeCharge(ev, "ricevute@alfa.example", rand.Reader)
	return o.sign(o.Beta, d, err)
}

func (o office) delivery(ev pec.Event, original message.Content) []byte {
	o.t.Helper()
	ev.Recipient = "bob@beta.example"
	d, err := o.Beta.Issuer.Delivery(ev, original, false, rand.Reader)
	return o.sign(o.Beta, d, err)
}

// story is the four messages of one delivery.
func (o office) story() [][]byte {
	ev := event(pec.Complete)
	return [][]byte{o.acceptance(), o.envelope(ev, plainOriginal), o.takeCharge(), o.delivery(ev, carried(o.t, plainOriginal))}
}

// mbox is a mailbox file as Unix programs write it; quote is what they make of
// lines that begin with From.
func mbox(quote func(line string) string, messages ...[]byte) []byte {
	var b bytes.Buffer
	for _, m := range messages {
		b.WriteString("From alice@alfa.example Sun Nov 22 10:45:37 2026\n")
		for _, line := range strings.SplitAfter(strings.ReplaceAll(string(m), "\r\n", "\n"), "\n") {
			b.WriteString(quote(line))
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}

// quoteAll is mboxrd, quoteOnce mboxo.
func quoteAll(line string) string {
	if strings.HasPrefix(strings.TrimLeft(line, ">"), "From ") {
		return ">" + line
	}
	return line
}

func quoteOnce(line string) string {
	if strings.HasPrefix(line, "From ") {
		return ">" + line
	}
	return line
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// answer is what a run gave.
type answer struct {
	held     bool
	err      error
	out, log string
	verdicts []verify.Verdict
	cases    []verify.Case
}

func clock() time.Time { return pointstest.At.Add(time.Hour) }

// run judges paths for a person.
func (o office) run(opts verify.Options, in string, paths ...string) answer {
	o.t.Helper()
	if opts.CA == "" {
		opts.CA = o.CA.File
	}
	var out, log bytes.Buffer
	a := answer{}
	a.held, a.err = verify.Run(context.Background(), opts, paths,
		verify.Streams{In: strings.NewReader(in), Out: &out, Err: &log, Clock: clock})
	a.out, a.log = out.String(), log.String()
	return a
}

// ask judges paths for a program.
func (o office) ask(opts verify.Options, in string, paths ...string) answer {
	o.t.Helper()
	opts.JSON, opts.Cases = true, true
	a := o.run(opts, in, paths...)
	if a.err != nil {
		o.t.Fatal(a.err)
	}
	for _, line := range strings.Split(strings.TrimSpace(a.out), "\n") {
		var c struct{ Case *verify.Case }
		var v verify.Verdict
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			o.t.Fatalf("%v: %s", err, line)
		}
		if c.Case != nil {
			a.cases = append(a.cases, *c.Case)
			continue
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			o.t.Fatal(err)
		}
		a.verdicts = append(a.verdicts, v)
	}
	return a
}

// signedDirectory writes the directory, signed by Alfa.
func (o office) signedDirectory() string {
	o.t.Helper()
	dir := o.t.TempDir()
	ldif, file := write(o.t, filepath.Join(dir, "igpec.ldif"), o.LDIF), filepath.Join(dir, "igpec.ldif.p7m")
	who := o.Alfa.Identity
	cmd := exec.Command("openssl", "cms", "-sign", "-nodetach", "-binary", "-outform", "DER", "-md", "sha256",
		"-in", ldif, "-signer", who.CertFile, "-inkey", who.KeyFile, "-out", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("openssl: %v\n%s", err, out)
	}
	return file
}
