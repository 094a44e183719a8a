package logstore_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// takeAll empties the outbox.
func takeAll(t testing.TB, s *logstore.SQLite) {
	t.Helper()
	out, err := s.Outgoing(context.Background(), storetest.At, 1000, nil)
	if err != nil {
		t.Error(err)
	}
	for _, m := range out {
		if err := s.Taken(context.Background(), m.ID, m.To); err != nil {
			t.Error(err)
		}
	}
}

// What leaves the store during a backup is in the backup, and gone from the store
// after it.
func TestBackup(t *testing.T) {
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	p := storetest.NewProvider(t)
	tx, body := largeAccess(t, p, s)
	tx.Acts[0].Keep = storetest.KeepAct(pec.Event{}, message.Text([]byte("infetto"))).Keep
	mustCommit(t, s, tx)
	texts := map[string]string{}
	for _, a := range tx.Acts {
		texts[a.Send.MessageID()] = storetest.Text(t, a.Send.Content())
	}
	closeBody(t, body)
	mustCommit(t, s, smallAccess(t, p))
	head, err := s.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	once := false
	var done, total int64
	made, err := s.Backup(context.Background(), to, nil, func(d, all int64) {
		if done, total = d, all; once {
			return
		}
		once = true
		takeAll(t, s)
		if _, err := s.PurgeInfected(context.Background(), storetest.Term); err != nil {
			t.Error(err)
		}
		register(t, s, 1, 1)
		if n := len(bodyFiles(t, dir)) + len(virusFiles(t, dir)); n != 2 {
			t.Errorf("%d files during the backup, want both", n)
		}
	})
	if err != nil || made.Head.Seq != head.Seq || made.Head.Chain != head.Chain || made.Files != 2 || made.Octets < 200_000 || !once || done != total {
		t.Fatalf("Backup: %+v, %v; %d octets of %d", made, err, done, total)
	}
	if n := len(bodyFiles(t, dir)) + len(virusFiles(t, dir)); n != 0 {
		t.Errorf("%d files after the backup, want none", n)
	}
	checkModes(t, to)
	checkRestored(t, to, texts)
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"bodies", "pecd.db", "virus"}) {
		t.Errorf("the backup has %v, %v", names, err)
	}
}

// checkRestored opens a backup as a store; its outbox must hold texts, and one
// message more for each small one.
func checkRestored(t *testing.T, dir string, texts map[string]string) {
	t.Helper()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	out, err := s.Outgoing(context.Background(), storetest.At, 1000, nil)
	if err != nil || len(out) < len(texts) {
		t.Errorf("%d messages in the outbox, %v", len(out), err)
	}
	found := 0
	for _, m := range out {
		if text, ok := texts[m.MessageID]; ok && storetest.Text(t, m.Content) == text {
			found++
		}
	}
	if found != len(texts) {
		t.Errorf("%d messages of %d are whole", found, len(texts))
	}
	if text, err := readInfected(s, 1); err != nil || text != "infetto" {
		t.Errorf("infected message: %q, %v", text, err)
	}
	register(t, s, 100, 2)
	takeAll(t, s)
	mustVerify(t, s, logstore.VerifyOptions{})
}

// While others commit and take, what a backup names it has.
func TestBackupUnderLoad(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir(), InlineLimit: 2000})
	defer closeStore(t, s)
	p := storetest.NewProvider(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				ev := p.NewEvent(t, "bob@beta.example")
				tx := storetest.Access(p.Transport(t, ev, message.Bytes(storetest.Original(ev, 20_000))), p.Acceptance(t, ev))
				if _, err := s.Commit(context.Background(), tx); err != nil {
					t.Error(err)
					return
				}
				out, err := s.Outgoing(context.Background(), storetest.At, 1, nil)
				if err != nil || len(out) == 0 {
					continue
				}
				if err := s.Taken(context.Background(), out[0].ID, out[0].To); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range 5 {
		to := t.TempDir()
		made, err := s.Backup(context.Background(), to, nil, nil)
		if err != nil {
			t.Errorf("Backup: %v", err)
			break
		}
		var log strings.Builder
		r := open(t, logstore.Options{Dir: to, Log: textLog(&log)})
		res := mustVerify(t, r, logstore.VerifyOptions{Known: []logstore.Anchor{{Seq: made.Head.Seq, Chain: made.Head.Chain}}})
		if res.Last != made.Head.Seq || strings.Contains(log.String(), "missing") {
			t.Errorf("%d entries, %d in the backup\n%s", res.Last, made.Head.Seq, &log)
		}
		out, err := r.Outgoing(context.Background(), storetest.At, 1000, nil)
		for _, m := range out {
			storetest.Text(t, m.Content)
		}
		if err != nil {
			t.Error(err)
		}
		closeStore(t, r)
	}
	close(stop)
	wg.Wait()
	mustVerify(t, s, logstore.VerifyOptions{})
}

// A backup that fails leaves nothing, and none is put where something is.
func TestBackupRefused(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	tx, body := largeAccess(t, storetest.NewProvider(t), s)
	tx.Acts[0].Keep = storetest.KeepAct(pec.Event{}, message.Text([]byte("infetto"))).Keep
	mustCommit(t, s, tx)
	closeBody(t, body)

	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(ctx, full, nil, nil); !errors.Is(err, logstore.ErrNotEmpty) {
		t.Errorf("Backup into a folder with a file: %v", err)
	}
	if names, err := os.ReadDir(full); err != nil || len(names) != 1 {
		t.Errorf("it has %v, %v", names, err)
	}

	parent := t.TempDir()
	there := filepath.Join(parent, "there")
	if err := os.Mkdir(there, 0o700); err != nil {
		t.Fatal(err)
	}
	fails := func(what string, want error, ctx context.Context, first func() error, progress func(int64, int64)) {
		t.Helper()
		for _, to := range []string{there, filepath.Join(parent, "new")} {
			if _, err := s.Backup(ctx, to, first, progress); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
			if names, err := os.ReadDir(to); (to == there) != (err == nil) || len(names) != 0 {
				t.Errorf("%s: it leaves %v, %v", what, names, err)
			}
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	fails("cancelled", context.Canceled, cancelled, nil, func(int64, int64) { cancel() })
	fails("what comes first", fs.ErrClosed, ctx, func() error { return fs.ErrClosed }, nil)
	if _, err := s.Backup(ctx, filepath.Join(parent, "no", "parent"), nil, nil); err == nil {
		t.Error("Backup into a folder of no folder succeeds")
	}
	takeAll(t, s)
}

// What the store has lost is named, and all the rest is in the backup.
func TestBackupOfLosses(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	tx, body := largeAccess(t, storetest.NewProvider(t), s)
	tx.Acts[0].Keep = storetest.KeepAct(pec.Event{}, message.Text([]byte("infetto"))).Keep
	mustCommit(t, s, tx)
	closeBody(t, body)
	virus, bodies := filepath.Join(dir, "virus", "1"), filepath.Join(dir, "bodies", "1")
	for _, loss := range []struct {
		lose    func() error
		missing []string
		files   int
	}{
		{func() error { return nil }, nil, 2},
		{func() error { return os.WriteFile(virus, []byte("iNfetto"), 0o600) }, []string{"virus/1 is not what was kept"}, 2},
		{func() error { return os.Truncate(bodies, 1000) }, []string{"bodies/1 has 1000 octets", "virus/1 is not what was kept"}, 2},
		{func() error { return os.Remove(bodies) }, []string{"bodies/1 is not there", "virus/1 is not what was kept"}, 1},
		// Nor can root, for whom no mode counts, open the one and read the other.
		{func() error { return os.Symlink("1", bodies) }, []string{"bodies/1 cannot be read: too many levels", "virus/1 is not what was kept"}, 1},
		{func() error { return errors.Join(os.Remove(virus), os.Mkdir(virus, 0o700)) }, []string{"bodies/1 cannot be read: ", "virus/1 cannot be read: is a directory"}, 1},
	} {
		if err := loss.lose(); err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		var done, total int64
		made, err := s.Backup(ctx, to, nil, func(d, all int64) { done, total = d, all })
		same := slices.EqualFunc(made.Missing, loss.missing, strings.HasPrefix)
		if err != nil || !same || made.Files != loss.files || made.Head.Seq == 0 || done != total {
			t.Errorf("%v: %+v, %v; %d octets of %d", loss.missing, made, err, done, total)
		}
		r := open(t, logstore.Options{Dir: to})
		mustVerify(t, r, logstore.VerifyOptions{})
		closeStore(t, r)
	}
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
