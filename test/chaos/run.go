package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are what a run is made of.
type options struct {
	seed                      uint64
	faults, messages, senders int
	settle                    time.Duration
	recovery                  time.Duration // how long both providers may take to be well again while faults pause
	long                      bool
	only                      string
	log                       io.Writer
	dir                       string // of the run; empty: a temporary one, removed afterwards
	// look is called with the judge's command before the servers are removed.
	look func(judge func(lies ...lie) (verdict, error)) error
}

// A verdict is what the judge says.
type verdict struct {
	Violations []string       `json:"violations"`
	Counts     map[string]int `json:"counts"`
}

// run is a whole run. The error says that it could not be carried through; what
// went wrong in it is in the verdict.
func run(ctx context.Context, o options) (v verdict, err error) {
	fmt.Fprintf(o.log, "chaos: seed %d, %d faults, %d messages by %d clients\n", o.seed, o.faults, o.messages, o.senders)
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "pecd-chaos"); err != nil {
			return v, err
		}
		defer os.RemoveAll(o.dir)
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return v, err
	}
	defer func() {
		if closeErr := w.close(); err == nil {
			err = closeErr
		}
	}()
	begin := time.Now()
	err = w.watched(ctx, func(ctx context.Context) error {
		g, gctx := errgroup.WithContext(ctx)
		done := make(chan struct{})
		g.Go(func() error { defer close(done); return w.breakThings(gctx) })
		g.Go(func() error { return w.load(gctx, done) })
		if err := g.Wait(); err != nil {
			return err
		}
		fmt.Fprintf(o.log, "chaos: faults and messages are through after %s; waiting for rest\n", time.Since(begin).Round(time.Second))
		if err := w.rest(ctx); err != nil {
			return err
		}
		return w.witnessed(ctx)
	})
	if err != nil {
		return v, err
	}
	if v, err = w.verdict(ctx); err != nil {
		return v, err
	}
	w.report(v, time.Since(begin))
	if o.look != nil {
		err = o.look(func(lies ...lie) (verdict, error) { return w.judge(ctx, lies...) })
	}
	return v, err
}

// verdict is what the judge says, and what pecd's own commands and logs do.
func (w *world) verdict(ctx context.Context) (v verdict, err error) {
	if v, err = w.judge(ctx); err != nil {
		return v, err
	}
	w.mu.Lock()
	v.Violations = append(v.Violations, w.wrong...)
	w.mu.Unlock()
	v.Violations = append(v.Violations, w.ownChecks(ctx)...)
	wrong, err := w.panics()
	v.Violations = append(v.Violations, wrong...)
	return v, err
}

// A lie is something that a test tells the judge; oracle.py has the list.
type lie struct {
	What  string `json:"what"`
	Of    string `json:"of"`
	Field string `json:"field"`
	Value any    `json:"value"`
}

// judge writes world.json, and lies.json if there are any, and asks the judge.
func (w *world) judge(ctx context.Context, lies ...lie) (v verdict, err error) {
	told := map[string]any{"world.json": w.described()}
	if len(lies) > 0 {
		told["lies.json"] = lies
	}
	args := []string{"-B", w.oracle}
	for _, name := range []string{"world.json", "lies.json"} {
		if told[name] == nil {
			continue
		}
		text, err := json.Marshal(told[name])
		if err != nil {
			return v, err
		}
		file := filepath.Join(w.dir, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return v, err
		}
		args = append(args, file)
	}
	cmd := exec.CommandContext(ctx, "python3", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return v, fmt.Errorf("the judge: %w\n%s", err, stderr.String())
	}
	return v, json.Unmarshal(out, &v)
}

// ownChecks are pecd's own words about both registers.
func (w *world) ownChecks(ctx context.Context) (wrong []string) {
	for _, p := range w.stage.Providers() {
		for _, what := range []string{"verify", "check"} {
			cmd := exec.CommandContext(ctx, p.Pecd.Bin, "log", what, "--config", p.Pecd.ConfigFile)
			cmd.Env = append(os.Environ(), p.Pecd.Env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: pecd log %s: %v\n%s", p.Domain, what, err, out))
			}
		}
	}
	return wrong
}

func (w *world) report(v verdict, d time.Duration) {
	fmt.Fprintf(w.log, "\nseed %d: %d faults in %s\n", w.seed, len(w.history), d.Round(time.Second))
	w.reportFaults()
	if w.faults > 0 {
		fmt.Fprintf(w.log, "times that both providers were well again by themselves while faults paused: %d, after %s at most\n", w.recoveries, w.slowest.Round(100*time.Millisecond))
	}
	fmt.Fprintf(w.log, "days sealed: %d\n", w.sealedDays())
	fmt.Fprintln(w.log, "what clients heard of Postfix alone after all was sent, so that pecd may have taken it:")
	for _, k := range slices.Sorted(maps.Keys(w.heard)) {
		fmt.Fprintf(w.log, "  %4d %s\n", w.heard[k], strings.ReplaceAll(k, "\n", " / "))
	}
	fmt.Fprintln(w.log, "what the judge counted:")
	for _, k := range slices.Sorted(maps.Keys(v.Counts)) {
		fmt.Fprintf(w.log, "  %6d %s\n", v.Counts[k], k)
	}
	report(w.log, v.Violations)
}

// reportFaults prints how often each kind came and, where that is counted, how often each
// was met: calls that failed, requests, connections, lines of pecd's log. Who is killed or
// stopped is there, or the run ends.
func (w *world) reportFaults() {
	kinds, hits := map[string]int{}, map[string][]string{}
	met := map[string]bool{}
	for _, f := range w.history {
		kinds[f.Kind]++
		if f.Count {
			hits[f.Kind] = append(hits[f.Kind], fmt.Sprint(f.Hits))
			met[f.Kind] = met[f.Kind] || f.Hits > 0
		}
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		line := fmt.Sprintf("  %4d %s", kinds[k], k)
		if len(hits[k]) > 0 {
			line += "; met: " + strings.Join(hits[k], ", ")
		}
		if len(hits[k]) > 2 && !met[k] {
			line += "; NOBODY EVER MET IT"
		}
		fmt.Fprintln(w.log, line)
	}
}

// sealedDays counts the days that both providers have sealed.
func (w *world) sealedDays() (n int) {
	for _, p := range w.stage.Providers() {
		for _, pattern := range []string{"*.json.p7m", "*/*.json.p7m"} {
			files, _ := filepath.Glob(filepath.Join(p.Pecd.Config.Store.Path, "seals", pattern)) // the pattern is good
			n += len(files)
		}
	}
	return n
}

// report prints how many violations there are, and the first.
func report(log io.Writer, violations []string) {
	fmt.Fprintf(log, "%d violations\n", len(violations))
	for i, s := range violations {
		if i == 50 {
			fmt.Fprintln(log, "  …")
			break
		}
		fmt.Fprintln(log, " ", s)
	}
}
