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
	kinds, hits := map[string]int{}, map[string][]string{}
	for _, f := range w.history {
		kinds[f.Kind]++
		if f.Kind == "fsync fails" || f.Kind == "write fails" {
			hits[f.Kind] = append(hits[f.Kind], fmt.Sprint(f.Hits))
		}
	}
	fmt.Fprintf(w.log, "\nseed %d: %d faults in %s\n", w.seed, len(w.history), d.Round(time.Second))
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(w.log, "  %4d %s\n", kinds[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(hits)) {
		fmt.Fprintf(w.log, "calls that failed while %s: %s\n", k, strings.Join(hits[k], ", "))
	}
	fmt.Fprintf(w.log, "requests that met a server of others that was broken: %d for revocation lists, %d for the directory, %d for time stamps\n",
		w.lists.requests(), w.index.requests(), w.stamps.requests())
	fmt.Fprintln(w.log, "what clients heard of Postfix alone after all was sent, so that pecd may have taken it:")
	for _, k := range slices.Sorted(maps.Keys(w.heard)) {
		fmt.Fprintf(w.log, "  %4d %s\n", w.heard[k], strings.ReplaceAll(k, "\n", " / "))
	}
	fmt.Fprintln(w.log, "what the judge counted:")
	for _, k := range slices.Sorted(maps.Keys(v.Counts)) {
		fmt.Fprintf(w.log, "  %6d %s\n", v.Counts[k], k)
	}
	fmt.Fprintf(w.log, "%d violations\n", len(v.Violations))
	for i, s := range v.Violations {
		if i == 50 {
			fmt.Fprintln(w.log, "  …")
			break
		}
		fmt.Fprintln(w.log, " ", s)
	}
}
