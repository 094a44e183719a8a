package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
)

// backupCmd is pecd backup.
type backupCmd struct {
	configFlag
	Dir  string `arg:"" help:"Directory for the copy: a new or an empty one that the daemon can write to."`
	JSON bool   `name:"json" help:"A JSON object."`
}

// A backupReport is what pecd backup prints as JSON.
type backupReport struct {
	Dir    string `json:"dir"`
	Entry  int64  `json:"entry"` // the last one of the register in it
	Files  int    `json:"files"`
	Octets int64  `json:"octets"`
}

// Run has the running daemon copy its store as it is at one instant, or does so
// itself if none runs.
func (c *backupCmd) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	var report backupReport
	err = controlFor(ctx, 0, cfg.Store.Path, "/backup", dir, &report)
	if errors.Is(err, errNoDaemon) {
		report, err = backupAlone(ctx, cfg, dir, progressOf(std.err, "octets"))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(report)
	}
	_, err = fmt.Fprintf(std.out, "%s: the store up to entry %d, %d files beside the database, %d octets; read back and checked\n",
		report.Dir, report.Entry, report.Files, report.Octets)
	return err
}

func backupAlone(ctx context.Context, cfg *config.Config, dir string, show func(done, total int64)) (backupReport, error) {
	if err := asOwner(cfg.Store.Path); err != nil {
		return backupReport{}, err
	}
	store, err := logstore.Open(ctx, logstore.Options{Dir: cfg.Store.Path, Now: clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return backupReport{}, err
	}
	b, err := store.Backup(ctx, dir, show)
	return backupReport{dir, b.Head.Seq, b.Files, b.Octets}, errors.Join(err, store.Close())
}

// backupNow is what the daemon does for pecd backup.
func (d *daemon) backupNow(w http.ResponseWriter, r *http.Request) {
	var dir string
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&dir); err != nil || !filepath.IsAbs(dir) {
		http.Error(w, "not an absolute path", http.StatusBadRequest)
		return
	}
	d.takeTime(w)
	b, err := d.store.Backup(r.Context(), dir, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, d.log, backupReport{dir, b.Head.Seq, b.Files, b.Octets})
}

// takeTime lets a request of the control socket take as long as it takes.
func (d *daemon) takeTime(w http.ResponseWriter) {
	if err := http.NewResponseController(w).SetWriteDeadline(noDeadline); err != nil {
		d.log.Warn("a long request may be cut off", "err", err)
	}
}
