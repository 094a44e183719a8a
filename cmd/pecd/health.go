package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pecd/logstore"
)

const (
	healthPatience = 5 * time.Second  // for one check
	healthFresh    = 10 * time.Second // for which an answer counts
	healthRetry    = 2 * time.Second  // for which one counts that something fails
	aroundFresh    = time.Minute      // for which one of a server counts: each has it write lines into its log
	// availabilityEvery is how often it is noted that messages can be accepted.
	availabilityEvery = 5 * time.Second
	// availabilityGap is how long may be between two notes for all between to count:
	// the checks may take their time, a daemon that stood still is an outage.
	availabilityGap = 30 * time.Second
)

// A healthCheck finds out whether one thing works that messages need.
type healthCheck struct {
	name string
	ask  func(context.Context) error
}

// A healthAnswer is what a check found.
type healthAnswer struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// A checkup is checks whose answers are kept for a while, so that whoever asks often
// costs little.
type checkup struct {
	checks []healthCheck
	fresh  time.Duration // for which answers count

	mu   sync.Mutex // guards what follows; held while the checks are asked
	at   time.Time
	last []healthAnswer
}

// health knows whether the daemon can do its work.
type health struct {
	accepting *checkup // without which no message can be accepted
	around    *checkup // servers whose absence makes messages wait behind us
}

// newHealth returns the daemon's.
func (d *daemon) newHealth() *health {
	greeted := func(addr func(*office) string, code string) func(context.Context) error {
		return func(ctx context.Context) error {
			o := d.office.Load()
			if o == nil {
				return errStarting
			}
			return greeting(ctx, addr(o), code)
		}
	}
	accepting := []healthCheck{
		{"store", func(ctx context.Context) error {
			if !probeWrites {
				_, err := d.store.Stats(ctx)
				return err
			}
			_, err := d.store.Commit(ctx, logstore.Tx{At: clock()})
			return err
		}},
		{"installation", func(context.Context) error { return d.inForce() }},
		{"clock", func(context.Context) error { return d.time.stops() }},
	}
	around := []healthCheck{
		{"mailboxes", greeted(func(o *office) string { return o.config.Delivery.Store }, "220")},
		{"mta", greeted(func(o *office) string { return o.config.Courier.MTA }, "220")},
	}
	return &health{&checkup{checks: accepting, fresh: healthFresh}, &checkup{checks: around, fresh: aroundFresh}}
}

var errStarting = errors.New("it is only starting")

// inForce reports why nothing could be signed now.
func (d *daemon) inForce() error {
	o := d.office.Load()
	if o == nil {
		return errStarting
	}
	if end := o.signer.IdentityAt(clock()).Certificate().NotAfter; clock().After(end) {
		return fmt.Errorf("the certificate has ended on %s", end.Format(time.DateOnly))
	}
	return nil
}

// greeting connects to a server and waits for its first line.
func greeting(ctx context.Context, addr, code string) error {
	c, err := dialer(addr)(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return err
		}
	}
	line, err := bufio.NewReaderSize(c, 1024).ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), code) {
		return fmt.Errorf("it answers %.100q", line)
	}
	_, err = c.Write([]byte("QUIT\r\n"))
	return err
}

// ask returns what the checks say, not older than fresh; a failure counts for less.
func (c *checkup) ask(ctx context.Context) []healthAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := c.fresh
	if failed(c.last) != "" {
		fresh = healthRetry
	}
	if c.last != nil && time.Since(c.at) < fresh {
		return c.last
	}
	answers := make([]healthAnswer, len(c.checks))
	var all sync.WaitGroup
	for i, check := range c.checks {
		all.Add(1)
		go func() {
			defer all.Done()
			answers[i] = check.answer(ctx)
		}()
	}
	all.Wait()
	if ctx.Err() == nil {
		c.at, c.last = time.Now(), answers
	}
	return answers
}

func (c healthCheck) answer(ctx context.Context) healthAnswer {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	if err := c.ask(ctx); err != nil {
		return healthAnswer{Name: c.name, Error: err.Error()}
	}
	return healthAnswer{Name: c.name, OK: true}
}

// ask returns what all checks say.
func (h *health) ask(ctx context.Context) []healthAnswer {
	return append(slices.Clone(h.accepting.ask(ctx)), h.around.ask(ctx)...)
}

// ready answers /readyz: 200 if all works, 503 with what does not.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	answers, code := h.ask(context.WithoutCancel(r.Context())), http.StatusOK
	for _, a := range answers {
		if !a.OK {
			code = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": code == http.StatusOK, "checks": answers}) // who asked is gone
}

// alive answers /healthz: 200 if messages can be accepted. Servers around pecd that
// are away are no reason to start it anew.
func (h *health) alive(w http.ResponseWriter, r *http.Request) {
	if failed(h.accepting.ask(context.WithoutCancel(r.Context()))) != "" {
		http.Error(w, "messages cannot be accepted; see /readyz", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n")) // who asked is gone
}

// healthCollector tells Prometheus what /readyz tells.
type healthCollector struct{ *health }

var descReady = prometheus.NewDesc("pecd_ready", "1 if what messages need works: store, installation, clock, mailboxes, mta.", []string{"check"}, nil)

func (healthCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descReady }

func (c healthCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*healthPatience)
	defer cancel()
	for _, a := range c.ask(ctx) {
		v := 0.0
		if a.OK {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, v, a.Name)
	}
}

// recordAvailability notes the times in which messages could be accepted, until
// ctx is done.
func (d *daemon) recordAvailability(ctx context.Context) {
	tick := time.NewTicker(availabilityEvery)
	defer tick.Stop()
	for {
		if why := failed(d.health.accepting.ask(ctx)); why == "" {
			if err := d.served.Up(clock(), availabilityGap); err != nil {
				d.log.Error("availability cannot be noted", "err", err)
			}
		} else if ctx.Err() == nil {
			d.served.Down()
			d.log.Error("messages cannot be accepted", "checks", why)
		}
		if err := d.watch.Flush(); err != nil {
			d.log.Error("how long acceptances take cannot be noted", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// failed names the checks that failed, with why.
func failed(answers []healthAnswer) string {
	var list []string
	for _, a := range answers {
		if !a.OK {
			list = append(list, a.Name+": "+a.Error)
		}
	}
	return strings.Join(list, "; ")
}
