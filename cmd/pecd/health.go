package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	// availabilityEvery is how often it is noted that messages can be accepted.
	availabilityEvery = 5 * time.Second
	// availabilityGap is how long may be between two notes for all between to count:
	// the checks may take their time, a daemon that stood still is an outage.
	availabilityGap = 30 * time.Second
)

// A healthCheck finds out whether one thing works that messages need.
type healthCheck struct {
	name string
	// accept says that no message can be accepted without it; the others only make
	// messages wait behind us.
	accept bool
	ask    func(context.Context) error
}

// A healthAnswer is what a check found.
type healthAnswer struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`

	accept bool
}

// health knows whether the daemon can do its work. Answers are kept for a while, so
// that whoever asks often costs little.
type health struct {
	checks []healthCheck
	now    func() time.Time // monotonic

	mu   sync.Mutex // guards what follows; held while the checks are asked
	at   time.Time
	last []healthAnswer
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
	return &health{now: time.Now, checks: []healthCheck{
		{"store", true, func(ctx context.Context) error {
			_, err := d.store.Commit(ctx, logstore.Tx{At: clock()})
			return err
		}},
		{"installation", true, func(context.Context) error { return d.inForce() }},
		{"clock", true, func(context.Context) error { return d.time.stops() }},
		{"mailboxes", false, greeted(func(o *office) string { return o.config.Delivery.Store }, "220")},
		{"mta", false, greeted(func(o *office) string { return o.config.Courier.MTA }, "220")},
	}}
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

// ask returns what all checks say, not older than healthFresh.
func (h *health) ask(ctx context.Context) []healthAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := healthFresh
	if failed(h.last) != "" {
		fresh = healthRetry
	}
	if h.last != nil && h.now().Sub(h.at) < fresh {
		return h.last
	}
	answers := make([]healthAnswer, len(h.checks))
	var all sync.WaitGroup
	for i, c := range h.checks {
		all.Add(1)
		go func() {
			defer all.Done()
			cctx, cancel := context.WithTimeout(ctx, healthPatience)
			defer cancel()
			answers[i] = healthAnswer{Name: c.name, OK: true, accept: c.accept}
			if err := c.ask(cctx); err != nil {
				answers[i].OK, answers[i].Error = false, err.Error()
			}
		}()
	}
	all.Wait()
	if ctx.Err() == nil {
		h.at, h.last = h.now(), answers
	}
	return answers
}

// accepts reports whether messages can be accepted.
func (h *health) accepts(ctx context.Context) bool {
	for _, a := range h.ask(ctx) {
		if a.accept && !a.OK {
			return false
		}
	}
	return true
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
	if !h.accepts(context.WithoutCancel(r.Context())) {
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
		if d.health.accepts(ctx) {
			if err := d.served.Up(clock(), availabilityGap); err != nil {
				d.log.Error("availability cannot be noted", "err", err)
			}
		} else if ctx.Err() == nil {
			d.served.Down()
			d.log.Error("messages cannot be accepted", "checks", failed(d.health.ask(ctx)))
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
