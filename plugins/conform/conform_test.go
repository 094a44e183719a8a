package conform

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pecd/plugins/host"
)

func TestMain(m *testing.M) {
	host.LaunchIfAsked()
	ChildIfAsked()
	os.Exit(m.Run())
}

// build compiles a program into a directory of the test.
func build(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", file, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	if err := os.Chmod(file, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// check runs the kit and returns the results by name.
func check(t *testing.T, binary string, table map[string]any) (map[string]Result, bool) {
	t.Helper()
	results := make(map[string]Result)
	ok, err := Run(context.Background(), binary, Options{Table: table, Now: time.Now, patience: 3 * time.Second}, func(r Result) {
		if _, twice := results[r.Name]; twice {
			t.Errorf("%s is there twice", r.Name)
		}
		results[r.Name] = r
		t.Logf("%s: %s %s (%v)", r.Name, r.Outcome, r.Reason, r.Took.Round(time.Millisecond))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(tests) {
		t.Errorf("%d results of %d", len(results), len(tests))
	}
	return results, ok
}

// TestBuiltin: pecd's own points, out of the process, pass.
func TestBuiltin(t *testing.T) {
	binary := build(t, "pecd/plugins/example/builtin")
	for _, kind := range []string{"access", "reception", "delivery"} {
		t.Run(kind, func(t *testing.T) {
			if _, ok := check(t, binary, map[string]any{"kind": kind}); !ok {
				t.Error("it does not pass")
			}
		})
	}
}

// TestExamples: the examples pass.
func TestExamples(t *testing.T) {
	t.Run("countersign", func(t *testing.T) {
		if _, ok := check(t, build(t, "pecd/plugins/example/countersign"), nil); !ok {
			t.Error("it does not pass")
		}
	})
	t.Run("python", func(t *testing.T) {
		if _, ok := check(t, "../example/python/subjectwords", map[string]any{"words": []string{"lotteria"}}); !ok {
			t.Error("it does not pass")
		}
	})
}

// TestFaults: each fault is found by the tests that are there for it, and by no
// other; one with a question mark may find it.
func TestFaults(t *testing.T) {
	binary := build(t, "./testdata/bad")
	for fault, want := range map[string][]string{
		"none":     nil,
		"chatty":   {"by hand", "handshake"},
		"byhand":   {"by hand"},
		"changes":  {"describe"},
		"nameless": {"describe"},
		"careless": {"unknown setting", "wrong type", "many problems"},
		"needy":    {"open"},
		"lawless":  {"within the law", "odd messages", "many recipients"},
		"deaf":     {"answer"},
		"nonsense": {"answer"},
		"panics":   {"odd messages", "panic"},
		"dies":     {"odd messages", "many recipients", "large message", "deadline", "cancellation", "alive"},
		"hog":      {"memory"},
		"busy":     {"deadline", "?cancellation"}, // which may find the plugin too busy to begin
		"lingers":  {"shutdown"},
	} {
		t.Run(fault, func(t *testing.T) {
			file := filepath.Join(filepath.Dir(binary), fault)
			if err := os.Link(binary, file); err != nil {
				t.Fatal(err)
			}
			results, ok := check(t, file, nil)
			if ok != (len(want) == 0) {
				t.Errorf("the kit says %v", ok)
			}
			for name, r := range results {
				if slices.Contains(want, "?"+name) {
					continue
				}
				if failed := slices.Contains(want, name); failed != (r.Outcome == Failed) {
					t.Errorf("%s: %s %s", name, r.Outcome, r.Reason)
				}
			}
		})
	}
}
