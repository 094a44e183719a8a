package storetest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
)

// Test runs the suite. open opens the store in dir, which is new or has been
// closed before; it ends the test if it cannot.
func Test(t *testing.T, open func(t *testing.T, dir string) logstore.Store) {
	p := NewProvider(t)
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"Entries", testEntries},
		{"Chain", testChain},
		{"Search", testSearch},
		{"SearchPages", testSearchPages},
		{"SearchStops", testSearchStops},
		{"Once", testOnce},
		{"OnceWithinTx", testOnceWithinTx},
		{"KeysTogether", testKeysTogether},
		{"Unless", testUnless},
		{"Ledger", testLedger},
		{"LedgerOrder", testLedgerOrder},
		{"LedgerSpelling", testLedgerSpelling},
		{"Overdue", testOverdue},
		{"Notices", testNotices},
		{"NoticeTooLate", testNoticeTooLate},
		{"FirstAnswer", testFirstAnswer},
		{"NoticeRace", testNoticeRace},
		{"LongIssued", testLongIssued},
		{"Policies", testPolicies},
		{"PolicyWithKey", testPolicyWithKey},
		{"Secret", testSecret},
		{"EnvelopeID", testEnvelopeID},
		{"Outbox", testOutbox},
		{"TakenByParts", testTakenByParts},
		{"Postpone", testPostpone},
		{"OldestFirst", testOldestFirst},
		{"BodyStoredOnce", testBodyShared},
		{"BodyUsedAgain", testBodyUsedAgain},
		{"BodyFromOutbox", testBodyFromOutbox},
		{"BodyKeptByHandle", testBodyKeptByHandle},
		{"BodyPath", testBodyPath},
		{"BodyReads", testBodyReads},
		{"ForeignSource", testForeignSource},
		{"BrokenSource", testBrokenSource},
		{"Kept", testKept},
		{"KeptTwice", testKeptTwice},
		{"KeptLeftOut", testKeptLeftOut},
		{"InfectedQuery", testInfectedQuery},
		{"Purge", testPurge},
		{"PurgeMany", testPurgeMany},
		{"KeptRefused", testKeptRefused},
		{"VirusEntries", testVirusEntries},
		{"Wake", testWake},
		{"Stats", testStats},
		{"Reopened", testReopened},
		{"Refused", testRefused},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, Provider: p, dir: t.TempDir(), openStore: open}
			b.open()
			defer func() { b.close() }()
			c.run(b)
		})
	}
}

// A bench is one test with its store.
type bench struct {
	*testing.T
	*Provider
	dir       string
	openStore func(*testing.T, string) logstore.Store
	store     logstore.Store
}

func (b *bench) open() {
	b.Helper()
	b.store = b.openStore(b.T, b.dir)
}

func (b *bench) close() {
	b.Helper()
	if err := b.store.Close(); err != nil {
		b.Errorf("closing the store: %v", err)
	}
}

func (b *bench) reopen() {
	b.Helper()
	b.close()
	b.open()
}

func (b *bench) commit(tx logstore.Tx) []bool {
	b.Helper()
	done, err := b.store.Commit(context.Background(), tx)
	if err != nil {
		b.Fatalf("Commit: %v", err)
	}
	if len(done) != len(tx.Acts) {
		b.Fatalf("Commit told the outcome of %d acts of %d", len(done), len(tx.Acts))
	}
	return done
}

// mustCommit commits tx, of which every act must be done.
func (b *bench) mustCommit(tx logstore.Tx) {
	b.Helper()
	for i, d := range b.commit(tx) {
		if !d {
			b.Fatalf("act %d was left out", i)
		}
	}
}

// body returns an open body with text.
func (b *bench) body(text string) logstore.Body {
	b.Helper()
	body, err := b.store.NewBody()
	if err != nil {
		b.Fatalf("NewBody: %v", err)
	}
	if _, err := io.WriteString(body, text); err != nil {
		b.Fatalf("writing a body: %v", err)
	}
	return body
}

func (b *bench) closeBody(body logstore.Body) {
	b.Helper()
	if err := body.Close(); err != nil {
		b.Fatalf("closing a body: %v", err)
	}
}

// access commits the access transaction of an original of size octets and
// returns its event and the texts of the two messages, by Message-ID.
func (b *bench) access(size int, recipients ...pec.Address) (pec.Event, map[string]string) {
	b.Helper()
	ev := b.NewEvent(b, recipients...)
	body := b.body(Original(ev, size))
	defer b.closeBody(body)
	envelope, acceptance := b.Transport(b, ev, body), b.Acceptance(b, ev)
	texts := map[string]string{
		envelope.MessageID():   Text(b, envelope.Content()),
		acceptance.MessageID(): Text(b, acceptance.Content()),
	}
	b.mustCommit(Access(envelope, acceptance))
	return ev, texts
}

func (b *bench) outgoing(at time.Time) []logstore.Outgoing {
	b.Helper()
	out, err := b.store.Outgoing(context.Background(), at, 1000, nil)
	if err != nil {
		b.Fatalf("Outgoing: %v", err)
	}
	return out
}

func (b *bench) taken(id int64, by ...pec.Address) {
	b.Helper()
	if err := b.store.Taken(context.Background(), id, by); err != nil {
		b.Fatalf("Taken: %v", err)
	}
}

func (b *bench) search(q logstore.Query) []logstore.Entry {
	b.Helper()
	var out []logstore.Entry
	err := b.store.Search(context.Background(), q, func(e logstore.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		b.Fatalf("Search(%+v): %v", q, err)
	}
	return out
}

func (b *bench) stats() logstore.Stats {
	b.Helper()
	s, err := b.store.Stats(context.Background())
	if err != nil {
		b.Fatalf("Stats: %v", err)
	}
	return s
}

// entry returns an act with nothing but an entry.
func entry(id pec.Identifier, at time.Time) logstore.Act {
	return logstore.Act{Entry: logstore.Entry{At: at, Type: logstore.EntryReceived, Identifier: id}}
}

func testStats(b *bench) {
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("a new store has %+v", s)
	}
	b.access(300, "bob@beta.example", "bruna@beta.example")
	s := b.stats()
	if s.Entries != 2 || s.Outbox != 2 || s.Open != 2 || !s.Oldest.Equal(At) {
		b.Errorf("after an access transaction: %+v", s)
	}
}

func testReopened(b *bench) {
	ev, texts := b.access(300_000, "bob@beta.example")
	_, more := b.access(1000, "bruna@beta.example")
	for id, text := range more {
		texts[id] = text
	}
	b.reopen()
	if e := b.search(logstore.Query{Identifier: ev.Identifier}); len(e) != 2 {
		b.Errorf("%d entries of 2 are left", len(e))
	}
	if rows, err := b.store.Awaited(context.Background(), ev.Identifier); err != nil || len(rows) != 1 {
		b.Errorf("ledger: %v, %v", rows, err)
	}
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{ActOf(b.Acceptance(b, ev))}}); done[0] {
		b.Error("a receipt can be issued again")
	}
	out := b.outgoing(At)
	if len(out) != 4 {
		b.Errorf("%d messages of 4 are left", len(out))
	}
	for _, m := range out {
		if Text(b, m.Content) != texts[m.MessageID] {
			b.Errorf("%s differs", m.Kind)
		}
	}
	last := out[len(out)-1].ID
	b.access(300, "bob@beta.example")
	for _, m := range out {
		b.taken(m.ID, m.To...)
	}
	for _, m := range b.outgoing(At) {
		if m.ID <= last {
			b.Errorf("id %d is used again", m.ID)
		}
	}
}

func testRefused(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	good := ActOf(b.Acceptance(b, ev))
	for name, change := range map[string]func(*logstore.Tx){
		"no instant":      func(tx *logstore.Tx) { tx.At = time.Time{} },
		"another instant": func(tx *logstore.Tx) { tx.Acts[1].Entry.At = At.Add(time.Second) },
		"no type":         func(tx *logstore.Tx) { tx.Acts[1].Entry.Type = "" },
		"odd answer": func(tx *logstore.Tx) {
			tx.Acts[1].Answer = &logstore.Answer{Identifier: "1@alfa.example", Kind: pec.KindTimeout}
		},
		"policy of nobody": func(tx *logstore.Tx) { tx.Acts[1].Policy = &logstore.Policy{Ordinary: "refuse"} },
		"policy of a domain not in lower case": func(tx *logstore.Tx) {
			tx.Acts[1].Policy = &logstore.Policy{Subject: "Alfa.example", Ordinary: "refuse"}
		},
		"policy of an address that is no key": func(tx *logstore.Tx) {
			tx.Acts[1].Policy = &logstore.Policy{Subject: "Bob@Alfa.example"}
		},
		"awaits nothing": func(tx *logstore.Tx) {
			tx.Acts[1].Entry.Identifier, tx.Acts[1].Await = "", []pec.Address{"bob@beta.example"}
		},
	} {
		tx := logstore.Tx{At: At, Acts: []logstore.Act{good, entry("1@alfa.example", At)}}
		change(&tx)
		_, err := b.store.Commit(context.Background(), tx)
		if !errors.Is(err, logstore.ErrInvalid) || errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if s := b.stats(); s != (logstore.Stats{}) {
		b.Errorf("something of them was committed: %+v", s)
	}
	b.mustCommit(logstore.Tx{At: At})
}

func testCancelled(b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ev := b.NewEvent(b, "bob@beta.example")
	tx := Access(b.Transport(b, ev, message.Bytes(Original(ev, 1000))), b.Acceptance(b, ev))
	_, err := b.store.Commit(ctx, tx)
	if err != nil && (!errors.Is(err, logstore.ErrUnavailable) || !errors.Is(err, context.Canceled)) {
		b.Errorf("Commit with a context that is done: %v", err)
	}
	issued, lookupErr := b.store.Issued(context.Background(), tx.Acts[0].Keys)
	if lookupErr != nil || issued[0] != (err == nil) {
		b.Errorf("Commit returned %v, and it is there: %v, %v", err, issued, lookupErr)
	}
}

func testClosed(b *bench) {
	ctx := context.Background()
	ev, _ := b.access(300, "bob@beta.example")
	b.close()
	for name, call := range map[string]func() error{
		"Commit": func() error {
			_, err := b.store.Commit(ctx, logstore.Tx{At: At, Acts: []logstore.Act{entry("1", At)}})
			return err
		},
		"NewBody": func() error { _, err := b.store.NewBody(); return err },
		"LongIssued": func() error {
			_, err := b.store.LongIssued(ctx, []logstore.Key{KeyOf("k", "1", "")}, At, 0)
			return err
		},
		"Overdue":  func() error { _, err := b.store.Overdue(ctx, At, 0, false, 1); return err },
		"Policies": func() error { _, err := b.store.Policies(ctx); return err },
		"Secret":   func() error { _, err := b.store.Secret(ctx); return err },
		"Issued":   func() error { _, err := b.store.Issued(ctx, []logstore.Key{KeyOf("k", "1", "")}); return err },
		"Awaited":  func() error { _, err := b.store.Awaited(ctx, ev.Identifier); return err },
		"Outgoing": func() error { _, err := b.store.Outgoing(ctx, At, 1, nil); return err },
		"Taken":    func() error { return b.store.Taken(ctx, 1, nil) },
		"Postpone": func() error { return b.store.Postpone(ctx, 1, At, "") },
		"Search": func() error {
			return b.store.Search(ctx, logstore.Query{}, func(logstore.Entry) error { return nil })
		},
		"Head":          func() error { _, err := b.store.Head(ctx); return err },
		"LinkAt":        func() error { _, err := b.store.LinkAt(ctx, 1); return err },
		"PurgedThrough": func() error { _, err := b.store.PurgedThrough(ctx); return err },
		"Span":          func() error { _, err := b.store.Span(ctx, At, At); return err },
		"Chain": func() error {
			return b.store.Chain(ctx, 1, func(logstore.Link) error { return nil })
		},
		"Infected": func() error { _, err := b.store.Infected(ctx, logstore.InfectedQuery{}); return err },
		"OpenInfected": func() error {
			_, err := b.store.OpenInfected(ctx, 1)
			return err
		},
		"PurgeInfected": func() error { _, err := b.store.PurgeInfected(ctx, Term); return err },
		"Stats":         func() error { _, err := b.store.Stats(ctx); return err },
	} {
		if err := call(); !errors.Is(err, logstore.ErrUnavailable) {
			b.Errorf("%s on a closed store: %v, want ErrUnavailable", name, err)
		}
	}
}

func testConcurrent(b *bench) {
	const sessions, messages = 8, 6
	var wg sync.WaitGroup
	for range sessions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range messages {
				ev := b.NewEvent(b, "bob@beta.example")
				body := b.body(Original(ev, []int{500, 100_000}[i%2]))
				tx := Access(b.Transport(b, ev, body), b.Acceptance(b, ev))
				if done, err := b.store.Commit(context.Background(), tx); err != nil || !done[0] || !done[1] {
					b.Errorf("Commit: %v, %v", done, err)
				}
				if err := body.Close(); err != nil {
					b.Errorf("Close: %v", err)
				}
			}
		}()
	}
	taken, want := 0, 2*sessions*messages
	for taken < want && !b.Failed() {
		out, err := b.store.Outgoing(context.Background(), At, 7, nil)
		if err != nil {
			b.Fatalf("Outgoing: %v", err)
		}
		for _, m := range out {
			if n := int64(len(Text(b, m.Content))); n != m.Content.Size() {
				b.Errorf("a content of %d octets says %d", n, m.Content.Size())
			}
			b.taken(m.ID, m.To...)
			taken++
		}
		if len(out) == 0 {
			select {
			case <-b.store.Wake():
			case <-time.After(30 * time.Second):
				b.Fatalf("nothing comes after %d messages", taken)
			}
		}
	}
	wg.Wait()
	s := b.stats()
	if s.Entries != int64(want) || s.Outbox != 0 || s.Open != sessions*messages {
		b.Errorf("at the end: %+v", s)
	}
}
