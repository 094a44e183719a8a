package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// send submits raw from alice and wants it taken.
func send(t *testing.T, s *stage.Stage, raw string, rcpts ...string) {
	t.Helper()
	if reply, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", rcpts, []byte(raw)); err != nil {
		t.Fatalf("%v (%s)", err, reply)
	}
}

// compose writes one from alice with these recipients in To.
func compose(subject string, extra string, to ...string) string {
	return "From: alice@alfa.example\r\nTo: " + strings.Join(to, ", ") + "\r\n" + extra +
		"Subject: " + subject + "\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@client.example>\r\n\r\nTesto di " + subject + ".\r\n"
}

// await waits for a message of that kind about that subject, and reads it.
func await(t *testing.T, s *stage.Stage, address string, kind pec.Kind, subject string) mail {
	t.Helper()
	var found []byte
	_, err := s.WaitMail(within(t), address, func(mails [][]byte) bool {
		for _, raw := range mails {
			if is(raw, kind, subject) {
				found = raw
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatalf("no %s about %q at %s: %v", kind, subject, address, err)
	}
	m := read(t, found)
	checkSigned(t, s, address, m)
	return m
}

// is reports whether raw is of that kind and its data are about that subject.
func is(raw []byte, kind pec.Kind, subject string) bool {
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	word := pec.HeaderReceipt + ": " + string(kind) + "\r\n"
	if kind == pec.KindTransport {
		word = pec.HeaderTransport + ": " + pec.TransportCertified + "\r\n"
	}
	return bytes.Contains(append(header, "\r\n"...), []byte(word)) && bytes.Contains(header, []byte(subject))
}

// count returns how many messages of that kind about that subject there are.
func count(t *testing.T, s *stage.Stage, address string, kind pec.Kind, subject string) (n int) {
	t.Helper()
	mails, err := s.Mailbox(within(t), address)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range mails {
		if is(raw, kind, subject) {
			n++
		}
	}
	return n
}

// wantText wants each line in the readable part of m.
func wantText(t *testing.T, m mail, lines ...string) {
	t.Helper()
	text := readable(t, m.raw)
	for _, l := range lines {
		if !strings.Contains(text, l) {
			t.Errorf("the text of %s lacks %q:\n%s", m.event.Kind, l, text)
		}
	}
}

// TestNonAcceptance breaks formal rules: the client hears 250, and the sender's
// mailbox gets a signed notice with the reasons (RFC 6109, 3.1.2).
func TestNonAcceptance(t *testing.T) {
	s := newStage(t, func(o *stage.Options) {
		o.Configure = func(_ string, c *stage.PecdConfig) {
			c.Access.MaxSize, c.Access.MaxTotal = 30_000_000, 40_000_000
		}
	})
	bob := []string{"bob@beta.example"}
	long := strings.Repeat("x", 76) + "\r\n"
	tests := []struct {
		subject, raw string
		rcpts        []string
		says         []string
	}{
		{"na from", strings.Replace(compose("na from", "", bob...), "From: alice", "From: anna", 1), bob, []string{"anna@alfa.example"}},
		{"na nofrom", strings.Replace(compose("na nofrom", "", bob...), "From:", "X-From:", 1), bob, []string{"From"}},
		{"na rcpt", compose("na rcpt", "", bob...), []string{"bob@beta.example", "bruna@beta.example"}, []string{"bruna@beta.example", "To o Cc"}},
		{"na bcc", compose("na bcc", "Bcc: x@beta.example\r\n", bob...), bob, []string{"Bcc"}},
		{"na noto", strings.Replace(compose("na noto", "", bob...), "\r\nTo:", "\r\nX-To:", 1), bob, []string{"campo To", "bob@beta.example"}},
		{"na many", strings.Replace(compose("na many", "Bcc: x@beta.example\r\n", bob...), "\r\nTo:", "\r\nX-To:", 1), bob, []string{"Bcc", "campo To"}},
		{"na line", compose("na line", "", bob...) + strings.Repeat("y", 999) + "\r\n", bob, []string{"999 byte"}},
		{"na size", compose("na size", "", bob...) + strings.Repeat(long, 400_000), bob, []string{"30000000"}},
		{"na total", compose("na total", "", "bob@beta.example", "bruna@beta.example") + strings.Repeat(long, 300_000),
			[]string{"bob@beta.example", "bruna@beta.example"}, []string{"2 destinatari", "40000000"}},
	}
	for _, tt := range tests {
		send(t, s, tt.raw, tt.rcpts...)
	}
	for _, tt := range tests {
		m := await(t, s, "alice@alfa.example", pec.KindNonAcceptance, tt.subject)
		if m.event.Error != pec.ErrorOther || m.original != nil || m.event.Identifier == "" || m.event.Sender != "alice@alfa.example" {
			t.Errorf("%s: %+v", tt.subject, m.event)
		}
		for _, want := range tt.says {
			if !strings.Contains(m.event.Detail, want) {
				t.Errorf("%s: errore-esteso %q lacks %q", tt.subject, m.event.Detail, want)
			}
		}
		wantText(t, m, "Errore nell'accettazione del messaggio", "è stato rilevato un problema che ne impedisce l'accettazione", "Il messaggio non è stato accettato.")
		if !bytes.Contains(m.raw, []byte("Subject: AVVISO DI NON ACCETTAZIONE: "+tt.subject+"\r\n")) {
			t.Errorf("%s: another Subject", tt.subject)
		}
	}
	settled(t, s)
	for address, n := range map[string]int{"alice@alfa.example": len(tests), "bob@beta.example": 0, "bruna@beta.example": 0, "ricevute@alfa.example": 0} {
		if mails, err := s.Mailbox(within(t), address); err != nil || len(mails) != n {
			t.Errorf("%s has %d messages (%v), want %d", address, len(mails), err, n)
		}
	}
}

// TestReceiptTypes asks for each delivery receipt (RFC 6109, 3.3.2).
func TestReceiptTypes(t *testing.T) {
	s := newStage(t)
	attachment := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
	body := "--b\r\nContent-Type: text/plain\r\n\r\nTesto.\r\n--b\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n"
	titles := map[string]string{"completa": "Ricevuta di avvenuta consegna", "breve": "Ricevuta breve di avvenuta consegna", "sintetica": "Ricevuta sintetica di avvenuta consegna"}
	for kind := range titles {
		raw := compose("rt "+kind, "Cc: bruna@beta.example\r\nX-Tiporicevuta: "+kind+"\r\n"+attachment, "bob@beta.example")
		send(t, s, raw+body, "bob@beta.example", "bruna@beta.example")
	}
	for kind, title := range titles {
		for range 2 {
			await(t, s, "alice@alfa.example", pec.KindDelivery, "rt "+kind)
		}
		if _, err := s.WaitMail(within(t), "alice@alfa.example", func([][]byte) bool {
			return count(t, s, "alice@alfa.example", pec.KindDelivery, "rt "+kind) == 2
		}); err != nil {
			t.Fatal(err)
		}
		mails, err := s.Mailbox(within(t), "alice@alfa.example")
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range mails {
			if !is(raw, pec.KindDelivery, "rt "+kind) {
				continue
			}
			m := read(t, raw)
			checkSigned(t, s, "alice@alfa.example", m)
			primary := m.event.Recipient == "bob@beta.example"
			switch {
			case m.event.Receipt != pec.ReceiptType(kind):
				t.Errorf("rt %s: the data say %s", kind, m.event.Receipt)
			case !primary || kind == "sintetica":
				wantText(t, m, titles["sintetica"])
				if m.original != nil {
					t.Errorf("rt %s to %s carries the original", kind, m.event.Recipient)
				}
			case m.original == nil:
				t.Errorf("rt %s to %s carries no original", kind, m.event.Recipient)
			default:
				wantText(t, m, title)
				// SHA-1 of "QUJD", the part as it is encoded.
				brief := bytes.Contains(m.original, []byte("a.pdf.hash")) && bytes.Contains(m.original, []byte("b7eceac98410d063105b40aaeea98ae29db56953"))
				if full := bytes.Contains(m.original, []byte("QUJD")); full == (kind == "breve") || brief != (kind == "breve") {
					t.Errorf("rt %s carries\n%s", kind, m.original)
				}
			}
		}
	}
}

// TestNonDelivery wants a notice where a mailbox does not exist, and where
// another server refuses the envelope (RFC 6109, 3.3.3).
func TestNonDelivery(t *testing.T) {
	s := newStage(t)
	send(t, s, compose("nd user", "", "nobody@beta.example", "bob@beta.example"), "nobody@beta.example", "bob@beta.example")
	m := await(t, s, "alice@alfa.example", pec.KindNonDelivery, "nd user")
	if m.event.Recipient != "nobody@beta.example" || m.event.Error != pec.ErrorNoDest || m.event.Provider != "Beta PEC S.p.A." ||
		m.event.Detail != "5.1.1 - Beta PEC S.p.A. - indirizzo non valido" || m.original != nil {
		t.Errorf("%+v", m.event)
	}
	wantText(t, m, "Avviso di mancata consegna", "5.1.1 - Beta PEC S.p.A. - indirizzo non valido", "Il messaggio è stato rifiutato dal sistema.")
	if d := await(t, s, "alice@alfa.example", pec.KindDelivery, "nd user"); d.event.Recipient != "bob@beta.example" {
		t.Errorf("delivery of %s", d.event.Recipient)
	}

	// A domain that the directory gives to Beta and that no server takes: the
	// ordinary server, to which everything unknown goes, refuses it.
	ldif := bytes.Replace(s.LDIF(), []byte("managedDomains: beta.example"), []byte("managedDomains: beta.example\nmanagedDomains: gamma.example"), 1)
	if err := s.SignDirectory(within(t), ldif); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Alfa)
	send(t, s, compose("nd domain", "", "carla@gamma.example"), "carla@gamma.example")
	m = await(t, s, "alice@alfa.example", pec.KindNonDelivery, "nd domain")
	if m.event.Recipient != "carla@gamma.example" || m.event.Provider != "Alfa PEC S.p.A." || !strings.Contains(m.event.Detail, " - Alfa PEC S.p.A. - ") {
		t.Errorf("%+v", m.event)
	}
	settled(t, s)
	if n := count(t, s, "alice@alfa.example", pec.KindNonDelivery, "nd "); n != 2 {
		t.Errorf("%d notices, want 2", n)
	}
}

// readAgain has pecd read its configuration again and waits until it has.
func readAgain(t *testing.T, p *stage.Provider) {
	t.Helper()
	before := logged(t, p, "msg=reloaded")
	if err := p.Pecd.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "pecd has reloaded", func() bool { return logged(t, p, "msg=reloaded") > before })
}

func logged(t *testing.T, p *stage.Provider, what string) int {
	t.Helper()
	b, err := os.ReadFile(p.Pecd.Log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte(what))
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx := within(t)
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("it does not come true: %s", what)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// withClock runs the drill binary under a clock that the test moves.
func withClock(t *testing.T, change ...func(*stage.Options)) (*stage.Stage, func(time.Duration)) {
	t.Helper()
	return clockAhead(t, 0, change...)
}

// clockAhead is withClock with clocks that are ahead from the start.
func clockAhead(t *testing.T, ahead time.Duration, change ...func(*stage.Options)) (*stage.Stage, func(time.Duration)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clock")
	move := func(d time.Duration) {
		if err := os.WriteFile(file+".new", []byte(d.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	move(ahead)
	s := newStage(t, append(change, func(o *stage.Options) {
		o.PecdBinary = drillBinary(t)
		o.PecdEnv = []string{"PECD_CLOCK=" + file}
	})...)
	return s, move
}

// TestReplayLater: an envelope that comes again a day later is answered 250, and
// certifies nothing new, least of all the opposite.
func TestReplayLater(t *testing.T) {
	s, clock := withClock(t)
	send(t, s, compose("rl once", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "rl once")
	envelope := await(t, s, "bob@beta.example", pec.KindTransport, "rl once")
	settled(t, s)
	clock(23 * time.Hour)
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "alice@alfa.example", []string{"bob@beta.example"}, envelope.raw); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("rl marker", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "rl marker")
	settled(t, s)
	if n := count(t, s, "alice@alfa.example", pec.KindNonDelivery, "rl once"); n != 0 {
		t.Errorf("%d non-delivery notices about what was delivered", n)
	}
	if n := count(t, s, "bob@beta.example", pec.KindTransport, "rl once"); n != 1 {
		t.Errorf("bob has %d copies", n)
	}
}

// TestTimeouts goes through the matrix of RFC 6109, 3.1.6.
func TestTimeouts(t *testing.T) {
	s, clock := withClock(t)
	alice := "alice@alfa.example"
	notices := func(subject string) string {
		return fmt.Sprintf("12 h: %d, 24 h: %d", countDetail(t, s, subject, "4.4.1 - "), countDetail(t, s, subject, "5.4.1 - "))
	}
	waits := func(subject, want string) {
		t.Helper()
		until(t, subject+": "+want, func() bool { return notices(subject) == want })
	}

	// Nothing at all is heard: both notices.
	if err := s.StopMTA(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("to silence", "", "bob@beta.example", "bruna@beta.example"), "bob@beta.example", "bruna@beta.example")
	await(t, s, alice, pec.KindAcceptance, "to silence")
	clock(11*time.Hour + 58*time.Minute)
	send(t, s, compose("to marker", "", "anna@alfa.example"), "anna@alfa.example")
	await(t, s, alice, pec.KindDelivery, "to marker")
	if got := notices("to silence"); got != "12 h: 0, 24 h: 0" {
		t.Errorf("before 12 hours: %s", got)
	}
	clock(12*time.Hour + time.Minute)
	waits("to silence", "12 h: 2, 24 h: 0")
	m := await(t, s, alice, pec.KindTimeout, "to silence")
	wantText(t, m, "Avviso di mancata consegna", "non è stato consegnato nelle prime dodici ore dal suo invio")

	// A restart certifies nothing twice.
	if err := s.Alfa.Pecd.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	clock(24*time.Hour + time.Minute)
	waits("to silence", "12 h: 2, 24 h: 2")

	// The message is delivered late all the same, and recorded.
	if err := s.StartMTA(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	await(t, s, alice, pec.KindDelivery, "to silence")
	until(t, "both late receipts", func() bool { return count(t, s, alice, pec.KindDelivery, "to silence") == 2 })

	// Taken charge of and never delivered: the last notice only.
	if err := s.StopDovecot(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("to taken", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "ricevute@alfa.example", pec.KindTakeCharge, "to taken")
	clock(37 * time.Hour)
	send(t, s, compose("to marker two", "", "anna@alfa.example"), "anna@alfa.example")
	await(t, s, alice, pec.KindDelivery, "to marker two")
	if got := notices("to taken"); got != "12 h: 0, 24 h: 0" {
		t.Errorf("taken charge of, after 13 hours: %s", got)
	}
	// After 22 hours the store's "later" counts as never, for the receiving provider.
	clock(47 * time.Hour)
	if err := s.Beta.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	m = await(t, s, alice, pec.KindNonDelivery, "to taken")
	if m.event.Provider != "Beta PEC S.p.A." || !strings.HasPrefix(m.event.Detail, "5.4.7 - ") {
		t.Errorf("%+v", m.event)
	}
	clock(50 * time.Hour)
	settled(t, s)
	if got := notices("to taken"); got != "12 h: 0, 24 h: 0" {
		t.Errorf("after the non-delivery notice: %s", got)
	}
	if got := notices("to silence"); got != "12 h: 2, 24 h: 2" {
		t.Errorf("at the end: %s", got)
	}
}

// countDetail counts timeout notices whose errore-esteso begins with prefix.
func countDetail(t *testing.T, s *stage.Stage, subject, prefix string) (n int) {
	t.Helper()
	mails, err := s.Mailbox(within(t), "alice@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range mails {
		if is(raw, pec.KindTimeout, subject) && strings.HasPrefix(read(t, raw).event.Detail, prefix) {
			n++
		}
	}
	return n
}
