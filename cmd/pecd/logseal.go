package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/seal"
)

// logSealCmd is pecd log seal.
type logSealCmd struct {
	configFlag
	JSON bool `name:"json" help:"A JSON object."`
}

// A sealReport is what pecd log seal prints as JSON.
type sealReport struct {
	Sealed []seal.Manifest `json:"sealed"`
	Error  string          `json:"error,omitempty"`
}

// Run seals all days that are over: the running daemon does it, or this process if
// none runs.
func (c *logSealCmd) Run(ctx context.Context, std streams) (err error) {
	in, err := load(ctx, c.Config, look)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if in.sealing.stamps == nil {
		return in.config.Problem("seal.tsa", errNotSealed, "name an authority and its anchors")
	}
	var report sealReport
	progress := progressOf(std.err, "days")
	err = controlWork(ctx, in.config.Store.Path, "/seal", struct{}{}, &report, progress)
	if errors.Is(err, errNoDaemon) {
		report, err = sealAlone(ctx, in, progress)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(std.out).Encode(report)
	} else {
		err = report.print(std.out)
	}
	if err == nil && report.Error != "" {
		err = errors.New(report.Error)
	}
	return err
}

func (r sealReport) print(w io.Writer) error {
	for _, m := range r.Sealed {
		if _, err := fmt.Fprintf(w, "%s  sealed, %d entries up to %d\n", m.Day, m.Entries, m.Last); err != nil {
			return err
		}
	}
	if len(r.Sealed) > 0 || r.Error != "" {
		return nil
	}
	_, err := fmt.Fprintln(w, "all days that are over are sealed")
	return err
}

// sealAlone seals while no daemon runs.
func sealAlone(ctx context.Context, in *installation, progress func(done, total int64)) (sealReport, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if err := asOwner(in.config.Store.Path); err != nil {
		return sealReport{}, err
	}
	store, err := logstore.OpenReadOnly(ctx, in.config.Store.Path)
	if err != nil {
		return sealReport{}, err
	}
	defer store.Close()
	s, err := in.sealer(store, clock, nil)
	if err != nil {
		return sealReport{}, err
	}
	return reportOf(s.SealAll(ctx, progress)), nil
}

func reportOf(sealed []seal.Manifest, err error) sealReport {
	r := sealReport{Sealed: sealed}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// asOwner refuses to leave files in a directory that its owner could not read.
func asOwner(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); ok && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d; run this as that user, or while the daemon runs", errUsage, dir, own.Uid)
	}
	return nil
}

// sealNow is what the daemon does for pecd log seal.
func (d *daemon) sealNow(w http.ResponseWriter, r *http.Request) {
	e := d.evidence.Load()
	if e == nil || e.sealer == nil {
		http.Error(w, errNotSealed.Error(), http.StatusServiceUnavailable)
		return
	}
	d.work(w, r, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		return reportOf(e.sealer.SealAll(ctx, progress)), nil
	})
}

// logExportCmd is pecd log export.
type logExportCmd struct {
	configFlag
	Store  string `help:"Store directory; default: the one of the configuration." placeholder:"DIR"`
	Since  string `help:"Only from this time on: 2026-11-22, 2026-11-22T10:00:00 or with a zone." placeholder:"TIME"`
	Until  string `help:"Only before this time." placeholder:"TIME"`
	Format string `enum:"text,json" default:"text" help:"text: a line for each entry, as registers of providers have them; json: the records, with the chain." placeholder:"text|json"`
	Output string `short:"o" default:"-" help:"File to write; it must not exist. - is standard output." placeholder:"FILE"`
}

// Run writes entries as the files of sealed days have them. It proves nothing by
// itself: that do the sealed days.
func (c *logExportCmd) Run(ctx context.Context, std streams) (err error) {
	dir, loc, err := storeAndZone(c.Config, c.Store)
	if err != nil {
		return err
	}
	q, err := (&logSearchCmd{Since: c.Since, Until: c.Until}).query(loc)
	if err != nil {
		return err
	}
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	out := std.out
	if c.Output != "-" {
		f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("%w: --output: %w", errUsage, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	write := func(w io.Writer, l logstore.Link) error { return seal.WriteRecord(w, l) }
	if c.Format == "text" {
		write = func(w io.Writer, l logstore.Link) error { return seal.WriteLine(w, l, loc) }
	}
	n, err := exportEntries(ctx, store, q, out, write)
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(std.err, "pecd: no entry of the register matches")
		return errNo
	}
	fmt.Fprintln(std.err, "pecd: this copy is not sealed and proves nothing by itself; the sealed days do (pecd log archive)")
	return nil
}

// exportEntries writes the entries of a time in the order of their numbers.
func exportEntries(ctx context.Context, e logstore.Evidence, q logstore.Query, out io.Writer, write func(io.Writer, logstore.Link) error) (n int64, err error) {
	if q.Until.IsZero() {
		q.Until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	span, err := e.Span(ctx, q.Since, q.Until)
	if err != nil || span.Entries == 0 {
		return 0, err
	}
	w := bufio.NewWriterSize(out, 64<<10)
	errPast := errors.New("past the last")
	err = e.Chain(ctx, span.First, func(l logstore.Link) error {
		if l.Seq > span.Last {
			return errPast
		}
		if l.At.Before(q.Since) || !l.At.Before(q.Until) {
			return nil
		}
		n++
		return write(w, l)
	})
	if err != nil && !errors.Is(err, errPast) {
		return n, err
	}
	return n, w.Flush()
}

// storeAndZone is the store that a command is about, and the zone of its times.
func storeAndZone(file, dir string) (string, *time.Location, error) {
	if dir != "" {
		loc, err := time.LoadLocation("Europe/Rome")
		return dir, loc, err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return "", nil, err
	}
	loc, err := time.LoadLocation(cfg.Provider.Timezone)
	if err != nil {
		return "", nil, cfg.Problem("provider.timezone", err, "")
	}
	return cfg.Store.Path, loc, nil
}
