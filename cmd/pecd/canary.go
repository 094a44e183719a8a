package main

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pecd/cmd/pecd/doctor"
)

// A flight is what became of the last canary.
type flight struct {
	sent   time.Time // zero: none yet
	came   time.Time // when the last that came had been delivered; zero: none
	took   time.Duration
	failed int // since one came
}

// canaries has a user send a certified message to himself on a schedule. It knows
// the whole way, which no check of a part does.
type canaries struct {
	mu   sync.Mutex // guards last
	last flight
}

// fly sends canaries until ctx is done, the first after one interval, as the configuration in force says.
func (d *daemon) fly(ctx context.Context) {
	for {
		wait := d.office.Load().config.Canary.Every()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if c := d.office.Load().config.Canary; c.Credentials != "" {
			d.flyOnce(ctx, c.Credentials, c.Submission)
		}
	}
}

// flyOnce sends one and waits for its delivery receipt.
func (d *daemon) flyOnce(ctx context.Context, credentials, submission string) {
	cfg, start := d.office.Load().config, time.Now()
	address, password, err := doctor.ReadCredentials(credentials)
	if err != nil {
		d.log.Error("canary", "err", err)
		d.canaries.note(false, 0)
		return
	}
	cctx, cancel := context.WithTimeout(ctx, canaryTime)
	defer cancel()
	canary := doctor.Canary{Submission: submission, Address: address, Password: password, Store: cfg.Store.Path,
		MessageID: "<canary-" + rand.Text() + "@" + cfg.Provider.Domain + ">", Now: clock(), Pause: time.Second / 2}
	found := canary.Fly(cctx, doctor.Site{Config: cfg, ConfigFile: d.file})
	if ctx.Err() != nil {
		return // what is drained says nothing about the way
	}
	took := time.Since(start)
	d.canaries.note(len(found) == 0, took)
	if len(found) == 0 {
		d.log.Info("canary delivered", "msgid", canary.MessageID, "took", took)
		return
	}
	var what []string
	for _, f := range found {
		what = append(what, f.What)
	}
	d.log.Error("canary", "msgid", canary.MessageID, "err", strings.Join(what, "; "))
}

func (c *canaries) note(came bool, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last.sent = clock()
	if !came {
		c.last.failed++
		return
	}
	c.last.came, c.last.took, c.last.failed = c.last.sent, took, 0
}

func (c *canaries) status() flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

var (
	descCanary       = prometheus.NewDesc("pecd_canary_timestamp_seconds", "When a canary was last delivered; 0 if none was since the start.", nil, nil)
	descCanaryTook   = prometheus.NewDesc("pecd_canary_seconds", "How long the last canary took from its submission to its delivery receipt.", nil, nil)
	descCanaryFailed = prometheus.NewDesc("pecd_canary_failed", "Canaries that were not delivered since one was.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *canaries) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCanary, descCanaryTook, descCanaryFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Where none is sent there is nothing.
func (c *canaries) Collect(ch chan<- prometheus.Metric) {
	f := c.status()
	if f.sent.IsZero() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(descCanary, seconds(f.came))
	gauge(descCanaryTook, f.took.Seconds())
	gauge(descCanaryFailed, float64(f.failed))
}
