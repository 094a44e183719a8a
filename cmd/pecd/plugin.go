package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/plugins/host"
)

// pluginListCmd is pecd plugin list.
type pluginListCmd struct {
	configFlag
	JSON bool `name:"json" help:"One JSON object a line."`
}

// Run shows what the daemon says of its plugins.
func (c *pluginListCmd) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	var list []host.Status
	if err := control(ctx, cfg.Store.Path, "/plugins", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(std.out)
		for _, s := range list {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	return showPlugins(std.out, list)
}

func showPlugins(to io.Writer, list []host.Status) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(to, "no plugin is configured; see docs/plugins.md")
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLUGIN\tKIND\tVERSION\tSTATE\tSINCE\tCALLS\tFAILED\tRESTARTS\tMEAN\tP99\tCHECKSUM\tCONFINED")
	for _, s := range list {
		sum := "not pinned"
		if s.Pinned {
			sum = s.SHA256[:min(12, len(s.SHA256))]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", s.Plugin, s.Description.Kind, s.Description.Version, s.State,
			s.Since.Local().Format(time.DateTime), s.Calls, s.Failures, s.Restarts, s.Mean.Round(time.Microsecond), s.P99.Round(time.Microsecond), sum, s.Confinement())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range list {
		if s.Description.Engine != "" {
			fmt.Fprintf(to, "%s: %s\n", s.Plugin, s.Description.Engine)
		}
		if s.LastError != "" {
			fmt.Fprintf(to, "%s: last error: %s\n", s.Plugin, s.LastError)
		}
	}
	return nil
}

// specs are the plugins of a configuration, as the host wants them.
func specs(cfg *config.Config) (list []host.Spec) {
	for _, p := range cfg.Plugins {
		list = append(list, host.Spec{Name: p.Name, Path: p.Path, SHA256: p.SHA256, Table: p.Settings, Timeout: p.Wait(), Read: p.Read, Write: p.Write})
	}
	return list
}

// warnOfTimeouts tells of plugins that may take longer than the milter waits.
func warnOfTimeouts(c *config.Config, to io.Writer) error {
	for _, p := range c.Plugins {
		if p.Wait() < config.MilterWait {
			continue
		}
		if _, err := fmt.Fprintf(to, "warning: plugin %s: timeout: %s is as long as the milter waits, or longer\n  why: only what comes in by LMTP may take so long; at submission and at the gate the client hears 451 first, and the plugin is not found to be late\n  fix: write less than 2m, unless it is asked at LMTP alone\n", p.Name, p.Timeout); err != nil {
			return err
		}
	}
	return nil
}

// checkPlugins starts each plugin for a moment and asks it what it thinks of its
// settings. Errors name where its table stands.
func checkPlugins(ctx context.Context, cfg *config.Config) (err error) {
	if len(cfg.Plugins) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "pecd-check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	opts, err := pluginDirs(dir, dir)
	if err != nil {
		return err
	}
	opts.Log, opts.Now = slog.New(slog.DiscardHandler), time.Now
	// The inner one first: what is in a directory of his own he can replace.
	if opts.Owner, err = ownerOf(cfg.Store.Path, opts.Dir, dir); err != nil {
		return err
	}
	for i, spec := range specs(cfg) {
		_, problems, verr := host.Validate(ctx, spec, opts)
		if verr != nil {
			err = errors.Join(err, cfg.Plugins[i].Problem("path", verr.Error(), pluginFix(verr)))
		}
		for _, p := range problems {
			err = errors.Join(err, cfg.Plugins[i].Problem("settings."+p.Key, p.Why, p.Fix))
		}
	}
	return err
}

// ownerOf is whose process root lets plugins be, the user of the store, who becomes
// the owner of dirs too: they are programs of others, and the daemon runs them as
// that user. It is nil for whoever is not root, and where the daemon would be.
func ownerOf(store string, dirs ...string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	owner, err := storeOwner(store, user.Lookup)
	if err != nil || owner == nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := host.GiveDir(dir, owner); err != nil {
			return nil, err
		}
	}
	return owner, nil
}

// storeOwner is whose the store is, or will be: that of the nearest directory above it
// which is not root's, else the user pecd, if lookup finds him. It is nil for root.
func storeOwner(store string, lookup func(name string) (*user.User, error)) (*syscall.Credential, error) {
	for dir := store; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			st, ok := fi.Sys().(*syscall.Stat_t)
			if ok && st.Uid != 0 {
				return &syscall.Credential{Uid: st.Uid, Gid: st.Gid}, nil
			}
			if dir == store {
				return nil, nil
			}
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	u, err := lookup("pecd")
	if err != nil {
		return nil, nil // this is not a machine on which pecd is installed
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil || uid == 0 {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// pluginFix says what to do about a plugin that does not start.
func pluginFix(err error) string {
	switch {
	case errors.Is(err, host.ErrChecksum):
		return "if you installed this program, write its checksum: sha256sum prints it"
	case errors.Is(err, host.ErrUnsafe):
		return "chown root and chmod 0755 the program and the directory that it is in"
	case errors.Is(err, host.ErrProtocol):
		return "install the version of the plugin that belongs to this version of pecd"
	case errors.Is(err, host.ErrHandshake):
		return "name a program that is a plugin of pecd; pecd plugin check tries one"
	}
	return "correct the path, or remove the table"
}

// pluginMessages is where messages are copied to for plugins, under store.
func pluginMessages(store string) string { return filepath.Join(store, "plugins", "messages") }

// pluginDirs makes the directories that plugins need: for sockets under run, whose
// path must be short, the rest under store.
func pluginDirs(run, store string) (host.Options, error) {
	o := host.Options{Dir: filepath.Join(run, "plugins"), Messages: pluginMessages(store), State: filepath.Join(store, "plugins", "state")}
	for _, dir := range []string{o.Dir, o.Messages, o.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return o, err
		}
	}
	return o, nil
}

// startPlugins starts the plugins of the configuration. If there are none, what a killed
// predecessor that had some left of messages goes all the same.
func (d *daemon) startPlugins(ctx context.Context, cfg *config.Config) (err error) {
	if len(cfg.Plugins) == 0 {
		if err := os.RemoveAll(pluginMessages(cfg.Store.Path)); err != nil {
			return cfg.Problem("store.path", err, "")
		}
		return nil
	}
	run := os.Getenv("RUNTIME_DIRECTORY") // systemd's
	if run == "" {
		if run, err = os.MkdirTemp("", "pecd-"); err != nil {
			return err
		}
		d.scratch = run
	}
	opts, err := pluginDirs(run, cfg.Store.Path)
	if err != nil {
		return cfg.Problem("store.path", err, "")
	}
	opts.Log, opts.Now, opts.Observe = d.log, clock, d.metrics.observePlugin
	opts.BackOff, opts.MaxBackOff = pluginBackOff(), 4*pluginBackOff()
	d.plugins, err = host.Start(ctx, specs(cfg), opts)
	if err == nil {
		return nil
	}
	// Which table is wrong, and in which line, is worth asking only now.
	if problems := checkPlugins(ctx, cfg); problems != nil {
		return problems
	}
	return cfg.Problem("plugin", err, "pecd config check tells more")
}

// closePlugins ends the plugins, within their time.
func (d *daemon) closePlugins() {
	if d.plugins != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := d.plugins.Close(ctx); err != nil {
			d.log.Error("plugins did not end well", "err", err)
		}
	}
	if d.scratch != "" {
		if err := os.RemoveAll(d.scratch); err != nil {
			d.log.Error("plugins' sockets", "err", err)
		}
	}
}
