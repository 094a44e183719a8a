package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What is told to systemd: sd_notify(3).
const (
	systemdReady     = "READY=1"
	systemdReloading = "RELOADING=1"
	systemdStopping  = "STOPPING=1"
	systemdBeat      = "WATCHDOG=1"
)

// notify tells systemd how the daemon is, and does nothing where no systemd asked
// to be told.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if state == systemdReloading {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return fmt.Errorf("monotonic clock: %w", err)
		}
		state += fmt.Sprintf("\nMONOTONIC_USEC=%d", ts.Nano()/1000)
	}
	// A name with @ in front is an abstract socket, for package net too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

// watchdogEvery is how often systemd wants to hear that the daemon lives: half
// of what the unit says; 0 if it does not ask.
func watchdogEvery() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us < 1000 {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}

// beat calls tell, every so often until ctx is done, after alive returned. A nil
// error of alive is not needed: a disk that is full is no reason to start anew, a
// daemon that is stuck is, and then alive does not return.
func beat(ctx context.Context, every time.Duration, alive func(context.Context), tell func()) {
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		alive(ctx)
		tell()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell is notify for the daemon: that systemd cannot be told is logged.
func (d *daemon) tell(state string) {
	if err := notify(state); err != nil {
		d.log.Error("systemd cannot be told", "state", state, "err", err)
	}
}

// beat keeps systemd's watchdog quiet as long as the store answers.
func (d *daemon) beat(ctx context.Context) {
	alive := func(ctx context.Context) {
		if _, err := d.store.Overdue(ctx, clock(), 0, false, 1); err != nil && ctx.Err() == nil {
			d.log.Error("the store cannot be read", "err", err)
		}
	}
	beat(ctx, watchdogEvery(), alive, func() { d.tell(systemdBeat) })
}

// door opens a socket at which the MTA calls, or takes it over from systemd.
func (d *daemon) door(ctx context.Context, addr, mode, group string) (net.Listener, error) {
	if l, err := d.passed.Take(addr); l != nil || err != nil {
		return l, err
	}
	return listen(ctx, addr, mode, group)
}

// leaveRest gives back what systemd passed and the configuration does not name.
func (d *daemon) leaveRest() error {
	for _, addr := range d.passed.Rest() {
		d.log.Warn("systemd listens at a socket that the configuration does not name: who calls there waits for nothing", "socket", addr)
	}
	return d.passed.Close()
}
