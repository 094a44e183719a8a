package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/cmd/pecd/availability"
	"pecd/cmd/pecd/config"
	"pecd/courier"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/milter/socket"
	"pecd/plugins/host"
	"pecd/points/act"
	"pecd/signer/libcrypto"
)

// drainTime is how long messages under way may take after SIGTERM. Then they are cut
// off, and what they must still make durable has socket.Keeper.Grace. systemd kills
// after TimeoutStopSec, which must be longer than both, the courier's time, and
// closingTime with act's for the commit, which the courier waits for.
const drainTime = 15 * time.Second

// serveCmd is pecd serve.
type serveCmd struct{ configFlag }

// Run is the daemon: it opens the store, then the way out, then the doors, and
// ends them in the opposite order when ctx is done.
func (c *serveCmd) Run(ctx context.Context) error {
	hangup := catchHangup()
	format := "text"
	if cfg, err := config.Load(c.Config); err == nil { // load says what is wrong with it
		format = cfg.Log.Format
	}
	log, level := newLogger("info", format)
	in, err := load(ctx, c.Config, loading{now: clock, log: log, live: true})
	if err != nil {
		return err
	}
	setLevel(level, in.config.Log.Level)
	// A limit on the length of files is a full disk: the write fails, and is dealt
	// with there. Go ends the process otherwise.
	signal.Ignore(syscall.SIGXFSZ)
	log.Info("starting", "version", version, "provider", in.provider.Name, "config", c.Config, "rsa", rsaLibrary(),
		"directory_providers", len(in.directory.Providers()), "certificate_until", in.signer.IdentityAt(clock()).Certificate().NotAfter)

	store, err := logstore.Open(ctx, logstore.Options{Dir: in.config.Store.Path, Now: clock, Elapsed: elapsed, Rand: rand.Reader, AtStep: storeStep, Log: log})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			log.Error("store did not close well", "err", err)
		}
	}()

	secret, err := store.Secret(ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	d := &daemon{hangup: hangup, secret: secret, file: c.Config, started: in.config, log: log, level: level, store: store, metrics: newMetrics(store)}
	d.time = newClockGuard(in.config.Time, log)
	d.health = d.newHealth()
	d.metrics.registry.MustRegister(d.collectors()...)
	if d.served, err = availability.Open(in.config.Store.Path); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if d.watch, err = availability.OpenStopwatch(in.config.Store.Path); err != nil {
		return errors.Join(fmt.Errorf("store: %w", err), d.served.Close())
	}
	defer func() {
		if err := errors.Join(d.served.Close(), d.watch.Close()); err != nil {
			log.Error("availability", "err", err)
		}
	}()
	if d.passed, err = socket.FromSystemd(os.Getenv, os.Getpid()); err != nil {
		return err
	}
	defer d.closePlugins()
	if err := d.startPlugins(ctx, in.config); err != nil {
		return err
	}
	defer d.release()
	d.enforce(ctx, in)
	if err := d.listen(ctx, in); err != nil {
		d.close()
		return err
	}
	return d.run(ctx, in)
}

// garbageAllowed is what the collector may leave before it works harder, in octets;
// beside it twice what the installation itself needs.
const garbageAllowed = 96 << 20

// patientCollector has the garbage collector wait: live data is small, so it runs
// often for little. That saves a tenth of the processor for some MB, which are
// bounded for the moment when many large messages come together
// (docs/performance.md). It is called again for each installation and each directory,
// which may be larger. Who sets GOGC or GOMEMLIMIT decides himself.
func patientCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		runtime.GC() // what is garbage is not needed
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		debug.SetMemoryLimit(garbageAllowed + 2*int64(m.HeapAlloc))
	}
}

// rsaLibrary is what signs with RSA keys that lie in files.
func rsaLibrary() string {
	v, err := libcrypto.Version()
	if err != nil {
		return "Go"
	}
	return v
}

// A daemon is what runs between start and end.
type daemon struct {
	file     string
	started  *config.Config   // with which the daemon was started
	hangup   <-chan os.Signal // SIGHUP
	secret   []byte           // the store's
	log      *slog.Logger
	level    *slog.LevelVar
	store    *logstore.SQLite
	metrics  *metrics
	health   *health
	time     clockGuard
	served   *availability.Recorder
	watch    *availability.Stopwatch
	canaries canaries
	office   atomic.Pointer[office]
	// evidence is what seals the register for the installation in force.
	evidence atomic.Pointer[evidence]
	plugins  *host.Host // nil: none
	scratch  string     // a directory of ours for their sockets; empty: systemd's

	keeping func()       // ends the upkeep of the installation in force; nil: there is none
	letGo   func() error // of what that holds; nil: there is none
	past    []past       // not let go of yet

	passed                                   *socket.Passed // by systemd
	access, gate, arrivals, control, figures net.Listener
}

// open gives the installation its clerk.
func (d *daemon) open(in *installation) *office {
	return &office{installation: in, points: decidersOf(d.plugins), clerk: &act.Clerk{Issuer: in.issuer, Signer: in.signer, Store: d.store, Witness: in.config.Witness.Receipts,
		Secret: d.secret, BriefHash: briefHash(in.config.Delivery.BriefHash), Now: clock, Location: in.location, Rand: rand.Reader}}
}

// listen opens all sockets before anything is served, so that a start fails
// whole.
func (d *daemon) listen(ctx context.Context, in *installation) (err error) {
	cfg := in.config
	if d.access, err = d.door(ctx, cfg.Access.Milter, cfg.Access.SocketMode, cfg.Access.SocketGroup); err != nil {
		return cfg.Problem("access.milter", err, socketFix(err, cfg.Access.SocketGroup))
	}
	if cfg.Gate.Milter != "" {
		if d.gate, err = d.door(ctx, cfg.Gate.Milter, cfg.Gate.SocketMode, cfg.Gate.SocketGroup); err != nil {
			return cfg.Problem("gate.milter", err, socketFix(err, cfg.Gate.SocketGroup))
		}
	}
	if d.control, err = listen(ctx, "unix:"+controlSocket(cfg.Store.Path), "0600", ""); err != nil {
		return cfg.Problem("store.path", fmt.Errorf("control socket: %w", err), "")
	}
	if d.arrivals, err = d.door(ctx, cfg.Reception.LMTP, cfg.Reception.SocketMode, cfg.Reception.SocketGroup); err != nil {
		return cfg.Problem("reception.lmtp", err, socketFix(err, cfg.Reception.SocketGroup))
	}
	if err := d.leaveRest(); err != nil {
		return err
	}
	if cfg.Metrics.Listen == "" {
		return nil
	}
	if d.figures, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Metrics.Listen); err != nil {
		return cfg.Problem("metrics.listen", err, "name a free host:port")
	}
	return nil
}

func (d *daemon) close() {
	for _, l := range []net.Listener{d.access, d.gate, d.arrivals, d.control, d.figures} {
		if l != nil {
			l.Close()
		}
	}
}

// socketFix is what mends a socket that cannot be opened, where that is known.
func socketFix(err error, group string) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "make the directory, for the user that runs pecd alone to write to: install -d -o pecd -g pecd -m 0755 DIRECTORY; the unit of the package makes /run/pecd at each start"
	}
	if group == "" || !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return "only a member may give a socket to the group " + group + ": usermod -aG " + group + " pecd; then start pecd again"
}

func listen(ctx context.Context, addr, mode, group string) (net.Listener, error) {
	m, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return nil, err
	}
	return socket.Listen(ctx, addr, fs.FileMode(m), group)
}

// run serves until ctx is done or a part fails. The courier outlives the doors:
// what they commit while draining may still go out.
func (d *daemon) run(ctx context.Context, in *installation) error {
	mailbox := &lmtp.Store{Dial: dialer(in.config.Delivery.Store), Name: in.config.Provider.Domain}
	defer mailbox.Close()
	share := &doors{office: &d.office, store: d.store, mailbox: mailbox, metrics: d.metrics, log: d.log, now: clock, atStep: atStep, time: d.time, watch: d.watch}
	access := milter.NewServer(accessOptions(share, in.config.Access, d.doorEvent(doorMilter)))
	gate := milter.NewServer(gateOptions(share, d.doorEvent(doorGate)))
	arrivals := lmtp.NewServer(lmtp.Options{Backend: arrivalDoor{share}, Log: d.log, MaxMessage: in.config.Reception.MaxSize,
		Domain: in.config.Provider.Domain, Observe: d.doorEvent(doorLMTP)})
	out := courier.New(d.store, courier.Options{Dial: dialer(in.config.Courier.MTA), Hostname: in.config.Provider.Domain,
		Connections: in.config.Courier.Connections, Direct: newDirectWay(share).take, Yield: share.crowd.yield, Now: clock, Log: d.log, AtStep: atStep, Observe: d.handover})

	courierCtx, stopCourier := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCourier()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return out.Run(courierCtx) })
	g.Go(func() error { return unless(milter.ErrServerClosed, access.Serve(d.access)) })
	g.Go(func() error { return unless(lmtp.ErrServerClosed, arrivals.Serve(d.arrivals)) })
	g.Go(func() error { return d.serveControl(gctx, d.control) })
	g.Go(func() error { d.expire(gctx); return nil })
	if d.gate != nil {
		g.Go(func() error { return unless(milter.ErrServerClosed, gate.Serve(d.gate)) })
	}
	if d.figures != nil {
		g.Go(func() error { return d.metrics.serve(gctx, d.figures, d.health) })
	}
	g.Go(func() error { d.reloadOnHangup(gctx); return nil })
	g.Go(func() error { d.beat(gctx); return nil })
	g.Go(func() error { d.recordAvailability(gctx); return nil })
	g.Go(func() error { d.fly(gctx); return nil })
	g.Go(func() error { d.finishPurge(gctx); return nil })
	g.Go(func() error { d.time.run(gctx); return nil })
	g.Go(func() error {
		<-gctx.Done()
		d.log.Info("draining", "reason", context.Cause(gctx))
		d.tell(systemdStopping)
		defer stopCourier()
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		return drain(sctx, d.log, access, gate, arrivals)
	})
	d.log.Info("ready")
	d.tell(systemdReady)
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = nil
	}
	d.log.Info("stopped", "err", err)
	return err
}

// expire issues timeout notices as they fall due, and removes infected messages
// whose term is over, until ctx is done.
func (d *daemon) expire(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-d.time.watch.Looked():
	}
	tick := time.NewTicker(expiryPause)
	defer tick.Stop()
	for {
		d.fallDue(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// fallDue does once what expire does, unless the clock may be wrong: a wrong clock
// must tell nobody that his term is over.
func (d *daemon) fallDue(ctx context.Context) {
	clerk := *d.office.Load().clerk
	now := clerk.Now
	// Each instant is read first and then vouched for: the clock may jump at any
	// moment, also between two of many notices.
	good := now()
	if d.time.unsure() {
		return
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	clerk.Now = func() time.Time {
		at := now()
		if d.time.unsure() {
			stop()
			return good
		}
		good = at
		return at
	}
	if n, err := clerk.Purge(ctx); err != nil && ctx.Err() == nil {
		d.log.Error("infected messages could not be removed", "err", err)
	} else if n > 0 {
		d.log.Info("infected messages removed, their term is over", "messages", n)
	}
	if err := clerk.Expire(ctx); err != nil && ctx.Err() == nil {
		d.log.Error("timeout notices could not be issued", "err", err)
	}
}

// unless returns err, but nil if it only says that a door was closed on purpose.
func unless(closed, err error) error {
	if errors.Is(err, closed) {
		return nil
	}
	return err
}

func (d *daemon) doorEvent(door string) func(string) {
	return func(event string) { d.metrics.doors.WithLabelValues(door, event).Inc() }
}

func (d *daemon) handover(outcome string, _ time.Duration) {
	d.metrics.handovers.WithLabelValues(outcome).Inc()
}

func dialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return socket.Dial(ctx, addr) }
}

// newLogger writes to standard error, where systemd's journal reads, a line of
// text or a JSON object for each event.
func newLogger(level, format string) (*slog.Logger, *slog.LevelVar) {
	v := new(slog.LevelVar)
	setLevel(v, level)
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: v})), v
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: v})), v
}

// setLevel sets a level that the configuration has checked.
func setLevel(v *slog.LevelVar, level string) {
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		v.Set(l)
	}
}
