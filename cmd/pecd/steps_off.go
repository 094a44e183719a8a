//go:build !faultdrill

package main

import (
	"time"

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

// atStep does nothing in a build for use.
func atStep(string) {}

// pluginBackOff leaves it to the host when a plugin is started again.
func pluginBackOff() time.Duration { return 0 }
