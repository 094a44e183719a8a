package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/pec/message"
)

// TestBackup: a copy is a store, and what is there already is left alone.
func TestBackup(t *testing.T) {
	a := newArchivist(t, 0, 1)
	seals := filepath.Join(a.store, "seals")
	dir := filepath.Join(a.dir, "copy")
	if err := os.MkdirAll(filepath.Join(seals, ".part", "2022-02-02"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.write(t, "store/seals/.part/2022-02-02/2022-02-02.json", []byte("{"))
	code, out, errs := pecd("backup", dir, "--json", "--config", a.config)
	var report backupReport
	if err := json.Unmarshal([]byte(out), &report); code != 0 || err != nil || report.Entry != 12 || report.Days != 3 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if code, out, errs := pecd("log", "verify", "--store", dir); code != 0 || !strings.Contains(out, "entries        1 to 12") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if names := tree(t, filepath.Join(dir, "seals")); !slices.Equal(names, slices.DeleteFunc(tree(t, seals), func(n string) bool { return n != "." && strings.HasPrefix(n, ".") })) {
		t.Errorf("the copy has the seals %v, the store %v", names, tree(t, seals))
	}
	if code, _, errs := pecd("backup", filepath.Join(a.dir, "no", "parent"), "--config", a.config); code != 2 || !strings.Contains(errs, "a directory that is there") || strings.Contains(errs, "no register yet") {
		t.Errorf("into no directory: exit %d\n%s", code, errs)
	}
	if code, _, errs := pecd("backup", dir, "--config", a.config); code != 1 || !strings.Contains(errs, "not empty") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

// tree are the names below dir; each must be for its owner only.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		names = append(names, name)
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 && !strings.HasPrefix(name, ".part") {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBackupSealsFirst: what vouches for entries is copied before the register, so that
// none of it is about entries that the copy lacks.
func TestBackupSealsFirst(t *testing.T) {
	a := newArchivist(t, 0, 1)
	cfg, err := config.Load(a.config)
	if err != nil {
		t.Fatal(err)
	}
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: a.store, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	witness := filepath.Join(cfg.Seal.Path, "witness")
	if err := os.MkdirAll(witness, 0o700); err != nil {
		t.Fatal(err)
	}
	// The first progress is told while the database is copied: now a witness hears of it.
	heard := false
	dir := filepath.Join(a.dir, "copy")
	_, err = makeBackup(t.Context(), store, cfg, dir, func(int64, int64) {
		if !heard {
			heard = true
			a.write(t, filepath.Join("store", "seals", "witness", "2022-02-02.jsonl"), []byte("{}\n"))
		}
	})
	if err := errors.Join(err, store.Close()); err != nil || !heard {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "seals", "witness", "2022-02-02.jsonl")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy has what was heard after its register: %v", err)
	}
}

// A sick file system cannot open the files of one name and read those of another.
type sick struct {
	fs.FS
	closed, broken string
}

func (s sick) Open(name string) (fs.File, error) {
	if name == s.closed {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	f, err := s.FS.Open(name)
	if err == nil && name == s.broken {
		return sickFile{f}, nil
	}
	return f, err
}

type sickFile struct{ fs.File }

func (sickFile) Read([]byte) (int, error) { return 0, syscall.EIO }

func (sickFile) ReadDir(int) ([]fs.DirEntry, error) { return nil, syscall.EIO }

// TestBackupOfSickSeals: a seal, or the folder of a day, that cannot be read is named, and
// the others are in the copy.
func TestBackupOfSickSeals(t *testing.T) {
	files := fstest.MapFS{"2022-01-30/a": {Data: []byte("a")}, "2022-01-30/b": {Data: []byte("b")}, "2022-01-31/a": {Data: []byte("a")}}
	for _, tt := range []struct {
		closed, broken string
		days           int
		missing, tree  []string
	}{
		{"", "", 2, nil, []string{".", "2022-01-30", "2022-01-30/a", "2022-01-30/b", "2022-01-31", "2022-01-31/a"}},
		{"2022-01-30/a", "2022-01-31/a", 2, []string{"seals/2022-01-30/a cannot be read: permission denied", "seals/2022-01-31/a cannot be read: input/output error"},
			[]string{".", "2022-01-30", "2022-01-30/b", "2022-01-31", "2022-01-31/a"}},
		{"2022-01-30", "", 2, []string{"seals/2022-01-30 cannot be read: permission denied"}, []string{".", "2022-01-30", "2022-01-31", "2022-01-31/a"}},
		{"", "2022-01-31", 2, []string{"seals/2022-01-31 cannot be read: input/output error"}, []string{".", "2022-01-30", "2022-01-30/a", "2022-01-30/b", "2022-01-31"}},
		{".", "", 0, []string{"seals cannot be read: permission denied"}, []string{"."}},
	} {
		to := filepath.Join(t.TempDir(), "seals")
		c, err := copySeals(t.Context(), sick{files, tt.closed, tt.broken}, to)
		if err != nil || c.days != tt.days || !slices.Equal(c.missing, tt.missing) {
			t.Errorf("%q, %q: %+v, %v", tt.closed, tt.broken, c, err)
		}
		if names := tree(t, to); !slices.Equal(names, tt.tree) {
			t.Errorf("%q, %q: the copy has %v", tt.closed, tt.broken, names)
		}
	}
	blocked := filepath.Join(t.TempDir(), "no", "seals")
	if _, err := copySeals(t.Context(), files, blocked); err == nil {
		t.Error("what cannot be written is no error")
	}
}

// TestBackupOfLosses: files that the store has lost are named, and the copy stays.
func TestBackupOfLosses(t *testing.T) {
	a := newArchivist(t, 0, 1)
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: a.store, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	e := logstore.Entry{At: time.Date(2022, 2, 2, 10, 0, 0, 0, time.UTC), Type: logstore.EntryVirus, Sender: "alice@alfa.example", SendingProvider: "Alfa PEC S.p.A."}
	_, err = store.Commit(t.Context(), logstore.Tx{At: e.At, Acts: []logstore.Act{{Entry: e, Keep: &logstore.Kept{Content: message.Text([]byte("infetto")), Virus: "Eicar", Until: e.At.AddDate(3, 0, 0), Source: logstore.KeptReception}}}})
	if err := errors.Join(err, store.Close(), os.Remove(filepath.Join(a.store, "virus", "1"))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(a.dir, "copy")
	code, out, errs := pecd("backup", dir, "--config", a.config)
	if code != 1 || !strings.Contains(out, "LOST           virus/1 is not there") || strings.Contains(out+errs, "no register yet") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "verify", "--store", dir); code != 0 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
