package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// A fault is something that was broken for a while. Times are seconds since 1970.
type fault struct {
	Kind  string  `json:"kind"`
	Begin float64 `json:"begin"`
	End   float64 `json:"end"`
}

// A trouble is a kind of fault: what is done, and what undoes it. Faults of one
// target never overlap; two of different targets may.
type trouble struct {
	kind   string
	target string
	weight int
	hold   time.Duration // at most, between the two
	begin  func(ctx context.Context, r *rand.Rand) error
	end    func(ctx context.Context) error
}

// breakThings lets all faults happen, two at a time.
func (w *world) breakThings(ctx context.Context) error {
	troubles := w.troubles()
	locks := map[string]*sync.Mutex{}
	total := 0
	for _, t := range troubles {
		locks[t.target] = &sync.Mutex{}
		total += t.weight
	}
	if total == 0 && w.faults > 0 {
		return fmt.Errorf("no fault is called %q", w.only)
	}
	plan := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(plan)
		for n := range w.faults {
			select {
			case plan <- n:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for n := range plan {
				// What fault n is depends on the seed and its number alone.
				r := rand.New(rand.NewPCG(w.seed, uint64(n)))
				if !pause(ctx, time.Duration(r.IntN(1500))*time.Millisecond) {
					return ctx.Err()
				}
				x := r.IntN(total)
				for _, t := range troubles {
					if x -= t.weight; x >= 0 {
						continue
					}
					locks[t.target].Lock()
					err := w.happen(ctx, n, t, r)
					locks[t.target].Unlock()
					if err != nil {
						return fmt.Errorf("fault %d, %s: %w", n+1, t.kind, err)
					}
					break
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (w *world) happen(ctx context.Context, n int, t trouble, r *rand.Rand) error {
	begin := time.Now()
	if err := t.begin(ctx, r); err != nil {
		return err
	}
	hold := time.Duration(r.Int64N(int64(t.hold) + 1))
	pause(ctx, hold)
	// What was broken is mended also when the run ends.
	mend, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	if err := t.end(mend); err != nil {
		return err
	}
	end := time.Now()
	w.mu.Lock()
	w.history = append(w.history, fault{Kind: t.kind, Begin: float64(begin.UnixNano()) / 1e9, End: float64(end.UnixNano()) / 1e9})
	taken := len(w.sendings)
	w.mu.Unlock()
	w.broken.Add(1)
	fmt.Fprintf(w.log, "%s %3d/%d %s for %.1f s; %d messages taken, %d attempts put off\n", end.Format("15:04:05"), n+1, w.faults, t.kind,
		end.Sub(begin).Seconds(), taken, w.putOff.Load())
	return nil
}

func nothing(context.Context) error { return nil }

// troubles are all kinds.
func (w *world) troubles() (list []trouble) {
	add := func(t trouble) {
		if w.only == "" || strings.HasPrefix(t.kind, w.only) {
			list = append(list, t)
		}
	}
	for _, p := range w.stage.Providers() {
		w.troublesOf(p, add)
	}
	w.troublesOfToken(w.stage.Alfa, add)
	for _, l := range w.links {
		add(trouble{"link cut", "link " + l.addr(), 6, 4 * time.Second,
			func(context.Context, *rand.Rand) error { l.set(true); return nil }, func(context.Context) error { l.set(false); return nil }})
	}
	add(trouble{"clamd killed", "clamd", 4, 3 * time.Second,
		func(context.Context, *rand.Rand) error { return w.clamd.Kill() }, w.clamd.Restart})
	add(trouble{"clamd stopped", "clamd", 4, 6 * time.Second,
		func(context.Context, *rand.Rand) error { return w.clamd.Pause() }, func(context.Context) error { return w.clamd.Resume() }})
	w.troublesOfPublisher("revocation lists", w.lists, add)
	w.troublesOfPublisher("directory", w.index, add)
	w.troublesOfPublisher("time stamps", w.stamps, add)
	return list
}

// troublesOfPublisher are what happens to a web server of others.
func (w *world) troublesOfPublisher(what string, p *publisher, add func(trouble)) {
	type way struct {
		kind   string
		manner manner
		hold   time.Duration
	}
	ways := []way{{"refused", failing, 5 * time.Second}, {"away", gone, 5 * time.Second}, {"stalled", silent, 8 * time.Second}}
	if p.garbage != nil {
		ways = append(ways, way{"garbled", garbled, 5 * time.Second})
	}
	for _, x := range ways {
		add(trouble{what + " " + x.kind, what, 2, x.hold,
			func(context.Context, *rand.Rand) error { p.set(x.manner); return w.readAgain() },
			func(context.Context) error { p.set(well); return nil }})
	}
}

func (w *world) troublesOf(p *stage.Provider, add func(trouble)) {
	pecd, postfix, dovecot := "pecd "+p.Label, "Postfix "+p.Label, "Dovecot "+p.Label
	kill := func(context.Context, *rand.Rand) error { w.down.Store(p, true); return p.Pecd.Kill() }
	start := func(ctx context.Context) error { return w.startAgain(ctx, p) }
	m := &p.MailServer
	add(trouble{"pecd killed", pecd, 14, time.Second, kill, start})
	add(trouble{"pecd restarted", pecd, 4, 0, func(ctx context.Context, _ *rand.Rand) error { w.down.Store(p, true); return p.Pecd.Stop(ctx) }, start})
	add(trouble{"pecd stopped", pecd, 6, 4 * time.Second,
		func(context.Context, *rand.Rand) error { return p.Pecd.Signal(syscall.SIGSTOP) },
		func(context.Context) error { return p.Pecd.Signal(syscall.SIGCONT) }})
	if w.long {
		// Postfix waits 30 seconds for a milter's answer to a command.
		add(trouble{"pecd stopped for long", pecd, 1, 0,
			func(ctx context.Context, _ *rand.Rand) error {
				err := p.Pecd.Signal(syscall.SIGSTOP)
				pause(ctx, 40*time.Second)
				return err
			}, func(context.Context) error { return p.Pecd.Signal(syscall.SIGCONT) }})
	}
	add(trouble{"plugin killed", pecd, 3, 0, func(context.Context, *rand.Rand) error { return w.signalPlugin(p, syscall.SIGKILL) }, nothing})
	add(trouble{"plugin stopped", pecd, 3, 5 * time.Second,
		func(context.Context, *rand.Rand) error { return w.signalPlugin(p, syscall.SIGSTOP) },
		func(context.Context) error { return w.signalPlugin(p, syscall.SIGCONT) }})
	add(trouble{"Postfix killed", postfix, 6, time.Second,
		func(context.Context, *rand.Rand) error {
			return signalTree(masterOf(p, "postfix/queue/pid"), syscall.SIGKILL)
		},
		func(ctx context.Context) error {
			return w.again(ctx, func() error { return w.stage.StartMTA(ctx, m) })
		}})
	add(trouble{"Postfix stopped", postfix, 5, 4 * time.Second,
		func(context.Context, *rand.Rand) error {
			return signalTree(masterOf(p, "postfix/queue/pid"), syscall.SIGSTOP)
		},
		func(context.Context) error { return signalTree(masterOf(p, "postfix/queue/pid"), syscall.SIGCONT) }})
	add(trouble{"Dovecot killed", dovecot, 7, time.Second,
		func(context.Context, *rand.Rand) error {
			return signalTree(masterOf(p, "dovecot/run"), syscall.SIGKILL)
		},
		func(ctx context.Context) error {
			return w.again(ctx, func() error { return w.stage.StartDovecot(ctx, m) })
		}})
	add(trouble{"Dovecot stopped", dovecot, 5, 4 * time.Second,
		func(context.Context, *rand.Rand) error {
			return signalTree(masterOf(p, "dovecot/run"), syscall.SIGSTOP)
		},
		func(context.Context) error { return signalTree(masterOf(p, "dovecot/run"), syscall.SIGCONT) }})
	add(trouble{"disk full", pecd, 5, 3 * time.Second,
		func(context.Context, *rand.Rand) error { return fill(p.Pecd.Config.Store.Path) },
		func(context.Context) error { return os.Remove(filepath.Join(p.Pecd.Config.Store.Path, ballast)) }})
	add(trouble{"writes cut off", pecd, 4, 2 * time.Second,
		func(ctx context.Context, _ *rand.Rand) error { return limitFiles(ctx, p, "0") },
		func(ctx context.Context) error { return limitFiles(ctx, p, "unlimited") }})
	for _, what := range []string{"fsync", "write"} {
		add(trouble{what + " fails", pecd, 4, 2 * time.Second,
			func(context.Context, *rand.Rand) error { return os.WriteFile(w.control(p, "io"), []byte(what), 0o644) },
			func(context.Context) error { return os.Remove(w.control(p, "io")) }})
	}
	add(trouble{"clock jumps", pecd, 3, 5 * time.Second,
		func(_ context.Context, r *rand.Rand) error {
			hours := 1 + r.IntN(5)
			if r.IntN(3) == 0 {
				hours = -hours
			}
			return os.WriteFile(w.control(p, "clock"), []byte(fmt.Sprintf("%dh", hours)), 0o644)
		},
		func(context.Context) error { return os.Remove(w.control(p, "clock")) }})
}

// startAgain starts pecd until it runs: its disk may be full still.
func (w *world) startAgain(ctx context.Context, p *stage.Provider) error {
	defer w.down.Delete(p)
	return w.again(ctx, func() error { return p.Pecd.Start(ctx) })
}

func (w *world) again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// ballast is the file that fills a store's disk.
const ballast = "ballast"

func fill(store string) error {
	f, err := os.Create(filepath.Join(store, ballast))
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func limitFiles(ctx context.Context, p *stage.Provider, limit string) error {
	out, err := exec.CommandContext(ctx, "prlimit", "--pid", strconv.Itoa(p.Pecd.PID()), "--fsize="+limit+":unlimited").CombinedOutput()
	if err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, out)
	}
	return nil
}

// masterOf is the pid in a server's master.pid.
func masterOf(p *stage.Provider, folder string) int {
	text, err := os.ReadFile(filepath.Join(p.Dir, folder, "master.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 is nobody
	return pid
}

// signalTree signals a process and its children; nobody at all is no error.
func signalTree(master int, sig syscall.Signal) error {
	if master <= 1 {
		return nil
	}
	for _, pid := range append([]int{master}, childrenOf(master)...) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

func childrenOf(parent int) (list []int) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			list = append(list, pid)
		}
	}
	return list
}

// signalPlugin signals the programs that pecd has started: Alfa has none.
func (w *world) signalPlugin(p *stage.Provider, sig syscall.Signal) error {
	for _, pid := range childrenOf(p.Pecd.PID()) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
