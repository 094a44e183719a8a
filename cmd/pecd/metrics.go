package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pecd/logstore"
)

// metrics are the figures that the daemon shows to Prometheus.
type metrics struct {
	registry    *prometheus.Registry
	submissions *prometheus.CounterVec   // by verdict
	arrivals    *prometheus.CounterVec   // by class
	handovers   *prometheus.CounterVec   // courier to MTA, by outcome
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
		doors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pecd_door_events_total",
			Help: "Connections and errors at the sockets."}, []string{"door", "event"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pecd_answer_seconds",
			Help:    "Seconds from the last octet of a message to the answer.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"door"}),
	}
	m.registry.MustRegister(m.submissions, m.arrivals, m.handovers, m.doors, m.duration, storeCollector{store},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// storeCollector asks the store at each scrape.
type storeCollector struct{ store logstore.Store }

var (
	descEntries = prometheus.NewDesc("pecd_register_entries", "Entries in the register.", nil, nil)
	descOutbox  = prometheus.NewDesc("pecd_outbox_messages", "Signed messages that the MTA has not taken yet.", nil, nil)
	descOldest  = prometheus.NewDesc("pecd_outbox_oldest_timestamp_seconds", "When the oldest message of the outbox was committed; 0 if it is empty.", nil, nil)
	descOpen    = prometheus.NewDesc("pecd_ledger_open", "Certified recipients about whom no outcome is known yet.", nil, nil)
)

func (storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descEntries, descOutbox, descOldest, descOpen} {
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
	var oldest float64
	if !st.Oldest.IsZero() {
		oldest = float64(st.Oldest.Unix())
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(descEntries, float64(st.Entries))
	gauge(descOutbox, float64(st.Outbox))
	gauge(descOldest, oldest)
	gauge(descOpen, float64(st.Open))
}

// serve answers /metrics on l until ctx is done.
func (m *metrics) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
