// Package conform is the conformance kit for plugins: `pecd plugin check`. It
// runs a program as pecd would, confined and by package host, and looks whether
// it behaves as plugin.proto and docs/plugins.md ask. It judges no policy: what a
// plugin says of a message is its own affair, but it has to say something, in
// time, and of odd messages too.
package conform

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pecd/plugins/host"
	"pecd/plugins/protocol"
)

// Options are what a check of a plugin needs.
type Options struct {
	// Table are the plugin's settings.
	Table map[string]any
	// Read and Write are further paths that it may read, or read and write, as
	// in pecd's configuration.
	Read, Write []string
	// Timeout bounds each call; 30 s if zero.
	Timeout time.Duration
	Now     func() time.Time // must be set
	// Log, if not nil, hears of each line that the plugin logs. It may be called
	// concurrently.
	Log func(line string)

	patience time.Duration // instead of idleWithin, for tests
}

// An Outcome is how a check of a plugin went.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// A Result is one thing that was looked at.
type Result struct {
	Name    string        `json:"name"`
	Wants   string        `json:"wants"` // what a plugin has to do
	Outcome Outcome       `json:"outcome"`
	Reason  string        `json:"reason,omitempty"` // why it failed or was skipped
	Took    time.Duration `json:"took"`
}

// A test is one thing to look at.
type test struct {
	name, wants string
	needs       state
	run         func(context.Context, *kit) error
}

// A state is how far a plugin has come.
type state int

const (
	nothing state = iota
	starts        // it shakes hands and describes itself
	opens         // it takes its settings, and runs
	answers       // it says something of a plain message
)

// tests are all there are, in their order: each builds on those before.
var tests = []test{
	{"by hand", "started by hand, it says on standard error what it is, writes nothing to standard output, and ends", nothing, byHand},
	{"handshake", "it starts as a plugin of pecd, and writes nothing to standard output before the handshake", nothing, handshake},
	{"describe", "it says its name, version, purpose and settings, within the limits, and twice the same", starts, describe},
	{"unknown setting", "a setting that it does not know is a problem that names it", starts, unknownSetting},
	{"wrong type", "a setting of a wrong type is a problem that names it", starts, wrongType},
	{"empty table", "without settings it opens, or says what is missing", starts, emptyTable},
	{"many problems", "settings that are all wrong give at most 100 problems", starts, manyProblems},
	{"open", "it opens with the settings given, and says what kind of plugin it is", starts, open},
	{"answer", "it answers about a plain message", opens, answer},
	{"within the law", "a point decides nothing that the rules do not allow", opens, lawful},
	{"concurrency", "32 calls at once are all answered", answers, concurrency},
	{"odd messages", "whatever a message holds, it answers: such a message would be put off for ever", answers, odd},
	{"many recipients", "it answers about a message with 5,000 recipients", answers, manyRecipients},
	{"large message", "it answers about a message of 30 MB", answers, large},
	{"memory", "a message of 30 MB costs it less than 64 MB", answers, memory},
	{"deadline", "a call that is late disturbs nothing, and work for it ends", answers, deadline},
	{"cancellation", "32 calls that are given up disturb nothing, and work for them ends", answers, cancellation},
	{"panic", "no handler has panicked", opens, panicked},
	{"alive", "it is still the process that it was", opens, alive},
	{"shutdown", "asked to end, it ends within 2 s", opens, shutdown},
	{"host killed", "when pecd is killed, it is gone within 2 s", opens, hostKilled},
}

// A skip is why a test does not apply.
type skip string

func (s skip) Error() string { return string(s) }

// each bounds one test.
const each = 2 * time.Minute

// Run checks the plugin in the file binary and reports each result as it comes;
// ok is false if one failed. An error says that the plugin could not be looked at
// at all. The program that calls it must have called host.LaunchIfAsked and
// ChildIfAsked first thing in main.
func Run(ctx context.Context, binary string, o Options, report func(Result)) (ok bool, err error) {
	k, err := newKit(binary, o)
	if err != nil {
		return false, err
	}
	defer func() {
		if e := k.close(); err == nil && e != nil {
			ok, err = false, e
		}
	}()
	ok = true
	for _, t := range tests {
		r := k.result(ctx, t)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		ok = ok && r.Outcome != Failed
		report(r)
	}
	return ok, nil
}

func (k *kit) result(ctx context.Context, t test) Result {
	r := Result{Name: t.name, Wants: t.wants, Outcome: Passed}
	begun := k.opts.Now()
	err := k.reached(t.needs)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, each)
		defer cancel()
		err = t.run(ctx, k)
	}
	r.Took = k.opts.Now().Sub(begun)
	var not skip
	switch {
	case errors.As(err, &not):
		r.Outcome, r.Reason = Skipped, string(not)
	case err != nil:
		r.Outcome, r.Reason = Failed, brief(err.Error())
	}
	return r
}

// brief bounds a reason: some errors repeat a whole message.
func brief(s string) string {
	const most = 2000
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// reached returns nil if the plugin has come as far as s.
func (k *kit) reached(s state) error {
	switch {
	case k.state >= s:
		return nil
	case k.state == opens:
		return skip("it does not answer about a plain message")
	case k.state == starts:
		return skip("it does not run with these settings")
	}
	return skip("it does not start")
}

// A kit is what the tests share.
type kit struct {
	spec  host.Spec
	opts  host.Options
	dir   string // of everything that is written
	log   *journal
	state state
	desc  host.Description
	host  *host.Host // nil unless the plugin runs
	pid   int        // of the plugin, when it was opened
	grown int64      // octets of memory that a large message took; -1 before
	// patience is how long the plugin may work for calls that were given up.
	patience time.Duration
}

func newKit(binary string, o Options) (*kit, error) {
	path, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pecd-check-")
	if err != nil {
		return nil, err
	}
	k := &kit{dir: dir, log: newJournal(o.Log), grown: -1, patience: o.patience}
	if k.patience == 0 {
		k.patience = idleWithin
	}
	k.spec = host.Spec{Name: "under-check", Path: path, Table: o.Table, Timeout: o.Timeout, Read: o.Read, Write: o.Write}
	if k.opts, err = places(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	k.opts.Log, k.opts.Now = k.log.logger(), o.Now
	// One that ends is not started again: that would hide it.
	k.opts.BackOff, k.opts.MaxBackOff = time.Hour, time.Hour
	return k, nil
}

// places makes the directories that a host wants, in dir.
func places(dir string) (o host.Options, err error) {
	o = host.Options{Dir: filepath.Join(dir, "s"), Messages: filepath.Join(dir, "messages"), State: filepath.Join(dir, "state")}
	for _, d := range []string{o.Dir, o.Messages, o.State} {
		err = errors.Join(err, os.Mkdir(d, 0o700))
	}
	return o, err
}

// closeTime bounds the end of the plugin.
const closeTime = 10 * time.Second

func (k *kit) close() error {
	return errors.Join(k.stop(), os.RemoveAll(k.dir))
}

// stop ends the plugin, if it runs.
func (k *kit) stop() error {
	if k.host == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	h := k.host
	k.host = nil
	return h.Close(ctx)
}

// with returns the spec with another table.
func (k *kit) with(table map[string]any) host.Spec {
	s := k.spec
	s.Table = table
	return s
}

// point reports whether the plugin takes the place of a point.
func (k *kit) point() bool { return k.desc.Kind != protocol.KindCheck }

// problems joins what is wrong with settings.
func problems(list []host.Problem) string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return strings.Join(s, "; ")
}
