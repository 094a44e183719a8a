package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// outside runs the whole-system tests with each of the three points in a process
// of its own.
var outside = flag.Bool("points-outside", false, "run the built-in points as plugins")

var (
	mortal      = binary{name: "mortal", pkg: "./testdata/mortal"}
	countersign = binary{name: "countersign", pkg: "pecd/plugins/example/countersign"}
	builtin     = binary{name: "builtin", pkg: "pecd/plugins/example/builtin"}
)

// pointsOutside are the tables that put the built-in points outside.
func pointsOutside(t testing.TB) (list []stage.PluginConfig) {
	for _, kind := range []string{"access", "reception", "delivery"} {
		list = append(list, stage.PluginConfig{Name: kind, Path: builtin.build(t), Settings: map[string]any{"kind": kind}})
	}
	return list
}

// A running plugin, as pecd plugin list tells it.
type pluginStatus struct {
	Plugin      string `json:"plugin"`
	State       string `json:"state"`
	PID         int    `json:"pid"`
	Calls       int64  `json:"calls"`
	Failures    int64  `json:"failures"`
	Restarts    int64  `json:"restarts"`
	Description struct {
		Kind string `json:"kind"`
	} `json:"description"`
}

func plugins(t *testing.T, p *stage.Provider) (list []pluginStatus) {
	t.Helper()
	out, err := exec.Command(p.Pecd.Bin, "plugin", "list", "--json", "--config", p.Pecd.ConfigFile).Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var s pluginStatus
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// TestPointsOutside takes a message all the way through points that are plugins,
// and wants them to have been asked.
func TestPointsOutside(t *testing.T) {
	s := newStage(t, func(o *stage.Options) {
		o.Configure = func(_ string, c *stage.PecdConfig) { c.Plugins = pointsOutside(t) }
	})
	send(t, s, compose("po certified", "", "bob@beta.example", "nobody@beta.example"), "bob@beta.example", "nobody@beta.example")
	send(t, s, compose("po refused", "Bcc: x@beta.example\r\n", "bob@beta.example"), "bob@beta.example")
	await(t, s, "bob@beta.example", pec.KindTransport, "po certified")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "po certified")
	await(t, s, "alice@alfa.example", pec.KindNonDelivery, "po certified")
	await(t, s, "alice@alfa.example", pec.KindNonAcceptance, "po refused")
	settled(t, s)
	for _, want := range []struct {
		p    *stage.Provider
		kind string
	}{{s.Alfa, "access"}, {s.Alfa, "reception"}, {s.Beta, "reception"}, {s.Beta, "delivery"}} {
		list := plugins(t, want.p)
		i := slices.IndexFunc(list, func(g pluginStatus) bool { return g.Description.Kind == want.kind })
		if i < 0 || list[i].Calls == 0 || list[i].Failures != 0 || list[i].State != "running" {
			t.Errorf("%s: the %s point was not asked as a plugin: %+v", want.p.Label, want.kind, list)
		}
		if len(list) != 3 {
			t.Errorf("%s: %d plugins run", want.p.Label, len(list))
		}
	}
}

// TestPluginDies sends 100 messages through a check that dies at every moment of
// a message. Nothing is lost, and nothing is certified twice or falsely; and when
// pecd itself is killed, no plugin stays behind.
func TestPluginDies(t *testing.T) {
	program := mortal.build(t)
	s := newStage(t, func(o *stage.Options) {
		o.PecdBinary = drillBinary(t)
		o.PecdEnv = []string{"PECD_PLUGIN_BACKOFF=50ms"}
		o.Configure = func(_ string, c *stage.PecdConfig) {
			c.Plugins = append(c.Plugins, stage.PluginConfig{Path: program, Settings: map[string]any{"every": 7}})
		}
	})
	const messages, senders = 100, 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	deferred := 0
	for n := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := n; i < messages; i += senders {
				again := submitUntilTaken(t, s, compose(fmt.Sprintf("pd %03d", i), "", "bob@beta.example"))
				mu.Lock()
				deferred += again
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	for arrived := 0; arrived < messages; {
		// What Beta put off is in its MTA's queue, which has no reason to hurry.
		if err := s.Beta.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		mails, err := s.Mailbox(ctx, "alice@alfa.example")
		if err != nil {
			t.Fatal(err)
		}
		arrived = 0
		for i := range messages {
			if has(mails, pec.KindDelivery, fmt.Sprintf("pd %03d", i)) > 0 {
				arrived++
			}
		}
		if err := s.Alfa.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d delivery receipts", arrived, messages)
		case <-time.After(100 * time.Millisecond):
		}
	}
	settled(t, s)
	alice, err := s.Mailbox(within(t), "alice@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := s.Mailbox(within(t), "bob@beta.example")
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		subject := fmt.Sprintf("pd %03d", i)
		if a, d, b := has(alice, pec.KindAcceptance, subject), has(alice, pec.KindDelivery, subject), has(bob, pec.KindTransport, subject); a != 1 || d != 1 || b != 1 {
			t.Errorf("%s: %d acceptance receipts, %d delivery receipts, %d copies", subject, a, d, b)
		}
	}
	if len(alice) != 2*messages || len(bob) != messages {
		t.Errorf("alice has %d messages, bob %d", len(alice), len(bob))
	}
	restarts := int64(0)
	var pids []int
	for _, p := range s.Providers() {
		for _, g := range plugins(t, p) {
			restarts += g.Restarts
			pids = append(pids, g.PID)
		}
	}
	t.Logf("%d restarts, %d submissions put off", restarts, deferred)
	if restarts < 10 || deferred == 0 {
		t.Errorf("the plugins died %d times and %d submissions were put off: that proves little", restarts, deferred)
	}
	for _, p := range s.Providers() {
		if err := p.Pecd.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pids {
		until(t, fmt.Sprintf("plugin %d ends after pecd", pid), func() bool { return pid == 0 || !stage.Running(pid) })
	}
}

// submitUntilTaken submits raw from alice until pecd takes it, and returns how
// often it was put off. Any other answer is an error.
func submitUntilTaken(t *testing.T, s *stage.Stage, raw string) (again int) {
	for ; ; again++ {
		_, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, []byte(raw))
		var reply *textproto.Error
		switch {
		case err == nil:
			return again
		case !errors.As(err, &reply) || reply.Code != 451 || again > 500:
			t.Errorf("the client heard %v", err)
			return again
		}
		time.Sleep(20 * time.Millisecond) // a client that tries again
	}
}

// has counts the messages of that kind about that subject.
func has(mails [][]byte, kind pec.Kind, subject string) (n int) {
	for _, raw := range mails {
		if is(raw, kind, subject) {
			n++
		}
	}
	return n
}

// TestCountersign has an access point of others in the place of ours, by one line
// of the configuration.
func TestCountersign(t *testing.T) {
	program := countersign.build(t)
	s := newStage(t)
	conf := filepath.Join(filepath.Dir(s.Alfa.Pecd.ConfigFile), "conf.d")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("plugin = [{path = %q, read = [%q], settings = {senders = [\"alice@alfa.example\"], ca = %q}}]\n", program, s.CA, s.CA)
	if err := os.WriteFile(filepath.Join(conf, "10-access.toml"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Pecd.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	send(t, s, compose("cs plain", "", "bob@beta.example"), "bob@beta.example")
	m := await(t, s, "alice@alfa.example", pec.KindNonAcceptance, "cs plain")
	if !strings.Contains(m.event.Detail, "firma") {
		t.Errorf("%+v", m.event)
	}
	anna := strings.Replace(compose("cs anna", "", "bob@beta.example"), "From: alice", "From: anna", 1)
	if _, err := s.Submit(within(t), "anna@alfa.example", "anna@alfa.example", []string{"bob@beta.example"}, []byte(anna)); err != nil {
		t.Fatal(err)
	}
	await(t, s, "bob@beta.example", pec.KindTransport, "cs anna")
	await(t, s, "anna@alfa.example", pec.KindDelivery, "cs anna")
}

// TestPluginsAreChecked: what is wrong with a plugin is told before it is used.
func TestPluginsAreChecked(t *testing.T) {
	s := newStage(t)
	if err := s.Alfa.Pecd.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if b, err := os.ReadFile(mortal.build(t)); err != nil {
		t.Fatal(err)
	} else if err := errors.Join(os.WriteFile(open, b, 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		plugin stage.PluginConfig
		says   []string
	}{
		"no such file":    {stage.PluginConfig{Path: "/nonexistent/check"}, []string{"no such file"}},
		"no plugin":       {stage.PluginConfig{Path: plain}, []string{"does not start as a plugin"}},
		"other checksum":  {stage.PluginConfig{Path: mortal.build(t), SHA256: strings.Repeat("0", 64)}, []string{"checksum"}},
		"writable":        {stage.PluginConfig{Path: open}, []string{"change the program"}},
		"unknown setting": {stage.PluginConfig{Path: mortal.build(t), Settings: map[string]any{"evry": 3}}, []string{"evry", "every"}},
		"wrong type":      {stage.PluginConfig{Path: mortal.build(t), Settings: map[string]any{"every": "x"}}, []string{"every"}},
	} {
		s.Alfa.Pecd.Config.Plugins = []stage.PluginConfig{tt.plugin}
		if err := s.Alfa.Pecd.WriteConfig(); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config", "check"}, {"serve"}} {
			out, err := exec.Command(s.Alfa.Pecd.Bin, append(args, "--config", s.Alfa.Pecd.ConfigFile)...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 78 {
				t.Errorf("%s: %v: %v, want exit code 78\n%s", name, args, err, out)
			}
			for _, want := range append(tt.says, s.Alfa.Pecd.ConfigFile+":", "fix:") {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s: %v lacks %q:\n%s", name, args, want, out)
				}
			}
		}
	}
}
