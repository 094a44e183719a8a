package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/plugins/clamav/clamdtest"
)

// scanned is a stage whose provider Beta has its mail looked at by clamd. Alfa
// has no antivirus: it shows what becomes of a virus that the sender's provider
// did not see.
func scanned(t *testing.T) (*stage.Stage, *clamdtest.Clamd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "clamd") // clamd's user must reach it
	if err != nil {
		t.Fatal(err)
	}
	clamd, err := clamdtest.Start(within(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(clamd.Stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	program := clamav.build(t)
	return newStage(t, func(o *stage.Options) {
		o.Configure = func(domain string, c *stage.PecdConfig) {
			if domain == "beta.example" {
				c.Plugins = append(c.Plugins, stage.PluginConfig{Path: program, Settings: map[string]any{"socket": clamd.Unix}})
			}
		}
	}), clamd
}

// infected is a message from the given sender with the test string attached.
func infected(from, subject string, to ...string) string {
	return strings.Replace(compose(subject, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n", to...), "From: alice@alfa.example", "From: "+from, 1) +
		"--b\r\nContent-Type: text/plain\r\n\r\nVedi allegato.\r\n--b\r\nContent-Type: application/octet-stream; name=\"x.com\"\r\n\r\n" +
		string(clamdtest.EICAR()) + "\r\n--b--\r\n"
}

// TestVirus shows all ways of the rules with a real clamd: RFC 6109, 3.1.3, 3.2.3
// and 3.2.4, and ordinary mail at the gate.
func TestVirus(t *testing.T) {
	s, _ := scanned(t)
	both := []string{"bob@beta.example", "bruna@beta.example"}

	// Alfa did not see it: Beta tells Alfa, Alfa tells alice.
	send(t, s, infected("alice@alfa.example", "v in", both...), both...)
	id := await(t, s, "alice@alfa.example", pec.KindAcceptance, "v in").event.Identifier
	for range both {
		await(t, s, "ricevute@alfa.example", pec.KindVirus, "v in")
	}
	for _, kind := range []pec.Kind{pec.KindVirus, pec.KindNonDelivery} {
		address := map[pec.Kind]string{pec.KindVirus: "ricevute@alfa.example", pec.KindNonDelivery: "alice@alfa.example"}[kind]
		told := map[pec.Address]bool{}
		for _, m := range all(t, s, address, kind, "v in", len(both)) {
			told[m.event.Recipient] = true
			if m.event.Error != pec.ErrorVirus || m.event.Identifier != id || m.original != nil || !strings.Contains(m.event.Detail, clamdtest.Virus) {
				t.Errorf("%+v", m.event)
			}
			wantText(t, m, "è stato rilevato un problema di sicurezza ["+m.event.Detail+"]")
		}
		if !told[pec.Address(both[0])] || !told[pec.Address(both[1])] {
			t.Errorf("%s about %v", kind, told)
		}
	}

	// Beta's own user submits one.
	raw := infected("bob@beta.example", "v out", "alice@alfa.example")
	if _, err := s.Submit(within(t), "bob@beta.example", "bob@beta.example", []string{"alice@alfa.example"}, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	m := await(t, s, "bob@beta.example", pec.KindNonAcceptance, "v out")
	if m.event.Error != pec.ErrorVirus || m.original != nil || !strings.Contains(m.event.Detail, clamdtest.Virus) {
		t.Errorf("%+v", m.event)
	}
	wantText(t, m, "Errore nell'accettazione del messaggio per presenza di virus", "Il messaggio non è stato accettato.")

	// An ordinary server brings one, and hears it at once.
	var reply *textproto.Error
	_, err := s.Deliver(within(t), s.Beta.SMTP, "mario@ordinary.example", both, []byte(infected("mario@ordinary.example", "v ordinary", both...)))
	if !errors.As(err, &reply) || reply.Code != 554 {
		t.Errorf("the other server heard %v, want 554", err)
	}

	// And what is clean goes its way.
	send(t, s, compose("v clean", "", both...), both...)
	await(t, s, "bob@beta.example", pec.KindTransport, "v clean")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "v clean")
	settled(t, s)
	for _, address := range both {
		for _, subject := range []string{"v in", "v ordinary"} {
			if n := mentions(t, s, address, subject); n != 0 {
				t.Errorf("%s has %d messages about %q", address, n, subject)
			}
		}
	}
	if n := count(t, s, "ricevute@alfa.example", pec.KindTakeCharge, "v in"); n != 0 {
		t.Errorf("Beta took charge of the infected message %d times", n)
	}
	checkVirusStore(t, s.Beta, raw)
	kinds := map[logstore.EntryType]int{}
	for _, e := range register(t, s.Beta) {
		if e.Error == pec.ErrorVirus {
			kinds[e.Type]++
		}
	}
	if kinds[logstore.EntryType(pec.KindVirus)] != 2 || kinds[logstore.EntryType(pec.KindNonAcceptance)] != 1 || kinds[logstore.EntryVirus] != 1 {
		t.Errorf("the register has %v", kinds)
	}
}

// all waits for n messages of that kind about that subject.
func all(t *testing.T, s *stage.Stage, address string, kind pec.Kind, subject string, n int) (list []mail) {
	t.Helper()
	mails, err := s.WaitMail(within(t), address, func([][]byte) bool { return count(t, s, address, kind, subject) >= n })
	if err != nil {
		t.Fatalf("no %d of %s about %q at %s: %v", n, kind, subject, address, err)
	}
	for _, raw := range mails {
		if is(raw, kind, subject) {
			m := read(t, raw)
			checkSigned(t, s, address, m)
			list = append(list, m)
		}
	}
	return list
}

// mentions counts the messages of a mailbox that hold that text.
func mentions(t *testing.T, s *stage.Stage, address, text string) (n int) {
	t.Helper()
	mails, err := s.Mailbox(within(t), address)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range mails {
		if bytes.Contains(raw, []byte(text)) {
			n++
		}
	}
	return n
}

// checkVirusStore lists and exports what is kept, as an operator would: an
// envelope and submitted.
func checkVirusStore(t *testing.T, p *stage.Provider, submitted string) {
	t.Helper()
	out, err := exec.Command(p.Pecd.Bin, "virus", "list", "--json", "--config", p.Pecd.ConfigFile).Output()
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]logstore.Infected{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var m logstore.Infected
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		sources[m.Source] = m
	}
	if len(sources) != 2 || len(bytes.Split(bytes.TrimSpace(out), []byte("\n"))) != 2 {
		t.Fatalf("kept:\n%s", out)
	}
	for source, want := range map[string]string{logstore.KeptAccess: submitted, logstore.KeptReception: "X-Trasporto: posta-certificata\r\n"} {
		file := filepath.Join(t.TempDir(), "export.eml")
		m := sources[source]
		number, err := json.Marshal(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(p.Pecd.Bin, "virus", "export", string(number), "-o", file, "--config", p.Pecd.ConfigFile).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(want)) || !bytes.Contains(b, clamdtest.EICAR()) {
			t.Errorf("%s: exported %v\n%s", source, err, b)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", source, st.Mode(), err)
		}
		if rome := m.At.In(legal(t)); !m.Until.Equal(rome.AddDate(0, 30, 0)) {
			t.Errorf("%s: kept from %s to %s", source, m.At, m.Until)
		}
	}
	for _, path := range []string{"virus", "pecd.db"} {
		st, err := os.Stat(filepath.Join(p.Pecd.Config.Store.Path, path))
		if err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

// TestScannerAway: while clamd is away nothing is accepted, refused or bounced,
// and when it is back all goes on.
func TestScannerAway(t *testing.T) {
	s, clamd := scanned(t)
	if err := clamd.Stop(); err != nil {
		t.Fatal(err)
	}
	raw := strings.Replace(compose("away out", "", "alice@alfa.example"), "From: alice@alfa.example", "From: bob@beta.example", 1)
	submit := func() error {
		_, err := s.Submit(within(t), "bob@beta.example", "bob@beta.example", []string{"alice@alfa.example"}, []byte(raw))
		return err
	}
	var reply *textproto.Error
	if err := submit(); !errors.As(err, &reply) || reply.Code != 451 {
		t.Errorf("the client heard %v, want 451", err)
	}
	send(t, s, compose("away in", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindAcceptance, "away in")
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "mario@ordinary.example", []string{"bob@beta.example"}, []byte("From: mario@ordinary.example\r\nSubject: away gate\r\n\r\nX\r\n")); !errors.As(err, &reply) || reply.Code/100 != 4 {
		t.Errorf("the other server heard %v, want 4xx", err)
	}
	waitForDeferral(t, s)
	if n := mentions(t, s, "bob@beta.example", "away"); n != 0 {
		t.Errorf("bob has %d messages", n)
	}
	if err := clamd.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Beta.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	await(t, s, "bob@beta.example", pec.KindTransport, "away in")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "away in")
	if err := submit(); err != nil {
		t.Error(err)
	}
	await(t, s, "alice@alfa.example", pec.KindTransport, "away out")
}

// waitForDeferral waits until Beta's log says that an envelope was put off.
func waitForDeferral(t *testing.T, s *stage.Stage) {
	t.Helper()
	until(t, "Beta puts the envelope off", func() bool {
		b, err := os.ReadFile(s.Beta.Pecd.Log)
		return err == nil && bytes.Contains(b, []byte(`msg="message put off" qid=`))
	})
}

// legal is the zone of legal time.
func legal(t *testing.T) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}
