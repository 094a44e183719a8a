package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/doctor"
	"pecd/logstore/seal"
	"pecd/pec"
	"pecd/signer"
	"pecd/signer/timestamp"
)

// A sealing is what the configuration says of seals and witnesses, read and
// checked. stamps is nil where days are not sealed.
type sealing struct {
	stamps    *timestamp.Client
	verifier  *seal.Verifier
	witnesses []seal.Witness
}

// loadSealing reads what seals the days of the register, and who hears of it
// meanwhile.
func (in *installation) loadSealing(now func() time.Time) error {
	cfg := in.config
	in.sealing = &sealing{}
	if len(cfg.Seal.TSA) > 0 {
		if err := in.loadStamps(now); err != nil {
			return err
		}
	}
	client := &http.Client{Transport: in.webTransport(), Timeout: seal.DefaultPatience}
	if cfg.Witness.Timestamp {
		in.sealing.witnesses = append(in.sealing.witnesses, seal.NewStampWitness("timestamp", in.sealing.stamps))
	}
	if cfg.Witness.HTTP != "" {
		w, err := seal.NewHTTPWitness(cfg.Witness.HTTP, cfg.Provider.Name, client)
		if err != nil {
			return cfg.Problem("witness.http", err, "")
		}
		in.sealing.witnesses = append(in.sealing.witnesses, w)
	}
	if cfg.Witness.Syslog != "" {
		network, address := cfg.Witness.SyslogAt()
		w, err := seal.NewSyslogWitness(seal.Syslog{Network: network, Address: address, Hostname: cfg.Provider.Domain,
			Provider: cfg.Provider.Name, TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Now: now})
		if err != nil {
			return cfg.Problem("witness.syslog", err, "")
		}
		in.sealing.witnesses = append(in.sealing.witnesses, w)
	}
	return nil
}

// loadStamps reads whose time stamps count, and how they are had.
func (in *installation) loadStamps(now func() time.Time) error {
	cfg := in.config
	anchors, _, err := signer.LoadAnchors(cfg.Seal.TSAAnchors)
	if err != nil {
		return cfg.Problem("seal.tsa_anchors", err, "name a PEM file with the CAs of the time-stamping authorities")
	}
	o := timestamp.Options{Verifier: timestamp.NewVerifier(anchors), HTTP: &http.Client{Transport: in.webTransport()}, Now: now, Random: rand.Reader}
	for i, u := range cfg.Seal.TSA {
		a := timestamp.Authority{URL: u, Policy: cfg.Seal.TSAPolicy}
		if i == 0 && cfg.Seal.TSAUser != "" {
			password, err := signer.ReadSecret(cfg.Seal.TSAPasswordFile, "password")
			if err != nil {
				return cfg.Problem("seal.tsa_password_file", err, "")
			}
			a.User, a.Password = cfg.Seal.TSAUser, string(password)
		}
		o.Authorities = append(o.Authorities, a)
	}
	if in.sealing.stamps, err = timestamp.New(o); err != nil {
		return cfg.Problem("seal.tsa", err, "")
	}
	in.sealing.verifier = seal.NewVerifier(in.trust.verifier, o.Verifier).WithSigner(isFrom(pec.Address(cfg.Provider.Address())))
	return nil
}

// isFrom asks that a seal was made by the provider with this address.
func isFrom(provider pec.Address) func(*x509.Certificate, seal.Manifest) error {
	return func(c *x509.Certificate, _ seal.Manifest) error {
		for _, a := range c.EmailAddresses {
			if provider.Same(pec.Address(a)) {
				return nil
			}
		}
		return fmt.Errorf("it is signed with the certificate of %v, not that of %s", c.EmailAddresses, provider)
	}
}

// webTransport reaches web servers as trust.proxy says, whatever the environment
// does.
func (in *installation) webTransport() http.RoundTripper {
	t := &http.Transport{ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		MaxIdleConns: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10}
	// loadTrust has refused what is not an address.
	if u, err := url.Parse(in.config.Trust.Proxy); err == nil && in.config.Trust.Proxy != "" {
		t.Proxy = http.ProxyURL(u)
	}
	return t
}

// errNotSealed says why no day is sealed.
var errNotSealed = errors.New("days are not sealed: the configuration names no time-stamping authority (seal.tsa)")

// sealer returns what seals the days of register; errNotSealed if nothing does.
func (in *installation) sealer(register seal.Register, now func() time.Time, log *slog.Logger) (*seal.Sealer, error) {
	if in.sealing.stamps == nil {
		return nil, errNotSealed
	}
	c := in.config.Seal
	return seal.New(seal.Options{Dir: c.Path, Provider: in.config.Provider.Name, Zone: in.location, Register: register, Signer: in.signer,
		Stamper: in.sealing.stamps, Verifier: in.sealing.verifier, After: c.AfterTime(), Late: c.LateTime(), Now: now, Log: log})
}

// watch returns what lets witnesses hear; nil if there are none.
func (in *installation) watch(register seal.Register, now func() time.Time, log *slog.Logger) (*seal.Watch, error) {
	if len(in.sealing.witnesses) == 0 {
		return nil, nil
	}
	return seal.NewWatch(seal.WatchOptions{Dir: in.config.Seal.Path, Zone: in.location, Register: register, Witnesses: in.sealing.witnesses,
		Interval: in.config.Witness.Every(), Now: now, Log: log})
}

// An evidence is what runs in the daemon for the installation in force.
type evidence struct {
	sealer *seal.Sealer // nil: days are not sealed
	watch  *seal.Watch  // nil: nobody hears
}

// evidenceOf sets up seals and witnesses. What cannot work is told, and the rest
// goes on: no message waits for a seal.
func (d *daemon) evidenceOf(in *installation) *evidence {
	e := &evidence{}
	var err error
	if e.sealer, err = in.sealer(d.store, clock, d.log); errors.Is(err, errNotSealed) {
		d.log.Warn("the register is chained, but " + err.Error())
	} else if err != nil {
		d.log.Error("days are not sealed", "err", err)
	}
	if e.watch, err = in.watch(d.store, clock, d.log); err != nil {
		d.log.Error("witnesses do not hear of the register", "err", err)
	}
	return e
}

// run seals and lets hear until ctx is done.
func (e *evidence) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if e.watch != nil {
			e.watch.Run(ctx)
		}
	}()
	if e.sealer != nil {
		e.sealer.Run(ctx)
	}
	<-done
}

// proof is how it stands with seals and witnesses, for the doctor.
func (d *daemon) proof() doctor.Evidence {
	e, proof := d.evidence.Load(), doctor.Evidence{}
	if e == nil {
		return proof // it is only starting
	}
	if e.sealer != nil {
		if st := e.sealer.Status(); st.Err != nil {
			proof.SealAttempts, proof.SealError = st.Attempts, st.Err.Error()
		}
	}
	if e.watch == nil {
		return proof
	}
	for _, w := range e.watch.Status() {
		told := doctor.Witness{Name: w.Name, Attested: w.Attested}
		if w.Err != nil {
			told.Error = w.Err.Error()
		}
		proof.Witnesses = append(proof.Witnesses, told)
	}
	return proof
}

// evidenceCollector asks at each scrape how it stands with seals and witnesses.
type evidenceCollector struct{ evidence func() *evidence }

var (
	descSealed  = prometheus.NewDesc("pecd_seal_timestamp_seconds", "When the last sealed day was time-stamped; 0 if none is sealed.", nil, nil)
	descSealLag = prometheus.NewDesc("pecd_seal_late", "1 if a day should have been sealed by now and is not.", nil, nil)
	descSealTry = prometheus.NewDesc("pecd_seal_failed_attempts", "Attempts to seal that failed since one did not.", nil, nil)
	descWitness = prometheus.NewDesc("pecd_witness_timestamp_seconds", "When a witness heard last how far the register is; 0 if not since the start.", []string{"witness"}, nil)
	descSilent  = prometheus.NewDesc("pecd_witness_failing", "1 if the last attempt to let a witness hear failed.", []string{"witness"}, nil)
	descHeard   = prometheus.NewDesc("pecd_witness_entry", "The entry of the register that a witness heard of last.", []string{"witness"}, nil)
)

func (evidenceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSealed, descSealLag, descSealTry, descWitness, descSilent, descHeard} {
		ch <- d
	}
}

func (c evidenceCollector) Collect(ch chan<- prometheus.Metric) {
	e := c.evidence()
	if e == nil {
		return // it is only starting
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if e.sealer != nil {
		st := e.sealer.Status()
		gauge(descSealed, seconds(st.Stamped))
		gauge(descSealLag, oneIf(st.Late))
		gauge(descSealTry, float64(st.Attempts))
	}
	if e.watch != nil {
		for _, w := range e.watch.Status() {
			gauge(descWitness, seconds(w.Attested), w.Name)
			gauge(descSilent, oneIf(w.Err != nil), w.Name)
			gauge(descHeard, float64(w.Head.Seq), w.Name)
		}
	}
}

// sealedBy returns a verifier of what an installation has sealed, from its
// configuration alone; nil if it seals nothing.
func sealedBy(cfg *config.Config) (*seal.Verifier, error) {
	if len(cfg.Seal.TSA) == 0 {
		return nil, nil
	}
	provider, _, err := signer.LoadAnchors(cfg.Trust.Anchors)
	if err != nil {
		return nil, cfg.Problem("trust.anchors", err, "name a PEM file with the CAs of providers' certificates")
	}
	stamps, _, err := signer.LoadAnchors(cfg.Seal.TSAAnchors)
	if err != nil {
		return nil, cfg.Problem("seal.tsa_anchors", err, "name a PEM file with the CAs of the time-stamping authorities")
	}
	return seal.NewVerifier(signer.NewVerifier(provider), timestamp.NewVerifier(stamps)).WithSigner(isFrom(pec.Address(cfg.Provider.Address()))), nil
}
