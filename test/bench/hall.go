package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"pecd/packaging/demo/stage"
)

// A hall holds all lanes of a run. All their servers run all the time; only one
// lane is measured at a time.
type hall struct {
	options
	dir   string
	plain *lane   // the same Postfix and Dovecot, no milter
	dkim  *lane   // with opendkim, one RSA-2048 signature
	pecd  []*lane // one for each program
}

func newHall(ctx context.Context, dir string, o options) (*hall, error) {
	h := &hall{options: o, dir: dir}
	var err error
	if h.plain, err = newLane(ctx, filepath.Join(dir, "plain"), "no milter", func(s *stage.Options) { s.WithoutPecd = true }); err != nil {
		return h, h.failed(err)
	}
	if h.dkim, err = newLane(ctx, filepath.Join(dir, "dkim"), "opendkim", func(s *stage.Options) { s.WithoutPecd, s.Milter = true, dkimSocket }); err != nil {
		return h, h.failed(err)
	}
	for _, p := range o.pecd {
		name, file, _ := strings.Cut(p, "=")
		l, err := newLane(ctx, filepath.Join(dir, name), name, func(s *stage.Options) { s.PecdBinary = file })
		if err != nil {
			return h, h.failed(err)
		}
		h.pecd = append(h.pecd, l)
	}
	return h, nil
}

func (h *hall) failed(err error) error {
	h.close()
	return err
}

func (h *hall) close() {
	for _, l := range append([]*lane{h.plain, h.dkim}, h.pecd...) {
		if l != nil {
			l.close()
		}
	}
}

func (h *hall) all() []*lane { return append([]*lane{h.plain, h.dkim}, h.pecd...) }

// A job is one measurement: a load and the lanes that carry it.
type job struct {
	name  string
	lanes []*lane
	load  func(l *lane) load
	base  *lane // to which ratios are taken
	show  []figure
}

// measure runs all measurements and prints each when it is done.
func (h *hall) measure(ctx context.Context) error {
	fmt.Printf("%d processors, %s %s, %d rounds; %s\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, h.rounds, accounting())
	jobs, err := h.jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if !strings.HasPrefix(j.name, h.only) {
			continue
		}
		if err := h.run(ctx, j); err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	return h.memory(ctx)
}

// run runs the rounds of j; the lanes take turns in being the first.
func (h *hall) run(ctx context.Context, j job) error {
	results := make([][]result, len(j.lanes))
	for _, l := range j.lanes {
		warm := j.load(l)
		warm.messages, warm.rate = max(warm.sessions, warm.messages/20), 0
		if _, err := l.carry(ctx, warm); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	for r := range h.rounds {
		for k := range j.lanes {
			i := (k + r) % len(j.lanes)
			l := j.lanes[i]
			fmt.Fprintf(os.Stderr, "\r\033[Kbench: %s, round %d of %d, %s", j.name, r+1, h.rounds, l.name)
			res, err := l.carry(ctx, j.load(l))
			if err != nil {
				fmt.Fprintln(os.Stderr)
				return fmt.Errorf("%s: %w", l.name, err)
			}
			results[i] = append(results[i], res)
			if h.verbose {
				fmt.Fprintf(os.Stderr, "\r\033[K%s %s: %v\n", j.name, l.name, res)
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	j.print(results)
	return nil
}
