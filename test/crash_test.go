package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pecd/courier"
	"pecd/logstore"
	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// A killPoint is where a provider's pecd ends itself by SIGKILL: when it comes to
// the step for the n-th time after its start.
type killPoint struct {
	alfa bool // else Beta
	step string
	n    int
	// undone: the kill comes before the accept commit, of which nothing is left.
	undone bool
	// copied is why somebody whose mailbox is at this provider gets a message a
	// second time; empty: nobody does.
	copied string
	// beside: other deliveries run beside what is killed, and may be hit at such a
	// place of theirs.
	beside bool
}

func (k killPoint) String() string {
	return fmt.Sprintf("%s/%s:%d", map[bool]string{true: "alfa", false: "beta"}[k.alfa], k.step, k.n)
}

// LMTP makes these copies, not pecd: the mailbox store has taken the message and
// no transaction knows, so that the MTA, which heard nothing, delivers again.
const (
	copiedStored = "the store took it, and its receipt was not prepared yet"
	copiedCommit = "the store took it, and its receipt was not committed yet"
)

// killPoints returns every step with every time that it comes when alice writes
// to bob, anna and mario. Alfa commits once for the submission, twice for anna,
// and once for each of five receipts that arrive; it hands four messages to its
// MTA. Beta commits twice and hands over two.
func killPoints() []killPoint {
	var list []killPoint
	add := func(alfa bool, times int, steps ...string) {
		for _, s := range steps {
			for n := 1; n <= times; n++ {
				list = append(list, killPoint{alfa: alfa, step: s, n: n})
			}
		}
	}
	for _, s := range logstore.Steps() {
		if strings.HasPrefix(string(s), "take-") {
			add(true, 4, string(s))
			add(false, 2, string(s))
		} else {
			add(true, 8, string(s))
			add(false, 2, string(s))
		}
	}
	add(true, 1, "door.accepted")
	add(true, 1, "door.taken-in-charge")
	add(true, 6, "door.stored", "door.arrived")
	add(false, 1, "door.taken-in-charge", "door.stored", "door.arrived")
	add(true, 1, courier.StepConnected)
	add(false, 1, courier.StepConnected)
	add(true, 1, courier.StepBegun, courier.StepSent) // only the envelope goes to Alfa's MTA
	add(true, 4, courier.StepReplied, courier.StepTaken)
	add(false, 2, courier.StepBegun, courier.StepSent, courier.StepReplied, courier.StepTaken)

	before := []logstore.Step{logstore.StepPrepared, logstore.StepSynced, logstore.StepNamed, logstore.StepNameSynced, logstore.StepBegun, logstore.StepWritten}
	for i := range list {
		k := &list[i]
		early := slices.Contains(before, logstore.Step(k.step))
		k.undone = early && k.alfa && k.n == 1
		k.beside = k.alfa || strings.HasPrefix(k.step, "take-") || strings.HasPrefix(k.step, "courier-")
		switch {
		case k.step == "door.stored":
			k.copied = copiedStored
		case early && !k.alfa && k.n == 2:
			k.copied = copiedCommit
		}
	}
	return list
}

// TestKillPoints holds the table against the steps that the source names.
func TestKillPoints(t *testing.T) {
	have := map[string]bool{}
	for _, k := range killPoints() {
		have[k.step] = true
	}
	for file, pattern := range map[string]string{
		"../cmd/pecd/steps.go":  `= "(door\.[a-z-]+)"`,
		"../courier/courier.go": `= "(courier-[a-z-]+)"`,
		"../logstore/step.go":   `Step = "([a-z-]+)"`,
	} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindAllSubmatch(source, -1)
		if len(found) < 4 {
			t.Errorf("%s names %d steps", file, len(found))
		}
		for _, f := range found {
			if !have[string(f[1])] {
				t.Errorf("%s: nobody is killed at %s", file, f[1])
			}
		}
	}
}

// TestCrash kills pecd at every step of a message's way, starts it again, and
// wants everything once: no accepted message lost, nothing issued twice.
func TestCrash(t *testing.T) {
	s := newStage(t, func(o *stage.Options) { o.PecdBinary = drillBinary(t) })
	for i, k := range killPoints() {
		if !t.Run(k.String(), func(t *testing.T) { crash(t, s, k, i) }) {
			return // what it left would be taken for the next one's
		}
	}
	for _, address := range []string{"bruna@beta.example", "ricevute@beta.example", "posta-certificata@alfa.example", "posta-certificata@beta.example"} {
		if mails, err := s.Mailbox(within(t), address); err != nil || len(mails) != 0 {
			t.Errorf("%s has %d messages (%v)", address, len(mails), err)
		}
	}
}

// crash is one row of the table.
func crash(t *testing.T, s *stage.Stage, k killPoint, serial int) {
	p := s.Beta
	if k.alfa {
		p = s.Alfa
	}
	restart(t, p, fmt.Sprintf("PECD_KILL_AT=%s:%d", k.step, k.n))
	before := registerSizes(t, s)
	l := newLetter(fmt.Sprintf("crash-%d", serial))

	attempts := 1
	err := l.submit(t, s)
	if err != nil && !k.alfa {
		t.Fatalf("Alfa works, but the client heard %v", err)
	}
	awaitKill(t, p)
	left := storedUnknown(t, s, p, l)
	restart(t, p)
	if err != nil {
		attempts++
		if err := l.submit(t, s); err != nil {
			t.Fatalf("the client tried again and heard %v", err)
		}
	}

	// An attempt of which the client heard nothing good was committed all the same,
	// unless it was undone: SMTP makes two messages of it.
	ids := l.identifiers(t, s)
	if k.undone && (attempts != 2 || len(ids) != 1) || !k.undone && len(ids) != attempts {
		t.Errorf("%d identifiers after %d attempts of the client: %v", len(ids), attempts, ids)
	}
	if k.copied != "" && len(left) == 0 || k.copied == "" && !k.beside && len(left) > 0 {
		t.Errorf("copies to expect: %v; the table says %q", left, k.copied)
	}
	atRest(t, s, before, len(ids))
	more := 0
	if k.alfa {
		more = 1 // the MTA may get the envelope twice, and mario's server knows nothing of it
	}
	checkOnce(t, s, ids, left, more)
	emptyBoxes(t, s)
}

// awaitKill waits until p's pecd has killed itself.
func awaitKill(t *testing.T, p *stage.Provider) {
	t.Helper()
	err := p.Pecd.Wait(within(t))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("pecd of %s did not come to the step: %v", p.Label, err)
	}
}

// storedUnknown returns what p's mailbox store holds of the letter although p's
// register does not say so, by mailbox and Message-ID. pecd must be dead.
func storedUnknown(t *testing.T, s *stage.Stage, p *stage.Provider, l letter) map[place]bool {
	t.Helper()
	storeIdle(t, p)
	known := map[place]bool{}
	for _, e := range register(t, p, "--msgid", l.msgid) {
		switch {
		case e.Type == logstore.EntryType(pec.KindDelivery):
			known[place{string(e.Recipient), string(e.Identifier)}] = true
		case e.Type == logstore.EntryDelivered:
			known[place{string(e.Recipient), e.Messages[0]}] = true
		}
	}
	left := map[place]bool{}
	for at, found := range lookAround(t, s, p.Label) {
		if !known[at] && len(found) > 0 {
			left[at] = true
		}
	}
	return left
}

// storeIdle waits until the mailbox store of p has ended the sessions of the pecd
// that died: a message may be on its way into a mailbox still.
func storeIdle(t *testing.T, p *stage.Provider) {
	t.Helper()
	const connected = "03"
	socket := filepath.Join(p.Dir, "sock", "store.sock")
	eventually(t, "the mailbox store ends its sessions", func() string {
		b, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); len(f) == 8 && f[7] == socket && f[5] == connected {
				return string(line)
			}
		}
		return ""
	})
}
