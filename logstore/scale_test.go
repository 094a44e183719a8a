package logstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"pecd/pec"
)

// scaleEntries returns how many entries BenchmarkScale works with. Ten million take
// some minutes to make, and 10 GB.
func scaleEntries(b *testing.B) []int64 {
	text := os.Getenv("PECD_SCALE")
	if text == "" {
		return []int64{10_000}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return []int64{10_000, n}
}

var scaleStart = time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)

// scaleMessage returns the records of a message to two certified recipients: both
// sent messages, the receipts that came back and where they went. Messages come at
// two a second, with five entries each.
func scaleMessage(n int64) []record {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	at := scaleStart.Add(time.Duration(n) * 500 * time.Millisecond).Truncate(time.Second)
	id := pec.Identifier(fmt.Sprintf("opec21010.%s.%016x.%d.1.53@alfa.example", at.Format("20060102150405"), rnd.Uint64(), rnd.IntN(100_000)))
	one := pec.Address(fmt.Sprintf("ufficio.%d@comune%d.beta.example", rnd.IntN(20), rnd.IntN(8000)))
	two := pec.Address(fmt.Sprintf("nome.cognome%d@gamma.example", rnd.IntN(50_000)))
	base := Entry{
		At: at, Identifier: id, MsgID: fmt.Sprintf("<%016x.%d@client.alfa.example>", rnd.Uint64(), n),
		Sender:     pec.Address(fmt.Sprintf("utente%d@alfa.example", rnd.IntN(5000))),
		Recipients: []pec.Recipient{{Address: one, Type: pec.Certified}, {Address: two, Type: pec.Certified}},
		Subject:    "Trasmissione della documentazione richiesta, pratica n. " + strconv.FormatInt(n, 10), SendingProvider: "Alfa PEC S.p.A.",
	}
	entry := func(seconds int, kind string, change func(*Entry)) record {
		e := base
		e.At, e.Type = at.Add(time.Duration(seconds)*time.Second), EntryType(kind)
		e.Messages = []string{fmt.Sprintf("%s.%016x@alfa.example", kind, rnd.Uint64())}
		digest := sha256.Sum256([]byte(e.Messages[0]))
		e.Digest = Digest(digest).String()
		change(&e)
		return newRecord(e, []Key{{Kind: kind, Origin: "alfa.example", Identifier: id, Recipient: e.Recipient}})
	}
	return []record{
		entry(0, "accettazione", func(*Entry) {}),
		entry(0, "posta-certificata", func(*Entry) {}),
		entry(1, "ricezione", func(e *Entry) { e.Taken, e.Digest = []pec.Address{one, two}, "" }),
		entry(2, "avvenuta-consegna", func(e *Entry) { e.Recipient, e.Receipt = one, pec.Complete }),
		entry(3, "recapito", func(e *Entry) { e.Recipient, e.Digest = two, "" }),
	}
}

// A loader writes a register without the program that guards it, in the order in
// which it is fastest.
type loader struct {
	b  testing.TB
	db *sql.Conn
}

func (l *loader) exec(query string) {
	l.b.Helper()
	if _, err := l.db.ExecContext(context.Background(), query); err != nil {
		l.b.Fatalf("%s: %v", query, err)
	}
}

// fillScale makes a store of n entries in dir.
func fillScale(b testing.TB, dir string, n int64) {
	b.Helper()
	ctx := context.Background()
	s, err := Open(ctx, Options{Dir: dir, Rand: rand.NewChaCha8([32]byte{})})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, databaseName))
	if err != nil {
		b.Fatal(err)
	}
	c, err := db.Conn(ctx)
	if err != nil {
		b.Fatal(err)
	}
	l := &loader{b, c}
	heap := filepath.Join(dir, "heap.db")
	l.exec("PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA temp_store = FILE; ATTACH '" + heap + "' AS heap; PRAGMA heap.journal_mode = OFF")
	rebuild := l.strip()
	l.exec("BEGIN; CREATE TABLE heap.a (v, at, seq); CREATE TABLE heap.m (v, at, seq); CREATE TABLE heap.i (a, b, c, d, seq)")
	l.load(n)
	l.exec(`INSERT INTO entry_address SELECT * FROM heap.a ORDER BY 1, 2, 3; INSERT INTO entry_message SELECT * FROM heap.m ORDER BY 1, 2, 3;
		INSERT INTO issued SELECT * FROM heap.i ORDER BY 1, 2, 3, 4; COMMIT`)
	for _, query := range rebuild {
		l.exec(query)
	}
	l.exec("DETACH heap; PRAGMA wal_checkpoint(TRUNCATE)")
	if err := errors.Join(c.Close(), db.Close(), os.Remove(heap)); err != nil {
		b.Fatal(err)
	}
}

// strip drops what is slow to keep up, and returns how to make it again.
func (l *loader) strip() (rebuild []string) {
	rows, err := l.db.QueryContext(context.Background(), `SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND
		(type = 'trigger' OR type = 'index' AND tbl_name = 'entry') ORDER BY type`)
	if err != nil {
		l.b.Fatal(err)
	}
	var drop []string
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			l.b.Fatal(err)
		}
		drop, rebuild = append(drop, "DROP "+kind+" "+name), append(rebuild, text)
	}
	if err := rows.Close(); err != nil {
		l.b.Fatal(err)
	}
	for _, query := range drop {
		l.exec(query)
	}
	return rebuild
}

func (l *loader) load(n int64) {
	ctx := context.Background()
	prepare := func(query string) func(args ...any) {
		s, err := l.db.PrepareContext(ctx, query)
		if err != nil {
			l.b.Fatal(err)
		}
		return func(args ...any) {
			if _, err := s.ExecContext(ctx, args...); err != nil {
				l.b.Fatal(err)
			}
		}
	}
	entry := prepare("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)")
	into := [derivedTables]func(...any){prepare("INSERT INTO heap.a VALUES (?, ?, ?)"), prepare("INSERT INTO heap.m VALUES (?, ?, ?)"),
		prepare("INSERT INTO heap.i VALUES (?, ?, ?, ?, ?)")}
	var chain Digest
	for seq, message := int64(1), int64(0); seq <= n; message++ {
		for _, r := range scaleMessage(message) {
			r.Seq = seq
			line, err := r.encode()
			if err != nil {
				l.b.Fatal(err)
			}
			chain = chain.Next(line)
			entry(seq, r.At.UnixNano(), string(r.Type), string(r.Identifier), string(line), chain[:])
			for t, tuples := range r.tuples(seq) {
				for _, x := range tuples {
					args := derived[t].args(x)
					if t == derivedIssued {
						args = append(args, seq)
					}
					into[t](args...)
				}
			}
			seq++
		}
	}
}

// BenchmarkScale is for registers of the size that the environment says:
//
//	PECD_SCALE=10000000 go test -run '^$' -bench Scale -timeout 60m ./logstore
func BenchmarkScale(b *testing.B) {
	for _, n := range scaleEntries(b) {
		dir := b.TempDir()
		if kept := os.Getenv("PECD_SCALE_DIR"); kept != "" {
			dir = filepath.Join(kept, strconv.FormatInt(n, 10))
		}
		if _, err := os.Stat(filepath.Join(dir, databaseName)); err != nil {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				b.Fatal(err)
			}
			fillScale(b, dir, n)
		}
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) { scaleBenchmarks(b, dir, n) })
	}
}

func scaleBenchmarks(b *testing.B, dir string, n int64) {
	s, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	middle := scaleMessage(n / 10)
	day := middle[0].At.Truncate(24 * time.Hour)
	for _, q := range []struct {
		name string
		Query
	}{
		{"show", Query{Identifier: middle[0].Identifier}},
		{"message-id", Query{MessageID: middle[3].Messages[0]}},
		{"address", Query{Address: middle[0].Recipients[0].Address}},
		{"address-and-day", Query{Address: middle[0].Sender, Since: day, Until: day.Add(24 * time.Hour)}},
	} {
		b.Run(q.name, func(b *testing.B) {
			found := 0
			for range b.N {
				if err := s.Search(context.Background(), q.Query, func(Entry) error { found++; return nil }); err != nil || found == 0 {
					b.Fatalf("%d entries, %v", found, err)
				}
			}
			b.ReportMetric(float64(found)/float64(b.N), "entries")
		})
	}
	b.Run("span-of-day", func(b *testing.B) {
		for range b.N {
			if sp, err := s.Span(context.Background(), day, day.Add(24*time.Hour)); err != nil || sp.Entries == 0 {
				b.Fatalf("%+v, %v", sp, err)
			}
		}
	})
	b.Run("issued-at", func(b *testing.B) { // as it is asked for each recipient of an envelope
		keys := []Key{{Kind: "prova", Origin: "Alfa", Identifier: middle[0].Identifier, Recipient: middle[0].Recipients[0].Address}}
		for range b.N {
			if _, err := s.IssuedAt(context.Background(), keys); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stories", func(b *testing.B) { scaleStories(b, s, n) })
	b.Run("overdue", func(b *testing.B) { scaleOverdue(b, s, n) })
	b.Run("append", func(b *testing.B) { scaleAppend(b, s) })
	for name, o := range map[string]VerifyOptions{"verify": {}, "verify-chain": {ChainOnly: true}} {
		b.Run(name, func(b *testing.B) { scaleVerify(b, s, o) })
	}
	info, err := os.Stat(filepath.Join(dir, databaseName))
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d entries: %d octets, %d a message of five entries", n, info.Size(), 5*info.Size()/n)
}

// scaleOverdue looks for what is overdue, soon after a start: a row seems to be, and all
// that is dated within the term, up to 864,000 entries, is looked at for what bears that out.
func scaleOverdue(b *testing.B, s *SQLite, n int64) {
	_, err := s.Commit(context.Background(), Tx{At: scaleStart, Acts: []Act{{
		Entry: Entry{Type: "prova", Identifier: "late@alfa.example"}, Await: []pec.Address{"bob@beta.example"}}}})
	if err != nil {
		b.Fatal(err)
	}
	end := scaleStart.Add(time.Duration(n) * 100 * time.Millisecond)
	for b.Loop() {
		if rows, err := s.Overdue(context.Background(), end, min(end.Sub(scaleStart), 24*time.Hour), true, 100); err != nil || len(rows) > 0 {
			b.Fatalf("%+v, %v", rows, err)
		}
	}
}

var scaleAppended int64 = 1 << 40

func scaleAppend(b *testing.B, s *SQLite) {
	for range b.N {
		scaleAppended++
		tx := Tx{At: scaleStart.Add(10_000 * time.Hour)}
		for _, r := range scaleMessage(scaleAppended + time.Now().UnixNano()>>10)[:2] {
			r.At = tx.At
			tx.Acts = append(tx.Acts, Act{Entry: r.Entry, Keys: []Key{{Kind: r.Keys[0].Kind, Identifier: r.Identifier}}})
		}
		if _, err := s.Commit(context.Background(), tx); err != nil {
			b.Fatal(err)
		}
	}
}

func scaleVerify(b *testing.B, s *SQLite, o VerifyOptions) {
	var peak, octets uint64
	o.Progress = func(done, _ int64) {
		if done%(50*chainPage) == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	for range b.N {
		res, err := s.Verify(context.Background(), o)
		if err != nil || !res.Sound() {
			b.Fatalf("%v, %+v", err, res.Broken)
		}
		octets += uint64(res.Octets)
	}
	b.SetBytes(int64(octets) / int64(b.N))
	b.ReportMetric(float64(peak)/1e6, "MB-heap")
}

// scaleStories reads all entries message by message, as pecd log check does.
func scaleStories(b *testing.B, s *SQLite, n int64) {
	for b.Loop() {
		var read int64
		if err := s.Stories(context.Background(), func(e []Entry) error { read += int64(len(e)); return nil }); err != nil || read < n {
			b.Fatalf("%d of %d entries: %v", read, n, err)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapSys)/1e6, "MB")
}
