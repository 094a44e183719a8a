package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pecd/cmd/pecd/clockwatch"
	"pecd/cmd/pecd/config"
)

// errClock says that the clock cannot be certified.
var errClock = errors.New("the clock is off by more than a second, or has jumped: time.on_offset is refuse")

// errUnsure says that nothing may be removed by this clock.
var errUnsure = errors.New("nobody vouches for the clock yet, or it is off or has jumped: what is removed does not come back; try again when chronyc tracking or timedatectl timesync-status says that it is right, or in an hour")

// A clockGuard is what the daemon makes of its clock: no notice falls due, no
// delivery is given up, and nothing is removed because its term is over, while it is
// in doubt or nobody has vouched for it yet; and where the configuration says so,
// nothing is certified while it is in doubt.
type clockGuard struct {
	watch  *clockwatch.Watch
	refuse bool
}

// newClockGuard watches the real clock, also where drills move the daemon's.
func newClockGuard(c config.Time, log *slog.Logger) clockGuard {
	return clockGuard{refuse: c.OnOffset == "refuse", watch: clockwatch.New(clockwatch.Options{
		Servers: c.NTP, Interval: c.Every(), Hold: clockHold, Now: time.Now, Log: log})}
}

// doubted reports whether what the clock shows must not be acted upon.
func (g clockGuard) doubted() bool { return g.watch != nil && g.watch.Status().Doubt }

// unsure reports whether nothing may follow from the clock that cannot be taken back.
func (g clockGuard) unsure() bool { return g.watch != nil && g.watch.Status().Unsure }

// stops returns errClock while nothing may be certified.
func (g clockGuard) stops() error {
	if g.refuse && g.doubted() {
		return errClock
	}
	return nil
}

func (g clockGuard) run(ctx context.Context) { g.watch.Run(ctx) }

var (
	descClockOffset = prometheus.NewDesc("pecd_clock_offset_seconds", "How far the clock is off from UTC, or may be, as NTP servers or the kernel say.", nil, nil)
	descClockKnown  = prometheus.NewDesc("pecd_clock_known", "1 if a server or the kernel vouches for the clock.", nil, nil)
	descClockDoubt  = prometheus.NewDesc("pecd_clock_doubted", "1 if the clock is off by more than a second, or has jumped.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g clockGuard) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descClockOffset, descClockKnown, descClockDoubt} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g clockGuard) Collect(ch chan<- prometheus.Metric) {
	st := g.watch.Status()
	for _, v := range []struct {
		desc  *prometheus.Desc
		value float64
	}{{descClockOffset, st.Offset.Seconds()}, {descClockKnown, oneIf(st.Known)}, {descClockDoubt, oneIf(st.Doubt)}} {
		ch <- prometheus.MustNewConstMetric(v.desc, prometheus.GaugeValue, v.value)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
