package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/report"
	"pecd/logstore"
)

// reportCmd is pecd report.
type reportCmd struct {
	configFlag
	Period string `required:"" help:"2026-Q1 to Q3: four months; 2026-B1 to B6: two; 2026-03: one." placeholder:"PERIOD"`
	JSON   bool   `name:"json" help:"A JSON object." xor:"form"`
	CSV    bool   `name:"csv" help:"Names and values, a line each." xor:"form"`
}

// Run sums up a period for the authority. It reads the register once, entry by
// entry.
func (c *reportCmd) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	zone, err := time.LoadLocation(cfg.Provider.Timezone)
	if err != nil {
		return cfg.Problem("provider.timezone", err, "")
	}
	p, err := report.ParsePeriod(c.Period, zone)
	if err != nil {
		return fmt.Errorf("%w: --period: %w", errUsage, err)
	}
	r, err := reportOn(ctx, cfg, p)
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		return json.NewEncoder(std.out).Encode(r)
	case c.CSV:
		return r.WriteCSV(std.out)
	}
	return r.WriteText(std.out)
}

func reportOn(ctx context.Context, cfg *config.Config, p report.Period) (report.Report, error) {
	r := report.Report{Provider: cfg.Provider.Name, Period: p}
	store, err := logstore.OpenReadOnly(ctx, cfg.Store.Path)
	if err != nil {
		return r, err
	}
	defer store.Close()
	if err := complete(ctx, store, p); err != nil {
		return r, err
	}
	counter := report.NewCounter()
	if err := store.Search(ctx, logstore.Query{Since: p.Since, Until: p.Until}, func(e logstore.Entry) error {
		counter.Add(e)
		return nil
	}); err != nil {
		return r, err
	}
	r.Messages = counter.Messages
	if r.Availability, err = report.AvailabilityOf(cfg.Store.Path, p, clock()); err != nil {
		return r, err
	}
	r.Acceptance, err = report.AcceptanceOf(cfg.Store.Path, p)
	return r, err
}

// complete makes sure that nothing of the period went from the register. What goes
// are whole months.
func complete(ctx context.Context, store *logstore.Reader, p report.Period) error {
	gone, err := store.PurgedThrough(ctx)
	if err != nil || gone.Seq == 0 {
		return err
	}
	oldest, err := store.LinkAt(ctx, gone.Seq+1)
	if err != nil {
		return err
	}
	y, m, _ := oldest.At.In(p.Since.Location()).Date()
	if since := time.Date(y, m, 1, 0, 0, 0, 0, p.Since.Location()); p.Since.Before(since) {
		return fmt.Errorf("%s: the register begins with %s, what was before went after its term; the packages of pecd log archive have it", p.Name, since.Format("2006-01"))
	}
	return nil
}
