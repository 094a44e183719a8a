package logstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
)

// makeVersion1 makes a store as the first version of this program left it, with
// a message that is still in the outbox and a receipt issued.
func makeVersion1(t *testing.T, dir string) {
	t.Helper()
	schema, err := os.ReadFile(filepath.Join("migrations", "0001_register_outbox_ledger.sql"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bodies"), 0o700); err != nil {
		t.Fatal(err)
	}
	at := storetest.At.UnixNano()
	record := `{"seq":%d,"at":"2031-07-04T09:05:03+02:00","type":"prova","identifier":"1@alfa.example","sender":"alice@alfa.example",` +
		`"recipients":[{"Address":"Bob@Beta.example","Type":"certificato"}],"subject":"Prova","sending_provider":"Alfa PEC"}`
	for _, query := range []string{
		"PRAGMA journal_mode = WAL", string(schema), "PRAGMA user_version = 1",
		fmt.Sprintf("INSERT INTO entry VALUES (1, %d, 'prova', '1@alfa.example', '%s')", at, fmt.Sprintf(record, 1)),
		fmt.Sprintf("INSERT INTO entry_address VALUES ('alice@alfa.example', %d, 1), ('bob@beta.example', %[1]d, 1)", at),
		"INSERT INTO issued VALUES ('1@alfa.example', 'k', 'alfa.example', 'bob@beta.example', 1), ('1@alfa.example', 'k', 'alfa.example', '', 1)",
		fmt.Sprintf(`INSERT INTO awaited VALUES
			('1@alfa.example', 'bob@beta.example', 'Bob@Beta.Example', 0, %[1]d, NULL, NULL, NULL),
			('1@alfa.example', 'lower@beta.example', 'lower@beta.example', 1, %[1]d, NULL, NULL, NULL),
			('1@alfa.example', 'domain@beta.example', 'domain@BETA.example', 2, %[1]d, NULL, NULL, NULL),
			('1@alfa.example', '"odd@ò"@b.example', '"Odd@Ò"@B.example', 3, %[1]d, NULL, NULL, NULL),
			('1@alfa.example', 'nodomain', 'NoDomain', 4, %[1]d, NULL, NULL, NULL),
			('1@alfa.example', 'ended@b.example', 'Ended@b.example', 5, %[1]d, NULL, %[1]d, 'avvenuta-consegna')`, at),
		fmt.Sprintf("INSERT INTO outbox VALUES (7, 1, 'posta-certificata', 'm@alfa.example', '1@alfa.example', 'alice@alfa.example', 0, %d, %[1]d, 0, '')", at),
		"INSERT INTO outbox_recipient VALUES (7, 0, 'Bob@Beta.Example')",
		"INSERT INTO outbox_piece VALUES (7, 0, CAST('Subject: Prova' AS BLOB), NULL, 0, 0)",
	} {
		if err := raw(t, dir, query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

// A store of version 1 is migrated with all that it holds.
func TestMigrateVersion1(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	makeVersion1(t, dir)
	if _, err := logstore.OpenReadOnly(ctx, dir); !errors.Is(err, logstore.ErrSchema) || !strings.Contains(err.Error(), "start the daemon once") {
		t.Errorf("OpenReadOnly of a store of version 1: %v", err)
	}
	s := open(t, logstore.Options{Dir: dir})
	checkMigratedLedger(t, s, dir)
	checkMigratedKeys(t, s)
	if res := mustVerify(t, s, logstore.VerifyOptions{Pages: true}); res.Unnamed != 1 || res.Last != 2 {
		t.Errorf("Verify: %+v", res)
	}

	out, err := s.Outgoing(ctx, storetest.At, 10, nil)
	if err != nil || len(out) != 1 || out[0].ID != 7 || out[0].EnvelopeID != "1@alfa.example" || storetest.Text(t, out[0].Content) != "Subject: Prova" {
		t.Errorf("outbox: %+v, %v", out, err)
	}
	n := 0
	err = s.Search(ctx, logstore.Query{Address: "BOB@beta.example"}, func(logstore.Entry) error { n++; return nil })
	if err != nil || n != 2 { // one of before, one of checkMigratedKeys
		t.Errorf("a search finds %d entries, %v; want 2", n, err)
	}
	if p, err := s.Policies(ctx); err != nil || len(p) != 0 {
		t.Errorf("Policies: %v, %v", p, err)
	}
	secret, err := s.Secret(ctx)
	if err != nil || len(secret) != 32 {
		t.Errorf("Secret: %d octets, %v", len(secret), err)
	}
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	if again, err := s.Secret(ctx); err != nil || !bytes.Equal(again, secret) {
		t.Errorf("the secret changed at the second start, %v", err)
	}
}

// checkMigratedLedger expects rows under their new keys, open for notices.
func checkMigratedLedger(t *testing.T, s *logstore.SQLite, dir string) {
	t.Helper()
	ctx := context.Background()
	rows, err := s.Awaited(ctx, "1@alfa.example")
	if err != nil || len(rows) != 6 {
		t.Fatalf("ledger: %d rows, %v; want 6", len(rows), err)
	}
	for _, r := range rows {
		want := r.Recipient.Key()
		query := fmt.Sprintf("SELECT key FROM awaited WHERE recipient = '%s'", r.Recipient)
		if got := queryRaw[string](t, dir, query); got != want {
			t.Errorf("the row of %s has key %q, want %q", r.Recipient, got, want)
		}
	}
	due, err := s.Overdue(ctx, storetest.At, 0, false, 10)
	if err != nil || len(due) != 5 || due[0].Recipient != "Bob@Beta.Example" || due[4].Recipient != "NoDomain" {
		t.Errorf("Overdue: %+v, %v; want the five open rows", due, err)
	}
	if st := statsOf(t, s); st.Open != 5 || st.Entries != 1 || st.Outbox != 1 {
		t.Errorf("stats %+v", st)
	}
}

// checkMigratedKeys expects that a key from before counts for every spelling, and
// one of now for its own. It writes one entry.
func checkMigratedKeys(t *testing.T, s *logstore.SQLite) {
	t.Helper()
	ctx := context.Background()
	key := func(id pec.Identifier, a pec.Address) logstore.Key {
		return logstore.Key{Kind: "k", Origin: "alfa.example", Identifier: id, Recipient: a}
	}
	act := logstore.Act{Entry: logstore.Entry{Type: "prova", Sender: "Bob@beta.example"}}
	for _, c := range []struct {
		key   logstore.Key
		fresh bool
	}{
		{key("1@alfa.example", "Bob@Beta.example"), false},
		{key("1@alfa.example", "bob@beta.example"), false},
		{key("1@alfa.example", ""), false},
		{key("2@alfa.example", "Bob@beta.example"), true},
	} {
		act.Keys = []logstore.Key{c.key}
		done, err := s.Commit(ctx, logstore.Tx{At: storetest.At.Add(time.Hour), Acts: []logstore.Act{act}})
		if err != nil || done[0] != c.fresh {
			t.Errorf("key %+v: done %v, %v; want %t", c.key, done, err, c.fresh)
		}
	}
	keys := []logstore.Key{key("1@alfa.example", "BOB@beta.example"), key("2@alfa.example", "Bob@beta.example"), key("2@alfa.example", "bob@beta.example")}
	for term, want := range map[time.Duration][]bool{0: {true, true, false}, time.Nanosecond: {true, false, false}} {
		if got, err := s.LongIssued(ctx, keys, storetest.At.Add(time.Hour), term); err != nil || !slices.Equal(got, want) {
			t.Errorf("LongIssued, %v: %v, %v", term, got, err)
		}
	}
}

// A migration that fails leaves the store as it was.
func TestMigrationFails(t *testing.T) {
	dir := t.TempDir()
	makeVersion1(t, dir)
	if err := raw(t, dir, "CREATE TABLE secret (x)"); err != nil { // in the way of its last steps
		t.Fatal(err)
	}
	if _, err := logstore.Open(context.Background(), logstore.Options{Dir: dir}); err == nil {
		t.Fatal("Open succeeds")
	}
	if v := queryRaw[int](t, dir, "PRAGMA user_version"); v != 1 {
		t.Errorf("schema %d, want 1", v)
	}
	if key := queryRaw[string](t, dir, "SELECT key FROM awaited WHERE position = 0"); key != "bob@beta.example" {
		t.Errorf("the ledger was changed: %s", key)
	}
	if err := raw(t, dir, "DROP TABLE secret"); err != nil {
		t.Fatal(err)
	}
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	checkMigratedLedger(t, s, dir)
}

// brokenRand fails after some octets.
type brokenRand struct{}

var errRand = errors.New("no randomness")

func (brokenRand) Read(p []byte) (int, error) { return copy(p, "some"), errRand }

// Without randomness there is no secret and no store; with a secret none is
// needed.
func TestSecretNeedsRand(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	if _, err := logstore.Open(ctx, logstore.Options{Dir: dir}); err == nil || errors.Is(err, logstore.ErrUnavailable) || !strings.Contains(err.Error(), "Rand") {
		t.Errorf("Open without Rand: %v", err)
	}
	if _, err := logstore.Open(ctx, logstore.Options{Dir: dir, Rand: brokenRand{}}); !errors.Is(err, errRand) {
		t.Errorf("Open with a broken Rand: %v", err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 2)
	var first []byte
	for _, r := range []logstore.Options{{Dir: dir, Rand: bytes.NewReader(want)}, {Dir: dir}} {
		s, err := logstore.Open(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if first, err = s.Secret(ctx); err != nil || !bytes.Equal(first, want) {
			t.Errorf("Secret: %q, %v", first, err)
		}
		closeStore(t, s)
	}
	for _, query := range []string{
		"DELETE FROM secret", "UPDATE secret SET octets = zeroblob(32)", "REPLACE INTO secret VALUES (1, zeroblob(32))",
	} {
		if err := raw(t, dir, query); err == nil || !strings.Contains(err.Error(), "never changes") {
			t.Errorf("%s: %v, want to be refused", query, err)
		}
	}
	r, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := any(r).(interface {
		Secret(context.Context) ([]byte, error)
	}); ok {
		t.Error("a reader tells the secret")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// Overdue walks an index that is in its order and holds nothing else, and looks up the
// entry of each row in another. What bears the dates out is read from an index alone.
func TestOverduePlan(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, open(t, logstore.Options{Dir: dir}))
	db, err := sql.Open("sqlite3", filepath.Join(dir, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	entry := []string{"CORRELATED SCALAR SUBQUERY 1", "SEARCH entry USING COVERING INDEX entry_by_identifier (identifier=? AND at=?)"}
	for query, want := range map[string][]string{
		logstore.OverdueSQL(false): append([]string{"SEARCH awaited USING INDEX awaited_unwarned (sent<?)"}, entry...),
		logstore.OverdueSQL(true):  append([]string{"SEARCH awaited USING INDEX awaited_open (sent<?)"}, entry...),
		logstore.AheadSQL(false):   append([]string{"SEARCH awaited USING INDEX awaited_unwarned (sent>?)"}, entry...),
		logstore.AheadSQL(true):    append([]string{"SEARCH awaited USING INDEX awaited_open (sent>?)"}, entry...),
		logstore.FirstWithinSQL:    {"SEARCH entry USING COVERING INDEX entry_by_time (at>? AND at<?)"},
	} {
		if plans := planOf(t, db, query); !slices.Equal(plans, want) {
			t.Errorf("%s: %q, want %q", query, plans, want)
		}
	}
}

func planOf(t *testing.T, db *sql.DB, query string) (plans []string) {
	t.Helper()
	rows, err := db.Query("EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id, parent, unused int
		var plan string
		if err := rows.Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		plans = append(plans, plan)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return plans
}

// A long register of before the chain is chained as it stands: no octet of its
// records changes. What was purged then has keys that its records do not name.
func TestMigrateToChain(t *testing.T) {
	const n = 2300
	dir, ctx := t.TempDir(), context.Background()
	makeVersion1(t, dir)
	err := raw(t, dir, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO entry SELECT i, %d, 'prova', '1@alfa.example', printf('{"seq":%%d,"at":"2031-07-04T07:05:03Z","type":"prova",'
		|| '"identifier":"1@alfa.example","msgid":"\u003c%%d@client\u003e","sender":"","recipients":null,"subject":"","sending_provider":""}', i, i) FROM n;
		INSERT INTO entry_message SELECT seq || '@client', at, seq FROM entry WHERE seq > 1; DELETE FROM outbox_recipient`, n, storetest.At.UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	record := queryRaw[string](t, dir, "SELECT record FROM entry WHERE seq = 2000")
	var told []int64
	s := open(t, logstore.Options{Dir: dir, Migrating: func(done, total int64) {
		told = append(told, done)
		if total != n {
			t.Errorf("progress of %d", total)
		}
	}})
	defer closeStore(t, s)
	if len(told) != 3 || told[2] != n {
		t.Errorf("progress %v", told)
	}
	register(t, s, 5000, 3)
	var want logstore.Digest
	err = s.Chain(ctx, 1, func(l logstore.Link) error {
		if want = want.Next(l.Record); l.Chain != want || l.Seq == 2000 && string(l.Record) != record {
			return fmt.Errorf("entry %d has chain %v, want %v; record %s", l.Seq, l.Chain, want, l.Record)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	if mode := queryRaw[int](t, dir, "PRAGMA auto_vacuum"); mode != 2 {
		t.Errorf("auto_vacuum is %d", mode)
	}
	takeAll(t, s)
	p := purgeOf(t, s, 1200)
	p.Before = now
	if gone, err := s.PurgeEntries(ctx, p); gone != 1200 || err != nil {
		t.Errorf("PurgeEntries: %d, %v", gone, err)
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	if left := queryRaw[int](t, dir, "SELECT count(*) FROM issued"); left != 9 {
		t.Errorf("%d keys are left, want those of now", left)
	}
}

// A register of before the chain that has a gap is not chained over it.
func TestMigrateGap(t *testing.T) {
	dir := t.TempDir()
	makeVersion1(t, dir)
	attack(t, dir, func(a *attacker) {
		a.exec("UPDATE entry SET seq = 2; UPDATE entry_address SET seq = 2; UPDATE issued SET seq = 2; UPDATE outbox SET seq = 2")
	})
	_, err := logstore.Open(context.Background(), logstore.Options{Dir: dir, Rand: strings.NewReader(strings.Repeat("x", 32))})
	if err == nil || !strings.Contains(err.Error(), "entry 1 is missing") {
		t.Errorf("Open: %v", err)
	}
	if v := queryRaw[int](t, dir, "PRAGMA user_version"); v != 3 {
		t.Errorf("schema %d, want 3", v)
	}
}
