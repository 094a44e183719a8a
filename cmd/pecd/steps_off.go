//go:build !faultdrill

package main

import (
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/clockwatch"
)

// expiryPause is how often the daemon looks for answers that did not come.
const expiryPause = 10 * time.Second

// clockHold is how long after the start no term is over by a clock for which nobody
// vouches.
const clockHold = clockwatch.Patience

// probeWrites says whether health tries a transaction of the store, of nothing.
const probeWrites = true

// clock is the daemon's only clock.
func clock() time.Time { return time.Now() }

// elapsed is a clock that cannot be set and goes on while the machine sleeps; the
// runtime's stands still then.
func elapsed() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(began) // Linux before 2.6.39
	}
	return time.Duration(ts.Nano())
}

// began is when this process did.
var began = time.Now()

// atStep does nothing in a build for use.
func atStep(string) {}

// pluginBackOff leaves it to the host when a plugin is started again.
func pluginBackOff() time.Duration { return 0 }
