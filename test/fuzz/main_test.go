package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProgress(t *testing.T) {
	const out = `fuzz: elapsed: 0s, gathering baseline coverage: 0/12 completed
fuzz: elapsed: 3s, execs: 1001 (333/sec), new interesting: 2 (total: 14)
fuzz: elapsed: 6s, execs: 2003 (334/sec), new interesting: 5 (total: 17)
PASS
`
	if execs, found, corpus := progress(out); execs != "2003" || found != "5" || corpus != "17" {
		t.Errorf("%s %s %s", execs, found, corpus)
	}
	if execs, _, _ := progress("FAIL"); execs != "?" {
		t.Errorf("no figures give %s", execs)
	}
}

// TestSeeds: what is kept of found inputs is small, of different sizes, and not more
// than was asked for; guests leave nothing.
func TestSeeds(t *testing.T) {
	found, dir := t.TempDir(), t.TempDir()
	for name, size := range map[string]int{"a": 10, "b": 500, "c": 900, "d": maxSeed + 1, "e": 20} {
		if err := os.WriteFile(filepath.Join(found, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &target{dir: dir, name: "FuzzX"}
	if g.seeds() != 0 {
		t.Error("seeds where there are none")
	}
	if err := g.commit(found, 2); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(g.corpusDir(), "*"))
	if err != nil || g.seeds() != 2 || filepath.Base(kept[0])+filepath.Base(kept[1]) != "ce" {
		t.Errorf("kept %v, %v", kept, err)
	}
	if err := copyFile(filepath.Join(found, "a"), filepath.Join(g.corpusDir(), guest+"a")); err != nil {
		t.Fatal(err)
	}
	if g.seeds() != 2 {
		t.Error("guests are counted")
	}
	if err := g.sendHome(false); err != nil || g.seeds() != 2 {
		t.Errorf("%d left, %v", g.seeds(), err)
	}
}

func TestTable(t *testing.T) {
	out := table([]*target{{pkg: "pecd/milter", name: "FuzzSession", execs: "5", found: "1", corpus: "3", coverage: "60.1%", committed: 2},
		{pkg: "pecd/lmtp", name: "FuzzServer"}, {pkg: "pecd/lmtp", name: "FuzzX", failed: true, committed: 1}})
	for _, want := range []string{"| `milter` | FuzzSession | 5 | 1 | 3 | 2 | 60.1% | no failure |\n", "no committed corpus |\n", "FAILED |\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
}

// TestOutcome: a target of which only the seeds were tried has not been fuzzed, and the
// run is no good.
func TestOutcome(t *testing.T) {
	fuzzed := func(out string) *target {
		g := &target{pkg: "pecd/milter", name: "FuzzSession", committed: 2}
		g.execs, g.found, g.corpus = progress(out)
		return g
	}
	const seeds = "fuzz: elapsed: 3s, gathering baseline coverage: 5/12 completed\nPASS\n"
	failed, bare := fuzzed(seeds), fuzzed(seeds)
	failed.failed, bare.committed = true, 0
	for _, c := range []struct {
		what    string
		g       *target
		verdict string
	}{
		{"in the seeds", fuzzed(seeds), onlySeeds},
		{"all seeds and nothing else", fuzzed("fuzz: elapsed: 3s, execs: 12 (4/sec), new interesting: 0 (total: 12)\n"), onlySeeds},
		{"nothing", fuzzed("fuzz: elapsed: 3s, execs: 0 (0/sec), new interesting: 0 (total: 12)\n"), onlySeeds},
		{"one more", fuzzed("fuzz: elapsed: 3s, execs: 13 (4/sec), new interesting: 1 (total: 13)\n"), noFailure},
		{"a failure in the seeds", failed, failure},
		{"no corpus", bare, noCorpus},
	} {
		if got := c.g.verdict(); got != c.verdict {
			t.Errorf("%s: %s, want %s", c.what, got, c.verdict)
		}
		err := outcome([]*target{fuzzed("fuzz: elapsed: 3s, execs: 99 (33/sec), new interesting: 0 (total: 1)\n"), c.g})
		switch {
		case c.verdict == noFailure:
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.verdict+": milter.FuzzSession") || strings.Contains(err.Error(), "FUZZTIME") != (c.verdict == onlySeeds):
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestOnlyLate: the end of the time is no failure, an input that fails is.
func TestOnlyLate(t *testing.T) {
	const late = "fuzz: elapsed: 10s, execs: 9 (9/sec), new interesting: 1 (total: 2)\n--- FAIL: FuzzX (10.12s)\n    context deadline exceeded\nFAIL\n"
	for out, want := range map[string]bool{
		late: true,
		"--- FAIL: FuzzX (0.1s)\n    --- FAIL: FuzzX (0.0s)\n        x_test.go:9: wrong\n":                                    false,
		"--- FAIL: FuzzX (0.1s)\n    context deadline exceeded\n\n    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n": false,
		"signal: terminated": false,
	} {
		if got := onlyLate(out); got != want {
			t.Errorf("%v of %q", got, out)
		}
	}
}
