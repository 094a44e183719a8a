package logstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// raw runs SQL on the database in dir as a foreign program would.
func raw(t testing.TB, dir, query string) error {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(query)
	if closeErr := db.Close(); closeErr != nil {
		t.Fatal(closeErr)
	}
	return err
}

// queryRaw returns the one value of a query of the database in dir.
func queryRaw[T any](t testing.TB, dir, query string) (v T) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, "pecd.db"))
	if err == nil {
		err = errors.Join(db.QueryRow(query).Scan(&v), db.Close())
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func countBodies(t testing.TB, dir string) int {
	t.Helper()
	return queryRaw[int](t, dir, "SELECT count(*) FROM body")
}

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sto?re #1%41") // odd names are names
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	tx, body := largeAccess(t, storetest.NewProvider(t), s)
	defer closeBody(t, body)
	tx.Acts[0].Keep = storetest.KeepAct(pec.Event{}, message.Text([]byte("x"))).Keep
	mustCommit(t, s, tx)
	var seen []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		seen = append(seen, d.Name())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pecd.db", "pecd.db-wal", "pecd.db-shm", "lock", "bodies", "virus", "1"} {
		if !slices.Contains(seen, name) {
			t.Errorf("no %s among %v", name, seen)
		}
	}
}

func TestSchemas(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, open(t, logstore.Options{Dir: dir}))
	version := queryRaw[int](t, dir, "PRAGMA user_version")
	for _, c := range []struct{ version, inDaemon, inReader string }{
		{"99", "newer pecd", "newer pecd"},
		{"0", "migrating to schema 1", "start the daemon once"},
		{"1", "migrating to schema 2", "start the daemon once"},
		{"2", "migrating to schema 3", "start the daemon once"},
		{"3", "migrating to schema 4", "start the daemon once"},
	} {
		if err := raw(t, dir, "PRAGMA user_version = "+c.version); err != nil {
			t.Fatal(err)
		}
		_, err := logstore.Open(context.Background(), logstore.Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), c.inDaemon) || errors.Is(err, logstore.ErrUnavailable) {
			t.Errorf("Open of schema %s: %v", c.version, err)
		}
		_, err = logstore.OpenReadOnly(context.Background(), dir)
		if !errors.Is(err, logstore.ErrSchema) || !strings.Contains(err.Error(), c.inReader) {
			t.Errorf("OpenReadOnly of schema %s: %v", c.version, err)
		}
	}
	if err := raw(t, dir, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, open(t, logstore.Options{Dir: dir}))
}

func TestNotADatabase(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pecd.db"), bytes.Repeat([]byte("nonsense"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := logstore.Open(context.Background(), logstore.Options{Dir: dir}); err == nil || errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("Open of nonsense: %v, %v", s, err)
	}
}

func TestOpenReadOnly(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	if _, err := logstore.OpenReadOnly(ctx, dir); err == nil {
		t.Error("OpenReadOnly where no store is succeeds")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("it created %v, %v", names, err)
	}
	s := open(t, logstore.Options{Dir: dir})
	tx := smallAccess(t, storetest.NewProvider(t))
	tx.Acts[0].Policy = &logstore.Policy{Subject: "beta.example", Ordinary: "refuse"}
	tx.Acts[0].Keep = storetest.KeepAct(pec.Event{}, message.Text([]byte("infetto"))).Keep
	mustCommit(t, s, tx)
	for _, running := range []bool{true, false} {
		if !running {
			closeStore(t, s)
		}
		r, err := logstore.OpenReadOnly(ctx, dir)
		if err != nil {
			t.Fatalf("OpenReadOnly, daemon running %t: %v", running, err)
		}
		id := tx.Acts[0].Entry.Identifier
		n := 0
		if err := r.Search(ctx, logstore.Query{Identifier: id}, func(logstore.Entry) error { n++; return nil }); err != nil || n != 2 {
			t.Errorf("daemon running %t: %d entries, %v", running, n, err)
		}
		if rows, err := r.Awaited(ctx, id); err != nil || len(rows) != 1 {
			t.Errorf("daemon running %t: %v, %v", running, rows, err)
		}
		if rows, err := r.Overdue(ctx, storetest.At, 0, false, 10); err != nil || len(rows) != 1 || rows[0].Identifier != id {
			t.Errorf("daemon running %t: overdue %v, %v", running, rows, err)
		}
		if p, err := r.Policies(ctx, "beta.example"); err != nil || len(p) != 1 || p[0] != *tx.Acts[0].Policy {
			t.Errorf("daemon running %t: policies %v, %v", running, p, err)
		}
		if list, err := r.Infected(ctx, logstore.InfectedQuery{Identifier: id}); err != nil || len(list) != 1 || list[0].Size != 7 {
			t.Errorf("daemon running %t: infected %v, %v", running, list, err)
		}
		if text, err := readInfected(r, 1); err != nil || text != "infetto" {
			t.Errorf("daemon running %t: infected message %q, %v", running, text, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The register is append-only, whatever program writes.
func TestAppendOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	mustCommit(t, s, smallAccess(t, storetest.NewProvider(t)))
	closeStore(t, s)
	for _, query := range []string{
		"DELETE FROM entry WHERE seq = 2",
		"UPDATE entry SET record = '{}'",
		"INSERT INTO entry (seq, at, type, identifier, record) VALUES (4, 0, '', '', '{}')",
		"INSERT INTO entry (at, type, identifier, record) VALUES (0, '', '', '{}')",
		"REPLACE INTO entry (seq, at, type, identifier, record) VALUES (2, 0, '', '', '{}')",
		"DELETE FROM entry_address", "UPDATE entry_address SET address = 'x'",
		"DELETE FROM entry_message", "UPDATE entry_message SET message_id = 'x'",
		"DELETE FROM issued", "UPDATE issued SET kind = 'x'",
	} {
		if err := raw(t, dir, query); err == nil || !strings.Contains(err.Error(), "register") {
			t.Errorf("%s: %v, want to be refused", query, err)
		}
	}
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	n := 0
	err := s.Search(context.Background(), logstore.Query{}, func(e logstore.Entry) error {
		n++
		if e.Sender != "alice@alfa.example" {
			t.Errorf("entry %+v", e)
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d entries, %v; want the 2 that were written", n, err)
	}
}

// The register holds no message content.
func TestNoContentInRegister(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	tx := smallAccess(t, storetest.NewProvider(t))
	mustCommit(t, s, tx)
	out, err := s.Outgoing(context.Background(), storetest.At, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range out {
		if err := s.Taken(context.Background(), m.ID, m.To); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	if err := raw(t, dir, "VACUUM"); err != nil { // forget what was removed
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(tx.Acts[0].Entry.Identifier)) {
		t.Error("the database does not hold the identifier: the test sees nothing")
	}
	if bytes.Contains(data, []byte("Una riga del messaggio")) {
		t.Error("the database holds content of a message that has left")
	}
}

// Recovery removes what a crash leaves, and nothing else.
func TestRecovery(t *testing.T) {
	dir := t.TempDir()
	p := storetest.NewProvider(t)
	s := open(t, logstore.Options{Dir: dir})
	tx, body := largeAccess(t, p, s)
	mustCommit(t, s, tx)
	closeBody(t, body)
	closeStore(t, s)
	if got := bodyFiles(t, dir); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("files %v", got)
	}
	for _, name := range []string{"1.tmp", "7", "8.tmp", "007", "-1", "0", "lost+found", "9.tmp.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, "bodies", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := raw(t, dir, "INSERT INTO body VALUES (20, 5, NULL), (21, 5, x'00')"); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = open(t, logstore.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got, want := bodyFiles(t, dir), []string{"-1", "0", "007", "1", "9.tmp.tmp", "lost+found"}; !slices.Equal(got, want) {
		t.Errorf("files %v after recovery, want %v", got, want)
	}
	out, err := s.Outgoing(context.Background(), storetest.At, 10, nil)
	if err != nil || len(out) != 2 || int64(len(storetest.Text(t, out[1].Content))) != out[1].Content.Size() {
		t.Errorf("outbox after recovery: %d messages, %v", len(out), err)
	}
	closeStore(t, s)
	if n := countBodies(t, dir); n != 1 {
		t.Errorf("%d rows of bodies after recovery, want 1", n)
	}

	// A file that is missing is told, and the others can be sent.
	if err := os.Remove(filepath.Join(dir, "bodies", "1")); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	s = open(t, logstore.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeStore(t, s)
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "missing") {
		t.Errorf("nothing said about the missing file:\n%s", &log)
	}
	out, err = s.Outgoing(context.Background(), storetest.At, 10, nil)
	if err != nil || len(out) != 2 {
		t.Fatalf("outbox: %d messages, %v", len(out), err)
	}
	for _, m := range out {
		_, err := m.Content.WriteTo(&bytes.Buffer{})
		if lost := m.Kind == pec.KindTransport; (err != nil) != lost {
			t.Errorf("reading the %s: %v", m.Kind, err)
		}
	}
}

// A source that is no body of the store is stored once per transaction too.
func TestForeignSourceOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	p := storetest.NewProvider(t)
	ev := p.NewEvent(t, "bob@beta.example")
	text := message.Bytes(storetest.Original(ev, 200_000))
	for i, src := range []message.Source{text, &struct{ message.Bytes }{text}} {
		ev := p.NewEvent(t, "bob@beta.example")
		all := message.Section(src, message.Range{Len: src.Size()})
		first, second := p.Delivery(t, ev, all), p.Delivery(t, p.NewEvent(t, "bob@beta.example"), all)
		mustCommit(t, s, logstore.Tx{At: storetest.At, Acts: []logstore.Act{storetest.ActOf(first), storetest.ActOf(second)}})
		if got := bodyFiles(t, dir); len(got) != i+1 {
			t.Errorf("%T: files %v, want %d", src, got, i+1)
		}
	}
}

// Bodies of any way through the store are gone when nobody needs them.
func TestNoFilesLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	ctx := context.Background()
	p := storetest.NewProvider(t)
	takeAll := func() {
		t.Helper()
		out, err := s.Outgoing(ctx, storetest.At, 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out {
			if err := s.Taken(ctx, m.ID, m.To); err != nil {
				t.Fatal(err)
			}
		}
	}

	_, never := largeAccess(t, p, s) // not committed at all
	tx, _ := largeAccess(t, p, nil)  // committed from memory
	mustCommit(t, s, tx)
	early, body := largeAccess(t, p, s) // closed before it is taken
	mustCommit(t, s, early)
	closeBody(t, body)
	if got := bodyFiles(t, dir); len(got) != 3 {
		t.Errorf("files %v, want 3", got)
	}
	again, leftOut := largeAccess(t, p, s) // left out, its keys are known
	again.Acts[0].Keys, again.Acts[1].Keys = early.Acts[0].Keys, early.Acts[1].Keys
	if done, err := s.Commit(ctx, again); err != nil || done[0] || done[1] {
		t.Errorf("Commit: %v, %v", done, err)
	}
	closeBody(t, leftOut)
	closeBody(t, never)
	late, held := largeAccess(t, p, s) // closed after it is taken
	mustCommit(t, s, late)
	takeAll()
	if got := bodyFiles(t, dir); len(got) != 1 {
		t.Errorf("files %v, want the one that is held", got)
	}
	closeBody(t, held)
	mustCommit(t, s, smallAccess(t, p)) // the writer sweeps before or after it
	mustCommit(t, s, smallAccess(t, p))
	closeStore(t, s)
	if got := bodyFiles(t, dir); len(got) != 0 {
		t.Errorf("files %v, want none", got)
	}
	if n := countBodies(t, dir); n != 0 {
		t.Errorf("%d rows of bodies, want none", n)
	}
}
