package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3" // reads the registers

	"pecd/packaging/demo/stage"
	"pecd/plugins/clamav/clamdtest"
)

// How large the file system is on which each store is: in chaos it must be full soon, in
// a soak never.
const (
	storeDisk = "256m"
	soakDisk  = "2g"
)

// A world is the servers of a run, and what happened to them.
type world struct {
	options
	stage  *stage.Stage
	clamd  *clamdtest.Clamd
	links  []*link
	lists  *publisher // of revocation lists
	index  *publisher // of the directory
	stamps *publisher // of time stamps
	disks  []string   // mounted
	oracle string
	// unlinked is why a link could not be made.
	unlinked error
	until    time.Time        // when a soak ends; zero: the number of messages ends the load
	pace     <-chan time.Time // lets one message through at a time; nil: as many as there are clients

	down sync.Map // providers whose pecd was ended and does not run again yet

	numbers atomic.Int64 // of messages, the last that was given
	// How often both providers were well again while faults paused, and how long it took
	// at most. They belong to the goroutine that plans the faults.
	recoveries int
	slowest    time.Duration

	broken atomic.Int64 // faults that are over
	putOff atomic.Int64 // attempts that a client had to repeat

	mu       sync.Mutex // guards what follows
	sendings []sending
	history  []fault
	heard    map[string]int // what Postfix said by itself after all was sent
	wrong    []string       // violations that are seen while it runs
}

func newWorld(ctx context.Context, o options) (w *world, err error) {
	w = &world{options: o, heard: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	_, here, _, _ := runtime.Caller(0)
	w.oracle = filepath.Join(filepath.Dir(here), "oracle.py")
	if err := os.MkdirAll(filepath.Join(w.dir, "sent"), 0o755); err != nil {
		return w, err
	}
	// clamd's own user must reach its folder.
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return w, err
	}
	fmt.Fprintln(w.log, "chaos: building, starting the servers")
	pecd, plugin, shim := filepath.Join(w.dir, "pecd"), filepath.Join(w.dir, "plugins", "clamav"), filepath.Join(w.dir, "shim.so")
	if err := stage.Build(ctx, pecd, "pecd/cmd/pecd", "-tags", "faultdrill"); err != nil {
		return w, err
	}
	if err := stage.Build(ctx, plugin, "pecd/plugins/clamav"); err != nil {
		return w, err
	}
	out, err := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", shim, filepath.Join(filepath.Dir(here), "testdata", "shim.c"), "-ldl").CombinedOutput()
	if err != nil {
		return w, fmt.Errorf("gcc: %w\n%s", err, out)
	}
	clamdDir := filepath.Join(w.dir, "clamd")
	if err := os.Mkdir(clamdDir, 0o755); err != nil {
		return w, err
	}
	if w.clamd, err = clamdtest.Start(ctx, clamdDir); err != nil {
		return w, err
	}
	if err := w.startStamper(); err != nil {
		return w, err
	}
	w.stage, err = stage.New(ctx, stage.Options{
		Dir: filepath.Join(w.dir, "stage"), PecdBinary: pecd, Way: w.way, Keys: stage.KeysSoftHSM, MainCF: w.impatient(),
		Configure: func(domain string, c *stage.PecdConfig) {
			w.sealBy(c)
			if domain == "beta.example" {
				c.Plugins = append(c.Plugins, w.scanner(plugin))
			}
		},
	})
	if err != nil {
		return w, err
	}
	if w.unlinked != nil {
		return w, w.unlinked
	}
	if err := w.keyInFile(ctx, w.stage.Beta); err != nil {
		return w, err
	}
	if err := w.startPublishers(); err != nil {
		return w, err
	}
	for _, p := range w.stage.Providers() {
		if err := w.relyOn(p); err != nil {
			return w, err
		}
		store := p.Pecd.Config.Store.Path
		if err := syscall.Mount("tmpfs", store, "tmpfs", 0, "mode=0700,size="+w.storeSize()); err != nil {
			return w, fmt.Errorf("a file system for %s: %w", store, err)
		}
		w.disks = append(w.disks, store)
		if err := os.Mkdir(w.control(p, "tmp"), 0o700); err != nil {
			return w, err
		}
		p.Pecd.Piped = true
		p.Pecd.Env = append(p.Pecd.Env, "TMPDIR="+w.control(p, "tmp"), "LD_PRELOAD="+shim, "CHAOS_STORE="+store, "CHAOS_CONTROL="+w.control(p, "io"), "CHAOS_HITS="+w.control(p, "hits"),
			"PECD_CLOCK="+w.control(p, "clock"), "PECD_PLUGIN_BACKOFF=1s")
	}
	return w, w.stage.Start(ctx)
}

// impatient are timeouts of Postfix that a stop for long outlasts: of its own it waits
// for up to ten minutes.
func (w *world) impatient() []string {
	if !w.long || w.faults == 0 {
		return nil
	}
	return []string{"milter_connect_timeout = 20s", "milter_command_timeout = 20s", "milter_content_timeout = 20s", "lmtp_data_done_timeout = 20s"}
}

// scanner is the plugin that asks clamd. Where programs are stopped for longer than every
// timeout, its own are shorter than the stops of it and of clamd.
func (w *world) scanner(path string) stage.PluginConfig {
	c := stage.PluginConfig{Path: path, Settings: map[string]any{"socket": w.clamd.Unix}}
	if w.long && w.faults > 0 {
		c.Timeout, c.Settings["timeout"] = "3s", "2s"
	}
	return c
}

// storeSize is the size of the file system of each store.
func (w *world) storeSize() string {
	if w.faults == 0 {
		return soakDisk
	}
	return storeDisk
}

// control is a file by which a provider's pecd is told something.
func (w *world) control(p *stage.Provider, what string) string {
	return filepath.Join(w.dir, p.Label+"."+what)
}

// way puts a link between the two providers.
func (w *world) way(from, to, addr string) string {
	if from == "ordinary.example" || to == "ordinary.example" {
		return addr
	}
	for _, l := range w.links {
		if l.to == addr {
			return l.addr()
		}
	}
	l, err := newLink()
	if err != nil {
		w.unlinked = err // newWorld says so
		return addr
	}
	l.to = addr
	w.links = append(w.links, l)
	return l.addr()
}

func (w *world) close() error {
	var errs []error
	for _, l := range w.links {
		l.set(false)
	}
	if w.stage != nil {
		errs = append(errs, w.stage.Stop(context.Background()))
	}
	for _, d := range w.disks {
		errs = append(errs, syscall.Unmount(d, syscall.MNT_DETACH))
	}
	if w.stage != nil {
		errs = append(errs, w.stage.Remove(context.Background()))
	}
	if w.clamd != nil {
		errs = append(errs, w.clamd.Stop())
	}
	for _, p := range []*publisher{w.lists, w.index, w.stamps} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	for _, l := range w.links {
		l.close()
	}
	return errors.Join(errs...)
}

// described is what the judge is told.
func (w *world) described() any {
	w.mu.Lock()
	defer w.mu.Unlock()
	var registers []string
	providers := map[string]any{}
	for _, p := range w.stage.Providers() {
		providers[p.Domain] = map[string]string{"label": p.Label, "name": p.Name, "service": p.Service[0].Address, "system": p.Service[1].Address}
		registers = append(registers, filepath.Join(p.Pecd.Config.Store.Path, "pecd.db"))
	}
	return map[string]any{"sendings": w.sendings, "faults": w.history, "boxes": w.boxes(), "registers": registers,
		"providers": providers, "certified": users, "nobody": nobody, "ca": w.stage.CA}
}

// rest waits until nothing is under way any more. A look takes its time, and a
// message can pass by it: from a store that was not yet looked at into a queue that
// was. So two looks in a row must see nothing, and no entry in between: whatever
// passes into a mailbox of a provider, or out of its pecd, is registered.
func (w *world) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.settle)
	defer cancel()
	quiet := int64(-1) // entries at the last look, if that saw nothing
	for {
		busy, entries, err := w.busy(ctx)
		switch {
		case err != nil || busy != "":
			quiet = -1
		case quiet == entries:
			return nil
		default:
			busy, quiet = "entries are still being made", entries
		}
		if !pause(ctx, time.Second) {
			return fmt.Errorf("no rest: %s: %w", busy, errors.Join(err, ctx.Err()))
		}
		for _, m := range []*stage.MailServer{&w.stage.Alfa.MailServer, &w.stage.Beta.MailServer} {
			_ = m.Flush(ctx) // the queue is tried every two seconds anyway
		}
	}
}

// busy says what is still under way (empty: nothing), and how many entries both
// registers have.
func (w *world) busy(ctx context.Context) (what string, entries int64, err error) {
	for _, m := range []*stage.MailServer{&w.stage.Alfa.MailServer, &w.stage.Beta.MailServer, &w.stage.Ordinary.MailServer} {
		queue, err := m.Queue(ctx)
		if err != nil {
			return "a queue", 0, err
		}
		if len(queue) > 0 {
			return fmt.Sprintf("Postfix of %s has %d messages, one of them %s", m.Domain, len(queue), queue[0]), 0, nil
		}
	}
	for _, p := range w.stage.Providers() {
		db, err := openRegister(p)
		if err != nil {
			return "a register", 0, err
		}
		var outbox, open int
		var made int64
		err = db.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM awaited WHERE outcome IS NULL), (SELECT count(*) FROM entry)").
			Scan(&outbox, &open, &made)
		if err = errors.Join(err, db.Close()); err != nil {
			return "a register", 0, err
		}
		entries += made
		if outbox+open > 0 {
			return fmt.Sprintf("pecd of %s has %d messages to send and waits for %d answers", p.Domain, outbox, open), 0, nil
		}
	}
	return "", entries, nil
}

// watched does f, and fails as soon as a pecd has ended by itself: the next fault
// would only start it again.
func (w *world) watched(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		for pause(ctx, 100*time.Millisecond) {
			if w.ended() != nil {
				cancel()
			}
		}
	}()
	err := f(ctx)
	cancel()
	<-watcher
	return errors.Join(w.ended(), err)
}

// ended says which pecd has ended by itself, and how.
func (w *world) ended() error {
	for _, p := range w.stage.Providers() {
		if err := p.Pecd.Ended(); err != nil {
			return fmt.Errorf("pecd %s: %w", p.Label, err)
		}
	}
	return nil
}

// panics are the lines in which a pecd or a plugin says that it panicked.
func (w *world) panics() (wrong []string, err error) {
	for _, p := range w.stage.Providers() {
		log, err := os.ReadFile(p.Pecd.Log)
		if err != nil {
			return wrong, err
		}
		for _, line := range stage.Panics(string(log)) {
			wrong = append(wrong, fmt.Sprintf("%s: the log says: %s", p.Domain, line))
		}
	}
	return wrong, nil
}

// openRegister opens a provider's database for reading, beside its pecd.
func openRegister(p *stage.Provider) (*sql.DB, error) {
	return sql.Open("sqlite3", "file:"+filepath.Join(p.Pecd.Config.Store.Path, "pecd.db")+"?mode=ro&_busy_timeout=5000")
}
