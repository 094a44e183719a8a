package logstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

// An attacker can write to the file: triggers go while he works, and come back.
type attacker struct {
	t    testing.TB
	dir  string
	db   *sql.DB
	back []string
}

func (a *attacker) exec(query string, args ...any) {
	a.t.Helper()
	if _, err := a.db.Exec(query, args...); err != nil {
		a.t.Fatalf("%s: %v", query, err)
	}
}

// attack runs f on the store in dir, which nobody has open.
func attack(t testing.TB, dir string, f func(*attacker)) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	a := &attacker{t: t, dir: dir, db: db}
	rows, err := db.Query("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			t.Fatal(err)
		}
		names, a.back = append(names, name), append(a.back, text)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		a.exec("DROP TRIGGER " + name)
	}
	f(a)
	for _, text := range a.back {
		a.exec(text)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// rewrite gives the entries from seq on the chain that follows from their records,
// as somebody does who knows how it is made.
func (a *attacker) rewrite(seq int64) {
	a.t.Helper()
	var chain logstore.Digest
	if seq > 1 {
		var before []byte
		if err := a.db.QueryRow("SELECT chain FROM entry WHERE seq = ?", seq-1).Scan(&before); err != nil {
			a.t.Fatal(err)
		}
		copy(chain[:], before)
	}
	for {
		var record []byte
		err := a.db.QueryRow("SELECT record FROM entry WHERE seq = ?", seq).Scan(&record)
		if errors.Is(err, sql.ErrNoRows) {
			return
		}
		if err != nil {
			a.t.Fatal(err)
		}
		chain = chain.Next(record)
		a.exec("UPDATE entry SET chain = ? WHERE seq = ?", chain[:], seq)
		seq++
	}
}

// shift moves the entries from seq on by one, with all that follows from them, and
// puts another between.
func (a *attacker) shift(seq int64) {
	a.t.Helper()
	for _, table := range []string{"entry_address", "entry_message", "issued"} {
		a.exec("UPDATE "+table+" SET seq = seq + 1000001 WHERE seq >= ?", seq)
		a.exec("UPDATE " + table + " SET seq = seq - 1000000 WHERE seq > 1000000")
	}
	a.exec("UPDATE entry SET seq = seq + 1000001, record = json_set(record, '$.seq', seq + 1) WHERE seq >= ?", seq)
	a.exec("UPDATE entry SET seq = seq - 1000000 WHERE seq > 1000000")
	a.exec(`INSERT INTO entry SELECT ?1, at, type, '', json_object('seq', ?1, 'at', json_extract(record, '$.at'), 'type', type, 'identifier', ''), chain
		FROM entry WHERE seq = ?1 + 1`, seq)
}

// last is the number of entries of a scene. Entry 6 keeps an infected message.
const last = 12

// A scene is a register as it was written, and its chain.
type scene struct {
	dir   string
	chain [last + 1]logstore.Digest
}

func newScene(t testing.TB) *scene {
	t.Helper()
	sc := &scene{dir: t.TempDir()}
	s := open(t, logstore.Options{Dir: sc.dir})
	register(t, s, 1, 5)
	mustCommit(t, s, keeps("x"))
	register(t, s, 7, last-6)
	err := s.Chain(context.Background(), 1, func(l logstore.Link) error {
		sc.chain[l.Seq] = l.Chain
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustVerify(t, s, logstore.VerifyOptions{Known: sc.anchors(1, 6, last)})
	closeStore(t, s)
	return sc
}

func (sc *scene) anchors(seqs ...int64) (out []logstore.Anchor) {
	for _, seq := range seqs {
		out = append(out, logstore.Anchor{Seq: seq, Chain: sc.chain[seq]})
	}
	return out
}

// attacked returns what Verify says after an attack on a copy of the scene.
func (sc *scene) attacked(t testing.TB, o logstore.VerifyOptions, f func(*attacker)) logstore.Result {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(sc.dir, "pecd.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "pecd.db"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	attack(t, dir, f)
	r, err := logstore.OpenReadOnly(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	return verify(t, r, o)
}

func names(res logstore.Result, table string, seq int64) bool {
	return slices.ContainsFunc(res.Broken, func(b logstore.Break) bool {
		return b.Table == table && b.First <= seq && seq <= b.Last
	})
}

// Every change of every column of the register is found, without anything from
// outside, unless the chain is made anew.
func TestVerifyFindsChanges(t *testing.T) {
	sc := newScene(t)
	for _, c := range []struct{ table, query string }{
		{"entry", "UPDATE entry SET record = replace(record, 'urgente', 'lento') || CASE seq WHEN 6 THEN ' ' ELSE '' END WHERE seq = ?1"},
		{"entry", "UPDATE entry SET record = '{}' WHERE seq = ?1"},
		{"entry", "UPDATE entry SET record = '' WHERE seq = ?1"},
		{"entry", "UPDATE entry SET record = record || ' ' WHERE seq = ?1"},
		{"entry", "UPDATE entry SET at = at + 1 WHERE seq = ?1"},
		{"entry", "UPDATE entry SET type = 'accettazione' WHERE seq = ?1"},
		{"entry", "UPDATE entry SET identifier = '99@alfa.example' WHERE seq = ?1"},
		{"entry", "UPDATE entry SET chain = zeroblob(32) WHERE seq = ?1"},
		{"entry", "UPDATE entry SET chain = NULL WHERE seq = ?1"},
		{"entry", "UPDATE entry SET seq = 100 WHERE seq = ?1"},
		{"entry", "UPDATE entry SET record = (SELECT record FROM entry WHERE seq = 3) WHERE seq = ?1 AND seq <> 3"},
		{"entry_address", "UPDATE entry_address SET address = 'eve@beta.example' WHERE seq = ?1 AND address = 'alice@alfa.example'"},
		{"entry_address", "UPDATE entry_address SET at = at + 1 WHERE seq = ?1"},
		{"entry_address", "UPDATE entry_address SET seq = 3 WHERE seq = ?1"},
		{"entry_address", "UPDATE entry_address SET seq = -5 WHERE seq = ?1"},
		{"entry_address", "UPDATE entry_address SET seq = 500 WHERE seq = ?1"},
		{"entry_address", "DELETE FROM entry_address WHERE seq = ?1 AND address = 'bob@beta.example'"},
		{"entry_address", "INSERT INTO entry_address SELECT 'eve@beta.example', at, seq FROM entry WHERE seq = ?1"},
		{"entry_message", "UPDATE entry_message SET message_id = 'x' || message_id WHERE seq = ?1 AND message_id LIKE 'm%'"},
		{"entry_message", "UPDATE entry_message SET at = at - 1 WHERE seq = ?1"},
		{"entry_message", "UPDATE entry_message SET seq = seq + 1 WHERE seq = ?1"},
		{"entry_message", "DELETE FROM entry_message WHERE seq = ?1"},
		{"entry_message", "INSERT INTO entry_message SELECT 'x', at, seq FROM entry WHERE seq = ?1"},
		{"issued", "UPDATE issued SET identifier = '99@alfa.example' WHERE seq = ?1 AND identifier <> '' AND recipient <> ''"},
		{"issued", "UPDATE issued SET kind = 'altro' WHERE seq = ?1 AND recipient <> ''"},
		{"issued", "UPDATE issued SET origin = 'beta.example' WHERE seq = ?1"},
		{"issued", "UPDATE issued SET recipient = 'eve@beta.example' WHERE seq = ?1 AND recipient <> ''"},
		{"issued", "UPDATE issued SET seq = 3 WHERE seq = ?1"},
		{"issued", "DELETE FROM issued WHERE seq = ?1"},
		{"issued", "INSERT INTO issued VALUES ('1', '2', '3', '4', ?1)"},
		{"unnamed_keys", "UPDATE unnamed_keys SET seq = ?1"},
	} {
		for _, seq := range []int64{1, 7, last} {
			res := sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { a.exec(c.query, seq) })
			switch {
			case !names(res, c.table, seq) && !(strings.HasPrefix(c.query, "UPDATE entry SET seq = 100") && seq == last):
				t.Errorf("%s, entry %d: %v", c.query, seq, res.Broken)
			case res.Good >= seq && !strings.Contains(c.query, "seq = 100"):
				t.Errorf("%s, entry %d: the register is said to be good up to %d", c.query, seq, res.Good)
			}
		}
	}
}

// A row of a derived table that belongs to an entry to come must be found too: it
// would be in the way of that entry.
func TestVerifyFindsOthers(t *testing.T) {
	sc := newScene(t)
	for _, c := range []struct{ table, query string }{
		{"infected", "UPDATE infected SET digest = replace(digest, 'a', 'b')"},
		{"infected", "UPDATE infected SET identifier = 'x'"},
		{"infected", "UPDATE infected SET sender = 'eve@beta.example'"},
		{"infected", "UPDATE infected SET at = at - 1"},
		{"infected", "UPDATE infected SET seq = 7"},
		{"purged", "INSERT INTO purged SELECT seq, chain, 12, at, x'00' FROM entry WHERE seq = 4"},
		{"purged", "INSERT INTO purged SELECT seq, chain, 99, at, x'00' FROM entry WHERE seq = 4"},
		{"schema", "DROP TABLE folded_keys"},
		{"schema", "CREATE TRIGGER a AFTER INSERT ON entry BEGIN DELETE FROM awaited; END"},
		{"schema", "CREATE TABLE notes (x)"},
		{"schema", "DROP INDEX entry_by_time"},
		{"schema", "ALTER TABLE policy ADD COLUMN x TEXT"},
		{"entry_address", "INSERT INTO entry_address VALUES ('bob@beta.example', 0, 13)"},
		{"entry_message", "INSERT INTO entry_message VALUES ('x', 0, 0)"},
		{"issued", "INSERT INTO issued VALUES ('13@alfa.example', 'prova', 'alfa.example', 'Bob@beta.example', 13)"},
		{"entry_address", "DROP TABLE entry_address; CREATE TABLE entry_address (x)"},
	} {
		res := sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { a.exec(c.query) })
		if !slices.ContainsFunc(res.Broken, func(b logstore.Break) bool { return b.Table == c.table }) {
			t.Errorf("%s: %v", c.query, res.Broken)
		}
	}
	res := sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { a.back = a.back[1:] })
	if len(res.Broken) != 1 || res.Broken[0].Table != "schema" || res.Good != last {
		t.Errorf("without a trigger: %+v", res)
	}
}

// Entries that are removed, put between, or put into another order.
func TestVerifyFindsMoves(t *testing.T) {
	sc := newScene(t)
	remove := func(a *attacker, seq int64) {
		for _, table := range []string{"entry_address", "entry_message", "issued", "entry"} {
			a.exec("DELETE FROM "+table+" WHERE seq = ?", seq)
		}
	}
	for _, seq := range []int64{1, 7, last - 1} {
		res := sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { remove(a, seq) })
		if !names(res, "entry", seq) || res.Good != seq-1 || res.Last != last || len(res.Broken) != 1 {
			t.Errorf("entry %d is missing: good up to %d, %v", seq, res.Good, res.Broken)
		}
		res = sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { a.shift(seq) })
		if !names(res, "entry", seq) || res.Good != seq-1 {
			t.Errorf("something is put before entry %d: good up to %d, %v", seq, res.Good, res.Broken)
		}
		res = sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) {
			a.exec("UPDATE entry SET seq = 100 WHERE seq = ?", seq)
			a.exec("UPDATE entry SET seq = ?1 WHERE seq = ?1 + 1", seq)
			a.exec("UPDATE entry SET seq = ? WHERE seq = 100", seq+1)
		})
		if !names(res, "entry", seq) || !names(res, "entry", seq+1) || res.Good != seq-1 {
			t.Errorf("entries %d and %d change places: good up to %d, %v", seq, seq+1, res.Good, res.Broken)
		}
	}
	// The end is cut off: nothing inside tells that.
	cut := func(a *attacker) {
		for seq := int64(9); seq <= last; seq++ {
			remove(a, seq)
		}
	}
	res := sc.attacked(t, logstore.VerifyOptions{Known: sc.anchors(5)}, cut)
	if !res.Sound() || res.Covered.Seq != 5 || res.Uncovered.First != 6 || res.Uncovered.Last != 8 {
		t.Errorf("cut after the last anchor: %+v", res)
	}
	res = sc.attacked(t, logstore.VerifyOptions{Known: sc.anchors(5, 10)}, cut)
	if !names(res, "anchor", 9) || !names(res, "anchor", 10) || res.Good != 8 {
		t.Errorf("cut before the last anchor: %+v", res)
	}
	res = sc.attacked(t, logstore.VerifyOptions{Known: sc.anchors(5, 10)}, func(a *attacker) {
		for seq := int64(1); seq <= last; seq++ {
			remove(a, seq)
		}
	})
	if !names(res, "anchor", 5) || !names(res, "anchor", 10) || res.Good != 0 {
		t.Errorf("all is gone: %+v", res)
	}
}

// Who rebuilds the tail with all that follows from it is found by what is known
// outside, and where nothing is known it is said so.
func TestVerifyFindsRewriting(t *testing.T) {
	sc := newScene(t)
	change := func(seq int64) func(*attacker) {
		return func(a *attacker) {
			a.exec("UPDATE entry SET record = json_set(record, '$.subject', 'altro') WHERE seq = ?", seq)
			a.rewrite(seq)
		}
	}
	insert := func(seq int64) func(*attacker) {
		return func(a *attacker) { a.shift(seq); a.rewrite(seq) }
	}
	remove := func(seq int64) func(*attacker) {
		return func(a *attacker) {
			for _, table := range []string{"entry_address", "entry_message", "issued", "entry"} {
				a.exec("DELETE FROM "+table+" WHERE seq = ?", seq)
				a.exec("UPDATE "+table+" SET seq = seq + 1000000 WHERE seq > ?", seq)
				a.exec("UPDATE " + table + " SET seq = seq - 1000001 WHERE seq > 1000000")
			}
			a.exec("UPDATE entry SET record = json_set(record, '$.seq', seq) WHERE seq >= ?", seq)
			a.rewrite(seq)
		}
	}
	known := sc.anchors(8, 4) // in any order
	for what, f := range map[string]func(int64) func(*attacker){"changed": change, "inserted": insert, "removed": remove} {
		for seq := int64(1); seq <= last; seq++ {
			if seq == 6 || what == "inserted" && seq < 7 || what == "removed" && seq < 7 {
				continue // the infected message would tell
			}
			res := sc.attacked(t, logstore.VerifyOptions{Known: known}, f(seq))
			good, covered := int64(0), int64(0)
			switch {
			case seq > 8:
				good, covered = res.Last, 8
			case seq > 4:
				good, covered = 4, 4
			}
			if res.Good != good || res.Covered.Seq != covered || res.Uncovered.First != covered+1 || res.Uncovered.Last != res.Last {
				t.Errorf("%s %d: good up to %d, covered up to %d, %+v, %v", what, seq, res.Good, res.Covered.Seq, res.Uncovered, res.Broken)
			}
			if seq <= 8 && !names(res, "anchor", seq) || seq > 8 && !res.Sound() {
				t.Errorf("%s %d: %v", what, seq, res.Broken)
			}
		}
	}
}

// A break is told once, and the count of those beyond the limit.
func TestVerifyLimit(t *testing.T) {
	sc := newScene(t)
	res := sc.attacked(t, logstore.VerifyOptions{Limit: 3}, func(a *attacker) { a.exec("UPDATE entry SET type = 'x' WHERE seq <> 6") })
	if len(res.Broken) != 3 || res.More != last-1-3 || res.Good != 0 {
		t.Errorf("%+v", res)
	}
	res = sc.attacked(t, logstore.VerifyOptions{}, func(a *attacker) { a.exec("UPDATE entry SET record = record || ' ' WHERE seq = 5") })
	if len(res.Broken) != 1 || res.Broken[0].First != 5 || res.Good != 4 {
		t.Errorf("one break: %v", res.Broken)
	}
}

func TestVerifyFrom(t *testing.T) {
	sc := newScene(t)
	change := func(a *attacker) { a.exec("UPDATE entry SET type = 'x' WHERE seq = 4") }
	res := sc.attacked(t, logstore.VerifyOptions{From: 5, Known: sc.anchors(3, 4, 9)}, change)
	if !res.Sound() || res.First != 5 || res.Entries != last-4 || res.Below != 2 || res.Covered.Seq != 9 || res.Uncovered.First != 10 {
		t.Errorf("%+v", res)
	}
	if res = sc.attacked(t, logstore.VerifyOptions{From: 4}, change); res.Sound() || res.Good != 3 {
		t.Errorf("%+v", res)
	}
	if res = sc.attacked(t, logstore.VerifyOptions{ChainOnly: true}, change); !res.Sound() {
		t.Errorf("of the chain alone: %v", res.Broken)
	}
	change = func(a *attacker) { a.exec("UPDATE entry SET record = '{}' WHERE seq = 4") }
	if res = sc.attacked(t, logstore.VerifyOptions{ChainOnly: true}, change); res.Good != 3 || len(res.Broken) != 1 {
		t.Errorf("of the chain alone: %v", res.Broken)
	}
}

// Pages that are damaged are told, not taken for an error that may pass.
func TestVerifyDamagedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	fillRegister(t, s, 3000)
	closeStore(t, s)
	file := filepath.Join(dir, "pecd.db")
	root := queryRaw[int64](t, dir, "SELECT rootpage FROM sqlite_schema WHERE name = 'entry'")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[(root-1)*4096:root*4096], strings.Repeat("nonsense", 512))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := logstore.OpenReadOnly(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Verify(context.Background(), logstore.VerifyOptions{Pages: true})
	if err == nil && res.Sound() || errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("Verify: %+v, %v", res, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// The register may grow while it is verified, and the caller may lose patience.
func TestVerifyMeanwhile(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	fillRegister(t, s, 3000)
	n := 3000
	res := mustVerify(t, s, logstore.VerifyOptions{Progress: func(done, total int64) {
		if total != 3000 || done%1000 != 0 {
			t.Errorf("progress %d of %d", done, total)
		}
		n++
		mustCommit(t, s, logstore.Tx{At: storetest.At, Acts: []logstore.Act{registerAct(n)}})
	}})
	if res.Last != 3000 || n != 3003 {
		t.Errorf("%d entries, %d at the end", res.Last, n)
	}
	p := purgeOf(t, s, 10)
	p.Before = now
	_, err := s.Verify(context.Background(), logstore.VerifyOptions{Progress: func(done, _ int64) {
		if _, err := s.PurgeEntries(context.Background(), p); done == 1000 && err != nil {
			t.Error(err)
		}
	}})
	if !errors.Is(err, logstore.ErrPurgedMeanwhile) || !errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("purged meanwhile: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = s.Verify(ctx, logstore.VerifyOptions{Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBreakString(t *testing.T) {
	for want, b := range map[string]logstore.Break{
		"schema: x":                {Table: "schema", What: "x"},
		"entry 3: entry: y":        {First: 3, Last: 3, Table: "entry", What: "y"},
		"entries 3 to 5: entry: y": {First: 3, Last: 5, Table: "entry", What: "y"},
	} {
		if got := fmt.Sprint(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
