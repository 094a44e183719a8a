// Package host runs plugins: it starts them confined, asks them about messages
// within a deadline, checks what they answer, and starts them again when they
// fail. A plugin that is not there, late, or answers nonsense has said nothing:
// the message is put off, for doubt is a delay. None outlives the host.
//
// A plugin runs as pecd's user. It sees no message but the one that it is asked
// about, and where the kernel has Landlock neither key nor store nor
// configuration. It has the network, and can connect to unix sockets that the
// user may connect to.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"pecd/plugins/protocol"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// Errors of plugins. Texts name the plugin.
var (
	ErrChecksum   = errors.New("the program is not the one whose checksum is configured")
	ErrUnsafe     = errors.New("others than root and pecd's user can change the program")
	ErrHandshake  = errors.New("the program does not start as a plugin")
	ErrProtocol   = errors.New("the plugin speaks another version of the protocol")
	ErrConfigured = errors.New("the plugin's configuration is wrong")
	ErrNonsense   = errors.New("the plugin answers what the protocol does not allow")
	ErrNotRunning = errors.New("the plugin is not running")
	ErrTimeout    = errors.New("the plugin did not answer in time")
)

// A Spec is one plugin of the configuration.
type Spec struct {
	Name   string         // lower case letters, digits and hyphens; unique
	Path   string         // of the program, absolute
	SHA256 string         // of the program, in hexadecimal; empty if it is not pinned
	Table  map[string]any // the plugin's own settings
	// Timeout bounds each call, and what comes before it: waiting for a slot and for
	// the copy of the message; 30 s if zero.
	Timeout time.Duration
	// Parallel is the most calls at the same time; 32 if zero. More wait, as long as
	// Timeout.
	Parallel int
	// Read and Write are further paths that the plugin may read, or read and
	// write, beside the system's libraries, its own directory and its state.
	Read, Write []string
}

// Options are what a Host needs of its surroundings.
type Options struct {
	// Dir holds the sockets. Its path must be short: a socket's has at most 107
	// octets. It must exist and belong to pecd alone.
	Dir string
	// Messages is where messages are copied to for plugins, for the time of a call.
	// It must exist and belong to pecd alone.
	Messages string
	// State holds a directory for each plugin, which outlives it. It must exist.
	State string
	// Owner is the user that Validate runs plugins as, if this process is root's; Dir
	// must be his then. This process's own if nil.
	Owner *syscall.Credential
	Log   *slog.Logger
	// Observe, if not nil, hears of every call: the plugin's name, the outcome
	// (what a check says, "decided" of a point, else "error", "timeout",
	// "nonsense", "not-running" or "cancelled") and how long it took. It may be
	// called concurrently.
	Observe func(plugin, outcome string, took time.Duration)
	Now     func() time.Time
	// BackOff is how long the first restart waits, doubled up to MaxBackOff; 5 s
	// and 2 min if zero.
	BackOff, MaxBackOff time.Duration
	// StartTimeout bounds a start with its configuration; 30 s if zero.
	StartTimeout time.Duration
	// Probe is how often each plugin is asked how it is; 30 s if zero.
	Probe time.Duration
}

func (o Options) complete() Options {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&o.BackOff, 5*time.Second)
	set(&o.MaxBackOff, 2*time.Minute)
	set(&o.StartTimeout, 30*time.Second)
	set(&o.Probe, 30*time.Second)
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	return o
}

func (s Spec) complete() Spec {
	if s.Timeout <= 0 {
		s.Timeout = 30 * time.Second
	}
	if s.Parallel <= 0 {
		s.Parallel = 32
	}
	return s
}

var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// check reports what is wrong with s itself.
func (s Spec) check() error {
	switch {
	case !names.MatchString(s.Name) || len(s.Name) > protocol.MaxName:
		return fmt.Errorf("plugin %q: a name has 1 to %d lower case letters, digits and hyphens", s.Name, protocol.MaxName)
	case !filepath.IsAbs(s.Path):
		return fmt.Errorf("plugin %s: the path %q is not absolute", s.Name, s.Path)
	}
	return nil
}

// A Host runs plugins. Its methods may be called concurrently.
type Host struct {
	opts    Options
	plugins []*supervised // in the order of the configuration
	spawner *spawner
	serial  serial
}

// Start starts the plugins of specs and returns when all of them run and are
// configured; else it ends those that do and says which one failed, and why. ctx
// bounds the start only.
func Start(ctx context.Context, specs []Spec, opts Options) (*Host, error) {
	h := &Host{opts: opts.complete(), spawner: newSpawner()}
	err := h.prepare(specs)
	if err == nil {
		err = h.startAll(ctx)
	}
	if err == nil {
		err = h.exclusive()
	}
	if err != nil {
		return nil, errors.Join(err, h.Close(context.WithoutCancel(ctx)))
	}
	return h, nil
}

// maxDir bounds the path of Options.Dir, in octets: with what go-plugin adds, a
// socket's path must keep within 107.
const maxDir = 64

// prepare checks specs and makes the directories.
func (h *Host) prepare(specs []Spec) error {
	if len(specs) == 0 {
		return nil
	}
	if len(h.opts.Dir) > maxDir {
		return fmt.Errorf("the directory of the plugins' sockets, %s, has a path of more than %d octets", h.opts.Dir, maxDir)
	}
	// What a killed predecessor left of messages must go.
	if err := h.sweep(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, spec := range specs {
		if err := spec.check(); err != nil {
			return err
		}
		if seen[spec.Name] {
			return fmt.Errorf("plugin %s: the name is used twice", spec.Name)
		}
		seen[spec.Name] = true
		p := newSupervised(h, spec.complete())
		if err := p.mkdirs(); err != nil {
			return fmt.Errorf("plugin %s: %w", spec.Name, err)
		}
		h.plugins = append(h.plugins, p)
	}
	return nil
}

// sweep removes what lies in the directory of messages.
func (h *Host) sweep() error {
	if h.opts.Messages == "" {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(h.opts.Messages, "to-*"))
	if err != nil {
		return err
	}
	// Earlier versions had copies for all plugins together in "spool".
	for _, d := range append(dirs, filepath.Join(h.opts.Messages, "spool")) {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts all plugins at the same time.
func (h *Host) startAll(ctx context.Context) error {
	errs := make([]error, len(h.plugins))
	var wg sync.WaitGroup
	for i, p := range h.plugins {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = p.start(ctx)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// exclusive checks that no two plugins want the place of the same point.
func (h *Host) exclusive() error {
	taken := make(map[protocol.Kind]string)
	for _, p := range h.plugins {
		k := p.kind()
		if k == protocol.KindCheck {
			continue
		}
		if other, ok := taken[k]; ok {
			return fmt.Errorf("plugin %s: the place of the %s point is taken by the plugin %s", p.spec.Name, k, other)
		}
		taken[k] = p.spec.Name
	}
	return nil
}

// Check asks the checks of a stage about q, in their order, and returns what they
// say. After a virus, or a check that cannot tell, the rest is not asked: it is
// settled what becomes of the message now. After a refusal the rest is, since a
// point may overlook a refusal but nothing that nobody looked for.
func (h *Host) Check(ctx context.Context, stage points.Stage, q Question) []points.Finding {
	c := h.newContent(q.Source, q.Range, q.Facts)
	var findings []points.Finding
	for _, p := range h.plugins {
		if !p.wants(stage) {
			continue
		}
		f := p.check(ctx, stage, q, c)
		findings = append(findings, f)
		if f.Says == points.Infected || f.Says == points.Unavailable {
			break
		}
	}
	return findings
}

// Checks reports whether any check wants to be asked at stage.
func (h *Host) Checks(stage points.Stage) bool {
	for _, p := range h.plugins {
		if p.wants(stage) {
			return true
		}
	}
	return false
}

// point returns the plugin that takes the place of a point, nil if none does.
func (h *Host) point(k protocol.Kind) *supervised {
	for _, p := range h.plugins {
		if p.kind() == k {
			return p
		}
	}
	return nil
}

// Access returns the plugin that takes the place of the access point, within
// access.Guard; nil if none does.
func (h *Host) Access() access.Point {
	if p := h.point(protocol.KindAccess); p != nil {
		return access.Guard(accessPoint{p})
	}
	return nil
}

// Reception returns the plugin that takes the place of the reception point,
// within reception.Guard; nil if none does.
func (h *Host) Reception() reception.Point {
	if p := h.point(protocol.KindReception); p != nil {
		return reception.Guard(receptionPoint{p})
	}
	return nil
}

// Delivery returns the plugin that takes the place of the delivery point, within
// delivery.Guard; nil if none does.
func (h *Host) Delivery() delivery.Point {
	if p := h.point(protocol.KindDelivery); p != nil {
		return delivery.Guard(deliveryPoint{p})
	}
	return nil
}

// Status says how each plugin is, in the order of the configuration.
func (h *Host) Status() []Status {
	list := make([]Status, len(h.plugins))
	for i, p := range h.plugins {
		list[i] = p.status()
	}
	return list
}

// Close takes no more calls, waits for those under way until ctx ends, and ends
// all plugins: each has two seconds for it and is killed then. Further calls of
// Close do nothing.
func (h *Host) Close(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range h.plugins {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p.close(ctx)
		}()
	}
	wg.Wait()
	h.spawner.close()
	return h.sweep()
}
