package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/availability"
	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/seal"
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
	Days   int    `json:"sealed_days"`
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
	show := progressOf(std.err, "octets")
	err = controlWork(ctx, cfg.Store.Path, "/backup", dir, &report, show)
	if errors.Is(err, errNoDaemon) {
		report, err = backupAlone(ctx, cfg, dir, show)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(report)
	}
	_, err = fmt.Fprintf(std.out, "%s: the store up to entry %d, %d files beside the database, %d octets; read back and checked\n%s: %d sealed days\n",
		report.Dir, report.Entry, report.Files, report.Octets, filepath.Join(report.Dir, "seals"), report.Days)
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
	r, err := makeBackup(ctx, store, cfg, dir, show)
	return r, errors.Join(err, store.Close())
}

// makeBackup copies the store, then what lies beside it: sealed days, and the times
// in which messages could be accepted. What is sealed meanwhile is only more proof.
func makeBackup(ctx context.Context, store *logstore.SQLite, cfg *config.Config, dir string, show func(done, total int64)) (backupReport, error) {
	b, err := store.Backup(ctx, dir, show)
	r := backupReport{Dir: dir, Entry: b.Head.Seq, Files: b.Files, Octets: b.Octets}
	if err != nil {
		return r, err
	}
	if r.Days, err = copySeals(cfg.Seal.Path, filepath.Join(dir, "seals")); err != nil {
		return r, err
	}
	for _, name := range availability.Files() {
		data, err := os.ReadFile(filepath.Join(cfg.Store.Path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			return r, err
		}
	}
	return r, syncTree(dir)
}

// copySeals copies the folders of sealed days and witnesses and counts the days.
func copySeals(from, to string) (int, error) {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return 0, fmt.Errorf("sealed days: %w", err)
	}
	days, err := seal.Days(os.DirFS(to))
	return len(days), err
}

// syncTree makes durable what was written below dir.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// backupNow is what the daemon does for pecd backup.
func (d *daemon) backupNow(w http.ResponseWriter, r *http.Request) {
	var dir string
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&dir); err != nil || !filepath.IsAbs(dir) {
		http.Error(w, "not an absolute path", http.StatusBadRequest)
		return
	}
	d.work(w, r, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		if err := d.watch.Flush(); err != nil {
			d.log.Warn("how long the last acceptances took is missing in the backup", "err", err)
		}
		report, err := makeBackup(ctx, d.store, d.office.Load().config, dir, progress)
		if err != nil {
			d.log.Error("backup failed", "dir", dir, "err", err)
			return nil, err
		}
		d.log.Info("backup made", "dir", dir, "entry", report.Entry, "octets", report.Octets)
		return report, nil
	})
}

// takeTime lets a request of the control socket take as long as it takes.
func (d *daemon) takeTime(w http.ResponseWriter) {
	if err := http.NewResponseController(w).SetWriteDeadline(noDeadline); err != nil {
		d.log.Warn("a long request may be cut off", "err", err)
	}
}
