package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
)

const plainMessage = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Prova\r\nMessage-ID: <plain@alfa.example>\r\n\r\nTesto.\r\n"

// TestRefused hands in what is refused at SMTP: where it is not certain who
// sends, or above the size that a notice answers. The client must hear why at
// once, and nothing may come of it.
func TestRefused(t *testing.T) {
	s := newStage(t, func(o *stage.Options) {
		o.Configure = func(_ string, c *stage.PecdConfig) { c.Access.MaxSize, c.Access.NoticeSize = 30_000_000, 31_000_000 }
	})
	notOwned := map[string]string{stage.MTAPostfix: "not owned by user", stage.MTASendmail: "may not send as"}[*mta] // here pecd says it
	tests := []struct {
		name, from, raw string
		code            int
		says            string
	}{
		{"sender of another", "anna@alfa.example", strings.Replace(plainMessage, "alice@alfa", "anna@alfa", 1), 553, notOwned},
		{"not even a notice", "alice@alfa.example", plainMessage + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 410_000), 552, "30000000"},
		{"a field that the MTA would cut", "alice@alfa.example", "X-Long: " + strings.Repeat("y ", 30_000) + "\r\n" + plainMessage, 550, "invalid field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Submit(within(t), "alice@alfa.example", tt.from, []string{"bob@beta.example"}, []byte(tt.raw))
			var reply *textproto.Error
			if !errors.As(err, &reply) || reply.Code != tt.code || !strings.Contains(reply.Msg, tt.says) {
				t.Errorf("the client heard %v, want %d … %s", err, tt.code, tt.says)
			}
		})
	}
	// When the envelope of the last message is there, all before it would be.
	if _, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, []byte(plainMessage)); err != nil {
		t.Fatal(err)
	}
	await(t, s, "alice@alfa.example", pec.KindDelivery, "Prova")
	settled(t, s)
	for address, n := range map[string]int{"alice@alfa.example": 2, "bob@beta.example": 1} {
		if mails, err := s.Mailbox(within(t), address); err != nil || len(mails) != n {
			t.Errorf("%s has %d messages (%v), want %d", address, len(mails), err, n)
		}
	}
}

// TestUnauthenticated calls the submission service without a login.
func TestUnauthenticated(t *testing.T) {
	s := newStage(t)
	if reply, err := s.Deliver(within(t), s.Alfa.Submission, "alice@alfa.example", []string{"bob@beta.example"}, []byte(plainMessage)); err == nil {
		t.Errorf("accepted from nobody: %s", reply)
	}
}

// foreign is a transport envelope in Alfa's name, by somebody with a CA of his
// own.
func foreign(t *testing.T) []byte {
	t.Helper()
	ca, err := stage.NewAuthority("Foreign CA")
	if err != nil {
		t.Fatal(err)
	}
	_, raw := pretended(t, ca)
	return raw
}

// pretended is a transport envelope in Alfa's name with a certificate by ca that
// is in no directory, and that certificate.
func pretended(t *testing.T, ca stage.Authority) (stage.Authority, []byte) {
	t.Helper()
	leaf, err := ca.Issue("Alfa PEC S.p.A.", "posta-certificata@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	if err := leaf.Write(cert, key, ca); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	id, err := signer.LoadPEM(key, cert, now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := message.Read(message.Bytes(plainMessage))
	if err != nil {
		t.Fatal(err)
	}
	d, err := issue.Issuer{Name: "Alfa PEC S.p.A.", Address: id.Address()}.Transport(pec.Event{At: now, Identifier: "foreign1@alfa.example", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Receipt: pec.Complete, Error: pec.NoError}, m, message.Facts{}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.NewSigner(id).Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := signed.Content().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return leaf, b.Bytes()
}

// deepBER is a signature of a hundred thousand nested values, which ends a
// recursive parser.
func deepBER() []byte {
	return []byte("From: posta-certificata@alfa.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pkcs7-signature\"; micalg=sha-256\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		strings.Repeat("MIAwgDCAMIAwgDCAMIAwgDCAMIAwgDCAMIAwgDCAMIAwgDCAMIAwgDCAMIAw\r\n", 5000) + "--b--\r\n")
}

// TestStart wants a clear answer where pecd cannot start.
func TestStart(t *testing.T) {
	s := newStage(t)
	p := s.Alfa.Pecd
	if err := p.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(s.Directory)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	broken[bytes.Index(broken, []byte("beta.example"))] ^= 1
	if err := os.WriteFile(s.Directory, broken, 0o644); err != nil {
		t.Fatal(err)
	}
	// The last good one is on disk, and stays in use.
	if err := p.Start(within(t)); err != nil {
		t.Errorf("with an altered directory beside the last good one: %v", err)
	}
	if logged(t, s.Alfa, "directory not updated; the last good one stays in use") == 0 {
		t.Error("nobody is told that the directory is altered")
	}
	if err := errors.Join(p.Stop(within(t)), os.RemoveAll(filepath.Join(p.Config.Store.Path, "trust"))); err != nil {
		t.Fatal(err)
	}
	err = p.Start(within(t))
	if err == nil || !strings.Contains(err.Error(), "directory.file") || !strings.Contains(err.Error(), "signature") {
		t.Errorf("with an altered directory: %v", err)
	}
	if err := os.WriteFile(s.Directory, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(context.Background()); err != nil {
		t.Error(err)
	}
}
