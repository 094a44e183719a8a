package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"
)

// A Report is all that is known of a period.
type Report struct {
	Provider     string        `json:"provider"`
	Period       Period        `json:"period"`
	Messages     Messages      `json:"messages"`
	Availability *Availability `json:"availability,omitempty"`
	Acceptance   *Acceptance   `json:"acceptance,omitempty"`
}

// A row is a figure with its name in CSV and its words for people.
type row struct{ name, words, value string }

func (r Report) rows() []row {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	m := r.Messages
	rows := []row{
		{"accepted", "messages accepted from users", n(m.Accepted)},
		{"not_accepted", "non-acceptance notices", n(m.NotAccepted)},
		{"virus_out", "  of these for a virus", n(m.VirusOut)},
		{"refused", "refused by SMTP", n(m.Refused)},
		{"received", "certified messages taken in charge", n(m.Received)},
		{"delivered", "delivery receipts", n(m.Delivered)},
		{"not_delivered", "non-delivery notices", n(m.NotDelivered)},
		{"virus_in", "viruses that arrived", n(m.VirusIn)},
		{"timeouts", "timeout notices", n(m.Timeouts)},
		{"anomalies", "anomaly envelopes", n(m.Anomalies)},
		{"mailboxes", "mailboxes with certified mail", n(m.Mailboxes)},
		{"domains", "their domains", n(m.Domains)},
	}
	return append(append(rows, r.Availability.rows()...), r.Acceptance.rows()...)
}

func (a *Availability) rows() []row {
	if a == nil {
		return nil
	}
	n := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	rows := []row{
		{"measured_since", "availability measured since", a.Since.Format(time.RFC3339)},
		{"measured_until", "  until", a.Until.Format(time.RFC3339)},
		{"up_minutes", "minutes available", n(a.Up)},
		{"down_minutes", "minutes not available", n(a.Down)},
		{"percent", "per cent available", strconv.FormatFloat(a.Percent, 'f', 4, 64)},
		{"longest_outage_minutes", "longest outage, minutes", n(a.Longest)},
		{"allowed_minutes", "allowed in the period, minutes", n(a.Allowed)},
		{"allowed_longest_minutes", "allowed at once, minutes", n(a.AllowedOnce)},
	}
	if a.Kept != nil {
		word := map[bool]string{true: "yes", false: "no"}[*a.Kept]
		rows = append(rows, row{"kept", "99.8 % kept so far", word})
	}
	return rows
}

func (a *Acceptance) rows() []row {
	if a == nil {
		return nil
	}
	n := func(v *float64) string {
		if v == nil {
			return "longer than measured"
		}
		return strconv.FormatFloat(*v, 'f', 3, 64)
	}
	return []row{
		{"acceptances_measured", "acceptances measured", strconv.FormatUint(a.Measured, 10)},
		{"p50_seconds", "half of them within, seconds", n(a.Half)},
		{"p95_seconds", "95 % within", n(a.P95)},
		{"p99_seconds", "99 % within", n(a.P99)},
		{"slowest_seconds", "all within", n(a.Slowest)},
	}
}

// WriteText writes r for people.
func (r Report) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s, %s: %s to %s\n", r.Provider, r.Period.Name, r.Period.First, r.Period.Last); err != nil {
		return err
	}
	for _, x := range r.rows() {
		if _, err := fmt.Fprintf(w, "  %-36s %s\n", x.words, x.value); err != nil {
			return err
		}
	}
	if r.Availability == nil {
		_, err := fmt.Fprintln(w, "  availability was not measured in this period")
		return err
	}
	return nil
}

// WriteCSV writes r as two lines: names, values.
func (r Report) WriteCSV(w io.Writer) error {
	names, values := []string{"provider", "period", "first_day", "last_day"}, []string{r.Provider, r.Period.Name, r.Period.First, r.Period.Last}
	for _, x := range r.rows() {
		names, values = append(names, x.name), append(values, x.value)
	}
	out := csv.NewWriter(w)
	return out.WriteAll([][]string{names, values})
}
