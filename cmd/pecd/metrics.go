package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"pecd/courier"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
)

// metrics are the figures that the daemon shows to Prometheus.
type metrics struct {
	registry    *prometheus.Registry
	store       storeCollector
	submissions *prometheus.CounterVec   // by verdict
	arrivals    *prometheus.CounterVec   // by class
	handovers   *prometheus.CounterVec   // courier to MTA, by outcome
	plugins     *prometheus.HistogramVec // seconds of calls, by plugin and outcome
	infected    *prometheus.CounterVec   // messages with a virus, by what they are
	doors       *prometheus.CounterVec   // what happened on the sockets, by door and event
	duration    *prometheus.HistogramVec // seconds from the last octet to the answer, by door
}

func newMetrics(store logstore.Store) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_submissions_total",
			Help: "Messages that users submitted, by verdict of the access point."}, []string{"verdict"}),
		arrivals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_arrivals_total",
			Help: "Messages that the MTA delivered, by class."}, []string{"class"}),
		handovers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_handovers_total",
			Help: "Hand-overs of signed messages to the MTA, by outcome."}, []string{"outcome"}),
		plugins: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pecd_plugin_seconds",
			Help:    "Seconds that calls of plugins took, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"plugin", "outcome"}),
		infected: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_infected_total",
			Help: "Messages with a virus: submission, envelope, ordinary, gate."}, []string{"what"}),
		doors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_door_events_total",
			Help: "Connections and errors at the sockets."}, []string{"door", "event"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pecd_answer_seconds",
			Help:    "Seconds from the last octet of a message to the answer.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"door"}),
	}
	m.begin()
	m.store = storeCollector{store}
	m.registry.MustRegister(m.collectors()...)
	return m
}

// The doors as pecd_door_events_total names them, the direct way among them, which has no
// socket; and what the gate counts beside the events of its sockets.
const (
	doorMilter = "milter"
	doorGate   = "gate"
	doorLMTP   = "lmtp"
	doorDirect = "direct"

	eventWithoutTLS = "provider-without-tls"
)

// What an infected message was, as pecd_infected_total names it.
const (
	infectedSubmission = "submission"
	infectedEnvelope   = "envelope"
	infectedOrdinary   = "ordinary"
	infectedGate       = "gate"
)

// begin makes each series at 0: increase() and rate() do not see the first event of a
// series that begins with it, and no alert would fire.
func (m *metrics) begin() {
	for door, events := range map[string][]string{doorMilter: milter.Events(), doorGate: append(milter.Events(), eventWithoutTLS),
		doorLMTP: lmtp.Events(), doorDirect: {lmtp.EventPanic}} {
		for _, event := range events {
			m.doors.WithLabelValues(door, event)
		}
	}
	for _, what := range []string{infectedSubmission, infectedEnvelope, infectedOrdinary, infectedGate} {
		m.infected.WithLabelValues(what)
	}
	for _, outcome := range courier.Outcomes() {
		m.handovers.WithLabelValues(outcome)
	}
}

// collectors are those that need no daemon.
func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.submissions, m.arrivals, m.handovers, m.plugins, m.infected, m.doors, m.duration, m.store,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
}

// collectors are those that ask the daemon at each scrape.
func (d *daemon) collectors() []prometheus.Collector {
	return []prometheus.Collector{trustCollector{d.office.Load}, evidenceCollector{d.evidence.Load}, d.time, healthCollector{d.health}, &d.canaries}
}

// observePlugin counts a call of a plugin.
func (m *metrics) observePlugin(plugin, outcome string, took time.Duration) {
	m.plugins.WithLabelValues(plugin, outcome).Observe(took.Seconds())
}

// trustCollector asks at each scrape how it stands with what others publish.
type trustCollector struct{ office func() *office }

var (
	descDirectory = prometheus.NewDesc("pecd_directory_checked_timestamp_seconds", "When the directory in force was last known to be the current one; of directory.file, when it was written.", nil, nil)
	descDomains   = prometheus.NewDesc("pecd_directory_domains", "Certified domains in the directory in force.", nil, nil)
	descCertUntil = prometheus.NewDesc("pecd_certificate_until_timestamp_seconds", "When the certificate that signs now ends.", nil, nil)
	descCRLNext   = prometheus.NewDesc("pecd_crl_next_update_timestamp_seconds", "When a revocation list runs out; 0 if none could be had.", []string{"source"}, nil)
	descCRL       = prometheus.NewDesc("pecd_crl_entries", "Revoked certificates in all revocation lists.", nil, nil)
)

func (trustCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDirectory, descDomains, descCertUntil, descCRLNext, descCRL} {
		ch <- d
	}
}

func (c trustCollector) Collect(ch chan<- prometheus.Metric) {
	o := c.office()
	if o == nil {
		return // it is only starting
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := o.trust.index.Status()
	gauge(descDirectory, seconds(st.Checked))
	gauge(descDomains, float64(st.Domains))
	gauge(descCertUntil, seconds(o.signer.IdentityAt(clock()).Certificate().NotAfter))
	entries := 0
	for _, l := range o.trust.revocation.Status() {
		gauge(descCRLNext, seconds(l.NextUpdate), l.Source)
		entries += l.Entries
	}
	gauge(descCRL, float64(entries))
}

// seconds is t as Prometheus wants it; 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

// storeCollector asks the store at each scrape.
type storeCollector struct{ store logstore.Store }

var (
	descEntries = prometheus.NewDesc("pecd_register_entries", "Entries in the register.", nil, nil)
	descOutbox  = prometheus.NewDesc("pecd_outbox_messages", "Signed messages that the MTA has not taken yet.", nil, nil)
	descOldest  = prometheus.NewDesc("pecd_outbox_oldest_timestamp_seconds", "When the oldest message of the outbox was committed; 0 if it is empty.", nil, nil)
	descKept    = prometheus.NewDesc("pecd_infected_kept", "Infected messages in the virus store.", nil, nil)
	descOpen    = prometheus.NewDesc("pecd_ledger_open", "Certified recipients about whom no outcome is known yet.", nil, nil)
)

func (storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descEntries, descOutbox, descOldest, descOpen, descKept} {
		ch <- d
	}
}

func (s storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st, err := s.store.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descEntries, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(descEntries, float64(st.Entries))
	gauge(descOutbox, float64(st.Outbox))
	gauge(descOldest, seconds(st.Oldest))
	gauge(descOpen, float64(st.Open))
	gauge(descKept, float64(st.Infected))
}

// maxAskers is how many connections are served at once at the listener of the
// figures, and at the control socket; further ones wait until one has ended.
const maxAskers = 32

// serve answers /metrics, /healthz and /readyz on l until ctx is done.
func (m *metrics) serve(ctx context.Context, l net.Listener, h *health) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("/healthz", h.alive)
	mux.HandleFunc("/readyz", h.ready)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(netutil.LimitListener(l, maxAskers)); ctx.Err() == nil {
		return err
	}
	return nil
}
