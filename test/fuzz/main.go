// Command fuzz runs each fuzz target of the tree for a while and then prints a
// table: what was executed, what was found, and how much of the target's package
// its corpus reaches. It fails if a target does, has no committed corpus, or had no
// time for anything but the inputs that it begins with.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	spell := flag.Duration("time", 30*time.Second, "for each target")
	only := flag.String("only", "", "targets whose name or package matches")
	keep := flag.Int("keep", 0, "commit so many small inputs for a target that has none")
	flag.Parse()
	if err := run(*spell, *only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// A target is one fuzz function, and what came of it.
type target struct {
	pkg, dir, name string

	execs, found, corpus string
	coverage             string
	committed            int
	failed               bool
}

func run(spell time.Duration, only string, keep int) error {
	filter, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	list, err := targets()
	if err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	var rows []*target
	for _, t := range list {
		if !filter.MatchString(t.pkg + "." + t.name) {
			continue
		}
		found := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", t.pkg, t.name)
		t.fuzz(spell)
		if keep > 0 && t.seeds() == 0 && !t.failed {
			if err := t.commit(found, keep); err != nil {
				return err
			}
		}
		t.committed = t.seeds()
		if err := t.cover(found); err != nil {
			return err
		}
		rows = append(rows, t)
		fmt.Print(t.row())
	}
	fmt.Print("\n", table(rows))
	return outcome(rows)
}

// outcome is why the run is no good, if it is not.
func outcome(rows []*target) error {
	bad := map[string][]string{}
	for _, t := range rows {
		if v := t.verdict(); v != noFailure {
			bad[v] = append(bad[v], strings.TrimPrefix(t.pkg, "pecd/")+"."+t.name)
		}
	}
	var errs []error
	for _, v := range slices.Sorted(maps.Keys(bad)) {
		advice := ""
		if v == onlySeeds {
			advice = "; nothing was tried: FUZZTIME (-time) must be longer"
		}
		errs = append(errs, fmt.Errorf("%s: %s%s", v, strings.Join(bad[v], ", "), advice))
	}
	return errors.Join(errs...)
}

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9_]*)\(`)

// targets finds the fuzz functions of all packages.
func targets() (list []*target, err error) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}} {{.TestGoFiles}} {{.XTestGoFiles}}", "./...").Output()
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '[' || r == ']' })
		for _, file := range words[2:] {
			b, err := os.ReadFile(filepath.Join(words[1], file))
			if err != nil {
				return nil, err
			}
			for _, m := range fuzzFunc.FindAllSubmatch(b, -1) {
				list = append(list, &target{pkg: words[0], dir: words[1], name: string(m[1])})
			}
		}
	}
	return list, nil
}

// fuzz runs the target, and shows what go test says if it fails.
func (t *target) fuzz(spell time.Duration) {
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", spell.String(), "-fuzzminimizetime", "10x", t.pkg)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && !onlyLate(out.String()) {
		t.failed = true
		fmt.Printf("%s%v\n", out.String(), err)
	}
	t.execs, t.found, t.corpus = progress(out.String())
}

// onlyLate reports whether go test failed for nothing but the end of its time: before Go
// 1.27 that now and then passes for a failure (go.dev/issue/75804). What fails a target
// is written down.
func onlyLate(out string) bool {
	return strings.Contains(out, "\n    context deadline exceeded\n") && !strings.Contains(out, "Failing input written")
}

var progressLine = regexp.MustCompile(`execs: (\d+) \([^)]*\), new interesting: (\d+) \(total: (\d+)\)`)

// progress reads the last figures that go test -fuzz says.
func progress(out string) (execs, found, corpus string) {
	all := progressLine.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		return "?", "?", "?"
	}
	last := all[len(all)-1]
	return last[1], last[2], last[3]
}

func (t *target) corpusDir() string { return filepath.Join(t.dir, "testdata", "fuzz", t.name) }

// guest begins the names of inputs that are in the committed corpus only while the
// coverage is measured.
const guest = "found-"

// seeds counts the committed inputs.
func (t *target) seeds() (n int) {
	files, err := os.ReadDir(t.corpusDir())
	if err != nil {
		return 0
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), guest) {
			n++
		}
	}
	return n
}

// maxSeed is how long a committed input may be, in octets.
const maxSeed = 1 << 10

// commit copies up to n inputs, of different sizes, from what was found.
func (t *target) commit(found string, n int) error {
	files, err := os.ReadDir(found)
	if err != nil {
		return nil // nothing was
	}
	type input struct {
		name string
		size int64
	}
	var small []input
	for _, f := range files {
		if st, err := f.Info(); err == nil && st.Size() <= maxSeed {
			small = append(small, input{f.Name(), st.Size()})
		}
	}
	slices.SortFunc(small, func(a, b input) int { return int(a.size - b.size) })
	if err := os.MkdirAll(t.corpusDir(), 0o755); err != nil {
		return err
	}
	for i := range min(n, len(small)) {
		name := small[(i+1)*len(small)/(min(n, len(small)))-1].name
		if err := copyFile(filepath.Join(found, name), filepath.Join(t.corpusDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

var coverLine = regexp.MustCompile(`coverage: ([\d.]+%) of statements`)

// cover measures how many statements of the target's package the committed corpus
// and all that was ever found on this machine reach.
func (t *target) cover(found string) (err error) {
	fresh := t.seeds() == 0
	if err := os.MkdirAll(t.corpusDir(), 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.sendHome(fresh)) }()
	files, _ := os.ReadDir(found) // none: nothing was found
	for _, f := range files {
		if err := copyFile(filepath.Join(found, f.Name()), filepath.Join(t.corpusDir(), guest+f.Name())); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", "test", "-run", "^"+t.name+"$", "-cover", "-coverpkg", t.pkg, t.pkg)
	out, err := cmd.CombinedOutput()
	m := coverLine.FindSubmatch(out)
	if err != nil || m == nil {
		t.failed = true
		t.coverage = "?"
		fmt.Printf("%s%v\n", out, err)
		return nil
	}
	t.coverage = string(m[1])
	return nil
}

// sendHome removes the guests, and the folders that were made for them.
func (t *target) sendHome(fresh bool) error {
	files, err := filepath.Glob(filepath.Join(t.corpusDir(), guest+"*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	for d := t.corpusDir(); fresh && d != t.dir; d = filepath.Dir(d) {
		if os.Remove(d) != nil {
			break // it holds something else
		}
	}
	return nil
}

// table is what came of all.
func table(rows []*target) string {
	var b strings.Builder
	b.WriteString("| package | target | executions | new inputs | corpus | committed | coverage of the package | |\n|---|---|---|---|---|---|---|---|\n")
	for _, t := range rows {
		b.WriteString(t.row())
	}
	return b.String()
}

// Verdicts.
const (
	noFailure = "no failure"
	failure   = "FAILED"
	noCorpus  = "no committed corpus"
	onlySeeds = "time was over in the seeds"
)

func (t *target) verdict() string {
	switch {
	case t.failed:
		return failure
	case t.committed == 0:
		return noCorpus
	case !t.beyondSeeds():
		return onlySeeds
	}
	return noFailure
}

// beyondSeeds reports whether any input was tried but those that fuzzing begins with:
// go test counts these among the executions, and the corpus is these and the new ones.
func (t *target) beyondSeeds() bool {
	var figures [3]int
	for i, text := range []string{t.execs, t.found, t.corpus} {
		n, err := strconv.Atoi(text)
		if err != nil {
			return false // go test said no figures: it never came so far
		}
		figures[i] = n
	}
	execs, found, corpus := figures[0], figures[1], figures[2]
	return execs > corpus-found
}

func (t *target) row() string {
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %d | %s | %s |\n", strings.TrimPrefix(t.pkg, "pecd/"), t.name, t.execs, t.found, t.corpus, t.committed, t.coverage, t.verdict())
}
