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
	"strings"

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
	// Missing are files of the store that are lost or altered, there and in the copy.
	Missing []string `json:"missing,omitempty"`
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
		err = json.NewEncoder(std.out).Encode(report)
	} else {
		err = report.print(std.out)
	}
	if err == nil && len(report.Missing) > 0 {
		err = errNo
	}
	return err
}

func (r backupReport) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s: the store up to entry %d, %d files beside the database, %d octets; read back and checked\n%s: %d sealed days\n",
		r.Dir, r.Entry, r.Files, r.Octets, filepath.Join(r.Dir, "seals"), r.Days)
	for _, m := range r.Missing {
		_, printErr := fmt.Fprintf(w, "LOST           %s\n", m)
		err = errors.Join(err, printErr)
	}
	if len(r.Missing) > 0 {
		_, printErr := fmt.Fprintln(w, "the store itself has lost them, and the copy is good but for them: look for them in an older backup, and keep that")
		err = errors.Join(err, printErr)
	}
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

// makeBackup copies the store and what lies beside it: sealed days, and the times in
// which messages could be accepted. The seals come first: the register that is copied
// after them has all entries that they and the witnesses vouch for.
func makeBackup(ctx context.Context, store *logstore.SQLite, cfg *config.Config, dir string, show func(done, total int64)) (backupReport, error) {
	r := backupReport{Dir: dir}
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%w: %s is to be in a directory that is there", errUsage, dir)
	}
	if where, ok := forPlugins(cfg, dir); ok {
		return r, fmt.Errorf("%w: a plugin could read and change the copy in %s", errUsage, where)
	}
	b, err := store.Backup(ctx, dir, func() (err error) {
		r.Days, err = copySeals(ctx, cfg.Seal.Path, filepath.Join(dir, "seals"))
		return err
	}, show)
	if err != nil {
		return r, err
	}
	r.Entry, r.Files, r.Octets, r.Missing = b.Head.Seq, b.Files, b.Octets, b.Missing
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

// forPlugins reports whether dir leads to where plugins write, and where that is.
func forPlugins(cfg *config.Config, dir string) (where string, ok bool) {
	places := []string{filepath.Join(cfg.Store.Path, "plugins")}
	for _, p := range cfg.Plugins {
		places = append(places, p.Write...)
	}
	for _, place := range places {
		if path, ok := strings.CutPrefix(withoutLinks(dir), strings.TrimSuffix(withoutLinks(place), "/")); ok && (path == "" || path[0] == '/') {
			return place, true
		}
	}
	return "", false
}

// withoutLinks is path without symbolic links, as far as it is there.
func withoutLinks(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(withoutLinks(parent), filepath.Base(path))
	}
	return path
}

// copySeals copies the folders of sealed days and witnesses and counts the days. What
// the sealer works with, the lock and the day that it makes, is hidden and stays.
func copySeals(ctx context.Context, from, to string) (int, error) {
	files := os.DirFS(from)
	if _, err := fs.Stat(files, "."); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		hidden := name != "." && strings.HasPrefix(d.Name(), ".")
		switch {
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden:
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, name), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		return copySealFile(files, name, filepath.Join(to, name))
	})
	if err != nil {
		return 0, fmt.Errorf("sealed days: %w", err)
	}
	days, err := seal.Days(os.DirFS(to))
	return len(days), err
}

func copySealFile(files fs.FS, name, to string) (err error) {
	in, err := files.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
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
		if len(report.Missing) > 0 {
			d.log.Error("files of the store are lost or altered, in the backup too", "dir", dir, "files", report.Missing)
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
