package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pecd/plugins/protocol"
	"pecd/points"
)

// maxStrikes is how many calls in a row may miss their deadline, or find nobody
// who listens, before the plugin is taken for hung.
const maxStrikes = 3

// probeTime bounds the question how a plugin is.
const probeTime = 10 * time.Second

// A supervised is a plugin that is kept running. One goroutine, run, starts and
// ends its processes; calls only use the session that is there.
type supervised struct {
	host  *Host
	spec  Spec
	at    places
	slots chan struct{}   // one for each call under way
	hung  chan *session   // a session that answers no more
	life  context.Context // ends when the plugin is to
	stop  context.CancelFunc
	ended chan struct{} // closed when run has ended; nil if it was never started
	calls sync.WaitGroup

	mu       sync.Mutex // guards what follows
	session  *session   // nil while it does not run
	desc     Description
	state    State
	since    time.Time
	report   launched
	strikes  int // calls in a row that were not answered
	misses   int // probes in a row that were not
	closing  bool
	lastErr  string
	count    struct{ calls, failures, restarts int64 }
	latency  latencies
	nextWait time.Duration
}

func newSupervised(h *Host, spec Spec) *supervised {
	life, stop := context.WithCancel(context.Background())
	return &supervised{host: h, spec: spec, slots: make(chan struct{}, spec.Parallel), hung: make(chan *session, 1), life: life, stop: stop,
		state: Starting, since: h.opts.Now(), nextWait: h.opts.BackOff,
		at: places{sockets: h.opts.Dir, messages: filepath.Join(h.opts.Messages, "to-"+spec.Name), state: filepath.Join(h.opts.State, spec.Name)}}
}

func (p *supervised) mkdirs() error {
	if err := os.Mkdir(p.at.messages, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(p.at.state, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (p *supervised) kind() protocol.Kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.desc.Kind
}

func (p *supervised) wants(stage points.Stage) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.desc.wants(stage)
}

// start starts the plugin for the first time, and its supervision.
func (p *supervised) start(ctx context.Context) error {
	s, err := p.open(ctx)
	if err != nil {
		return fmt.Errorf("plugin %s: %w", p.spec.Name, err)
	}
	p.ended = make(chan struct{})
	go p.run(s)
	return nil
}

// open starts a process and configures it.
func (p *supervised) open(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, p.host.opts.StartTimeout)
	defer cancel()
	s, err := dial(ctx, p.spec, p.at, p.host.spawner, p.host.opts.Log)
	if err != nil {
		return nil, err
	}
	desc, err := s.ready(ctx)
	if known := p.kind(); err == nil && known != "" && known != desc.Kind {
		err = fmt.Errorf("%w: it was a %s and now is a %s", ErrNonsense, known, desc.Kind)
	}
	if err != nil {
		s.kill()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session, p.desc, p.report, p.strikes, p.misses = s, desc, s.proc.report, 0, 0
	p.enter(Running)
	return s, nil
}

// ready configures a plugin that was just started.
func (s *session) ready(ctx context.Context) (Description, error) {
	problems, err := s.configure(ctx, false)
	if err != nil {
		return Description{}, s.failed("Configure", err)
	}
	if len(problems) > 0 {
		return Description{}, fmt.Errorf("%w: %w", ErrConfigured, joined(problems))
	}
	desc, err := s.describe(ctx, true)
	if err != nil {
		return desc, s.failed("Describe", err)
	}
	return desc, nil
}

// failed says of which call err is.
func (s *session) failed(call string, err error) error {
	if status.Code(err) == codes.DeadlineExceeded {
		err = ErrTimeout
	}
	return fmt.Errorf("%s: %w", call, curtail(err))
}

func joined(problems []Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.String())
	}
	return errors.Join(errs...)
}

// enter changes the state; p.mu is held.
func (p *supervised) enter(s State) {
	p.state, p.since = s, p.host.opts.Now()
}

// run keeps the plugin running until close.
func (p *supervised) run(s *session) {
	defer close(p.ended)
	for s != nil {
		p.attend(s)
		s = p.again()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = nil
	p.enter(Closed)
}

// attend waits until s is to end, and ends it.
func (p *supervised) attend(s *session) {
	probe := time.NewTicker(p.host.opts.Probe)
	defer probe.Stop()
	begun := p.host.opts.Now()
	for {
		select {
		case <-probe.C:
			p.probe(s)
			continue
		case hung := <-p.hung:
			if hung != s {
				continue
			}
			p.lose(begun, s.hung())
			s.kill()
		case <-s.proc.done:
			p.lose(begun, fmt.Errorf("it ended: %w", s.proc.end()))
			s.kill()
		case <-p.life.Done():
			s.end()
		}
		return
	}
}

// dyingTime is how long a plugin that answers no more may take to turn out dead.
const dyingTime = 200 * time.Millisecond

// hung says why s, which answers no more, is ended.
func (s *session) hung() error {
	t := time.NewTimer(dyingTime)
	defer t.Stop()
	select {
	case <-s.proc.done:
		return fmt.Errorf("it ended: %w", s.proc.end())
	case <-t.C:
		return fmt.Errorf("it gave no answer %d times in a row and was killed", maxStrikes)
	}
}

// lose notes that the plugin runs no more. One that ran for long starts with a
// short wait again.
func (p *supervised) lose(begun time.Time, why error) {
	o := p.host.opts
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session, p.lastErr = nil, why.Error()
	p.enter(BackingOff)
	if o.Now().Sub(begun) > o.MaxBackOff {
		p.nextWait = o.BackOff
	}
	o.Log.Error("a plugin failed", "plugin", p.spec.Name, "error", why, "restart_in", p.nextWait)
}

// again starts the plugin anew until that works; nil if it is to end.
func (p *supervised) again() *session {
	for {
		if !p.wait() {
			return nil
		}
		s, err := p.open(p.life)
		p.restarted(err)
		if err == nil {
			return s
		}
	}
}

// wait waits before the next start; false if there is none.
func (p *supervised) wait() bool {
	p.mu.Lock()
	d := p.nextWait
	p.nextWait = min(2*d, p.host.opts.MaxBackOff)
	p.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return p.life.Err() == nil
	case <-p.life.Done():
		return false
	}
}

// lasting are the errors that do not go away by themselves.
var lasting = []error{ErrChecksum, ErrUnsafe, ErrProtocol, ErrConfigured, os.ErrNotExist}

// restarted notes how a restart went.
func (p *supervised) restarted(err error) {
	o := p.host.opts
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count.restarts++
	if err == nil {
		o.Log.Info("a plugin runs again", "plugin", p.spec.Name, "pid", p.session.proc.pid())
		return
	}
	p.lastErr = err.Error()
	p.enter(BackingOff)
	for _, e := range lasting {
		if errors.Is(err, e) {
			p.enter(Failed)
			p.nextWait = o.MaxBackOff
		}
	}
	o.Log.Error("a plugin cannot be started again", "plugin", p.spec.Name, "error", err, "restart_in", p.nextWait)
}

// probe asks the plugin what works inside it, and so whether it works at all. An
// answer says nothing about its calls: a check can hang while the rest works.
func (p *supervised) probe(s *session) {
	ctx, cancel := context.WithTimeout(p.life, min(probeTime, p.spec.Timeout))
	defer cancel()
	desc, err := s.describe(ctx, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.life.Err() != nil: // it is to end, and no longer asked
	case err != nil:
		p.lastErr = s.failed("Describe", err).Error()
		p.strike(s, &p.misses)
	default:
		p.misses = 0
		p.desc.Engine = desc.Engine
	}
}

// strike counts a call or probe that s did not answer; p.mu is held.
func (p *supervised) strike(s *session, count *int) {
	if p.session != s {
		return
	}
	*count++
	if p.strikes+p.misses == maxStrikes {
		select {
		case <-p.hung: // an older session's word
		default:
		}
		p.hung <- s // there is room: nobody else sends while p.mu is held
	}
}

// close takes no more calls, waits for those under way until ctx ends, and ends
// the plugin.
func (p *supervised) close(ctx context.Context) {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	drained := make(chan struct{})
	go func() {
		p.calls.Wait() // each has a deadline
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
	}
	p.stop()
	if p.ended != nil {
		<-p.ended
	}
	<-drained
}

func (p *supervised) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Plugin: p.spec.Name, Path: p.spec.Path, SHA256: p.report.SHA256, Pinned: p.spec.SHA256 != "", Description: p.desc, State: p.state,
		Since: p.since, Confined: p.report.Landlock >= whole && p.report.Filtered, Landlock: p.report.Landlock, Filtered: p.report.Filtered, Calls: p.count.calls, Failures: p.count.failures,
		Restarts: p.count.restarts, LastError: p.lastErr}
	s.Mean, s.P99 = p.latency.summary()
	if p.session != nil {
		s.Pid = p.session.proc.pid()
	}
	return s
}
