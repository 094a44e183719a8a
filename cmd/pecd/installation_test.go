package main

import (
	"log/slog"
	"slices"
	"testing"

	"pecd/cmd/pecd/config"
)

// TestNeedsRestart: what a reload does not apply is named, each key by itself, and
// nothing else is.
func TestNeedsRestart(t *testing.T) {
	changes := map[string]func(*config.Config){
		"provider.domain":     func(c *config.Config) { c.Provider.Domain = "x" },
		"access.milter":       func(c *config.Config) { c.Access.Milter = "x" },
		"access.socket_group": func(c *config.Config) { c.Access.SocketGroup = "x" },
		"access.socket_mode":  func(c *config.Config) { c.Access.SocketMode = "x" },
		"access.max_size":     func(c *config.Config) { c.Access.MaxSize = 1 },
		"access.notice_size":  func(c *config.Config) { c.Access.NoticeSize = 1 },
		"gate.milter":         func(c *config.Config) { c.Gate.Milter = "x" },
		"gate.socket_group":   func(c *config.Config) { c.Gate.SocketGroup = "x" },
		"gate.socket_mode":    func(c *config.Config) { c.Gate.SocketMode = "x" },
		"reception":           func(c *config.Config) { c.Reception.SocketGroup = "x" },
		"delivery.store":      func(c *config.Config) { c.Delivery.Store = "x" },
		"courier":             func(c *config.Config) { c.Courier.MTA = "x" },
		"store":               func(c *config.Config) { c.Store.Path = "x" },
		"time":                func(c *config.Config) { c.Time.NTP = []string{"x"} },
		"metrics":             func(c *config.Config) { c.Metrics.Listen = "x" },
		"log.format":          func(c *config.Config) { c.Log.Format = "x" },
		"plugin":              func(c *config.Config) { c.Plugins = []config.Plugin{{Name: "x"}} },
	}
	for key, change := range changes {
		now := &config.Config{}
		change(now)
		if got := needsRestart(&config.Config{}, now); !slices.Equal(got, []string{key}) {
			t.Errorf("%s: %q", key, got)
		}
	}
	if len(changes) != len(atStart) {
		t.Errorf("%d of %d keys", len(changes), len(atStart))
	}
	on := true
	now := &config.Config{}
	now.Provider.Name, now.Access.MaxTotal, now.Gate.TLS, now.Delivery.Direct, now.Log.Level = "x", 1, "require", &on, "debug"
	if got := needsRestart(&config.Config{}, now); len(got) > 0 {
		t.Errorf("a reload applies it: %q", got)
	}
}

// TestWarnOfRestart: a key that only a restart applies is named at each reload until
// it is back as it was at the start.
func TestWarnOfRestart(t *testing.T) {
	log := &lines{}
	d := &daemon{started: &config.Config{}, log: slog.New(slog.NewTextHandler(log, nil))}
	changed := &config.Config{}
	changed.Courier.MTA = "x"
	d.office.Store(&office{installation: &installation{config: changed}}) // of an earlier reload
	d.warnOfRestart(changed)
	if n := log.count("keys=courier"); n != 1 {
		t.Errorf("still changed: said %d times", n)
	}
	d.warnOfRestart(&config.Config{})
	if n := log.count("only a restart"); n != 1 {
		t.Errorf("as it was: said %d times", n)
	}
}
