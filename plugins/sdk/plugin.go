// Package sdk is what the writer of a plugin imports: Main makes a program a
// plugin of pecd. A plugin made with Check looks at messages and says what it
// saw; package point makes one that takes the place of the access, reception or
// delivery point. It decides about nothing else: it signs nothing, picks no SMTP
// code and sees no key.
//
// The messages between pecd and a plugin are those of plugin.proto, in package
// pluginv1.
package sdk

import (
	"context"

	"pecd/plugins/protocol"
	"pecd/points"
)

// Version is the version of this SDK. Plugins made with 1.x run with every pecd
// that speaks version 1 of the protocol.
const Version = "1.0.0"

// Protocol is the version of the protocol that this SDK speaks.
const Protocol = protocol.Version

// A Plugin is what Main serves.
type Plugin struct {
	Name    string // lower case letters, digits and hyphens
	Version string
	About   string // what it does, in one sentence
	Keys    []Key  // the settings that it knows
	// Open is called once, before any message, with the plugin's table of pecd's
	// configuration. Where Config.Dry says that it is only `pecd config check`,
	// it looks at the table and connects to nothing. Its error tells the operator
	// what is wrong; Config.Decode and Config.Problem make good ones. The context
	// ends with the call.
	Open func(ctx context.Context, c Config) (Service, error)
}

// A Key is one setting, as `PLUGIN describe` shows it.
type Key struct {
	Name    string // as in the configuration
	Type    string // string, integer, boolean, duration, list of strings
	Default string // as one would write it; empty if there is none
	About   string // what it does, in one sentence
}

// A Kind is what a plugin is.
type Kind = protocol.Kind

// The kinds.
const (
	KindCheck     = protocol.KindCheck     // looks at messages
	KindAccess    = protocol.KindAccess    // takes the place of the access point
	KindReception = protocol.KindReception // of the reception point
	KindDelivery  = protocol.KindDelivery  // of the delivery point
)

// A Service is what an opened plugin offers: a *Checker, or what package point
// makes. If it has a method Engine() string, that says what works inside it and
// of which date, for `pecd plugin list`; it must be quick and may be called
// concurrently. If it is an io.Closer, it is closed before the plugin ends, and
// has a second for it.
type Service interface {
	Kind() Kind
}

// A Checker is a check: what Check returns. To add an Engine or a Close method,
// use WithEngine and WithClose, or embed it.
type Checker struct {
	check  func(context.Context, *Message) (points.Finding, error)
	stages []points.Stage
	engine func() string
	close  func() error
}

// Check returns the service that calls f for every message at the given stages.
// f may be called concurrently. Its context ends when pecd no longer waits. An
// error means that the check cannot tell now, and puts the message off; pecd
// writes it to its log. A panic of f counts as an error.
func Check(f func(context.Context, *Message) (points.Finding, error), stages ...points.Stage) *Checker {
	return &Checker{check: f, stages: stages}
}

// WithEngine has c describe its engine by f; it returns c.
func (c *Checker) WithEngine(f func() string) *Checker {
	c.engine = f
	return c
}

// WithClose has f called before the plugin ends; it returns c.
func (c *Checker) WithClose(f func() error) *Checker {
	c.close = f
	return c
}

// Kind implements Service.
func (c *Checker) Kind() Kind { return KindCheck }

// Stages are the stages at which c wants to be asked.
func (c *Checker) Stages() []points.Stage { return c.stages }

// Check looks at m. Tests of a plugin call it directly.
func (c *Checker) Check(ctx context.Context, m *Message) (points.Finding, error) {
	return c.check(ctx, m)
}

// Engine describes what works inside c; empty without WithEngine.
func (c *Checker) Engine() string {
	if c.engine == nil {
		return ""
	}
	return c.engine()
}

// Close implements io.Closer.
func (c *Checker) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// Clean is the finding that there is nothing to object to.
func Clean() points.Finding { return points.Finding{Says: points.Clean} }

// Refuse is the finding that a rule forbids the message. The sender is told why:
// 1 to 500 octets of printable ASCII each.
func Refuse(italian, english string) points.Finding {
	return points.Finding{Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: italian, English: english}}
}

// Infected is the finding that there is a virus in the message: 1 to 200 octets
// of printable ASCII.
func Infected(name string) points.Finding {
	return points.Finding{Says: points.Infected, Virus: name}
}

// Unavailable is the finding that the check cannot tell now: the message is put
// off. An error says the same, and why.
func Unavailable() points.Finding { return points.Finding{} }
