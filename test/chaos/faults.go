package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// A fault is something that was broken for a while. Times are seconds since 1970.
type fault struct {
	Kind   string  `json:"kind"`
	Target string  `json:"target"`
	Begin  float64 `json:"begin"`
	Struck float64 `json:"struck"`  // it has been done
	End    float64 `json:"end"`     // 0: it is broken still
	Hits   int     `json:"hits"`    // how often it was met, if it is counted
	Count  bool    `json:"counted"` // Hits says something
}

// seconds since 1970.
func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// A trouble is a kind of fault: what is done, and what undoes it. Faults of one
// target never overlap; two of different targets may.
type trouble struct {
	kind   string
	target string
	weight int
	least  time.Duration // between the two
	hold   time.Duration // the same, at most
	begin  func(ctx context.Context, r *rand.Rand) error
	end    func(ctx context.Context) error
	hits   func() (int, error) // how often the last was met; nil: nobody counts
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
			if (n+1)%recoveryEvery != 0 {
				continue
			}
			for w.broken.Load() < int64(n+1) {
				if !pause(ctx, 50*time.Millisecond) {
					return ctx.Err()
				}
			}
			if err := w.recovered(ctx); err != nil {
				return err
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
	w.mu.Lock()
	// Others ask what is broken while it is.
	at := len(w.history)
	w.history = append(w.history, fault{Kind: t.kind, Target: t.target, Begin: seconds(begin)})
	w.mu.Unlock()
	if err := t.begin(ctx, r); err != nil {
		return err
	}
	struck := time.Now()
	pause(ctx, t.least+time.Duration(r.Int64N(int64(t.hold-t.least)+1)))
	// What was broken is mended also when the run ends.
	mend, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	if err := t.end(mend); err != nil {
		return err
	}
	hits := 0
	if t.hits != nil {
		var err error
		if hits, err = t.hits(); err != nil {
			return err
		}
	}
	end := time.Now()
	w.mu.Lock()
	w.history[at].Struck, w.history[at].End = seconds(struck), seconds(end)
	w.history[at].Hits, w.history[at].Count = hits, t.hits != nil
	taken := len(w.sendings)
	w.mu.Unlock()
	w.broken.Add(1)
	fmt.Fprintf(w.log, "%s %3d/%d %s for %.1f s; %d messages taken, %d attempts put off\n", end.Format("15:04:05"), n+1, w.faults, t.kind,
		end.Sub(begin).Seconds(), taken, w.putOff.Load())
	return nil
}

// met reports whether something of target was broken at any time since then.
func (w *world) met(target string, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.history, func(f fault) bool { return f.Target == target && (f.End == 0 || f.End >= seconds(since)) })
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
		add(trouble{kind: "link cut", target: "link " + l.addr(), weight: 6, hold: 4 * time.Second,
			begin: func(context.Context, *rand.Rand) error { l.set(true); return nil }, end: func(context.Context) error { l.set(false); return nil },
			hits: func() (int, error) { return l.lost(), nil }})
	}
	add(trouble{kind: "clamd killed", target: "clamd", weight: 4, hold: 3 * time.Second,
		begin: func(context.Context, *rand.Rand) error { return w.clamd.Kill() }, end: w.clamd.Restart})
	add(trouble{kind: "clamd stopped", target: "clamd", weight: 4, hold: 6 * time.Second,
		begin: func(context.Context, *rand.Rand) error { return w.clamd.Pause() }, end: func(context.Context) error { return w.clamd.Resume() }})
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
		add(trouble{kind: what + " " + x.kind, target: what, weight: 2, hold: x.hold,
			begin: func(context.Context, *rand.Rand) error { p.set(x.manner); return w.readAgain() },
			end:   func(context.Context) error { p.set(well); return nil },
			hits:  func() (int, error) { return p.requests(), nil }})
	}
}

func (w *world) troublesOf(p *stage.Provider, add func(trouble)) {
	w.troublesOfPecd(p, add)
	m := &p.MailServer
	servers := []struct {
		name, folder string
		start        func(context.Context, *stage.MailServer) error
		killed       int
		stopped      int
	}{
		{"Postfix", "postfix/queue/pid", w.stage.StartMTA, 6, 5},
		{"Dovecot", "dovecot/run", w.stage.StartDovecot, 7, 5},
	}
	for _, s := range servers {
		add(trouble{kind: s.name + " killed", target: s.name + " " + p.Label, weight: s.killed, hold: time.Second,
			begin: func(ctx context.Context, _ *rand.Rand) error {
				pids, err := signalServer(p, s.name, s.folder, syscall.SIGKILL)
				return errors.Join(err, untilEnded(ctx, pids))
			},
			end: func(ctx context.Context) error {
				return w.again(ctx, func() error { return s.start(ctx, m) })
			}})
		stopped := stopping(s.name, p.Label, func(sig syscall.Signal) error {
			_, err := signalServer(p, s.name, s.folder, sig)
			return err
		})
		stopped.weight = s.stopped
		add(stopped)
		if w.long {
			// pecd waits a minute for a reply of either.
			add(stopped.forLong(70 * time.Second))
		}
	}
}

// stopping is the trouble of a server that is stopped by a signal, and goes on.
func stopping(name, label string, signal func(syscall.Signal) error) trouble {
	return trouble{kind: name + " stopped", target: name + " " + label, hold: 4 * time.Second,
		begin: func(context.Context, *rand.Rand) error { return signal(syscall.SIGSTOP) },
		end:   func(context.Context) error { return signal(syscall.SIGCONT) }}
}

// forLong is t, rarely, and for a longer time than others have patience.
func (t trouble) forLong(d time.Duration) trouble {
	t.kind, t.weight, t.least, t.hold = t.kind+" for long", 1, d, d
	return t
}

func (w *world) troublesOfPecd(p *stage.Provider, add func(trouble)) {
	pecd := "pecd " + p.Label
	kill := func(context.Context, *rand.Rand) error { w.down.Store(p, true); return p.Pecd.Kill() }
	start := func(ctx context.Context) error { return w.startAgain(ctx, p) }
	add(trouble{kind: "pecd killed", target: pecd, weight: 14, hold: time.Second, begin: kill, end: start})
	add(trouble{kind: "pecd restarted", target: pecd, weight: 4,
		begin: func(ctx context.Context, _ *rand.Rand) error { w.down.Store(p, true); return p.Pecd.Stop(ctx) }, end: start})
	stopped := stopping("pecd", p.Label, p.Pecd.Signal)
	stopped.weight = 6
	add(stopped)
	if w.long {
		add(stopped.forLong(40 * time.Second))
	}
	w.troublesOfPlugins(p, add)
	add(saidBy(p, trouble{kind: "disk full", target: pecd, weight: 5, hold: 3 * time.Second,
		begin: func(context.Context, *rand.Rand) error { return fill(p.Pecd.Config.Store.Path) },
		end:   func(context.Context) error { return os.Remove(filepath.Join(p.Pecd.Config.Store.Path, ballast)) }},
		"no space left on device", "disk is full"))
	add(saidBy(p, trouble{kind: "writes cut off", target: pecd, weight: 4, hold: 2 * time.Second,
		begin: func(ctx context.Context, _ *rand.Rand) error { return limitFiles(ctx, p, "0") },
		end:   func(ctx context.Context) error { return limitFiles(ctx, p, "unlimited") }},
		"file too large", "disk is full", "disk I/O error"))
	for _, what := range []string{"fsync", "write"} {
		add(trouble{kind: what + " fails", target: pecd, weight: 4, hold: 2 * time.Second,
			begin: func(context.Context, *rand.Rand) error { return os.WriteFile(w.control(p, "io"), []byte(what), 0o644) },
			end:   func(context.Context) error { return os.Remove(w.control(p, "io")) },
			hits:  func() (int, error) { return takeHits(w.control(p, "hits")) }})
	}
	// The certificates are good since an hour ago: back by more, nobody can sign.
	for _, jump := range []struct {
		kind         string
		weight, hour int
	}{{"clock jumps ahead", 2, 1}, {"clock jumps back", 1, -1}} {
		add(trouble{kind: jump.kind, target: pecd, weight: jump.weight, hold: 5 * time.Second,
			begin: func(_ context.Context, r *rand.Rand) error {
				return os.WriteFile(w.control(p, "clock"), []byte(fmt.Sprintf("%dh", jump.hour*(1+r.IntN(5)))), 0o644)
			},
			end: func(context.Context) error { return os.Remove(w.control(p, "clock")) }})
	}
}

// troublesOfPlugins are what happens to the programs that p's pecd has started.
func (w *world) troublesOfPlugins(p *stage.Provider, add func(trouble)) {
	if len(p.Pecd.Config.Plugins) == 0 {
		return
	}
	add(trouble{kind: "plugin killed", target: "pecd " + p.Label, weight: 3,
		begin: func(ctx context.Context, _ *rand.Rand) error { return w.signalPlugin(ctx, p, syscall.SIGKILL) }, end: nothing})
	add(trouble{kind: "plugin stopped", target: "pecd " + p.Label, weight: 3, hold: 5 * time.Second,
		begin: func(ctx context.Context, _ *rand.Rand) error { return w.signalPlugin(ctx, p, syscall.SIGSTOP) },
		// pecd may have killed the one that was stopped; to another it is nothing.
		end: func(context.Context) error { _, err := signalChildren(p, syscall.SIGCONT); return err }})
}

// saidBy is t, with the lines counted in which p's pecd says one of words meanwhile.
func saidBy(p *stage.Provider, t trouble, words ...string) trouble {
	var from int64
	begin := t.begin
	t.begin = func(ctx context.Context, r *rand.Rand) error {
		info, err := os.Stat(p.Pecd.Log)
		if err != nil {
			return err
		}
		from = info.Size()
		return begin(ctx, r)
	}
	t.hits = func() (n int, err error) {
		log, err := os.ReadFile(p.Pecd.Log)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(log[from:])) {
			if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(line, word) }) {
				n++
			}
		}
		return n, nil
	}
	return t
}

// takeHits is how many calls the library below the C library let fail since it was
// asked last.
func takeHits(file string) (int, error) {
	lines, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return bytes.Count(lines, []byte("\n")), errors.Join(err, os.Remove(file))
}
