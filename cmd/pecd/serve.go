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
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/courier"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/milter/socket"
	"pecd/points/act"
)

// drainTime is how long messages under way may take after SIGTERM; systemd
// kills after TimeoutStopSec, which must be longer.
const drainTime = 15 * time.Second

// serveCmd is pecd serve.
type serveCmd struct{ configFlag }

// Run is the daemon: it opens the store, then the way out, then the doors, and
// ends them in the opposite order when ctx is done.
func (c *serveCmd) Run(ctx context.Context) error {
	in, err := load(c.Config, clock())
	if err != nil {
		return err
	}
	log, level := newLogger(in.config.Log.Level)
	// Live data is small, so the collector runs often for little: letting it wait
	// saves a tenth of the processor for some MB (docs/performance.md).
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	// A limit on the length of files is a full disk: the write fails, and is dealt
	// with there. Go ends the process otherwise.
	signal.Ignore(syscall.SIGXFSZ)
	log.Info("starting", "version", version, "provider", in.provider.Name, "config", c.Config,
		"directory_providers", len(in.directory.Providers()), "certificate_until", in.identity.Certificate().NotAfter)

	store, err := logstore.Open(ctx, logstore.Options{Dir: in.config.Store.Path, Now: clock, Rand: rand.Reader, AtStep: storeStep, Log: log})
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
	d := &daemon{secret: secret, file: c.Config, log: log, level: level, store: store, metrics: newMetrics(store)}
	d.office.Store(d.open(in))
	if err := d.listen(ctx, in); err != nil {
		d.close()
		return err
	}
	return d.run(ctx, in)
}

// A daemon is what runs between start and end.
type daemon struct {
	file    string
	secret  []byte // the store's
	log     *slog.Logger
	level   *slog.LevelVar
	store   logstore.Store
	metrics *metrics
	office  atomic.Pointer[office]

	access, gate, arrivals, control, figures net.Listener
}

// open gives the installation its clerk.
func (d *daemon) open(in *installation) *office {
	return &office{installation: in, clerk: &act.Clerk{Issuer: in.issuer, Signer: newSigner(in), Store: d.store,
		Secret: d.secret, BriefHash: briefHash(in.config.Delivery.BriefHash), Now: clock, Location: in.location, Rand: rand.Reader}}
}

// listen opens all sockets before anything is served, so that a start fails
// whole.
func (d *daemon) listen(ctx context.Context, in *installation) (err error) {
	cfg := in.config
	if d.access, err = listen(ctx, cfg.Access.Milter, cfg.Access.SocketMode, cfg.Access.SocketGroup); err != nil {
		return cfg.Problem("access.milter", err, "")
	}
	if cfg.Gate.Milter != "" {
		if d.gate, err = listen(ctx, cfg.Gate.Milter, cfg.Gate.SocketMode, cfg.Gate.SocketGroup); err != nil {
			return cfg.Problem("gate.milter", err, "")
		}
	}
	if d.control, err = listen(ctx, "unix:"+controlSocket(cfg.Store.Path), "0600", ""); err != nil {
		return cfg.Problem("store.path", fmt.Errorf("control socket: %w", err), "")
	}
	if d.arrivals, err = listen(ctx, cfg.Reception.LMTP, cfg.Reception.SocketMode, cfg.Reception.SocketGroup); err != nil {
		return cfg.Problem("reception.lmtp", err, "")
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
	share := &doors{office: &d.office, store: d.store, mailbox: mailbox, metrics: d.metrics, log: d.log, now: clock, atStep: atStep}
	access := milter.NewServer(milter.Options{Backend: accessDoor{share}, Log: d.log, MaxMessage: in.config.Access.NoticeSize,
		TooLarge: tooLarge(in.config.Access.MaxSize), Malformed: malformed, Observe: d.doorEvent("milter")})
	gate := milter.NewServer(milter.Options{Backend: gateDoor{share}, Log: d.log, Observe: d.doorEvent("gate")})
	arrivals := lmtp.NewServer(lmtp.Options{Backend: arrivalDoor{share}, Log: d.log, MaxMessage: in.config.Reception.MaxSize,
		Domain: in.config.Provider.Domain, Observe: d.doorEvent("lmtp")})
	out := courier.New(d.store, courier.Options{Dial: dialer(in.config.Courier.MTA), Hostname: in.config.Provider.Domain,
		Connections: in.config.Courier.Connections, Now: clock, Log: d.log, AtStep: atStep, Observe: d.handover})

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
		g.Go(func() error { return d.metrics.serve(gctx, d.figures) })
	}
	g.Go(func() error { d.reloadOnHangup(gctx); return nil })
	g.Go(func() error {
		<-gctx.Done()
		d.log.Info("draining", "reason", context.Cause(gctx))
		defer stopCourier()
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		return errors.Join(access.Shutdown(sctx), gate.Shutdown(sctx), arrivals.Shutdown(sctx))
	})
	d.log.Info("ready")
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = nil
	}
	d.log.Info("stopped", "err", err)
	return err
}

// expire issues timeout notices as they fall due, until ctx is done.
func (d *daemon) expire(ctx context.Context) {
	tick := time.NewTicker(expiryPause)
	defer tick.Stop()
	for {
		if err := d.office.Load().clerk.Expire(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("timeout notices could not be issued", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// unless returns err, but nil if it only says that a door was closed on purpose.
func unless(closed, err error) error {
	if errors.Is(err, closed) {
		return nil
	}
	return err
}

// reloadOnHangup reads the configuration anew at each SIGHUP: keys, anchors,
// directory and the limits of the access point change at once. What cannot be
// read leaves everything as it was. Sockets and the store need a restart.
func (d *daemon) reloadOnHangup(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		in, err := load(d.file, clock())
		if err != nil {
			d.log.Error("reload failed, the old configuration stays in force", "err", err)
			continue
		}
		if old := d.office.Load().config; needsRestart(old, in.config) {
			d.log.Warn("sockets, store or courier were changed: restart to apply that")
		}
		setLevel(d.level, in.config.Log.Level)
		d.office.Store(d.open(in))
		d.log.Info("reloaded", "directory_providers", len(in.directory.Providers()))
	}
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

// newLogger writes to standard error, where systemd's journal reads.
func newLogger(level string) (*slog.Logger, *slog.LevelVar) {
	v := new(slog.LevelVar)
	setLevel(v, level)
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: v})), v
}

// setLevel sets a level that the configuration has checked.
func setLevel(v *slog.LevelVar, level string) {
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		v.Set(l)
	}
}
