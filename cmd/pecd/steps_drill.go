//go:build faultdrill

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// expiryPause is short: drills move the clock and wait for what follows.
const expiryPause = 100 * time.Millisecond

// clockHold is none: drills move the clock on machines whose own nobody keeps.
const clockHold = 0

// probeWrites: a probe must not be the step at which a drill ends the process.
const probeWrites = false

// clock is the real time plus the duration in the file that PECD_CLOCK names. A
// file that is not there, or holds no duration, moves nothing.
func clock() time.Time {
	b, err := os.ReadFile(os.Getenv("PECD_CLOCK"))
	if err != nil {
		return time.Now()
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(d)
}

// elapsed is none: who moves the clock in a drill means that time passes.
var elapsed func() time.Duration

// killStep and killCount come from PECD_KILL_AT=step[:n]: the process ends
// itself by SIGKILL when it comes to that step for the n-th time.
var (
	killStep, killCount = readKill(os.Getenv("PECD_KILL_AT"))
	killSeen            atomic.Int64
)

// pluginBackOff is what PECD_PLUGIN_BACKOFF says; drills do not wait for plugins
// that die on purpose.
func pluginBackOff() time.Duration {
	d, err := time.ParseDuration(os.Getenv("PECD_PLUGIN_BACKOFF"))
	if err != nil {
		return 0
	}
	return d
}

func readKill(v string) (string, int64) {
	step, count, ok := strings.Cut(v, ":")
	if n, err := strconv.ParseInt(count, 10, 64); ok && err == nil {
		return step, n
	}
	return step, 1
}

func atStep(step string) {
	if step != killStep || killSeen.Add(1) != killCount {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
