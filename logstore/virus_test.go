package logstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// readInfected returns the octets of infected message id.
func readInfected(s interface {
	OpenInfected(context.Context, int64) (io.ReadCloser, error)
}, id int64) (string, error) {
	r, err := s.OpenInfected(context.Background(), id)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), errors.Join(err, r.Close())
}

// keeps returns a transaction that keeps text.
func keeps(text string) logstore.Tx {
	ev := pec.Event{Identifier: "1@alfa.example", Sender: "alice@alfa.example"}
	return logstore.Tx{At: storetest.At, Acts: []logstore.Act{storetest.KeepAct(ev, message.Text([]byte(text)))}}
}

// What the file of an infected message holds is what was kept, or who reads it
// hears that it is not, at the end at the latest.
func TestAltered(t *testing.T) {
	const text = "un messaggio infetto"
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	mustCommit(t, s, keeps(text))
	file := filepath.Join(dir, "virus", "1")
	for name, now := range map[string]string{
		"changed": "un messaggio infettO", "cut": text[:10], "empty": "", "longer": text + "!",
	} {
		if err := os.WriteFile(file, []byte(now), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readInfected(s, 1); !errors.Is(err, logstore.ErrAltered) || got != now {
			t.Errorf("%s: %q, %v; want ErrAltered", name, got, err)
		}
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readInfected(s, 1); err != nil || got != text {
		t.Errorf("as it was: %q, %v", got, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := readInfected(s, 1); !errors.Is(err, logstore.ErrAltered) {
		t.Errorf("missing: %v, want ErrAltered", err)
	}
	// It can be purged all the same.
	if n, err := s.PurgeInfected(context.Background(), storetest.Term); n != 1 || err != nil {
		t.Errorf("PurgeInfected: %d, %v", n, err)
	}
}

// Infected messages stay as they are until their term, whatever program writes.
func TestKeptUntil(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	mustCommit(t, s, keeps("x"))
	closeStore(t, s)
	entry := func(record string) string {
		return "BEGIN; INSERT INTO entry SELECT 2, at, 'cancellazione', '1@alfa.example', " + record + ", zeroblob(32) FROM infected; DELETE FROM infected; COMMIT"
	}
	for _, query := range []string{
		"DELETE FROM infected", "UPDATE infected SET until = at + 1", "UPDATE infected SET digest = upper(digest)",
		"REPLACE INTO infected SELECT id, seq, at, identifier, sender, virus, source, size, digest, until - 1 FROM infected",
		entry("'{}'"), entry("json_object('kept', digest)"),
	} {
		if err := raw(t, dir, query); err == nil || !strings.Contains(err.Error(), "infected message is kept") {
			t.Errorf("%s: %v, want to be refused", query, err)
		}
	}
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	if got, err := readInfected(s, 1); err != nil || got != "x" {
		t.Errorf("read %q, %v", got, err)
	}
}

// Recovery removes files to which no row points, tells which are missing, and
// gives no id again.
func TestRecoverVirusStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	mustCommit(t, s, keeps("uno"))
	mustCommit(t, s, keeps("due"))
	closeStore(t, s)
	for _, name := range []string{"1.tmp", "7", "8.tmp", "007", "lost+found"} {
		if err := os.WriteFile(filepath.Join(dir, "virus", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "virus", "2")); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = open(t, logstore.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeStore(t, s)
	if got, want := virusFiles(t, dir), []string{"007", "1", "lost+found"}; !slices.Equal(got, want) {
		t.Errorf("files %v after recovery, want %v", got, want)
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), filepath.Join("virus", "2")) {
		t.Errorf("nothing said about the missing file:\n%s", &log)
	}
	mustCommit(t, s, keeps("tre"))
	list, err := s.Infected(context.Background(), logstore.InfectedQuery{})
	if err != nil || len(list) != 3 || list[2].ID != 9 {
		t.Errorf("after recovery: %+v, %v; want the next id to be 9", list, err)
	}
	if got, err := readInfected(s, 1); err != nil || got != "uno" {
		t.Errorf("read %q, %v", got, err)
	}
}

// Files of what no transaction took are gone at once.
func TestNoVirusFilesLeft(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	tx := keeps("x")
	tx.Acts[0].Keys = []logstore.Key{storetest.KeyOf("k", "1@alfa.example", "")}
	mustCommit(t, s, tx)
	if done, err := s.Commit(ctx, tx); err != nil || done[0] {
		t.Errorf("Commit again: %v, %v", done, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for range 20 {
		tx.Acts[0].Keys = nil
		if _, err := s.Commit(cancelled, tx); !errors.Is(err, context.Canceled) {
			t.Errorf("Commit for whom nobody waits: %v", err)
		}
	}
	list, err := s.Infected(ctx, logstore.InfectedQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if got := virusFiles(t, dir); len(got) != len(list) {
		t.Errorf("files %v for %d messages", got, len(list))
	}
	if n, err := s.PurgeInfected(ctx, storetest.Term); err != nil || n != len(list) {
		t.Errorf("PurgeInfected: %d, %v; want %d", n, err, len(list))
	}
	if got := virusFiles(t, dir); len(got) != 0 {
		t.Errorf("files %v, want none", got)
	}
}

// A COMMIT of which nobody knows whether it happened leaves the file until the
// next start finds out.
func TestKeptUncertain(t *testing.T) {
	for _, happens := range []bool{true, false} {
		dir := t.TempDir()
		s := open(t, logstore.Options{Dir: dir})
		s.SetPatience(time.Millisecond)
		database := filepath.Join(dir, "pecd.db")
		s.FailNextCommit(happens, func() { rename(t, database, database+"-away") })
		if _, err := s.Commit(context.Background(), keeps("x")); !errors.Is(err, logstore.ErrUncertain) {
			t.Errorf("Commit: %v", err)
		}
		rename(t, database+"-away", database)
		closeStore(t, s)
		if got := virusFiles(t, dir); len(got) != 1 {
			t.Errorf("files %v, want one", got)
		}
		s = open(t, logstore.Options{Dir: dir})
		want := map[bool]int{true: 1, false: 0}[happens]
		if got := virusFiles(t, dir); len(got) != want || statsOf(t, s).Infected != int64(want) {
			t.Errorf("happened %t: files %v, stats %+v", happens, got, statsOf(t, s))
		}
		closeStore(t, s)
	}
}

// Bytes and name of an infected message are on stable storage before a row points
// to it; where they cannot get there nothing is left.
func TestKeptSyncs(t *testing.T) {
	var order []string
	s := open(t, logstore.Options{Dir: t.TempDir(), AtStep: func(at logstore.Step) { order = append(order, string(at)) }})
	s.WatchSyncs(func(name string) error {
		order = append(order, name)
		return nil
	})
	mustCommit(t, s, keeps("x"))
	closeStore(t, s)
	want := []string{
		string(logstore.StepPrepared), "1.tmp", string(logstore.StepSynced), string(logstore.StepNamed),
		"virus", string(logstore.StepNameSynced), string(logstore.StepBegun),
	}
	if len(order) < len(want) || !slices.Equal(order[:len(want)], want) {
		t.Errorf("order %v, want %v", order, want)
	}
	for _, what := range []string{"1.tmp", "virus"} {
		dir := t.TempDir()
		s := open(t, logstore.Options{Dir: dir})
		s.WatchSyncs(func(name string) error {
			if name == what {
				return syscall.EIO
			}
			return nil
		})
		if _, err := s.Commit(context.Background(), keeps("x")); !errors.Is(err, logstore.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Commit where %s cannot be synced: %v", what, err)
		}
		if st := statsOf(t, s); st != (logstore.Stats{}) || len(virusFiles(t, dir)) != 0 {
			t.Errorf("it left %+v and files %v", st, virusFiles(t, dir))
		}
		closeStore(t, s)
	}
}

// zeros is a source that nobody stores.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), int64(z)-off)
	if n <= 0 {
		return 0, io.EOF
	}
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// What several acts share is kept once, with the first of them that is not left out.
func TestKeptShared(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	tx := keeps("x")
	a := tx.Acts[0]
	tx.Acts = nil
	for _, r := range []pec.Address{"a@beta.example", "b@beta.example", "c@beta.example"} {
		a.Keys = []logstore.Key{storetest.KeyOf("k", "1@alfa.example", r)}
		tx.Acts = append(tx.Acts, a)
	}
	first := logstore.Tx{At: tx.At, Acts: slices.Clone(tx.Acts[:1])}
	first.Acts[0].Keep = nil // the last word about a was said before the virus was known
	mustCommit(t, s, first)
	for _, want := range [][]bool{{false, true, true}, {false, false, false}} {
		if done, err := s.Commit(ctx, tx); err != nil || !slices.Equal(done, want) {
			t.Errorf("done %v, %v; want %v", done, err, want)
		}
		list, err := s.Infected(ctx, logstore.InfectedQuery{})
		if err != nil || len(list) != 1 || list[0].Size != 1 {
			t.Errorf("kept %+v, %v", list, err)
		}
		if got := virusFiles(t, dir); len(got) != 1 {
			t.Errorf("files %v", got)
		}
	}
	if got, err := readInfected(s, 1); err != nil || got != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// A message of 30 MB goes in and out through small buffers.
func TestKeptLarge(t *testing.T) {
	const size = 30_000_000
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	tx := keeps("")
	tx.Acts[0].Keep.Content = message.Section(zeros(size), message.Range{Len: size})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mustCommit(t, s, tx)
	r, err := s.OpenInfected(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if err = errors.Join(err, r.Close()); err != nil || n != size {
		t.Errorf("read %d octets, %v; want %d", n, err, size)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Errorf("%d octets of memory for a message of %d", used, size)
	}
}

// A store of version 1 gets a virus store.
func TestVirusStoreMigrated(t *testing.T) {
	dir := t.TempDir()
	makeVersion1(t, dir)
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	mustCommit(t, s, keeps("x"))
	if got, err := readInfected(s, 1); err != nil || got != "x" || statsOf(t, s).Infected != 1 {
		t.Errorf("read %q, %v", got, err)
	}
}
