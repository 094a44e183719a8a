package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/charmap"

	"pecd/lmtp"
	"pecd/milter/socket"
	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// readable returns the plain text of a system message, as a mail client of the
// standard library would show it.
func readable(t *testing.T, raw []byte) string {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	text := firstPlain(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	if text == "" {
		t.Fatalf("no readable text in\n%.2000s", raw)
	}
	return text
}

func firstPlain(t *testing.T, contentType, encoding string, body io.Reader) string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		if kind != "text/plain" || !strings.EqualFold(encoding, "quoted-printable") || !strings.EqualFold(params["charset"], "iso-8859-1") {
			return ""
		}
		b, err := io.ReadAll(charmap.ISO8859_1.NewDecoder().Reader(quotedprintable.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "\r\n", "\n")
	}
	for r := multipart.NewReader(body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err != nil {
			return ""
		}
		if s := firstPlain(t, p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p); s != "" {
			return s
		}
	}
}

// anomaly waits for an anomaly envelope about that subject.
func anomaly(t *testing.T, s *stage.Stage, address, subject string) []byte {
	t.Helper()
	var found []byte
	_, err := s.WaitMail(within(t), address, func(mails [][]byte) bool {
		for _, raw := range mails {
			if isAnomaly(raw, subject) {
				found = raw
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatalf("no anomaly envelope about %q at %s: %v", subject, address, err)
	}
	return found
}

func isAnomaly(raw []byte, subject string) bool {
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	return bytes.Contains(header, []byte("\r\nX-Trasporto: errore\r\n")) && bytes.Contains(header, []byte(subject))
}

// checkAnomaly wants what RFC 6109, 3.2.2 asks of an anomaly envelope.
func checkAnomaly(t *testing.T, s *stage.Stage, raw []byte, sender, reason string, inside []byte) {
	t.Helper()
	if signer, err := s.Verify(within(t), raw); err != nil || signer != "posta-certificata@beta.example" {
		t.Errorf("signed by %q (%v)", signer, err)
	}
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	for _, want := range []string{"From: \"Per conto di: " + sender + "\" <posta-certificata@beta.example>", "\r\nSubject: ANOMALIA MESSAGGIO: "} {
		if !bytes.Contains(header, []byte(want)) {
			t.Errorf("the header lacks %q:\n%s", want, header)
		}
	}
	if bytes.Contains(raw, []byte("name=\"daticert.xml\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: inline; filename=\"daticert.xml\"")) && !bytes.Contains(inside, []byte("daticert.xml")) {
		t.Error("it carries certification data")
	}
	text := readable(t, raw)
	for _, want := range []string{"Anomalia nel messaggio", "Tali dati non sono stati certificati per il seguente errore:", reason, "Il messaggio originale è incluso in allegato."} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if !bytes.Contains(raw, inside) {
		t.Error("the message inside was changed")
	}
}

// TestAnomalies brings to port 25 what is not certified mail, or is no longer.
func TestAnomalies(t *testing.T) {
	s := newStage(t)
	send(t, s, compose("an genuine", "", "bob@beta.example"), "bob@beta.example")
	genuine := await(t, s, "bob@beta.example", pec.KindTransport, "an genuine").raw
	receipt := await(t, s, "alice@alfa.example", pec.KindDelivery, "an genuine").raw
	settled(t, s)

	subject := func(raw []byte, name string) []byte {
		return regexp.MustCompile("Subject: (POSTA CERTIFICATA|CONSEGNA): [^\r]*").ReplaceAll(raw, []byte("Subject: "+name))
	}
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	_, unlisted := pretended(t, ca)
	leaf, revoked := pretended(t, ca)
	revoke(t, s, ca, leaf)
	tests := []struct {
		name, sender, rcpt, reason string
		raw                        []byte
	}{
		{"an ordinary", "mario@ordinary.example", "bob@beta.example", "manca la firma", []byte("From: Mario <mario@ordinary.example>\r\nTo: bob@beta.example\r\nSubject: an ordinary\r\nX-Odd:no blank\r\n\r\nCiao.\r\n")},
		{"an altered", "alice@alfa.example", "bob@beta.example", "alterato dopo la firma", subject(bytes.Replace(genuine, []byte("Testo di"), []byte("Testa di"), 1), "an altered")},
		{"an header", "alice@alfa.example", "bob@beta.example", "l'intestazione non corrisponde", subject(bytes.Replace(genuine, []byte("X-Trasporto: posta-certificata"), []byte("X-Ricevuta: accettazione"), 1), "an header")},
		{"an somebody", "alice@alfa.example", "bruna@beta.example", "non è indirizzata a questo destinatario", subject(genuine, "an somebody")},
		{"an foreign", "alice@alfa.example", "bob@beta.example", "autorità riconosciuta", subject(foreign(t), "an foreign")},
		{"an unlisted", "alice@alfa.example", "bob@beta.example", "non appartiene a un gestore di posta certificata", subject(unlisted, "an unlisted")},
		{"an revoked", "alice@alfa.example", "bob@beta.example", "è stato revocato", subject(revoked, "an revoked")},
		{"an receipt", "posta-certificata@alfa.example", "bob@beta.example", "alterato dopo la firma", subject(bytes.Replace(receipt, []byte("Testo di"), []byte("Testa di"), 1), "an receipt")},
		{"an deep", "alice@alfa.example", "bob@beta.example", "la firma del messaggio non è leggibile", bytes.Replace(deepBER(), []byte("MIME-Version"), []byte("Subject: an deep\r\nMIME-Version"), 1)},
		{"an garbage", "mario@ordinary.example", "bob@beta.example", "manca la firma", append([]byte("Subject: an garbage\r\n\r\n"), bytes.Repeat([]byte("\xff\x80 \r\n"), 1000)...)},
	}
	for _, tt := range tests {
		if _, err := s.Deliver(within(t), s.Beta.SMTP, tt.sender, []string{tt.rcpt}, tt.raw); err != nil {
			t.Fatalf("%s: port 25: %v", tt.name, err)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, body, _ := bytes.Cut(tt.raw, []byte("\r\n\r\n"))
			checkAnomaly(t, s, anomaly(t, s, tt.rcpt, tt.name), tt.sender, tt.reason, body)
		})
	}
	// What no envelope can hold unaltered is refused while its sender listens.
	long := []byte("From: mario@ordinary.example\r\nSubject: an long\r\n\r\n" + strings.Repeat("z", 5000) + "\r\n")
	var reply *textproto.Error
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "mario@ordinary.example", []string{"bob@beta.example"}, long); !errors.As(err, &reply) || reply.Code != 550 {
		t.Errorf("a line of 5000 octets: %v", err)
	}
	// The genuine one again, to its own recipient: known, not delivered twice.
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "alice@alfa.example", []string{"bob@beta.example"}, genuine); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	for address, n := range map[string]int{"bob@beta.example": 1 + len(tests) - 1, "bruna@beta.example": 1, "alice@alfa.example": 2, "ricevute@alfa.example": 1, "ricevute@beta.example": 0} {
		if mails, err := s.Mailbox(within(t), address); err != nil || len(mails) != n {
			t.Errorf("%s has %d messages (%v), want %d", address, len(mails), err, n)
		}
	}
}

// revoke has Beta's pecd know a list on which ca revokes leaf.
func revoke(t *testing.T, s *stage.Stage, ca, leaf stage.Authority) {
	t.Helper()
	now := time.Now()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 1),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: leaf.Certificate.SerialNumber, RevocationTime: now.Add(-time.Minute)}}}, ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crl")
	if err := os.WriteFile(file, der, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Beta.Pecd.Config.Trust.CRLs = []string{file}
	if err := s.Beta.Pecd.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Beta)
}

// TestGate has mailboxes that take certified mail only: ordinary mail is refused
// while its sender's server listens.
func TestGate(t *testing.T) {
	s := newStage(t)
	pecdDo := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(s.Beta.Pecd.Bin, append(args, "--config", s.Beta.Pecd.ConfigFile)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	ordinary := func(subject string, rcpts ...string) error {
		_, err := s.Deliver(within(t), s.Beta.SMTP, "mario@ordinary.example", rcpts, []byte("From: mario@ordinary.example\r\nTo: bob@beta.example\r\nSubject: "+subject+"\r\n\r\nCiao.\r\n"))
		return err
	}
	refused := func(err error, code int) {
		t.Helper()
		var reply *textproto.Error
		if !errors.As(err, &reply) || reply.Code != code {
			t.Errorf("the other server heard %v, want %d", err, code)
		}
	}
	if err := ordinary("g before", "bob@beta.example"); err != nil {
		t.Fatal(err)
	}
	anomaly(t, s, "bob@beta.example", "g before")
	pecdDo("mailbox", "set", "bob@beta.example", "--ordinary-mail", "refuse")
	refused(ordinary("g refused", "bob@beta.example"), 550)
	refused(ordinary("g mixed", "bruna@beta.example", "bob@beta.example"), 452)
	if err := ordinary("g other", "bruna@beta.example"); err != nil {
		t.Errorf("bruna takes ordinary mail: %v", err)
	}
	// Certified mail passes.
	send(t, s, compose("g certified", "", "bob@beta.example", "bruna@beta.example"), "bob@beta.example", "bruna@beta.example")
	await(t, s, "bob@beta.example", pec.KindTransport, "g certified")
	await(t, s, "bruna@beta.example", pec.KindTransport, "g certified")

	pecdDo("domain", "set", "beta.example", "--ordinary-mail", "refuse")
	refused(ordinary("g domain", "bruna@beta.example"), 550)
	pecdDo("mailbox", "set", "bruna@beta.example", "--ordinary-mail", "anomaly")
	if err := ordinary("g again", "bruna@beta.example"); err != nil {
		t.Errorf("bruna takes ordinary mail again: %v", err)
	}
	anomaly(t, s, "bruna@beta.example", "g again")
	settled(t, s)
	n := 0
	for _, e := range register(t, s.Beta) {
		if e.Type == "configurazione" {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d changes in the register, want 3", n)
	}
	for _, subject := range []string{"g refused", "g mixed", "g domain"} {
		for _, address := range []string{"bob@beta.example", "bruna@beta.example"} {
			mails, err := s.Mailbox(within(t), address)
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range mails {
				if isAnomaly(raw, subject) {
					t.Errorf("%s has %q", address, subject)
				}
			}
		}
	}
}

// TestBounces wants a notification about an ordinary recipient to reach the
// user, and a forged one to certify nothing.
func TestBounces(t *testing.T) {
	s := newStage(t)
	send(t, s, compose("bo ordinary", "", "nobody@ordinary.example", "bob@beta.example"), "nobody@ordinary.example", "bob@beta.example")
	raw := anomaly(t, s, "alice@alfa.example", "Undelivered")
	if !bytes.Contains(raw, []byte("nobody@ordinary.example")) {
		t.Errorf("the notification says not who:\n%.3000s", raw)
	}
	accepted := await(t, s, "alice@alfa.example", pec.KindAcceptance, "bo ordinary")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "bo ordinary")

	// Somebody who knows the identifier says that bruna's server refused.
	if err := s.StopDovecot(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("bo forged", "", "bruna@beta.example"), "bruna@beta.example")
	accepted = await(t, s, "alice@alfa.example", pec.KindAcceptance, "bo forged")
	id := string(accepted.event.Identifier)
	local, _, _ := strings.Cut(id, "@")
	for i, envid := range []string{id, local, local + ".0000000000000000", local + "."} {
		forged := "From: MAILER-DAEMON@evil.example\r\nTo: alice@alfa.example\r\nSubject: forged " + string(rune('a'+i)) + "\r\nMIME-Version: 1.0\r\n" +
			"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nNo.\r\n" +
			"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; evil.example\r\nOriginal-Envelope-Id: " + envid + "\r\n\r\n" +
			"Final-Recipient: rfc822; bruna@beta.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" +
			"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <" + id + ">\r\n\r\n--b--\r\n"
		if _, err := s.Deliver(within(t), s.Alfa.SMTP, "", []string{"alice@alfa.example"}, []byte(forged)); err != nil {
			t.Fatal(err)
		}
		anomaly(t, s, "alice@alfa.example", "forged "+string(rune('a'+i)))
	}
	if n := count(t, s, "alice@alfa.example", pec.KindNonDelivery, "bo forged"); n != 0 {
		t.Errorf("%d notices from a forged notification", n)
	}
	if err := s.StartDovecot(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	if err := s.Beta.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	await(t, s, "alice@alfa.example", pec.KindDelivery, "bo forged")

	// A notification to the address of the system messages ends here.
	if _, err := s.Deliver(within(t), s.Alfa.SMTP, "", []string{"posta-certificata@alfa.example"}, []byte("From: MAILER-DAEMON@x.example\r\nSubject: Undelivered\r\n\r\nNo.\r\n")); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	if mails, err := s.Mailbox(within(t), "posta-certificata@alfa.example"); err != nil || len(mails) != 0 {
		t.Errorf("posta-certificata has %d messages (%v)", len(mails), err)
	}
}

// TestGateTLS has a provider's mail come without TLS.
func TestGateTLS(t *testing.T) {
	s := newStage(t)
	plain := func(sender string) error {
		c, err := smtp.Dial(s.Beta.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Mail(sender); err != nil {
			return err
		}
		return c.Rcpt("bob@beta.example")
	}
	var reply *textproto.Error
	if err := plain("alice@alfa.example"); !errors.As(err, &reply) || reply.Code != 530 {
		t.Errorf("a provider without TLS: %v", err)
	}
	if err := plain("mario@ordinary.example"); err != nil {
		t.Errorf("ordinary mail without TLS: %v", err)
	}
}

// TestOrdinaryCopies brings equal ordinary messages to the LMTP door at the same
// time: one is delivered, the others find it there.
func TestOrdinaryCopies(t *testing.T) {
	s := newStage(t)
	raw := []byte("From: mario@ordinary.example\r\nTo: bob@beta.example\r\nSubject: oc copies\r\nMessage-ID: <oc@ordinary.example>\r\n\r\nCiao.\r\n")
	const copies = 8
	errs := make(chan error, copies)
	for range copies {
		go func() {
			store := lmtp.Store{Dial: func(ctx context.Context) (net.Conn, error) {
				return socket.Dial(ctx, s.Beta.Pecd.Config.Reception.LMTP)
			}}
			defer store.Close()
			status, err := store.Deliver(within(t), "mario@ordinary.example", []string{"bob@beta.example"}, int64(len(raw)), false,
				func(w io.Writer) error { _, err := w.Write(raw); return err })
			if err == nil && !status[0].OK() {
				err = errors.New(status[0].String())
			}
			errs <- err
		}()
	}
	for range copies {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	mails, err := s.Mailbox(within(t), "bob@beta.example")
	if err != nil || len(mails) != 1 {
		t.Errorf("bob has %d messages (%v), want one", len(mails), err)
	}
}
