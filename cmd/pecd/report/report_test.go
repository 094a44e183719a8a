package report

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // legal time must not depend on the host's files

	"pecd/cmd/pecd/availability"
	"pecd/logstore"
	"pecd/pec"
)

func rome(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestParsePeriod(t *testing.T) {
	for name, want := range map[string]string{
		"2026-Q1": "2026-01-01 2026-04-30 2879h0m0s", // an hour less: summer time begins
		"2028-Q1": "2028-01-01 2028-04-30 2903h0m0s", // and a leap day
		"2026-Q3": "2026-09-01 2026-12-31 2929h0m0s", // an hour more
		"2026-B5": "2026-09-01 2026-10-31 1465h0m0s",
		"2026-B6": "2026-11-01 2026-12-31 1464h0m0s",
		"2026-02": "2026-02-01 2026-02-28 672h0m0s",
	} {
		p, err := ParsePeriod(name, rome(t))
		if got := p.First + " " + p.Last + " " + p.Until.Sub(p.Since).String(); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"", "2026", "2026-Q4", "2026-Q0", "2026-B7", "2026-13", "2026-00", "26-Q1", "2026-Q1 ", "2026-q1", "2026-3"} {
		if p, err := ParsePeriod(name, rome(t)); err == nil {
			t.Errorf("%q is taken for %v", name, p)
		}
	}
}

func TestCounter(t *testing.T) {
	c := NewCounter()
	for _, e := range []logstore.Entry{
		{Type: "accettazione", Sender: "alice@alfa.example"}, {Type: "accettazione", Sender: "alice@ALFA.example"},
		{Type: "posta-certificata", Sender: "alice@alfa.example"},
		{Type: "non-accettazione", Error: pec.ErrorVirus}, {Type: "non-accettazione", Error: pec.ErrorOther},
		{Type: "rifiuto"}, {Type: "presa-in-carico", Sender: "bob@beta.example"},
		{Type: "avvenuta-consegna", Sender: "bob@beta.example", Recipient: "anna@pec.example"},
		{Type: "errore-consegna"}, {Type: "rilevazione-virus"}, {Type: "virus"}, {Type: "preavviso-errore-consegna"}, {Type: "busta-anomalia"},
		{Type: "ricezione"}, {Type: "recapito"}, {Type: "configurazione"}, {Type: "cancellazione"}, {Type: "duplicato"},
	} {
		c.Add(e)
	}
	want := Messages{Accepted: 2, NotAccepted: 2, VirusOut: 1, Refused: 1, Received: 1, Delivered: 1, NotDelivered: 1, VirusIn: 2, Timeouts: 1, Anomalies: 1,
		Mailboxes: 2, Domains: 2}
	// The domain is a key of the directory: case does not matter.
	if got := c.Messages; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Four months allow 0.2 %: 345.1 minutes in the 2879 hours of 2026-Q1, half of them
// at once.
func TestAvailability(t *testing.T) {
	p, err := ParsePeriod("2026-Q1", rome(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		outages []time.Duration
		kept    bool
	}{
		"none":            {nil, true},
		"many short":      {[]time.Duration{100 * time.Minute, 100 * time.Minute, 100 * time.Minute}, true},
		"one too long":    {[]time.Duration{173 * time.Minute}, false},
		"one just so":     {[]time.Duration{172 * time.Minute}, true},
		"too many":        {[]time.Duration{120 * time.Minute, 120 * time.Minute, 120 * time.Minute}, false},
		"nearly too much": {[]time.Duration{172 * time.Minute, 172 * time.Minute}, true},
	} {
		var spans []availability.Span
		at := p.Since
		for _, o := range c.outages {
			spans = append(spans, availability.Span{Since: at, Until: at.Add(24 * time.Hour)})
			at = at.Add(24*time.Hour + o)
		}
		spans = append(spans, availability.Span{Since: at, Until: p.Until})
		a := judge(p, p.Since, p.Until, spans)
		if a.Kept == nil || *a.Kept != c.kept || a.Allowed != 345.4 || a.AllowedOnce != 172.7 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	two, err := ParsePeriod("2026-B1", rome(t))
	if err != nil {
		t.Fatal(err)
	}
	if a := judge(two, two.Since, two.Until, nil); a.Kept != nil || a.Percent != 0 {
		t.Errorf("two months: %+v", a)
	}
}

func TestPrint(t *testing.T) {
	p, err := ParsePeriod("2026-Q3", rome(t))
	if err != nil {
		t.Fatal(err)
	}
	half := 0.004
	r := Report{Provider: `Alfa "PEC", S.p.A.`, Period: p, Messages: Messages{Accepted: 12},
		Availability: judge(p, p.Since, p.Until, []availability.Span{{Since: p.Since, Until: p.Until}}), Acceptance: &Acceptance{Measured: 12, Half: &half}}
	var text, table bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"messages accepted from users         12\n", "99.8 % kept so far                   yes\n", "half of them within, seconds         0.004\n", "longer than measured"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if err := r.WriteCSV(&table); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 2 || rows[0][4] != "accepted" || rows[1][4] != "12" || rows[1][0] != r.Provider {
		t.Errorf("%v, %v", rows, err)
	}
}
