package test

import (
	"bytes"
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// TestFaults breaks one thing after the other, under the same servers, and wants
// every letter to come through once when it is mended: docs/flow.md, "When
// something breaks".
func TestFaults(t *testing.T) {
	s := newStage(t)
	for _, fault := range []struct {
		name string
		run  func(t *testing.T, s *stage.Stage)
	}{
		{"disk full", diskFull},
		{"disk full while receipts come", diskFullReceipts},
		{"mailbox store down", mailboxStoreDown},
		{"MTA refuses what pecd sends, then is down", reinjectionDown},
		{"pecd down", pecdDown},
		{"many copies at once", manyCopies},
		{"told to end while mail flows", endInTraffic},
		{"garbage at the doors while mail flows", garbage},
		{"started twice on one store", startedTwice},
		{"reload", reload},
	} {
		if !t.Run(fault.name, func(t *testing.T) { fault.run(t, s) }) {
			return // what it left would be taken for the next one's
		}
	}
}

// limitFiles lets a provider's pecd make no file longer than limit, "0" or
// "unlimited": to it, the disk is full or has space again.
func limitFiles(t *testing.T, p *stage.Provider, limit string) {
	t.Helper()
	out, err := exec.Command("prlimit", "--pid", strconv.Itoa(p.Pecd.PID()), "--fsize="+limit+":unlimited").CombinedOutput()
	if err != nil {
		t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// diskFull takes the space from both stores, and gives it back to Alfa's first.
// What is large cannot be spooled, what is small can, but not committed: each door
// meets both.
func diskFull(t *testing.T, s *stage.Stage) {
	before, running := registerSizes(t, s), pids(s)
	large, small := newLetter("disk-full"), newSmallLetter("disk-full-small")
	limitFiles(t, s.Alfa, "0")
	limitFiles(t, s.Beta, "0")
	for _, l := range []letter{large, small} {
		wantLater(t, l.submit(t, s))
		if ids := l.identifiers(t, s); len(ids) > 0 {
			t.Errorf("the register knows what was not accepted: %v", ids)
		}
	}
	for _, m := range []*stage.MailServer{&s.Alfa.MailServer, &s.Ordinary.MailServer} {
		if queue, err := m.Queue(within(t)); err != nil || len(queue) > 0 {
			t.Errorf("%s has something to send: %v (%v)", m.Label, queue, err)
		}
	}

	limitFiles(t, s.Alfa, "unlimited")
	for _, l := range []letter{large, small} {
		if err := l.submit(t, s); err != nil {
			t.Fatalf("with space again: %v", err)
		}
	}
	waitQueue(t, s.Alfa, 1) // the large one: Beta's port 25 does not take it
	waitQueue(t, s.Beta, 1) // the small one: the LMTP door does not
	for _, l := range []letter{large, small} {
		if got := registered(t, s.Beta, l.identifiers(t, s)[0]); got != "" {
			t.Errorf("without space Beta registered %s", got)
		}
	}
	if found := lookAround(t, s, "beta"); len(found) > 0 {
		t.Errorf("without space Beta delivered: %v", found)
	}

	limitFiles(t, s.Beta, "unlimited")
	finish(t, s, before, large, small)
	if now := pids(s); !slices.Equal(now, running) {
		t.Errorf("pecd was started anew: %v, before %v", now, running)
	}
}

// wantLater wants that the client heard a 4xx.
func wantLater(t *testing.T, err error) {
	t.Helper()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code/100 != 4 {
		t.Errorf("the client heard %v, want a 4xx", err)
	}
}

func pids(s *stage.Stage) []int { return []int{s.Alfa.Pecd.PID(), s.Beta.Pecd.PID()} }

// finish wants the letters to have come through, each under one identifier, and
// empties the mailboxes for the next test.
func finish(t *testing.T, s *stage.Stage, before map[string]float64, letters ...letter) {
	t.Helper()
	atRest(t, s, before, len(letters))
	var ids []pec.Identifier
	for _, l := range letters {
		found := l.identifiers(t, s)
		if len(found) != 1 {
			t.Errorf("%s has the identifiers %v", l.msgid, found)
		}
		ids = append(ids, found...)
	}
	checkOnce(t, s, ids, nil, 0)
	emptyBoxes(t, s)
}

// diskFullReceipts takes the space from Alfa's store when Beta's receipts come.
// However often the MTA tries, they do not pile up in the mailbox.
func diskFullReceipts(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	stop(t, s.Beta)
	l := newLetter("disk-full-receipts")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	id := l.identifiers(t, s)[0]
	waitMetric(t, s.Alfa, "pecd_register_entries", before["alfa"]+10)
	waitQueue(t, s.Alfa, 1) // the envelope for bob
	limitFiles(t, s.Alfa, "0")
	start(t, s.Beta)
	flush(t, s)
	waitQueue(t, s.Beta, 1) // the delivery receipt, which Alfa's port 25 cannot spool
	waitQueue(t, s.Alfa, 1) // the take-charge receipt, which the LMTP door cannot commit
	for range 5 {
		tried := tries(t, s.Alfa)
		flush(t, s)
		eventually(t, "the MTA tries again", func() string {
			if tries(t, s.Alfa) == tried {
				return "not yet"
			}
			return ""
		})
	}
	// The small receipt was in the mailbox before pecd knew that it cannot say so;
	// it comes there a second time, when it can.
	left := map[place]bool{}
	for at, copies := range lookAround(t, s, "alfa") {
		if len(copies) > 1 {
			t.Errorf("%s: %d copies in the mailbox of %s", claim(copies[0].event), len(copies), at.mailbox)
		}
		left[at] = copies[0].event.Kind == pec.KindTakeCharge && copies[0].event.Taken[0] == "bob@beta.example"
	}
	if got := registered(t, s.Alfa, id); got != "accettazione avvenuta-consegna posta-certificata presa-in-carico recapito*3 ricezione*3" {
		t.Errorf("without space Alfa registered %s", got)
	}
	limitFiles(t, s.Alfa, "unlimited")
	atRest(t, s, before, 1)
	checkOnce(t, s, []pec.Identifier{id}, left, 0)
	emptyBoxes(t, s)
}

// waitMetric waits until a figure of p's pecd has a value.
func waitMetric(t *testing.T, p *stage.Provider, name string, want float64) {
	t.Helper()
	eventually(t, name, func() string {
		if v := metric(t, p, name); v != want {
			return fmt.Sprintf("%v, want %v", v, want)
		}
		return ""
	})
}

func fileText(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// waitText waits until a file says something beyond its first from octets.
func waitText(t *testing.T, file string, from int, text string) {
	t.Helper()
	eventually(t, file, func() string {
		if !strings.Contains(fileText(t, file)[from:], text) {
			return "it does not say " + text
		}
		return ""
	})
}

func start(t *testing.T, p *stage.Provider) {
	t.Helper()
	if err := p.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
}

// stop ends p's pecd as an admin does; it must end well.
func stop(t *testing.T, p *stage.Provider) {
	t.Helper()
	if err := errors.Join(p.Pecd.Stop(within(t)), p.Pecd.Wait(within(t))); err != nil {
		t.Fatal(err)
	}
}

// mailboxStoreDown stops Beta's Dovecot: what bob's provider has taken charge of
// is not certified as delivered before it is.
func mailboxStoreDown(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	if err := s.StopDovecot(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	l := newLetter("mailbox-store-down")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	id := l.identifiers(t, s)[0]
	for _, q := range waitQueue(t, s.Beta, 1) {
		if !strings.Contains(q, "451 4.3.0") {
			t.Errorf("Beta's queue says %s", q)
		}
	}
	if got := registered(t, s.Beta, id); got != "presa-in-carico" {
		t.Errorf("Beta registered %q", got)
	}
	// Acceptance, anna's delivery, and bob's take-charge have arrived; nothing else is under way.
	waitMetric(t, s.Alfa, "pecd_register_entries", before["alfa"]+12)
	if n := metric(t, s.Alfa, "pecd_ledger_open"); n != 1 {
		t.Errorf("%v recipients are awaited, want bob alone", n)
	}
	if err := s.StartDovecot(within(t), &s.Beta.MailServer); err != nil {
		t.Fatal(err)
	}
	finish(t, s, before, l)
}

// reinjectionDown has Alfa's MTA refuse for good what pecd brings back, and
// then stops it. What was accepted waits in the outbox, but for what is for users of
// Alfa: that needs no MTA.
func reinjectionDown(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	said := len(fileText(t, s.Alfa.Pecd.Log))
	m := &s.Alfa.MailServer
	restore := reconfigure(t, s, m, refusesReinjection(m))
	l := newLetter("reinjection-down")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	waitText(t, s.Alfa.Pecd.Log, said, "the re-injection listener refuses for good")
	waitMetric(t, s.Alfa, "pecd_outbox_messages", 1)
	if err := s.StopMTA(within(t), m); err != nil {
		t.Fatal(err)
	}
	waitText(t, s.Alfa.Pecd.Log, said, "the MTA's re-injection listener cannot be reached")
	if found := lookAround(t, s, "beta", "ordinary"); len(found) > 0 {
		t.Errorf("something came out: %v", found)
	}
	restore()
	finish(t, s, before, l)
}

// pecdDown stops both pecd: Beta's port 25 takes nothing, at Alfa's submission the
// client hears 4xx.
func pecdDown(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	stop(t, s.Beta)
	first, second := newLetter("pecd-down-1"), newLetter("pecd-down-2")
	if err := first.submit(t, s); err != nil {
		t.Fatal(err)
	}
	waitQueue(t, s.Alfa, 1)
	client, err := s.Login(within(t), letterFrom)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stop(t, s.Alfa)
	var reply *textproto.Error
	if _, err := client.Send(letterFrom, letterTo, second.raw); !errors.As(err, &reply) || reply.Code != 451 {
		t.Errorf("without pecd a client that was there heard %v, want 451", err)
	}
	// One that comes now hears it earlier: Postfix says 454 to its STARTTLS, Sendmail to its AUTH.
	wantLater(t, second.submit(t, s))
	start(t, s.Alfa)
	start(t, s.Beta)
	if err := second.submit(t, s); err != nil {
		t.Fatal(err)
	}
	finish(t, s, before, first, second)
}

// manyCopies has Beta's MTA bring one genuine envelope to the LMTP door many
// times at once, as it may after lost replies. bob gets it once.
func manyCopies(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	stop(t, s.Beta)
	l := newLetter("many-copies")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	mails, err := s.WaitMail(within(t), "mario@ordinary.example", stage.Count(1))
	if err != nil {
		t.Fatal(err)
	}
	const copies = 8
	for range copies {
		// Port 25 takes nothing without pecd; this listener does not ask.
		if _, err := s.Deliver(within(t), s.Beta.Reinject, letterFrom, letterTo[:1], mails[0]); err != nil {
			t.Fatal(err)
		}
	}
	waitQueue(t, s.Beta, copies)
	start(t, s.Beta)
	finish(t, s, before, l)
}

// endInTraffic tells each pecd to end while messages are under way: it finishes
// them, so that nothing comes twice and nothing is lost.
func endInTraffic(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	f := startTraffic(t, s, "end", 20)
	f.await(t, 3)
	stop(t, s.Alfa)
	start(t, s.Alfa)
	f.await(t, 3)
	stop(t, s.Beta)
	start(t, s.Beta)
	f.await(t, 3)
	stop(t, s.Alfa)
	start(t, s.Alfa)
	f.wait(t)
	finish(t, s, before, f.letters...)
}

// startedTwice starts a second pecd with the store of the first.
func startedTwice(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	p := s.Alfa.Pecd
	out, err := exec.CommandContext(within(t), p.Bin, "serve", "--config", p.ConfigFile).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Exited() || exit.ExitCode() != 1 {
		t.Errorf("the second pecd: %v", err)
	}
	if want := fmt.Sprintf("store is in use: %s is open in process %d ", p.Config.Store.Path, p.PID()); !strings.Contains(string(out), want) {
		t.Errorf("the second pecd does not say %q:\n%s", want, out)
	}
	l := newLetter("started-twice")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	finish(t, s, before, l)
}

// reload gives Alfa a configuration that cannot be read, and then a directory in
// which mario's domain is certified.
func reload(t *testing.T, s *stage.Stage) {
	before := registerSizes(t, s)
	p := s.Alfa.Pecd
	good := fileText(t, p.ConfigFile)
	bad := good + "\n[receptoin]\nlmtp = 1\n"

	said := hangUp(t, p, bad, "reload failed, the old configuration stays in force")
	if !strings.Contains(said, "receptoin") {
		t.Errorf("the log does not say what is wrong: %s", said)
	}
	l := newLetter("reload")
	if err := l.submit(t, s); err != nil {
		t.Fatal(err)
	}
	replace(t, p.ConfigFile, good) // log search reads it too
	finish(t, s, before, l)

	ldif := bytes.Replace(s.LDIF(), []byte("managedDomains: beta.example\n"), []byte("managedDomains: beta.example\nmanagedDomains: ordinary.example\n"), 1)
	if err := s.SignDirectory(within(t), ldif); err != nil {
		t.Fatal(err)
	}
	hangUp(t, p, bad, "reload failed, the old configuration stays in force")
	if kind := mariosKind(t, s, "reload-1"); kind != pec.External {
		t.Errorf("with the old directory mario is %q", kind)
	}
	hangUp(t, p, good, "msg=reloaded")
	if kind := mariosKind(t, s, "reload-2"); kind != pec.Certified {
		t.Errorf("with the new directory mario is %q", kind)
	}
}

func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// hangUp has pecd read a new configuration, waits for what its log says to it, and
// returns that.
func hangUp(t *testing.T, p *stage.Pecd, config, want string) string {
	t.Helper()
	replace(t, p.ConfigFile, config)
	from := len(fileText(t, p.Log))
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitText(t, p.Log, from, want)
	return fileText(t, p.Log)[from:]
}

// mariosKind is what an acceptance receipt says of mario.
func mariosKind(t *testing.T, s *stage.Stage, name string) pec.RecipientType {
	t.Helper()
	raw := strings.NewReplacer("bob@beta.example", "mario@ordinary.example", "<plain@", "<"+name+"@").Replace(plainMessage)
	if _, err := s.Submit(within(t), letterFrom, letterFrom, []string{"mario@ordinary.example"}, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	mails, err := s.WaitMail(within(t), letterFrom, stage.Count(1))
	if err != nil {
		t.Fatal(err)
	}
	emptyBoxes(t, s)
	return read(t, mails[0]).event.Recipients[0].Type
}
