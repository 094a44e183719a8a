package test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// TestInterop goes through what the interoperability tests between providers
// ask beside the ways that have tests of their own.
func TestInterop(t *testing.T) {
	s := newStage(t)
	t.Run("no Message-ID", func(t *testing.T) {
		send(t, s, strings.Replace(compose("io noid", "", "bob@beta.example"), "Message-ID:", "X-ID:", 1), "bob@beta.example")
		for _, kind := range []pec.Kind{pec.KindAcceptance, pec.KindDelivery} {
			if m := await(t, s, "alice@alfa.example", kind, "io noid"); m.event.MsgID != "" || bytes.Contains(m.xml, []byte("msgid")) {
				t.Errorf("%s: msgid %q", kind, m.event.MsgID)
			}
		}
		if m := await(t, s, "bob@beta.example", pec.KindTransport, "io noid"); !bytes.Contains(m.original, []byte("Message-ID: <"+string(m.event.Identifier)+">\r\n")) {
			t.Errorf("the original has no identifier:\n%s", m.original)
		}
	})
	t.Run("in To and in Cc", func(t *testing.T) {
		send(t, s, compose("io both", "Cc: bob@beta.example\r\n", "bob@beta.example"), "bob@beta.example")
		if m := await(t, s, "alice@alfa.example", pec.KindDelivery, "io both"); m.original == nil {
			t.Error("who is in To and Cc counts as primary")
		}
	})
	t.Run("brief", func(t *testing.T) { brief(t, s) })
	t.Run("second domain", func(t *testing.T) {
		ldif := bytes.Replace(s.LDIF(), []byte("managedDomains: beta.example"), []byte("managedDomains: BETA.example\nmanagedDomains: terzo.example"), 1)
		if err := s.SignDirectory(within(t), ldif); err != nil {
			t.Fatal(err)
		}
		readAgain(t, s.Alfa)
		readAgain(t, s.Beta)
		send(t, s, compose("io domain", "", "bob@Beta.EXAMPLE", "carla@terzo.example"), "bob@Beta.EXAMPLE", "carla@terzo.example")
		for _, r := range await(t, s, "alice@alfa.example", pec.KindAcceptance, "io domain").event.Recipients {
			if r.Type != pec.Certified {
				t.Errorf("%s is %s", r.Address, r.Type)
			}
		}
		await(t, s, "alice@alfa.example", pec.KindDelivery, "io domain")
	})
	t.Run("certificate renewed", func(t *testing.T) { renew(t, s) })
}

// brief asks for brief receipts of originals whose structure matters
// (RFC 6109, 3.3.2.2).
func brief(t *testing.T, s *stage.Stage) {
	digest := func(b string) string { d := sha1.Sum([]byte(b)); return hex.EncodeToString(d[:]) }
	attached := "Content-Type: application/pdf; name=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD"
	tests := map[string]struct {
		mime, body string
		want       []string // in the original of the receipt
		gone       string
	}{
		"signed": {"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=s\r\n",
			"--s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nTesto.\r\n--b\r\n" + attached + "\r\n--b--\r\n\r\n--s\r\nContent-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Transfer-Encoding: base64\r\n\r\nU0lHTg==\r\n--s--\r\n",
			[]string{digest("QUJD"), "a.pdf.hash", "U0lHTg=="}, "QUJD"},
		"enveloped": {"Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=\"smime.p7m\"\r\nContent-Transfer-Encoding: base64\r\n", "RU5WRUxPUEU=\r\n",
			[]string{"RU5WRUxPUEU=", "smime.p7m"}, ".hash"},
		"message": {"Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\n\r\nTesto.\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: dentro\r\n\r\nInterno.\r\n--b--\r\n",
			[]string{digest("Subject: dentro\r\n\r\nInterno.")}, "Interno."},
		"nested": {"Content-Type: multipart/mixed; boundary=b\r\n",
			"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nTesto.\r\n--c\r\nContent-Type: text/html\r\n\r\n<p>Testo.</p>\r\n--c--\r\n--b\r\nContent-Type: application/x;\r\n name*0*=utf-8''perch%C3%A9;\r\n name*1=.bin\r\n\r\nGREZZO\r\n--b--\r\n",
			[]string{digest("GREZZO"), "<p>Testo.</p>", ".hash"}, "GREZZO"},
	}
	for name, tt := range tests {
		raw := compose("io "+name, "X-TipoRicevuta: breve\r\nMIME-Version: 1.0\r\n"+tt.mime, "bob@beta.example")
		head, _, _ := strings.Cut(raw, "\r\n\r\n")
		send(t, s, head+"\r\n\r\n"+tt.body, "bob@beta.example")
	}
	for name, tt := range tests {
		m := await(t, s, "alice@alfa.example", pec.KindDelivery, "io "+name)
		wantText(t, m, "Ricevuta breve di avvenuta consegna")
		for _, want := range tt.want {
			if !bytes.Contains(m.original, []byte(want)) {
				t.Errorf("%s: the receipt lacks %q:\n%s", name, want, m.original)
			}
		}
		if bytes.Contains(m.original, []byte(tt.gone)) {
			t.Errorf("%s: the receipt holds %q:\n%s", name, tt.gone, m.original)
		}
	}
}

// renew gives Alfa a second certificate while the first is still in the directory.
func renew(t *testing.T, s *stage.Stage) {
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue("Alfa PEC S.p.A.", "posta-certificata@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(s.Alfa.Certificate)
	cert, key := filepath.Join(dir, "new.pem"), filepath.Join(dir, "new-key.pem")
	if err := leaf.Write(cert, key, ca); err != nil {
		t.Fatal(err)
	}
	record := certificateLines(leaf.Certificate.Raw)
	ldif := bytes.Replace(s.LDIF(), []byte("mailReceipt: ricevute@alfa.example"), append(record, "mailReceipt: ricevute@alfa.example"...), 1)
	if err := s.SignDirectory(within(t), ldif); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Beta)
	s.Alfa.Pecd.Config.Signer.Certificate, s.Alfa.Pecd.Config.Signer.Key = cert, key
	if err := s.Alfa.Pecd.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Alfa)
	send(t, s, compose("io renewed", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "io renewed")
	envelope := await(t, s, "bob@beta.example", pec.KindTransport, "io renewed")
	file := filepath.Join(t.TempDir(), "envelope.eml")
	if err := os.WriteFile(file, envelope.raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(s.Alfa.Pecd.Bin, "verify", file, "--ca", s.CA, "--directory", s.Directory, "--json").CombinedOutput()
	if serial := leaf.Certificate.SerialNumber.Text(16); err != nil || !bytes.Contains(out, []byte(`"serial":"`+serial+`"`)) {
		t.Errorf("not by the new certificate (%s): %v\n%s", serial, err, out)
	}
}

// certificateLines is a certificate as attributes of a directory record
// (RFC 6109, 4.5.1 and 4.5.2).
func certificateLines(der []byte) []byte {
	sum := sha1.Sum(der)
	return []byte("providerCertificateHash: " + hex.EncodeToString(sum[:]) + "\nproviderCertificate;binary:: " + base64.StdEncoding.EncodeToString(der) + "\n")
}

// TestExpired moves the clock past the end of Alfa's certificate: what comes then
// is no longer certified mail, but to bob, for whom it was taken in charge before, and
// Alfa signs nothing any more.
func TestExpired(t *testing.T) {
	s, clock := withClock(t)
	prolong(t, s, s.Beta)
	send(t, s, compose("ex genuine", "", "bob@beta.example"), "bob@beta.example")
	genuine := await(t, s, "bob@beta.example", pec.KindTransport, "ex genuine").raw
	await(t, s, "alice@alfa.example", pec.KindDelivery, "ex genuine")
	settled(t, s)
	clock(120 * 24 * time.Hour)
	late := bytes.Replace(genuine, []byte("Subject: POSTA CERTIFICATA: ex genuine"), []byte("Subject: ex late"), 1)
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "alice@alfa.example", []string{"bob@beta.example", "bruna@beta.example"}, late); err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(late, []byte("\r\n\r\n"))
	raw := anomaly(t, s, "bruna@beta.example", "ex late")
	if !strings.Contains(readable(t, raw), "non è valido alla data di ricezione") || !bytes.Contains(raw, body) {
		t.Errorf("the anomaly envelope says\n%s", readable(t, raw))
	}
	settled(t, s)
	if mails, err := s.Mailbox(within(t), "bob@beta.example"); err != nil || len(mails) != 1 {
		t.Errorf("bob has %d messages, want the one that he had (%v)", len(mails), err)
	}
	raw = []byte(compose("ex too late", "", "bob@beta.example"))
	_, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, raw)
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code/100 != 4 {
		t.Errorf("Alfa's client heard %v, want 4xx", err)
	}
}

// prolong gives a provider the same certificate for another year.
func prolong(t *testing.T, s *stage.Stage, p *stage.Provider) {
	t.Helper()
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	block, issuers := pem.Decode(text)
	old, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	old.NotAfter = old.NotAfter.AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, old, ca.Certificate, old.PublicKey, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Certificate, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), issuers...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.SignDirectory(within(t), s.LDIF()); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Providers() {
		readAgain(t, p)
	}
}
