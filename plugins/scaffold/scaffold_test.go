package scaffold

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/plugins/conform"
	"pecd/plugins/host"
)

func TestMain(m *testing.M) {
	host.LaunchIfAsked()
	conform.ChildIfAsked()
	os.Exit(m.Run())
}

// TestNew: a project of each kind is formatted, passes vet and its tests, builds
// by its own Makefile, and the program conforms.
func TestNew(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "here")
			if err := New(dir, "words", kind); err != nil {
				t.Fatal(err)
			}
			if out, err := run(t, dir, "gofmt", "-l", "main.go", "main_test.go"); err != nil || out != "" {
				t.Errorf("gofmt: %v: %s", err, out)
			}
			for _, target := range []string{"test", "build"} {
				if out, err := run(t, dir, "make", target); err != nil {
					t.Fatalf("make %s: %v\n%s", target, err, out)
				}
			}
			out, err := run(t, dir, "./words", "describe")
			if err != nil || !strings.HasPrefix(out, "words 0.1.0: ") {
				t.Errorf("describe: %v: %s", err, out)
			}
			ok, err := conform.Run(context.Background(), filepath.Join(dir, "words"), conform.Options{Now: time.Now}, func(r conform.Result) {
				if r.Outcome == conform.Failed {
					t.Errorf("%s: %s", r.Name, r.Reason)
				}
			})
			if err != nil || !ok {
				t.Errorf("it does not conform: %v", err)
			}
		})
	}
}

// TestComplete: nothing of the templates is left open, and no test of pecd's
// goes along.
func TestComplete(t *testing.T) {
	for _, kind := range Kinds() {
		dir := t.TempDir()
		if err := New(dir, "words", kind); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"README.md", "Makefile", "pecd.toml.example", ".gitignore", "main.go", "main_test.go", "go.mod", "go.sum"} {
			if s := read(t, filepath.Join(dir, name)); strings.Contains(s, "<<") || strings.Contains(s, "<no value>") {
				t.Errorf("%s: %s is not filled in", kind, name)
			}
		}
		err := filepath.WalkDir(filepath.Join(dir, "sdk"), func(name string, d os.DirEntry, err error) error {
			if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata") {
				t.Errorf("%s: %s goes along", kind, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefuses(t *testing.T) {
	full := t.TempDir()
	store(t, filepath.Join(full, "x"), nil)
	for name, tt := range map[string]struct {
		dir, name, kind string
		want            error
	}{
		"kind":           {t.TempDir(), "words", "point", ErrKind},
		"upper case":     {t.TempDir(), "Words", "check", ErrName},
		"empty name":     {t.TempDir(), "", "check", ErrName},
		"path":           {t.TempDir(), "../words", "check", ErrName},
		"digit first":    {t.TempDir(), "1words", "check", ErrName},
		"long name":      {t.TempDir(), strings.Repeat("w", 41), "check", ErrName},
		"the SDK's name": {t.TempDir(), "sdk", "check", ErrName},
		"full directory": {full, "words", "check", ErrTaken},
	} {
		if err := New(tt.dir, tt.name, tt.kind); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if list, err := os.ReadDir(full); err != nil || len(list) != 1 {
		t.Errorf("the full directory: %v, %v", list, err)
	}
}
