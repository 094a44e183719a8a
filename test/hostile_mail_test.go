package test

import (
	"bytes"
	"crypto/rand"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
)

// A rogue is a third provider, Gamma, of the directory: what it signs is genuine.
type rogue struct {
	issuer issue.Issuer
	signer *signer.Signer
}

// newRogue puts Gamma into the directory that both providers read.
func newRogue(t *testing.T, s *stage.Stage) rogue {
	t.Helper()
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue("Gamma PEC S.p.A.", "posta-certificata@gamma.example")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	if err := leaf.Write(cert, key, ca); err != nil {
		t.Fatal(err)
	}
	id, err := signer.LoadPEM(key, cert, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.Parse(s.LDIF())
	if err != nil {
		t.Fatal(err)
	}
	list := []directory.Provider{{Name: "Gamma PEC S.p.A.", Certificates: [][]byte{leaf.Certificate.Raw},
		ServiceMailbox: "ricevute@gamma.example", Domains: []string{"gamma.example"}}}
	for _, p := range d.Providers() {
		list = append(list, *p)
	}
	var ldif bytes.Buffer
	if err := directory.Marshal(&ldif, list); err != nil {
		t.Fatal(err)
	}
	if err := s.SignDirectory(within(t), ldif.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Providers() {
		readAgain(t, p)
	}
	return rogue{issue.Issuer{Name: "Gamma PEC S.p.A.", Address: id.Address()}, signer.NewSigner(id)}
}

// sign signs what Gamma drafted.
func (g rogue) sign(t *testing.T, d issue.Draft, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := g.signer.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := signed.Content().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bring takes a message of Gamma to a provider's port 25.
func (g rogue) bring(t *testing.T, s *stage.Stage, p *stage.Provider, to string, raw []byte) {
	t.Helper()
	if _, err := s.Deliver(within(t), p.SMTP, string(g.issuer.Address), []string{to}, raw); err != nil {
		t.Fatal(err)
	}
}

// TestHostileProvider has a provider of the directory certify what it cannot know:
// that it took charge of a message for another's recipient, delivered it, could not
// deliver it, found a virus in it. None of it counts: Alfa goes on waiting, says so
// after twelve hours, and takes the word of the recipient's own provider.
func TestHostileProvider(t *testing.T) {
	s, clock := withClock(t)
	g := newRogue(t, s)
	if err := s.StopMTA(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("hp waits", "", "bob@beta.example"), "bob@beta.example")
	about := await(t, s, "alice@alfa.example", pec.KindAcceptance, "hp waits").event
	about.At, about.Provider, about.Error, about.Receipt = time.Now(), "Gamma PEC S.p.A.", pec.NoError, ""
	taken, delivered, failed, infected := about, about, about, about
	taken.Taken = []pec.Address{"bob@beta.example"}
	delivered.Recipient, delivered.Receipt = "bob@beta.example", pec.Concise
	failed.Recipient, failed.Error, failed.Detail = "bob@beta.example", pec.ErrorNoDest, "5.1.1 - Gamma PEC S.p.A. - indirizzo non valido"
	infected.Recipient, infected.Error, infected.Detail = "bob@beta.example", pec.ErrorVirus, "EICAR"
	lies := []struct {
		kind pec.Kind
		to   string
		raw  []byte
	}{}
	add := func(kind pec.Kind, to string, d issue.Draft, err error) {
		t.Helper()
		lies = append(lies, struct {
			kind pec.Kind
			to   string
			raw  []byte
		}{kind, to, g.sign(t, d, err)})
	}
	d, err := g.issuer.TakeCharge(taken, "ricevute@alfa.example", rand.Reader)
	add(pec.KindTakeCharge, "ricevute@alfa.example", d, err)
	d, err = g.issuer.Virus(infected, "ricevute@alfa.example", rand.Reader)
	add(pec.KindVirus, "ricevute@alfa.example", d, err)
	d, err = g.issuer.Delivery(delivered, nil, false, rand.Reader)
	add(pec.KindDelivery, "alice@alfa.example", d, err)
	d, err = g.issuer.NonDelivery(failed, rand.Reader)
	add(pec.KindNonDelivery, "alice@alfa.example", d, err)
	for _, l := range lies {
		g.bring(t, s, s.Alfa, l.to, l.raw)
	}
	wrapped := func(address string) (n int) {
		mails, err := s.Mailbox(within(t), address)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range mails {
			if isAnomaly(raw, "hp waits") && strings.Contains(readable(t, raw), "non gestisce il dominio") {
				n++
			}
		}
		return n
	}
	until(t, "all four come as anomalies", func() bool {
		return wrapped("ricevute@alfa.example") == 2 && wrapped("alice@alfa.example") == 2
	})
	if n := metric(t, s.Alfa, "pecd_ledger_open"); n != 1 {
		t.Errorf("%v recipients are waited for, want bob", n)
	}
	for _, e := range register(t, s.Alfa, "--id", string(about.Identifier)) {
		if e.Type == logstore.EntryReceived && e.Detail != string(pec.KindAcceptance) {
			t.Errorf("the register has %+v", e)
		}
	}
	// Had the take-charge receipt counted there would be no notice now: TestTimeouts.
	clock(12*time.Hour + time.Minute)
	if m := await(t, s, "alice@alfa.example", pec.KindTimeout, "hp waits"); m.event.Recipient != "bob@beta.example" {
		t.Errorf("%+v", m.event)
	}
	if err := s.StartMTA(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	genuine := await(t, s, "alice@alfa.example", pec.KindDelivery, "hp waits")
	if genuine.event.Provider != "Beta PEC S.p.A." {
		t.Errorf("delivered, says %s", genuine.event.Provider)
	}
	settled(t, s)
	if n := metric(t, s.Alfa, "pecd_ledger_open"); n != 0 {
		t.Errorf("%v recipients are still waited for", n)
	}

	// Receipts that were genuine come again: at once, a day later, altered.
	take := await(t, s, "ricevute@alfa.example", pec.KindTakeCharge, "hp waits")
	entries := metric(t, s.Alfa, "pecd_register_entries")
	again := func() {
		for to, m := range map[string]mail{"alice@alfa.example": genuine, "ricevute@alfa.example": take} {
			if _, err := s.Deliver(within(t), s.Alfa.SMTP, "posta-certificata@beta.example", []string{to}, m.raw); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, s)
	}
	again()
	clock(40 * time.Hour)
	again()
	if n := metric(t, s.Alfa, "pecd_register_entries"); n != entries {
		t.Errorf("replayed receipts made %v register entries", n-entries)
	}
	if n, m := count(t, s, "alice@alfa.example", pec.KindDelivery, "hp waits"), count(t, s, "ricevute@alfa.example", pec.KindTakeCharge, "hp waits"); n != 1 || m != 1 {
		t.Errorf("alice has %d delivery receipts, the service mailbox %d take-charge receipts; want one each", n, m)
	}
}

// TestHostileOtherDay brings genuine envelopes of another day: one that was held
// back for a day and a half is certified mail still, once, and so is one that its
// provider dates into the past; what either says of its sender's domain is checked as
// ever.
func TestHostileOtherDay(t *testing.T) {
	s, clock := withClock(t)
	g := newRogue(t, s)
	transport := func(sender pec.Address, subject string, at time.Time) []byte {
		t.Helper()
		m, err := message.Read(message.Bytes([]byte("From: " + string(sender) + "\r\nTo: bob@beta.example\r\nSubject: " + subject + "\r\n\r\nTesto.\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		id := pec.Identifier(strings.ReplaceAll(subject, " ", "") + "@gamma.example")
		d, err := g.issuer.Transport(pec.Event{At: at, Identifier: id, Sender: sender, Subject: subject, ReplyTo: string(sender),
			Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Receipt: pec.Concise, Error: pec.NoError}, m, message.Facts{}, rand.Reader)
		return g.sign(t, d, err)
	}
	now := time.Now()
	held, old := transport("carla@gamma.example", "od held", now), transport("carla@gamma.example", "od old", now.Add(-30*time.Minute))
	foreign := transport("alice@alfa.example", "od foreign", now)
	clock(36 * time.Hour)
	for range 2 {
		g.bring(t, s, s.Beta, "bob@beta.example", held)
		g.bring(t, s, s.Beta, "bob@beta.example", old)
	}
	g.bring(t, s, s.Beta, "bob@beta.example", foreign)
	if raw := anomaly(t, s, "bob@beta.example", "od foreign"); !strings.Contains(readable(t, raw), "non gestisce il dominio") {
		t.Errorf("the anomaly envelope says\n%s", readable(t, raw))
	}
	eventually(t, "both are in bob's mailbox", func() string {
		if err := s.Beta.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
		if count(t, s, "bob@beta.example", pec.KindTransport, "od held")+count(t, s, "bob@beta.example", pec.KindTransport, "od old") < 2 {
			return "not yet"
		}
		return ""
	})
	settledBut(t, s.Beta)
	for _, subject := range []string{"od held", "od old"} {
		if n := count(t, s, "bob@beta.example", pec.KindTransport, subject); n != 1 {
			t.Errorf("bob has %d of %q", n, subject)
		}
		got := registered(t, s.Beta, pec.Identifier(strings.ReplaceAll(subject, " ", "")+"@gamma.example"))
		if got != "avvenuta-consegna presa-in-carico" {
			t.Errorf("register about %q: %s", subject, got)
		}
	}
}

// settledBut waits until the outbox is empty: Gamma has no server, so that Beta's MTA
// keeps what is for it.
func settledBut(t *testing.T, p *stage.Provider) {
	t.Helper()
	eventually(t, "the outbox is empty", func() string {
		if metric(t, p, "pecd_outbox_messages") != 0 {
			return "it is not"
		}
		return ""
	})
}

// TestHostileDirectory has two providers claim one domain. Such a directory is
// refused whole, and the log says who they are: the last good one stays in use, at a
// reload, for mail, and after a restart.
func TestHostileDirectory(t *testing.T) {
	s := newStage(t)
	ldif := bytes.Replace(s.LDIF(), []byte("managedDomains: alfa.example\n"), []byte("managedDomains: alfa.example\nmanagedDomains: BETA.example\n"), 1)
	if err := s.SignDirectory(within(t), ldif); err != nil {
		t.Fatal(err)
	}
	const claim = "domain beta.example is managed by"
	for _, p := range s.Providers() {
		said := hangUp(t, p.Pecd, fileText(t, p.Pecd.ConfigFile), "msg=reloaded")
		if !strings.Contains(said, "directory not updated; the last good one stays in use") || !strings.Contains(said, claim) || !strings.Contains(said, "Alfa PEC") || !strings.Contains(said, "Beta PEC") {
			t.Errorf("%s says %s", p.Label, said)
		}
	}
	exchange := func(subject string) {
		t.Helper()
		send(t, s, compose(subject, "", "bob@beta.example"), "bob@beta.example")
		await(t, s, "bob@beta.example", pec.KindTransport, subject)
		if m := await(t, s, "alice@alfa.example", pec.KindDelivery, subject); m.event.Provider != "Beta PEC S.p.A." {
			t.Errorf("delivered, says %s", m.event.Provider)
		}
		settled(t, s)
	}
	exchange("hd claimed")
	out, err := exec.Command(s.Alfa.Pecd.Bin, "config", "check", "--config", s.Alfa.Pecd.ConfigFile).CombinedOutput()
	if err == nil || !strings.Contains(string(out), claim) {
		t.Errorf("config check: %v\n%s", err, out)
	}
	for _, p := range s.Providers() {
		stop(t, p)
		start(t, p)
	}
	exchange("hd restarted")
}
