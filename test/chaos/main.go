// Command chaos puts two providers under load and breaks what is around them and
// they themselves, at random moments from a printed seed: programs are killed,
// stopped and restarted, the link between them is cut, disks fill up, syncs and
// writes fail, the hardware module and the servers of others go away, the clock
// jumps. Then all is mended, and a judge that shares no code with pecd (oracle.py)
// reads every mailbox and both registers. It needs root, as the demo does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	o := options{log: os.Stdout}
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of all that is random")
	flag.IntVar(&o.faults, "faults", 300, "how many faults")
	flag.IntVar(&o.messages, "messages", 5000, "how many messages")
	flag.IntVar(&o.senders, "senders", 8, "how many clients send at a time")
	flag.DurationVar(&o.settle, "settle", 15*time.Minute, "how long all may take to come to rest after the last fault")
	flag.DurationVar(&o.recovery, "recovery", time.Minute, "how long both providers may take to hand on a message when faults pause")
	flag.BoolVar(&o.long, "long", true, "stop programs also for longer than every timeout around them")
	flag.StringVar(&o.only, "only", "", "only faults of this kind")
	soaking := flag.Duration("soak", 0, "break nothing, and send for so long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var v verdict
	var err error
	if *soaking > 0 {
		o.faults = 0
		v.Violations, err = soak(ctx, o, *soaking)
	} else {
		v, err = run(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		if errors.Is(err, errViolation) {
			os.Exit(1)
		}
		os.Exit(2)
	}
	if len(v.Violations) > 0 {
		os.Exit(1)
	}
}
