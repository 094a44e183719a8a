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
	"path"
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
	// Missing are files of the store that are lost, altered or not to be read, there and
	// in the copy.
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
		_, printErr := fmt.Fprintln(w, "the store itself has lost them or cannot read them, and the copy is good but for them: look for them in an older backup, and keep that")
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
	var seals sealCopy
	b, err := store.Backup(ctx, dir, func() (err error) {
		seals, err = copySeals(ctx, os.DirFS(cfg.Seal.Path), filepath.Join(dir, "seals"))
		return err
	}, show)
	if err != nil {
		return r, err
	}
	r.Entry, r.Files, r.Octets, r.Days = b.Head.Seq, b.Files, b.Octets, seals.days
	r.Missing = append(b.Missing, seals.missing...)
	beside := os.DirFS(cfg.Store.Path)
	for _, name := range availability.Files() {
		if _, err := fs.Stat(beside, name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lost, err := copyReadable(beside, name, filepath.Join(dir, name))
		if err != nil {
			return r, err
		}
		if lost != "" {
			r.Missing = append(r.Missing, name+" "+lost)
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
		if config.Within(dir, place) {
			return place, true
		}
	}
	return "", false
}

// A sealCopy is what copySeals has done.
type sealCopy struct {
	days    int
	missing []string // what could not be read, with the reason
}

// copySeals copies the folders of sealed days and witnesses and counts the days. What
// the sealer works with, the lock and the day that it makes, is hidden and stays. What
// cannot be read is noted: one seal must not stand against a copy of all the rest.
func copySeals(ctx context.Context, files fs.FS, to string) (c sealCopy, err error) {
	if _, err := fs.Stat(files, "."); errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return c, fmt.Errorf("sealed days: %w", err)
	}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		hidden := name != "." && strings.HasPrefix(d.Name(), ".")
		switch {
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // a folder, which is made already
			return c.note(name, logstore.Unreadable(err), err)
		case name == ".":
			return nil
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, name), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		lost, err := copyReadable(files, name, filepath.Join(to, name))
		return c.note(name, lost, err)
	})
	if err != nil {
		return c, fmt.Errorf("sealed days: %w", err)
	}
	days, err := seal.Days(os.DirFS(to))
	c.days = len(days)
	return c, err
}

// note keeps what was lost; if nothing was, it returns err.
func (c *sealCopy) note(name, lost string, err error) error {
	if lost == "" {
		return err
	}
	c.missing = append(c.missing, path.Join("seals", name)+" "+lost)
	return nil
}

// copyReadable copies what can be read of a file; lost is why the rest of it cannot.
func copyReadable(files fs.FS, name, to string) (lost string, err error) {
	in, err := files.Open(name)
	if err != nil {
		if lost = logstore.Unreadable(err); lost == "" {
			return "", err
		}
		return lost, nil
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, lost, err = logstore.CopyReadable(out, in)
	return lost, errors.Join(err, out.Close())
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
