package doctor

import (
	"context"
	"errors"
	"net"
	"time"

	"pecd/cmd/pecd/clockwatch"
	"pecd/plugins/host"
)

// daemon asks the running daemon.
func (v *visit) daemon(ctx context.Context) {
	for _, p := range v.Config.Plugins {
		if p.SHA256 == "" {
			v.add("plugin-unpinned", "the plugin %s runs whatever %s is", p.Name, p.Path)
		}
	}
	if v.Control == nil {
		return
	}
	v.health(ctx)
	v.watchedClock(ctx)
	v.proves(ctx)
	var list []host.Status
	err := v.Control(ctx, "/plugins", &list)
	switch {
	case err != nil && v.Daemonless != nil && errors.Is(err, v.Daemonless):
		v.add("daemon-down", "no pecd answers in %s: %s", v.Config.Store.Path, text(err))
		return
	case err != nil:
		v.add("daemon-down", "pecd does not answer as it should: %s", text(err))
		return
	}
	for _, s := range list {
		if s.State != host.Running {
			v.add("plugin-down", "the plugin %s is %s since %s: %s", s.Plugin, s.State, s.Since.UTC().Format(time.DateTime), s.LastError)
		}
	}
	if n := len(v.Config.Plugins); n != len(list) {
		v.add("plugin-restart", "%d plugins are configured, the daemon runs %d", n, len(list))
	}
}

// A Check is what the daemon says of one thing that it needs.
type Check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// health asks the daemon whether it can work: it may see what we do not, since it is
// another user.
func (v *visit) health(ctx context.Context) {
	var checks []Check
	if v.Control(ctx, "/health", &checks) != nil {
		return // that the daemon does not answer is told for its plugins
	}
	for _, c := range checks {
		if !c.OK {
			v.add("daemon-unready", "pecd says of its %s: %s", c.Name, c.Error)
		}
	}
}

// A WatchedClock is what the daemon's own watch says of the clock.
type WatchedClock struct {
	Doubt  bool          `json:"doubt"`
	Offset time.Duration `json:"offset"`
	By     string        `json:"by"` // who says so
}

// watchedClock asks the daemon, which has seen whether the clock jumped, and asks NTP
// servers where the configuration names some.
func (v *visit) watchedClock(ctx context.Context) {
	var c WatchedClock
	if v.Control(ctx, "/clock", &c) != nil || !c.Doubt {
		return // that the daemon does not answer is told for its plugins
	}
	if c.Offset.Abs() > clockwatch.LimitOf(c.By) {
		v.add("clock", "the clock is off by %s, says %s", c.Offset.Round(time.Millisecond), c.By)
		return
	}
	v.add("clock", "the clock has jumped since pecd started, and nobody says that it is right now")
}

// A Clock is what the kernel says of the machine's clock.
type Clock struct {
	Synchronised bool
	Error        time.Duration // at most, by its reckoning
}

func (v *visit) clock() {
	if v.Clock == nil {
		return
	}
	switch c, err := v.Clock(); {
	case err != nil:
		v.add("clock", "the kernel does not tell how good the clock is: %s", text(err))
	case !c.Synchronised:
		v.add("clock", "nothing keeps the clock of this machine right")
	case c.Error > clockwatch.KernelLimit:
		v.add("clock", "the clock may be off by %s", c.Error)
	}
}

// dns looks whether the world finds us.
func (v *visit) dns(ctx context.Context) {
	if v.Resolver == nil {
		return
	}
	for _, d := range sample(v.want.Domains) {
		dctx, cancel := context.WithTimeout(ctx, patience)
		list, err := v.Resolver.LookupMX(dctx, d)
		cancel()
		var not *net.DNSError
		switch {
		case errors.As(err, &not) && not.IsNotFound, err == nil && len(list) == 0:
			v.add("mx", "%s has no MX record", d)
		case err != nil:
			v.add("dns", "%s: %s", d, text(err))
			return // the others would say the same
		}
	}
}
