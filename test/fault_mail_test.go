package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/message"
)

// A letter is what the tests about faults send: from alice to bob at Beta, anna
// at Alfa and mario, who has ordinary mail. Most are so large that the store keeps
// them in files.
type letter struct {
	msgid string // with its brackets
	raw   []byte
}

const letterFrom = "alice@alfa.example"

var letterTo = []string{"bob@beta.example", "anna@alfa.example", "mario@ordinary.example"}

func newLetter(name string) letter      { return writeLetter(name, 80<<10) }
func newSmallLetter(name string) letter { return writeLetter(name, 0) }

func writeLetter(name string, size int) letter {
	msgid := "<" + name + "@client.alfa.example>"
	var b bytes.Buffer
	fmt.Fprintf(&b, "Message-ID: %s\r\nFrom: %s\r\nTo: %s\r\nSubject: %s\r\n\r\nTesto.\r\n", msgid, letterFrom, strings.Join(letterTo, ", "), name)
	for b.Len() < size {
		fmt.Fprintf(&b, "riga %d: %s\r\n", b.Len(), strings.Repeat("x", 60))
	}
	return letter{msgid: msgid, raw: b.Bytes()}
}

// offer sends the letter once. After an error a client tries again, unless it is
// final.
func (l letter) offer(ctx context.Context, s *stage.Stage) (final bool, err error) {
	_, err = s.Submit(ctx, letterFrom, letterFrom, letterTo, l.raw)
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code/100 != 4, err
}

// submit is offer, where a refusal for good ends the test.
func (l letter) submit(t *testing.T, s *stage.Stage) error {
	t.Helper()
	final, err := l.offer(within(t), s)
	if final {
		t.Fatalf("refused for good: %v", err)
	}
	return err
}

// identifiers returns under which identifiers Alfa has accepted the letter.
func (l letter) identifiers(t *testing.T, s *stage.Stage) []pec.Identifier {
	t.Helper()
	var ids []pec.Identifier
	for _, e := range register(t, s.Alfa, "--msgid", l.msgid) {
		if string(e.Type) == string(pec.KindTransport) {
			ids = append(ids, e.Identifier)
		}
	}
	return ids
}

// The registers of both providers after a letter under one identifier, as
// registered says it, and the number of entries.
var (
	letterRegister = map[string]string{
		"alfa": "accettazione avvenuta-consegna posta-certificata presa-in-carico recapito*5 ricezione*5",
		"beta": "avvenuta-consegna presa-in-carico",
	}
	letterEntries = map[string]float64{"alfa": 14, "beta": 2}
)

// A place is a message in a mailbox.
type place struct{ mailbox, messageID string }

// A find is a copy of a message in a mailbox.
type find struct {
	mail
	body [sha256.Size]byte // of what follows the header
}

// boxes are the mailboxes that a letter concerns, by server.
var boxes = map[string][]string{
	"alfa":     {"alice@alfa.example", "anna@alfa.example", "ricevute@alfa.example"},
	"beta":     {"bob@beta.example"},
	"ordinary": {"mario@ordinary.example"},
}

// lookAround returns all that is in the mailboxes of these servers.
func lookAround(t *testing.T, s *stage.Stage, servers ...string) map[place][]find {
	t.Helper()
	var mu sync.Mutex
	raw := map[string][][]byte{}
	eachBox(t, func(ctx context.Context, box string) error {
		mails, err := s.Mailbox(ctx, box)
		mu.Lock()
		defer mu.Unlock()
		raw[box] = mails
		return err
	}, servers...)
	found := map[place][]find{}
	for box, mails := range raw {
		for _, r := range mails {
			m, err := message.Read(message.Bytes(r))
			if err != nil {
				t.Fatal(err)
			}
			at := place{box, strings.Trim(m.Header.Get("Message-ID"), "<>")}
			_, body, _ := bytes.Cut(r, []byte("\r\n\r\n"))
			found[at] = append(found[at], find{mail: read(t, r), body: sha256.Sum256(body)})
		}
	}
	return found
}

// emptyBoxes makes room for the next letter.
func emptyBoxes(t *testing.T, s *stage.Stage) {
	t.Helper()
	eachBox(t, s.Empty, "alfa", "beta", "ordinary")
}

func eachBox(t *testing.T, do func(ctx context.Context, box string) error, servers ...string) {
	t.Helper()
	g, ctx := errgroup.WithContext(within(t))
	for _, server := range servers {
		for _, box := range boxes[server] {
			g.Go(func() error { return do(ctx, box) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// checkOnce wants in the mailboxes, for each identifier, all that belongs to a
// letter, issued once, and nothing else; the same in the registers. left are the
// messages that the store had when pecd was killed although no register knew:
// they are there twice. mario may have up to more copies beyond the first.
func checkOnce(t *testing.T, s *stage.Stage, ids []pec.Identifier, left map[place]bool, more int) {
	t.Helper()
	want := map[string]place{}
	for _, id := range ids {
		for _, what := range []string{"alice@alfa.example accettazione", "alice@alfa.example avvenuta-consegna bob@beta.example",
			"alice@alfa.example avvenuta-consegna anna@alfa.example", "ricevute@alfa.example presa-in-carico bob@beta.example",
			"ricevute@alfa.example presa-in-carico anna@alfa.example", "bob@beta.example posta-certificata",
			"anna@alfa.example posta-certificata", "mario@ordinary.example posta-certificata"} {
			want[what+" "+string(id)] = place{}
		}
	}
	found := lookAround(t, s, slices.Collect(maps.Keys(boxes))...)
	for at, copies := range found {
		what := at.mailbox + " " + claim(copies[0].event)
		switch first, ok := want[what]; {
		case !ok:
			t.Errorf("%s: should not be", what)
		case first != place{}:
			t.Errorf("%s: issued twice, as %s and %s", what, first.messageID, at.messageID)
		}
		want[what] = at
		checkCopies(t, what, at, copies, left, more)
	}
	for what, at := range want {
		if at == (place{}) {
			t.Errorf("%s: missing", what)
		}
	}
	checkSignatures(t, s, found)
	for _, p := range s.Providers() {
		for _, id := range ids {
			if got := registered(t, p, id); got != letterRegister[p.Label] {
				t.Errorf("register of %s about %s: %s, want %s", p.Label, id, got, letterRegister[p.Label])
			}
		}
	}
}

// claim says what a message certifies.
func claim(ev pec.Event) string {
	words := []string{string(ev.Kind)}
	for _, a := range append(ev.Taken, ev.Recipient) {
		if a != "" {
			words = append(words, string(a))
		}
	}
	return strings.Join(append(words, string(ev.Identifier)), " ")
}

func checkCopies(t *testing.T, what string, at place, copies []find, left map[place]bool, more int) {
	t.Helper()
	low, high := 1, 1
	if left[at] {
		low, high = 2, 2
	}
	if at.mailbox == boxes["ordinary"][0] {
		high += more
	}
	if len(copies) < low || len(copies) > high {
		t.Errorf("%s: %d copies, want %d to %d", what, len(copies), low, high)
	}
	for _, c := range copies[1:] {
		if c.body != copies[0].body {
			t.Errorf("%s: the copies differ", what)
		}
	}
}

// checkSignatures has OpenSSL verify each message.
func checkSignatures(t *testing.T, s *stage.Stage, found map[place][]find) {
	t.Helper()
	g, ctx := errgroup.WithContext(within(t))
	g.SetLimit(4)
	for at, copies := range found {
		g.Go(func() error {
			if _, err := s.Verify(ctx, copies[0].raw); err != nil {
				return fmt.Errorf("%s in the mailbox of %s: %w", claim(copies[0].event), at.mailbox, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// registerSizes returns the number of entries by provider.
func registerSizes(t *testing.T, s *stage.Stage) map[string]float64 {
	t.Helper()
	sizes := map[string]float64{}
	for _, p := range s.Providers() {
		sizes[p.Label] = metrics(t, within(t), p)["pecd_register_entries"]
	}
	return sizes
}

// atRest has the MTAs try what they have, until all is certified that belongs to
// so many letters since before, and nothing is under way or left over.
func atRest(t *testing.T, s *stage.Stage, before map[string]float64, letters int) {
	t.Helper()
	eventually(t, "the system comes to rest", func() string {
		for _, p := range s.Providers() {
			m := metrics(t, within(t), p)
			want := before[p.Label] + float64(letters)*letterEntries[p.Label]
			if m["pecd_register_entries"] < want || m["pecd_outbox_messages"] != 0 || m["pecd_ledger_open"] != 0 {
				flush(t, s)
				return fmt.Sprintf("%s: %v register entries, want %v; %v messages in the outbox; %v open in the ledger",
					p.Label, m["pecd_register_entries"], want, m["pecd_outbox_messages"], m["pecd_ledger_open"])
			}
		}
		if busy := flush(t, s); busy != "" {
			return busy
		}
		for _, p := range s.Providers() {
			files, err := os.ReadDir(filepath.Join(p.Pecd.Config.Store.Path, "bodies"))
			if err != nil {
				t.Fatal(err)
			}
			if len(files) > 0 {
				return fmt.Sprintf("%s: the store keeps %v", p.Label, files)
			}
		}
		return ""
	})
}

// flush has all MTAs try at once what they have, and returns what that is. Mail
// may go either way between the providers, so Alfa is asked twice.
func flush(t *testing.T, s *stage.Stage) (busy string) {
	t.Helper()
	for _, m := range []*stage.MailServer{&s.Alfa.MailServer, &s.Beta.MailServer, &s.Ordinary.MailServer, &s.Alfa.MailServer} {
		queue, err := m.Queue(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(queue) == 0 {
			continue
		}
		if err := m.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
		busy = m.Label + ": " + strings.Join(queue, "")
	}
	return busy
}

// eventually asks until the answer is empty; a test that waits too long fails
// with the last answer.
func eventually(t *testing.T, what string, f func() string) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := f()
		if answer == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not in time: %s", what, answer)
		case <-tick.C:
		}
	}
}

// restart kills p's pecd if it runs, and starts it with env.
func restart(t *testing.T, p *stage.Provider, env ...string) {
	t.Helper()
	if err := p.Pecd.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Pecd.Env = env
	if err := p.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
}
