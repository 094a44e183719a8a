package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec/directory"
)

// catchHangup is called first of all, and nobody gives the signal back: who asks
// for a reload before the daemon is ready, or while it drains, must not end it.
func catchHangup() <-chan os.Signal {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}

// reloadOnHangup reads the configuration anew at each SIGHUP: keys, anchors,
// directory and the limits of the access point change at once. What cannot be
// read leaves everything as it was. Sockets and the store need a restart.
func (d *daemon) reloadOnHangup(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.hangup:
		}
		d.reload(ctx)
	}
}

// reload reads the configuration anew, while systemd knows that it does.
func (d *daemon) reload(ctx context.Context) {
	d.tell(systemdReloading)
	defer d.tell(systemdReady)
	in, err := load(ctx, d.file, loading{now: clock, log: d.log, live: true})
	if err != nil {
		d.log.Error("reload failed, the old configuration stays in force", "err", err)
		return
	}
	d.warnOfRestart(in.config)
	setLevel(d.level, in.config.Log.Level)
	d.enforce(ctx, in)
	d.log.Info("reloaded", "directory_providers", len(in.directory.Providers()))
}

// warnOfRestart names what of now is not in force until a restart: it differs from what
// the daemon was started with, whatever reloads have read since.
func (d *daemon) warnOfRestart(now *config.Config) {
	if keys := needsRestart(d.started, now); len(keys) > 0 {
		d.log.Warn("the configuration has changes that only a restart applies", "keys", strings.Join(keys, ","))
	}
}

// enforce puts an installation in force: the next messages are its. What others
// publish is kept up to date for it, instead of for the one before.
func (d *daemon) enforce(ctx context.Context, in *installation) {
	d.retire()
	changed := func(dir *directory.Directory) {
		with, err := in.with(dir, clock())
		if err != nil {
			d.log.Error("the new directory cannot be used; the old one stays in force", "err", err)
			return
		}
		d.office.Store(d.open(with))
		patientCollector()
	}
	in.trust.changed.Store(&changed)
	d.office.Store(d.open(in))
	patientCollector()
	kctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	sealing := d.evidenceOf(in)
	d.evidence.Store(sealing)
	go func() {
		defer close(done)
		sealed := make(chan struct{})
		go func() { defer close(sealed); sealing.run(kctx) }()
		if err := in.trust.run(kctx, d.log); err != nil && kctx.Err() == nil {
			d.log.Error("directory and revocation lists are not kept up to date any more", "err", err)
		}
		<-sealed
	}()
	d.keeping = func() {
		// A directory that still comes to the old one must not bring it back.
		in.trust.changed.Store(nil)
		cancel()
		<-done
	}
	d.succeed(time.Now(), in.letGo())
}

// keepPast is for how long an installation is kept that is not in force any more:
// longer than any message is under way. One that still used it would be put off.
const keepPast = time.Hour

// A past is an installation that is not in force any more.
type past struct {
	since time.Time
	close func() error
}

// succeed notes how to let go of the installation now in force, and lets go of those
// that were in force long ago: each holds revocation lists and a key.
// Not the clock of certification, which may jump, says how long ago.
func (d *daemon) succeed(now time.Time, letGo func() error) {
	if d.letGo != nil {
		d.past = append(d.past, past{now, d.letGo})
	}
	d.letGo = letGo
	d.past = slices.DeleteFunc(d.past, func(p past) bool {
		over := now.Sub(p.since) >= keepPast
		if over {
			d.end(p.close)
		}
		return over
	})
}

// end lets go of an installation.
func (d *daemon) end(letGo func() error) {
	if err := letGo(); err != nil {
		d.log.Error("keys", "err", err)
	}
}

// retire ends the upkeep of the installation in force. Messages under way may
// still use it, so what it holds is let go of later.
func (d *daemon) retire() {
	if d.keeping != nil {
		d.keeping()
		d.keeping = nil
	}
}

// release lets go of all that was loaded, when no message is under way any more.
func (d *daemon) release() {
	d.retire()
	d.succeed(time.Now(), nil)
	for _, p := range d.past {
		d.end(p.close)
	}
}
