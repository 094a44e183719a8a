package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/plugins/sdk"
	"pecd/points"
	"pecd/points/access"
	"pecd/signer/signertest"
)

// TestDecide: whose messages have to be signed, and by whom.
func TestDecide(t *testing.T) {
	ca, other := signertest.NewCA(t), signertest.NewCA(t)
	office := ca.Identity(t, "Ufficio", "ufficio@alfa.example")
	stranger := other.Identity(t, "Ufficio", "ufficio@alfa.example")
	signed := sign(t, office)
	p := opened(t, fmt.Sprintf(`{"senders": ["anna@alfa.example", "@Beta.example"], "ca": %q}`, ca.File))
	for name, tt := range map[string]struct {
		raw     string
		sender  pec.Address
		verdict points.Verdict
		cause   points.Cause
	}{
		"has to sign, and did":           {signed, "anna@alfa.example", points.Accept, ""},
		"has to sign, and did not":       {plain, "anna@alfa.example", points.Refuse, points.Policy},
		"domain in other case":           {plain, "anna@ALFA.example", points.Refuse, points.Policy},
		"all of the domain have to sign": {plain, "bob@beta.example", points.Refuse, points.Policy},
		"need not sign":                  {plain, "alice@alfa.example", points.Accept, ""},
		"signed by a stranger":           {sign(t, stranger), "anna@alfa.example", points.Refuse, points.Policy},
		"altered":                        {strings.Replace(signed, "Testo.", "Altro.", 1), "anna@alfa.example", points.Refuse, points.Policy},
		"signature cut off":              {signed[:len(signed)/2], "anna@alfa.example", points.Refuse, points.Policy},
		"formal fault":                   {"Bcc: x@beta.example\r\n" + plain, "anna@alfa.example", points.Refuse, points.BccPresent},
	} {
		d, err := p.Decide(context.Background(), submission(t, tt.sender, tt.raw))
		if err != nil || d.Verdict != tt.verdict || tt.cause != "" && (len(d.Reasons) != 1 || d.Reasons[0].Cause != tt.cause) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// TestUnreadable: what cannot be read is put off, not refused.
func TestUnreadable(t *testing.T) {
	ca := signertest.NewCA(t)
	p := opened(t, fmt.Sprintf(`{"senders": ["@alfa.example"], "ca": %q}`, ca.File))
	s := submission(t, "anna@alfa.example", sign(t, ca.Identity(t, "Ufficio", "ufficio@alfa.example")))
	s.Message.Source = broken{s.Message.Source}
	if d, err := p.Decide(context.Background(), s); !errors.Is(err, errBroken) || d.Verdict != points.Defer {
		t.Errorf("%+v, %v", d, err)
	}
}

var errBroken = errors.New("disk")

type broken struct{ message.Source }

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

// TestOpen: each wrong setting is told with its name, and without settings the
// point is the built-in one.
func TestOpen(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]string{
		`{"senders": ["anna"]}`:                                 "senders: ",
		`{"senders": ["<anna@alfa.example>"]}`:                  "senders: ",
		`{"senders": ["@alfa.example"]}`:                        "ca: it is needed",
		`{"senders": ["@alfa.example"], "ca": "/nonexistent"}`:  "ca: open /nonexistent",
		`{"senders": ["@alfa.example"], "ca": "` + empty + `"}`: "holds no certificate",
		`{"senders": "anna@alfa.example"}`:                      "senders: it holds a string",
		`{"sender": ["anna@alfa.example"]}`:                     "sender: there is no such setting",
	} {
		c, err := sdk.NewConfig(table, false)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := open(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", table, s, err, want)
		}
	}
	c, err := sdk.NewConfig("", false)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := open(context.Background(), c); err != nil || s.Kind() != sdk.KindAccess {
		t.Errorf("%v, %v", s, err)
	}
}

const plain = "From: SENDER\r\nTo: bob@beta.example\r\nSubject: Offerta\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: text/plain\r\n\r\nTesto.\r\n"

// sign returns a message signed by id, as OpenSSL signs one.
func sign(t *testing.T, id *signertest.Identity) string {
	t.Helper()
	cmd := exec.Command("openssl", "cms", "-sign", "-signer", id.CertFile, "-inkey", id.KeyFile, "-md", "sha256", "-text")
	cmd.Stdin = strings.NewReader("Testo.\r\n")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl: %v: %s", err, errs.String())
	}
	crlf := strings.ReplaceAll(strings.ReplaceAll(string(out), "\r\n", "\n"), "\n", "\r\n")
	return "From: SENDER\r\nTo: bob@beta.example\r\nSubject: Offerta\r\n" + crlf
}

func submission(t *testing.T, sender pec.Address, raw string) access.Submission {
	t.Helper()
	raw = strings.Replace(raw, "SENDER", string(sender), 1)
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	facts, err := message.ScanContent(message.Text([]byte(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return access.Submission{Login: string(sender), Sender: sender, SenderOurs: true, Message: m, Facts: facts,
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}}
}

// opened returns the point of a table.
func opened(t *testing.T, table string) access.Point {
	t.Helper()
	c, err := sdk.NewConfig(table, false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPoint(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
