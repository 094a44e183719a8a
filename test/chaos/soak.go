package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// A sample is what one pecd holds at a moment; database are the descriptors of SQLite,
// which the others do not count.
type sample struct{ goroutines, descriptors, database, memory, log, files float64 }

// databaseMost is how many descriptors the database has when all its connections are
// open, which they are when first needed: one writes and four read (logstore), two files
// each, and one of the memory that they share.
const databaseMost = 2*(1+4) + 1

// gauges are what must not grow, and the bound of it: as many times the middle, and
// as much more.
var gauges = []struct {
	name        string
	of          func(sample) float64
	times, more float64
}{
	{"goroutines", func(s sample) float64 { return s.goroutines }, 1.2, 10},
	{"descriptors", func(s sample) float64 { return s.descriptors }, 1.2, 10},
	{"SQLite's descriptors", func(s sample) float64 { return s.database }, 0, databaseMost},
	{"memory, octets", func(s sample) float64 { return s.memory }, 1.25, 8 << 20},
	{"SQLite's log, octets", func(s sample) float64 { return s.log }, 1.1, 1 << 20},
	{"files of bodies", func(s sample) float64 { return s.files }, 1.1, 20},
}

const (
	// soakPace is between two messages: half of what two slow processors hand on.
	soakPace = 400 * time.Millisecond
	// reloadPause is between two SIGHUP during a soak.
	reloadPause = 20 * time.Second
	// warmUp is how many messages come before pecd is looked at for the first time: by then
	// all is open that stays open.
	warmUp = 40
	// idleTime is longer than anybody keeps an idle connection: Go's HTTP clients do for
	// a minute and a half.
	idleTime = 100 * time.Second
)

// soak sends mixed messages for a time without breaking anything, and wants both
// daemons to hold in the last third what they held in the middle one, within bounds
// (in the first everything is still being warmed up), and at rest what they held at rest
// before. No client may be put off. Then the judge looks as after chaos.
func soak(ctx context.Context, o options, d time.Duration) (wrong []string, err error) {
	if o.dir, err = os.MkdirTemp("", "pecd-soak"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(o.dir)
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintf(o.log, "soak: %s with %d clients, one message in %s, seed %d\n", d, o.senders, soakPace, o.seed)
	samples := map[string][]sample{}
	err = w.watched(ctx, func(ctx context.Context) error {
		before, err := w.warm(ctx)
		if err != nil {
			return err
		}
		if err := w.sample(ctx, d, samples); err != nil {
			return err
		}
		if wrong, err = compare(o.log, samples); err != nil {
			return err
		}
		if err := w.rest(ctx); err != nil {
			return err
		}
		after, err := w.idle(ctx)
		wrong = append(wrong, compareIdle(o.log, before, after)...)
		return err
	})
	if err != nil {
		return append(wrong, w.wrong...), err
	}
	v, err := w.verdict(ctx)
	if err != nil {
		return wrong, err
	}
	w.report(v, d)
	report(o.log, wrong)
	return append(wrong, v.Violations...), nil
}

// An idling is what one pecd holds at rest.
type idling struct {
	sample
	temporary []string // bodies, copies for plugins, scratch files, what was not renamed yet
}

// warm sends some messages and returns what both pecd hold when they have been handed on.
func (w *world) warm(ctx context.Context) (map[string]idling, error) {
	over := make(chan struct{})
	close(over)
	w.messages = warmUp
	if err := errors.Join(w.load(ctx, over), w.rest(ctx)); err != nil {
		return nil, err
	}
	return w.idle(ctx)
}

// idle waits until idle connections are closed, and looks at both pecd.
func (w *world) idle(ctx context.Context) (map[string]idling, error) {
	held := map[string]idling{}
	if !pause(ctx, idleTime) {
		return held, ctx.Err()
	}
	for _, p := range w.stage.Providers() {
		s, err := take(ctx, p)
		if err != nil {
			return held, err
		}
		files, err := w.temporary(p)
		if err != nil {
			return held, err
		}
		held[p.Domain] = idling{s, files}
	}
	return held, nil
}

// temporary are the files of a pecd that do not stay: all in its directory for temporary
// files, bodies, the copies that plugins were given, and what is to be renamed.
func (w *world) temporary(p *stage.Provider) (files []string, err error) {
	store, scratch := p.Pecd.Config.Store.Path, w.control(p, "tmp")
	for _, root := range []string{store, scratch} {
		err = errors.Join(err, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went while we looked
			}
			if err != nil || e.IsDir() {
				return err
			}
			passes := root == scratch || strings.HasSuffix(path, ".tmp")
			for _, dir := range []string{"bodies", filepath.Join("plugins", "messages")} {
				passes = passes || strings.HasPrefix(path, filepath.Join(store, dir)+"/")
			}
			if passes {
				files = append(files, path)
			}
			return nil
		}))
	}
	return files, err
}

// idleMore is by how much goroutines and descriptors may differ between two moments at
// rest: one look at the figures is open, and a timer may just have fired.
const idleMore = 3

// compareIdle holds what both pecd hold at rest after the load against what they held before.
func compareIdle(log io.Writer, before, after map[string]idling) (wrong []string) {
	for _, domain := range slices.Sorted(maps.Keys(after)) {
		a, b := before[domain], after[domain]
		fmt.Fprintf(log, "%s at rest, before and after: %.0f and %.0f goroutines, %.0f and %.0f descriptors, %.0f and %.0f of SQLite, %.1f and %.1f MB, %d and %d temporary files\n", domain,
			a.goroutines, b.goroutines, a.descriptors, b.descriptors, a.database, b.database, a.memory/1e6, b.memory/1e6, len(a.temporary), len(b.temporary))
		for _, gauge := range gauges[:2] {
			if of, is := gauge.of(a.sample), gauge.of(b.sample); is > of+idleMore {
				wrong = append(wrong, fmt.Sprintf("%s: %s at rest were %.0f before the load and %.0f after it", domain, gauge.name, of, is))
			}
		}
		if b.database > databaseMost {
			wrong = append(wrong, fmt.Sprintf("%s: %.0f descriptors of the database at rest, and its connections have %d", domain, b.database, databaseMost))
		}
		if b.files > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %.0f bodies at rest", domain, b.files))
		}
		for _, file := range b.temporary {
			if !slices.Contains(a.temporary, file) {
				wrong = append(wrong, fmt.Sprintf("%s: left over: %s", domain, file))
			}
		}
	}
	return wrong
}

// sample looks at both daemons again and again while there is load.
func (w *world) sample(ctx context.Context, d time.Duration, samples map[string][]sample) error {
	w.until = time.Now().Add(d)
	pace := time.NewTicker(soakPace)
	defer pace.Stop()
	w.pace = pace.C
	sctx, stop := context.WithDeadline(ctx, w.until)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	over := make(chan struct{})
	close(over) // nothing is broken
	g.Go(func() error { return w.load(gctx, over) })
	g.Go(func() error {
		for pause(sctx, reloadPause) {
			if err := w.readAgain(); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		every := max(time.Second, d/90)
		for time.Now().Before(w.until) {
			if !pause(gctx, every) {
				return gctx.Err()
			}
			if err := w.takeBoth(gctx, samples); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// takeBoth adds a sample of each daemon.
func (w *world) takeBoth(ctx context.Context, samples map[string][]sample) error {
	for _, p := range w.stage.Providers() {
		s, err := take(ctx, p)
		if err != nil {
			return err
		}
		samples[p.Domain] = append(samples[p.Domain], s)
		if len(samples[p.Domain])%10 == 0 {
			fmt.Fprintf(w.log, "%s %s: %.0f goroutines, %.0f descriptors, %.0f of SQLite, %.1f MB, log %.1f MB, %.0f files\n", time.Now().Format("15:04:05"), p.Domain,
				s.goroutines, s.descriptors, s.database, s.memory/1e6, s.log/1e6, s.files)
		}
	}
	return nil
}

// compare holds the last third of the samples against the middle one.
func compare(log io.Writer, samples map[string][]sample) (wrong []string, err error) {
	for _, domain := range slices.Sorted(maps.Keys(samples)) {
		list := samples[domain]
		if len(list) < 3 {
			return wrong, fmt.Errorf("%s: %d samples are too few to compare thirds", domain, len(list))
		}
		middle, last := list[len(list)/3:2*len(list)/3], list[2*len(list)/3:]
		for _, gauge := range gauges {
			a, b := typicalOf(middle, gauge.of), typicalOf(last, gauge.of)
			bound, verdict := a*gauge.times+gauge.more, "within bounds"
			if b > bound {
				verdict = "GROWS"
				wrong = append(wrong, fmt.Sprintf("%s: %s from %.0f to %.0f, over %.0f", domain, gauge.name, a, b, bound))
			}
			fmt.Fprintf(log, "%s: %-22s %12.0f in the middle third, %12.0f in the last, of at most %12.0f (%g times, and %.0f): %s\n",
				domain, gauge.name, a, b, bound, gauge.times, gauge.more, verdict)
		}
	}
	return wrong, nil
}

// typicalOf is the median of samples, of which there is one.
func typicalOf(list []sample, of func(sample) float64) float64 {
	v := make([]float64, len(list))
	for i, s := range list {
		v[i] = of(s)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// take reads a provider's own figures and looks at its process and its store.
func take(ctx context.Context, p *stage.Provider) (s sample, err error) {
	page, err := figures(ctx, p)
	if err != nil {
		return s, err
	}
	for name, into := range map[string]*float64{"go_goroutines": &s.goroutines, "process_resident_memory_bytes": &s.memory} {
		if *into, err = figure(page, name); err != nil {
			return s, err
		}
	}
	store := p.Pecd.Config.Store.Path
	database := filepath.Join(store, "pecd.db")
	if s.descriptors, s.database, err = descriptors(p.Pecd.PID(), database); err != nil {
		return s, err
	}
	if s.database == 0 {
		return s, fmt.Errorf("%s: pecd does not have %s open", p.Domain, database)
	}
	st, err := os.Stat(database + "-wal")
	if err != nil {
		return s, err
	}
	files, err := os.ReadDir(filepath.Join(store, "bodies"))
	s.log, s.files = float64(st.Size()), float64(len(files))
	return s, err
}

// descriptors counts those that a process has of a SQLite database and those that it has
// of anything else.
func descriptors(pid int, database string) (others, ofDatabase float64, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	for _, fd := range list {
		file, err := os.Readlink(filepath.Join(dir, fd.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed while we looked
		case err != nil:
			return 0, 0, err
		case slices.Contains([]string{database, database + "-wal", database + "-shm"}, file):
			ofDatabase++
		default:
			others++
		}
	}
	return others, ofDatabase, err
}

// figures is the page of all that pecd itself says. It is asked for once a sample,
// so that its figures are of one moment.
func figures(ctx context.Context, p *stage.Provider) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // nobody waits for a page for ever
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Pecd.Config.Metrics.Listen+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// figure is what page says under a name, whatever its labels.
func figure(page []byte, name string) (float64, error) {
	for line := range strings.Lines(string(page)) {
		// Labels may hold spaces; the value is behind the last.
		line = strings.TrimSuffix(line, "\n")
		if label, _, _ := strings.Cut(line, "{"); label == name || strings.HasPrefix(line, name+" ") {
			return strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		}
	}
	return 0, fmt.Errorf("no figure %s", name)
}
