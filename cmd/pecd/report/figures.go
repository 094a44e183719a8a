package report

import (
	"hash/maphash"
	"time"

	"pecd/cmd/pecd/availability"
	"pecd/logstore"
	"pecd/pec"
)

// Messages are counts from the register. docs/operating.md says what each counts.
type Messages struct {
	Accepted     int64 `json:"accepted"`
	NotAccepted  int64 `json:"not_accepted"`
	Refused      int64 `json:"refused"`
	Received     int64 `json:"received"`
	Delivered    int64 `json:"delivered"`
	NotDelivered int64 `json:"not_delivered"`
	VirusOut     int64 `json:"virus_out"`
	VirusIn      int64 `json:"virus_in"`
	Timeouts     int64 `json:"timeouts"`
	Anomalies    int64 `json:"anomalies"`
	Mailboxes    int64 `json:"mailboxes"`
	Domains      int64 `json:"domains"`
}

// A Counter counts entries of the register, one after the other. Of a mailbox it
// keeps eight octets.
type Counter struct {
	Messages
	seed      maphash.Seed
	mailboxes map[uint64]struct{}
	domains   map[string]struct{}
}

// NewCounter returns one that has counted nothing.
func NewCounter() *Counter {
	return &Counter{seed: maphash.MakeSeed(), mailboxes: map[uint64]struct{}{}, domains: map[string]struct{}{}}
}

// Add counts an entry.
func (c *Counter) Add(e logstore.Entry) {
	infected := e.Error == pec.ErrorVirus
	switch e.Type {
	case logstore.EntryType(pec.KindAcceptance):
		c.Accepted++
		c.ours(e.Sender)
	case logstore.EntryType(pec.KindNonAcceptance):
		c.NotAccepted++
		if infected {
			c.VirusOut++
		}
	case logstore.EntryRefused:
		c.Refused++
	case logstore.EntryType(pec.KindTakeCharge):
		c.Received++
	case logstore.EntryType(pec.KindDelivery):
		c.Delivered++
		c.ours(e.Recipient)
	case logstore.EntryType(pec.KindNonDelivery):
		c.NotDelivered++
	case logstore.EntryType(pec.KindVirus), logstore.EntryVirus:
		c.VirusIn++
	case logstore.EntryType(pec.KindTimeout):
		c.Timeouts++
	case logstore.EntryType(pec.KindAnomaly):
		c.Anomalies++
	}
}

// ours notes a mailbox that is ours.
func (c *Counter) ours(a pec.Address) {
	if a == "" {
		return
	}
	c.mailboxes[maphash.String(c.seed, a.Key())] = struct{}{}
	c.Mailboxes = int64(len(c.mailboxes))
	c.domains[a.Domain()] = struct{}{}
	c.Domains = int64(len(c.domains))
}

// wanted is the part of four months in which messages must be accepted (decree of 2
// November 2005, art. 12).
const wanted = 0.998

// Availability says how much of the period messages could be accepted. Minutes are
// rounded down to a tenth.
type Availability struct {
	// Since and Until bound what was measured: not before the first note, not after now.
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Up      float64   `json:"up_minutes"`
	Down    float64   `json:"down_minutes"`
	Percent float64   `json:"percent"`
	Longest float64   `json:"longest_outage_minutes"`
	// Allowed is how long the outages of the whole period may be together, and
	// AllowedOnce each of them.
	Allowed     float64 `json:"allowed_minutes"`
	AllowedOnce float64 `json:"allowed_longest_minutes"`
	// Kept says whether the rule is kept so far; nil for a period that it does not judge.
	Kept *bool `json:"kept,omitempty"`
}

// AvailabilityOf measures p in the store's directory dir as of now; nil if nothing is
// known of it.
func AvailabilityOf(dir string, p Period, now time.Time) (*Availability, error) {
	first, ok, err := availability.First(dir)
	if err != nil || !ok {
		return nil, err
	}
	since, until := p.Since, p.Until
	if first.After(since) {
		since = first
	}
	if now.Before(until) {
		until = now
	}
	if !since.Before(until) {
		return nil, nil
	}
	spans, err := availability.Read(dir, since, until)
	if err != nil {
		return nil, err
	}
	// A daemon that runs has made its last note a moment ago.
	if n := len(spans); n > 0 && until.Equal(now) && now.Sub(spans[n-1].Until) < noteGap {
		until = spans[n-1].Until
	}
	return judge(p, since.In(p.Since.Location()), until.In(p.Since.Location()), spans), nil
}

// noteGap is longer than between two notes of a daemon that runs.
const noteGap = 30 * time.Second

func judge(p Period, since, until time.Time, spans []availability.Span) *Availability {
	up, longest := availability.Sum(spans, since, until)
	total := until.Sub(since)
	allowed := time.Duration(float64(p.Until.Sub(p.Since)) * (1 - wanted))
	a := &Availability{Since: since, Until: until, Up: minutes(up), Down: minutes(total - up), Percent: 100 * float64(up) / float64(total),
		Longest: minutes(longest), Allowed: minutes(allowed), AllowedOnce: minutes(allowed / 2)}
	if p.FourMonths() {
		kept := total-up <= allowed && longest <= allowed/2
		a.Kept = &kept
	}
	return a
}

func minutes(d time.Duration) float64 { return float64(d/(6*time.Second)) / 10 }

// Acceptance says within how many seconds parts of all messages were accepted; nil:
// longer than is measured.
type Acceptance struct {
	Measured uint64   `json:"measured"`
	Half     *float64 `json:"p50_seconds"`
	P95      *float64 `json:"p95_seconds"`
	P99      *float64 `json:"p99_seconds"`
	Slowest  *float64 `json:"slowest_seconds"`
}

// AcceptanceOf reads what the daemon measured in p; nil if it measured nothing.
func AcceptanceOf(dir string, p Period) (*Acceptance, error) {
	t, err := availability.ReadTimes(dir, p.First, p.Last)
	if err != nil || t.Count() == 0 {
		return nil, err
	}
	within := func(q float64) *float64 {
		d := t.Within(q)
		if d == availability.Slower {
			return nil
		}
		s := d.Seconds()
		return &s
	}
	return &Acceptance{t.Count(), within(0.5), within(0.95), within(0.99), within(1)}, nil
}
