// Package clockwatch watches how far the clock of this machine may be from UTC:
// one second is what the rules allow (DM 2/11/2005, art. 9; docs/rules.md, C1). It asks
// NTP servers, or else the kernel what whoever keeps its clock has told it. It sets
// no clock.
package clockwatch

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how far a provider's clock may be from UTC.
const Limit = time.Second

// Defaults of Options.
const (
	DefaultInterval = 5 * time.Minute
	DefaultPatience = 5 * time.Second
)

// jumpPatience is how long a clock that has jumped is doubted where nobody
// confirms it.
const jumpPatience = time.Hour

// A Kernel is what the kernel says of its clock.
type Kernel struct {
	Synchronised bool
	// Error is the most that the clock may be off, by the kernel's reckoning.
	Error time.Duration
}

// AskKernel asks the kernel (adjtimex).
func AskKernel() (Kernel, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Synchronised: state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0,
		Error: time.Duration(tx.Maxerror) * time.Microsecond}, nil
}

// Options say what a Watch watches.
type Options struct {
	Servers  []string // NTP servers, host:port; none: the kernel is asked
	Interval time.Duration
	Patience time.Duration // with each server
	Now      func() time.Time
	Kernel   func() (Kernel, error)               // nil: AskKernel
	Timer    func(time.Duration) <-chan time.Time // nil: time.After
	Elapsed  func() time.Duration                 // a clock that does not jump; nil: that of the runtime
	Log      *slog.Logger
}

// A Status is what is known of the clock.
type Status struct {
	Checked time.Time
	// Known says that Offset is: a server or the kernel vouches for it.
	Known bool
	// Offset is how far the clock is off, or may be.
	Offset time.Duration
	By     string // the server, or "kernel"
	// Doubt says that what the clock shows must not be certified: it is off by more
	// than Limit, or has jumped and nobody says that it is right now.
	Doubt bool
	Err   error // why somebody who was asked could not say; nil if all could
}

// A Watch knows how it stands with the clock. It may be used concurrently.
type Watch struct {
	o Options

	mu     sync.Mutex // guards what follows
	status Status
	wall   time.Time     // at the last look
	steady time.Duration // at the last look
	jumped time.Duration // when it jumped, by Elapsed; 0: it has not
}

// New returns a watch that has not looked yet, and doubts nothing.
func New(o Options) *Watch {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Kernel == nil {
		o.Kernel = AskKernel
	}
	if o.Timer == nil {
		o.Timer = time.After
	}
	if o.Elapsed == nil {
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Watch{o: o}
}

// Status returns what is known.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// tick is how often Run looks whether the clock has jumped, if not more often.
const tick = 10 * time.Second

// Run looks at each interval, and at once after a jump, until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	next := time.Duration(0)
	for ctx.Err() == nil {
		jumped := w.jump()
		if jumped || w.o.Elapsed() >= next {
			w.Look(ctx)
			next = w.o.Elapsed() + w.o.Interval
		}
		select {
		case <-ctx.Done():
		case <-w.o.Timer(min(tick, w.o.Interval)):
		}
	}
}

// jump reports whether the clock has moved otherwise than time has.
func (w *Watch) jump() bool {
	wall, steady := w.o.Now().Round(0), w.o.Elapsed()
	w.mu.Lock()
	defer w.mu.Unlock()
	by := wall.Sub(w.wall) - (steady - w.steady)
	first := w.wall.IsZero()
	w.wall, w.steady = wall, steady
	if first || by.Abs() <= Limit {
		return false
	}
	w.jumped = max(steady, 1)
	w.status.Doubt = true
	w.o.Log.Error("the clock has jumped", "by", by)
	return true
}

// Look asks servers or kernel now.
func (w *Watch) Look(ctx context.Context) {
	st := w.ask(ctx)
	w.mu.Lock()
	before := w.status
	switch {
	case st.Known:
		st.Doubt, w.jumped = st.Offset.Abs() > Limit, 0
	case w.jumped > 0 && w.o.Elapsed()-w.jumped < jumpPatience:
		st.Doubt = true
	}
	w.status = st
	w.mu.Unlock()
	switch {
	case st.Doubt && st.Known:
		w.o.Log.Error("the clock is off by more than a second", "offset", st.Offset, "by", st.By)
	case st.Doubt:
		w.o.Log.Error("the clock has jumped, and nobody says that it is right", "err", st.Err)
	case !st.Known && (before.Known || before.Checked.IsZero()):
		w.o.Log.Warn("whether the clock is right is not known", "err", st.Err)
	case before.Doubt:
		w.o.Log.Info("the clock is right", "offset", st.Offset, "by", st.By)
	}
}

// ask returns the status but for the doubt.
func (w *Watch) ask(ctx context.Context) Status {
	st := Status{Checked: w.o.Now()}
	type answer struct {
		offset time.Duration
		server string
	}
	var answers []answer
	var errs []error
	for _, s := range w.o.Servers {
		sctx, cancel := context.WithTimeout(ctx, w.o.Patience)
		offset, err := Ask(sctx, s, w.o.Now, rand.Reader)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		answers = append(answers, answer{offset, s})
	}
	if len(answers) > 0 {
		// The median: one server that lies does not count among three.
		slices.SortFunc(answers, func(a, b answer) int { return int(a.offset - b.offset) })
		m := answers[len(answers)/2]
		st.Known, st.Offset, st.By = true, m.offset, m.server
		return st
	}
	k, err := w.o.Kernel()
	switch {
	case err != nil:
		errs = append(errs, err)
	case !k.Synchronised:
		errs = append(errs, errors.New("the kernel's clock is not synchronised: run chrony, ntpd or systemd-timesyncd, or name servers in time.ntp"))
	default:
		st.Known, st.Offset, st.By = true, k.Error, "kernel"
	}
	st.Err = errors.Join(errs...)
	return st
}
