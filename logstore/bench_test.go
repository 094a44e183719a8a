package logstore_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/signer"
)

// A commit of the access point: two messages, two entries, three awaited
// answers, and a body that each commit spools anew.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, sessions := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("body=%dKB/sessions=%d", size>>10, sessions), func(b *testing.B) {
				benchmarkCommit(b, size, sessions)
			})
		}
	}
}

func benchmarkCommit(b *testing.B, size, sessions int) {
	s := open(b, logstore.Options{Dir: b.TempDir()})
	defer closeStore(b, s)
	p := storetest.NewProvider(b)
	ev := p.NewEvent(b, "bob@beta.example", "bruna@beta.example", "carla@beta.example")
	acceptance := p.Acceptance(b, ev)
	text := []byte(storetest.Original(ev, size))
	var n atomic.Int64
	// A source that is no body of the store: each commit spools it anew, while
	// the envelope around it need not be signed again.
	envelope := p.Transport(b, ev, &struct{ message.Bytes }{text})
	session := func(next func() bool) {
		for next() {
			commitOnce(b, s, envelope, acceptance, n.Add(1))
		}
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	b.ResetTimer()
	if sessions == 1 {
		session(func() bool { return n.Load() < int64(b.N) })
	} else {
		// RunParallel starts this many goroutines per processor.
		b.SetParallelism((sessions + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) { session(pb.Next) })
	}
	b.StopTimer()
	if st := statsOf(b, s); st.Entries != 2*n.Load() {
		b.Errorf("%d entries of %d commits", st.Entries, n.Load())
	}
}

func commitOnce(b *testing.B, s logstore.Store, envelope, acceptance *signer.Signed, n int64) {
	tx := storetest.Access(envelope, acceptance)
	id := pec.Identifier(fmt.Sprintf("%d@alfa.example", n))
	for i := range tx.Acts {
		tx.Acts[i].Keys[0].Identifier = id
		tx.Acts[i].Entry.Identifier = id
		tx.Acts[i].Entry.MsgID = fmt.Sprintf("<%d@client>", n)
		tx.Acts[i].Entry.Messages = []string{fmt.Sprintf("%d.%d@alfa.example", n, i)}
	}
	if _, err := s.Commit(context.Background(), tx); err != nil {
		b.Fatal(err)
	}
}

// One message out of the outbox and done with.
func BenchmarkTake(b *testing.B) {
	s := open(b, logstore.Options{Dir: b.TempDir()})
	defer closeStore(b, s)
	p := storetest.NewProvider(b)
	ev := p.NewEvent(b, "bob@beta.example")
	act := storetest.ActOf(p.Acceptance(b, ev))
	act.Keys = nil
	for n := 0; n < b.N; n += 100 {
		tx := logstore.Tx{At: storetest.At}
		for range min(100, b.N-n) {
			tx.Acts = append(tx.Acts, act)
		}
		mustCommit(b, s, tx)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		out, err := s.Outgoing(context.Background(), storetest.At, 16, nil)
		if err != nil || len(out) == 0 {
			b.Fatalf("Outgoing: %d, %v", len(out), err)
		}
		for _, m := range out {
			if err := s.Taken(context.Background(), m.ID, m.To); err != nil {
				b.Fatal(err)
			}
			left--
		}
	}
}

// What is overdue in a ledger of 100,000 rows that nobody has answered: nothing,
// a hundred rows, and nothing among rows that were all warned.
func BenchmarkOverdue(b *testing.B) {
	const rows = 100_000
	dir := b.TempDir()
	s := open(b, logstore.Options{Dir: dir})
	defer closeStore(b, s)
	fillLedger(b, dir, rows)
	for _, c := range []struct {
		name   string
		age    time.Duration // of the youngest row that is overdue
		warned bool
		want   int
	}{
		{"none", -time.Nanosecond, true, 0},
		{"hundred", rows * time.Second, true, 100},
		{"all warned", rows * time.Second, false, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				got, err := s.Overdue(context.Background(), storetest.At.Add(c.age), 0, c.warned, 100)
				if err != nil || len(got) != c.want {
					b.Fatalf("%d rows, %v; want %d", len(got), err, c.want)
				}
			}
		})
	}
}

// fillLedger writes rows that were sent one a second from storetest.At on and
// warned of.
func fillLedger(t testing.TB, dir string, rows int) {
	t.Helper()
	err := raw(t, dir, fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO awaited (identifier, key, recipient, position, sent, warned_at)
		SELECT i || '@alfa.example', 'bob@beta.example', 'bob@beta.example', 0, %d + i * 1000000000, 1 FROM n`,
		rows-1, storetest.At.UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
}

// A search among 100,000 entries.
func BenchmarkSearch(b *testing.B) {
	const entries = 100_000
	s := open(b, logstore.Options{Dir: b.TempDir()})
	defer closeStore(b, s)
	fillRegister(b, s, entries)
	middle := entryNumber(entries / 2)
	for name, q := range map[string]logstore.Query{
		"identifier": {Identifier: middle.Identifier},
		"messageID":  {MessageID: middle.MsgID},
		"address":    {Address: middle.Sender}, // 100 entries
		"second":     {Since: middle.At, Until: middle.At.Add(time.Second)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				n := 0
				err := s.Search(context.Background(), q, func(logstore.Entry) error { n++; return nil })
				if err != nil || n == 0 {
					b.Fatalf("%d entries, %v", n, err)
				}
			}
		})
	}
}

func fillRegister(b testing.TB, s logstore.Store, entries int) {
	for n := 0; n < entries; {
		tx := logstore.Tx{At: entryNumber(n).At}
		for range 1000 {
			e := entryNumber(n)
			e.At = tx.At
			tx.Acts = append(tx.Acts, logstore.Act{Entry: e})
			n++
		}
		mustCommit(b, s, tx)
	}
}

func entryNumber(n int) logstore.Entry {
	return logstore.Entry{
		At: storetest.At.Add(time.Duration(n) * time.Millisecond).Truncate(time.Second), Type: "accettazione",
		Identifier: pec.Identifier(fmt.Sprintf("%d@alfa.example", n)), MsgID: fmt.Sprintf("<%d@client>", n),
		Sender:     pec.Address(fmt.Sprintf("user%d@alfa.example", n%1000)),
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}},
		Subject:    "Prova", Messages: []string{fmt.Sprintf("r%d@alfa.example", n)},
	}
}
