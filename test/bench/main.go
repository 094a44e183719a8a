// Command bench compares, in one interleaved run, what one and the same Postfix
// does without a milter, with opendkim, and with pecd: rates, processor time per
// message as the kernel's control groups count it, and latencies. It builds
// private servers, as the demo does, and needs root. What it prints is Markdown:
// medians of the rounds, the worst and the best behind them, and ratios that are
// taken round by round, so that a noisy moment hits all sides.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"pecd/packaging/demo/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds, burst int
	only          string
	pecd          programs
	verbose       bool
}

// programs are several pecd to compare, as name=file.
type programs []string

func (p *programs) String() string { return strings.Join(*p, ",") }

// Set adds one.
func (p *programs) Set(s string) error {
	if name, file, ok := strings.Cut(s, "="); !ok || name == "" || file == "" {
		return errors.New("want name=file")
	}
	*p = append(*p, s)
	return nil
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement; odd, for the median")
	flag.IntVar(&o.burst, "burst", 1000, "messages of 4 KB in a burst; larger messages are fewer")
	flag.StringVar(&o.only, "only", "", "run only measurements whose names begin so, such as burst/4KB")
	flag.Var(&o.pecd, "pecd", "a pecd to measure, as name=file; may be repeated to compare several (default: built from this source)")
	flag.BoolVar(&o.verbose, "v", false, "print each round")
	flag.Parse()

	dir, err := os.MkdirTemp("", "pecd-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if len(o.pecd) == 0 {
		file := filepath.Join(dir, "built") // beside the folder of the side that is called pecd
		fmt.Fprintln(os.Stderr, "bench: building pecd")
		if err := stage.Build(ctx, file, "pecd/cmd/pecd"); err != nil {
			return err
		}
		o.pecd = programs{"pecd=" + file}
	}
	h, err := newHall(ctx, dir, o)
	if err != nil {
		return err
	}
	defer h.close()
	return h.measure(ctx)
}
