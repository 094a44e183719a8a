// Package clockwatch watches how far the clock of this machine may be from UTC:
// one second is what the rules allow (DM 2/11/2005, art. 9; docs/rules.md, C1). It asks
// NTP servers, which measure that, or else the kernel, which bounds it by what whoever
// keeps its clock has told it. It sets no clock.
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

// KernelLimit is how far the kernel may say that the clock is off at most. That is no
// measurement, but a bound, which grows by half a millisecond a second until somebody
// corrects the clock: systemd-timesyncd, which asks every 2048 seconds, lets it reach
// a second, and two where one answer is lost, with a clock that is right.
const KernelLimit = 2500 * time.Millisecond

// Defaults of Options.
const (
	DefaultInterval = 5 * time.Minute
	DefaultPatience = 5 * time.Second
)

// Patience is how long a clock that has jumped, or was found off, is doubted where
// nobody says that it is right.
const Patience = time.Hour

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
	// Hold is how long the watch is unsure from its beginning on, while nobody vouches
	// for the clock: a machine may start with any time. 0: not at all.
	Hold    time.Duration
	Now     func() time.Time
	Kernel  func() (Kernel, error)               // nil: AskKernel
	Timer   func(time.Duration) <-chan time.Time // nil: time.After
	Elapsed func() time.Duration                 // a clock that does not jump; nil: that of the runtime
	Log     *slog.Logger
}

// A Status is what is known of the clock.
type Status struct {
	Checked time.Time
	// Known says that Offset is: a server or the kernel vouches for it.
	Known bool
	// Offset is how far the clock is off, as a server says; the kernel: may be off.
	Offset time.Duration
	By     string // the server, or "kernel"
	// Doubt says that what the clock shows must not be certified: it is off by more
	// than Limit, or KernelLimit, or has jumped and nobody says that it is right now.
	Doubt bool
	// Unsure says that nothing may follow from the clock that cannot be taken back:
	// Doubt, or nobody has vouched for it yet (Options.Hold).
	Unsure bool
	Err    error // why somebody who was asked could not say; nil if all could
}

// A Watch knows how it stands with the clock. It may be used concurrently.
type Watch struct {
	o Options

	looked chan struct{} // closed after the first Look
	first  sync.Once     // closes looked

	mu      sync.Mutex // guards what follows
	status  Status
	wall    time.Time     // what steady is compared with
	steady  time.Duration // when it was wall
	began   time.Duration // when New was called, by Elapsed
	vouched bool          // somebody has said since then what the time is
	wrong   time.Duration // when it jumped or was found off, by Elapsed; 0: it is right
	jumps   int           // so far
	asked   int           // how many of them somebody was asked about
}

// New returns a watch that has not looked yet, and doubts nothing. It notices jumps
// from now on.
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
	w := &Watch{o: o, looked: make(chan struct{}), wall: o.Now().Round(0), steady: o.Elapsed()}
	w.began = w.steady
	return w
}

// Status returns what is known. It notices a jump by itself: who is about to act upon
// the clock cannot wait until Run does.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, steady := w.compare()
	st := w.status
	st.Unsure = st.Doubt || !w.vouched && steady-w.began < w.o.Hold
	return st
}

// Looked returns a channel that is closed after the first Look.
func (w *Watch) Looked() <-chan struct{} { return w.looked }

// tick is how often Run looks whether the clock has jumped, if not more often.
const tick = 10 * time.Second

// Run looks at each interval, and soon after a jump, until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	next := w.o.Elapsed()
	for ctx.Err() == nil {
		if w.move() || w.o.Elapsed() >= next {
			w.Look(ctx)
			next = w.o.Elapsed() + w.o.Interval
		}
		select {
		case <-ctx.Done():
		case <-w.o.Timer(min(tick, w.o.Interval)):
		}
	}
}

// compare reads both clocks, and notices if the one has moved otherwise than the
// other. Its caller holds mu. Steps that are small count together until move is called.
func (w *Watch) compare() (wall time.Time, steady time.Duration) {
	wall, steady = w.o.Now().Round(0), w.o.Elapsed()
	by := wall.Sub(w.wall) - (steady - w.steady)
	if by.Abs() <= Limit {
		return wall, steady
	}
	w.wall, w.steady = wall, steady
	w.wrong = max(steady, 1)
	w.status.Doubt = true
	w.jumps++
	w.o.Log.Error("the clock has jumped", "by", by)
	return wall, steady
}

// move compares, and measures from now on: whoever keeps the clock may correct it
// slowly. It reports whether there was a jump that nobody was asked about.
func (w *Watch) move() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wall, w.steady = w.compare()
	return w.jumps > w.asked
}

// Look asks servers or kernel now.
func (w *Watch) Look(ctx context.Context) {
	w.mu.Lock()
	w.compare()
	jumps := w.jumps
	w.mu.Unlock()
	st := w.ask(ctx)
	w.mu.Lock()
	_, steady := w.compare()
	before := w.status
	w.asked = jumps
	switch {
	case w.jumps > jumps:
		// The answers are about the clock as it was.
		st = Status{Checked: st.Checked, Doubt: true, Err: errJumped}
	case st.Known:
		w.vouched, w.wrong = true, 0
		if st.Doubt = st.Offset.Abs() > LimitOf(st.By); st.Doubt {
			w.wrong = max(steady, 1)
		}
	case w.wrong > 0:
		st.Doubt = steady-w.wrong < Patience
	}
	w.status = st
	w.mu.Unlock()
	switch {
	case st.Doubt && st.Known:
		w.o.Log.Error("the clock is off by more than a second", "offset", st.Offset, "by", st.By)
	case st.Doubt:
		w.o.Log.Error("the clock has jumped or was off, and nobody says that it is right", "err", st.Err)
	case !st.Known && (before.Known || before.Doubt || before.Checked.IsZero()):
		w.o.Log.Warn("whether the clock is right is not known", "err", st.Err)
	case before.Doubt:
		w.o.Log.Info("the clock is right", "offset", st.Offset, "by", st.By)
	}
	w.first.Do(func() { close(w.looked) })
}

// kernel is the By of a Status where no server says what the time is.
const kernel = "kernel"

// LimitOf is the limit for an offset that by has told: a server, or the kernel.
func LimitOf(by string) time.Duration {
	if by == kernel {
		return KernelLimit
	}
	return Limit
}

// errJumped says that answers do not count.
var errJumped = errors.New("the clock jumped while somebody was asked")

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
		st.Known, st.Offset, st.By = true, k.Error, kernel
	}
	st.Err = errors.Join(errs...)
	return st
}
