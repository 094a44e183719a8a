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

	"pecd/logstore"
	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
)

const plainMessage = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Prova\r\nMessage-ID: <plain@alfa.example>\r\n\r\nTesto.\r\n"

// TestRefused hands in messages that break a rule; the client must hear why at
// once, and nothing may come of them.
func TestRefused(t *testing.T) {
	s := newStage(t, func(o *stage.Options) {
		o.Configure = func(_ string, c *stage.PecdConfig) { c.Access.MaxSize = 30_000_000 }
	})
	ctx := within(t)
	edit := func(old, new string) string { return strings.Replace(plainMessage, old, new, 1) }
	tests := []struct {
		name, user, raw string
		rcpts           []string
		code            int
		says            string
	}{
		{"From of another", "", edit("alice@alfa", "anna@alfa"), nil, 550, "differs from the SMTP sender"},
		{"no From", "", edit("From:", "X-From:"), nil, 550, "From"},
		{"recipient not named", "", plainMessage, []string{"bob@beta.example", "bruna@beta.example"}, 550, "bruna@beta.example is in neither To nor Cc"},
		{"Bcc", "", edit("Subject:", "Bcc: bruna@beta.example\r\nSubject:"), []string{"bob@beta.example", "bruna@beta.example"}, 550, "Bcc"},
		{"no To", "", edit("To:", "X-To:"), nil, 550, "To is missing"},
		{"several reasons", "", strings.Replace(edit("To:", "X-To:"), "Subject:", "Bcc: x@y.example\r\nSubject:", 1), nil, 550, "Bcc is not allowed"},
		{"line too long", "", edit("Testo.", strings.Repeat("x", 999)), nil, 550, "999 octets"},
		{"two subjects", "", edit("Subject:", "Subject: uno\r\nSubject:"), nil, 550, "Subject occurs 2 times"},
		{"too large", "", edit("Testo.", strings.Repeat(strings.Repeat("x", 76)+"\r\n", 400_000)), nil, 552, "30000000"},
		{"address that cannot be certified", "", edit("<plain@", "<pl\xc3\xa0in@"), nil, 250, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.rcpts == nil {
				tt.rcpts = []string{"bob@beta.example"}
			}
			_, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", tt.rcpts, []byte(tt.raw))
			if tt.code == 250 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var reply *textproto.Error
			if !errors.As(err, &reply) || reply.Code != tt.code || !strings.Contains(reply.Msg, tt.says) {
				t.Errorf("the client heard %v, want %d … %s", err, tt.code, tt.says)
			}
		})
	}
	// The last one was accepted: when its envelope is there, all before it would be.
	mails, err := s.WaitMail(ctx, "bob@beta.example", stage.Count(1))
	if err != nil || len(mails) != 1 {
		t.Errorf("bob has %d messages (%v)", len(mails), err)
	}
	refused := 0
	for _, e := range register(t, s.Alfa) {
		if e.Type == logstore.EntryRefused {
			refused++
		}
	}
	// What passes the size limit is refused before it is read, and not registered.
	if refused != len(tests)-2 {
		t.Errorf("%d refusals in the register, want %d", refused, len(tests)-2)
	}
}

// TestUnauthenticated calls the submission service without a login.
func TestUnauthenticated(t *testing.T) {
	s := newStage(t)
	if reply, err := s.Deliver(within(t), s.Alfa.Submission, "alice@alfa.example", []string{"bob@beta.example"}, []byte(plainMessage)); err == nil {
		t.Errorf("accepted from nobody: %s", reply)
	}
}

// TestNotCertified brings to port 25 what looks like certified mail and is not.
// It must stay in the queue, with no receipt and nothing in a mailbox.
func TestNotCertified(t *testing.T) {
	s := newStage(t)
	ctx := within(t)
	if _, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, []byte(plainMessage)); err != nil {
		t.Fatal(err)
	}
	mails, err := s.WaitMail(ctx, "bob@beta.example", stage.Count(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WaitMail(ctx, "alice@alfa.example", stage.Count(2)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	// The store's own fields end where Postfix's begin to be ours again; whatever
	// stands above the signed part does not matter to the signature.
	genuine := mails[0]
	altered := bytes.Replace(genuine, []byte("Testo."), []byte("Tasto."), 1)
	if bytes.Equal(altered, genuine) {
		t.Fatal("nothing was altered")
	}
	bad := map[string]struct {
		raw  []byte
		rcpt string
	}{
		"one octet changed":         {altered, "bob@beta.example"},
		"foreign certificate":       {foreign(t), "bob@beta.example"},
		"no signature":              {[]byte(plainMessage), "bob@beta.example"},
		"genuine, to somebody else": {genuine, "bruna@beta.example"},
		"garbage":                   {bytes.Repeat([]byte("\xff\x00\x80 \r\n"), 1000), "bob@beta.example"},
		"deep BER":                  {deepBER(), "bob@beta.example"},
	}
	for name, b := range bad {
		if _, err := s.Deliver(ctx, s.Beta.SMTP, "alice@alfa.example", []string{b.rcpt}, b.raw); err != nil {
			t.Fatalf("%s: port 25: %v", name, err)
		}
	}
	// The genuine one again, to its own recipient: known, not delivered twice.
	if _, err := s.Deliver(ctx, s.Beta.SMTP, "alice@alfa.example", []string{"bob@beta.example"}, genuine); err != nil {
		t.Fatal(err)
	}
	queue := waitQueue(t, s.Beta, len(bad))
	for _, q := range queue {
		if !strings.Contains(q, "451 4.7.0") && !strings.Contains(q, "4.7.0") {
			t.Errorf("the queue says %s", q)
		}
	}
	for address, n := range map[string]int{"bob@beta.example": 1, "bruna@beta.example": 0, "alice@alfa.example": 2, "ricevute@alfa.example": 1} {
		if mails, err := s.Mailbox(ctx, address); err != nil || len(mails) != n {
			t.Errorf("%s has %d messages (%v), want %d", address, len(mails), err, n)
		}
	}
}

// waitQueue waits until each of n messages has been tried and put off.
func waitQueue(t *testing.T, p *stage.Provider, n int) []string {
	t.Helper()
	ctx := within(t)
	for {
		queue, err := p.Queue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tried := 0
		for _, q := range queue {
			if strings.Contains(q, "delay_reason") {
				tried++
			}
		}
		if tried == n && len(queue) == n {
			return queue
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d messages were put off: %s", tried, n, queue)
		case <-time.After(50 * time.Millisecond):
		}
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
