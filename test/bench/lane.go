package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// A lane is one set of servers. Its third server, the ordinary world, is a sink
// that takes all and keeps nothing, so that only the sender's side is measured
// where mail goes there.
type lane struct {
	name  string
	stage *stage.Stage
	sink  *sink
	dkim  *exec.Cmd
	usage *usage
	sent  atomic.Int64 // numbers messages, so that each is one of its own
	// bearable is how many exchanges per second it carried at most so far.
	bearable float64
}

// patience bounds one burst.
const patience = 10 * time.Minute

func newLane(ctx context.Context, dir, name string, change func(*stage.Options)) (l *lane, err error) {
	fmt.Fprintf(os.Stderr, "bench: starting the servers of %q\n", name)
	o := stage.Options{Dir: dir, People: people}
	change(&o)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l = &lane{name: name}
	made := l // the result is nil after an error
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	if l.stage, err = stage.New(ctx, o); err != nil {
		return nil, err
	}
	if o.Milter != "" {
		if l.dkim, err = startDKIM(ctx, l.stage.Alfa, o.Milter); err != nil {
			return nil, err
		}
	}
	if err := l.stage.Start(ctx); err != nil {
		return nil, err
	}
	if err := l.stage.StopMTA(ctx, &l.stage.Ordinary.MailServer); err != nil {
		return nil, err
	}
	if l.sink, err = listenSink(ctx, l.stage.Ordinary.SMTP); err != nil {
		return nil, err
	}
	l.usage, err = watch(l.masters())
	return l, err
}

// masters are the servers of both providers: the process ids of their masters.
func (l *lane) masters() map[string][]int {
	m := map[string][]int{}
	for _, p := range l.stage.Providers() {
		if pid := p.Pecd.PID(); pid != 0 {
			m["pecd"] = append(m["pecd"], pid)
		}
		m["Postfix"] = append(m["Postfix"], pidIn(filepath.Join(p.Dir, "postfix", "queue", "pid", "master.pid")))
		m["Dovecot"] = append(m["Dovecot"], pidIn(filepath.Join(p.Dir, "dovecot", "run", "master.pid")))
	}
	if l.dkim != nil {
		m["opendkim"] = []int{l.dkim.Process.Pid}
	}
	return m
}

func pidIn(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 is no process
	return pid
}

// close stops all and says what went wrong with that.
func (l *lane) close() {
	var errs []error
	if l.usage != nil {
		defer l.usage.close()
	}
	if l.stage != nil {
		errs = append(errs, l.stage.Remove(context.Background()))
	}
	if l.sink != nil {
		errs = append(errs, l.sink.close())
	}
	if l.dkim != nil {
		_ = l.dkim.Process.Kill() // it may have ended
		_ = l.dkim.Wait()
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", l.name, err)
	}
}

// A load is what a lane carries in one round.
type load struct {
	sessions, messages int
	rate               float64 // messages per second; 0: as fast as they are taken
	// parts are what a message of session i consists of: one transaction, but for "the
	// same four sent plain". Each session has a user of its own.
	parts func(i int) []part
	// boxed is how many messages each message makes in mailboxes, and boxes are all of
	// these; sunk is how many it makes in the sink.
	boxed int
	boxes []string
	sunk  int
	look  func() error // called before the mailboxes are emptied; may be nil
}

// A part is sent in one transaction.
type part struct {
	from    string
	to      []string
	content func(n int64) []byte
}

// A result is what a round took. Times are milliseconds.
type result struct {
	accepted, done float64 // messages per second: until the last 250, until all that follows has arrived
	cpu            map[string]float64
	total          float64 // processor time per message, of all servers
	p50, p99       float64 // from the moment a message was due until its 250
}

// carry carries the load and waits for all that follows from it.
func (l *lane) carry(ctx context.Context, o load) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	open := make([]line, o.sessions)
	for i := range open {
		var err error
		if open[i], err = l.connect(ctx, o.parts(i)); err != nil {
			return result{}, err
		}
		defer open[i].close()
	}
	// All that is sent is made before the clock starts.
	first := l.sent.Add(int64(o.messages)) - int64(o.messages)
	raw := make([][][]byte, o.messages)
	for i := range raw {
		for _, p := range o.parts(i % o.sessions) {
			raw[i] = append(raw[i], p.content(first+int64(i)))
		}
	}
	sunk := l.sink.taken.Load() + int64(o.messages*o.sunk)
	if err := l.usage.adopt(l.masters()); err != nil {
		return result{}, err
	}
	before, start := l.usage.read(), time.Now()
	took := make([]time.Duration, o.messages)
	g, gctx := errgroup.WithContext(ctx)
	for k, c := range open {
		parts := o.parts(k)
		g.Go(func() error {
			for i := k; i < o.messages; i += o.sessions {
				due := time.Now()
				if o.rate > 0 {
					due = start.Add(time.Duration(float64(i) / o.rate * float64(time.Second)))
					if !pause(gctx, time.Until(due)) {
						return gctx.Err()
					}
				}
				for k, p := range parts {
					if _, err := c[p.from].Send(p.from, p.to, raw[i][k]); err != nil {
						return err
					}
				}
				took[i] = time.Since(due)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return result{}, err
	}
	accepted := time.Since(start)
	if err := l.arrived(ctx, o, sunk); err != nil {
		return result{}, err
	}
	done := time.Since(start)
	if o.boxed > 1 {
		l.bearable = max(l.bearable, float64(o.messages)/done.Seconds())
	}
	r := figures(o.messages, accepted, done, before, l.usage.read(), took)
	if o.look != nil {
		if err := o.look(); err != nil {
			return r, err
		}
	}
	return r, l.empty(ctx, o)
}

// A line is the open sessions of one sender at a time, by user.
type line map[string]*stage.Session

func (l *lane) connect(ctx context.Context, parts []part) (line, error) {
	c := line{}
	for _, p := range parts {
		if c[p.from] != nil {
			continue
		}
		s, err := l.stage.Login(ctx, p.from)
		if err != nil {
			c.close()
			return nil, err
		}
		c[p.from] = s
	}
	return c, nil
}

func (c line) close() {
	for _, s := range c {
		_ = s.Close() // all has been sent
	}
}

// pause waits; false: ctx was done first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between is the time between two looks at what has arrived: a burst of large messages
// is over in less than a second, and what is rounded up to the next look is measured.
const between = 10 * time.Millisecond

// arrived waits until all mailboxes and the sink have what they should.
func (l *lane) arrived(ctx context.Context, o load, sunk int64) error {
	var boxes []*box
	for _, address := range o.boxes {
		dir, err := l.stage.MailFolder(address)
		if err != nil {
			return err
		}
		boxes = append(boxes, &box{dir: dir})
	}
	tick := time.NewTicker(between)
	defer tick.Stop()
	for {
		missing := ""
		if n := l.sink.taken.Load(); n < sunk {
			missing = fmt.Sprintf("the sink lacks %d", sunk-n)
		}
		have := 0
		for _, b := range boxes {
			n, err := b.count()
			if err != nil {
				return err
			}
			have += n
		}
		if missing == "" && have < o.messages*o.boxed {
			missing = fmt.Sprintf("the mailboxes have %d of %d", have, o.messages*o.boxed)
		}
		if missing == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ctx.Err(), missing)
		}
	}
}

// deletedRest is a little more than the five seconds for which ext4 does not use
// the inodes of deleted files again: until then it looks at each of them in vain
// when a file is made.
const deletedRest = 6 * time.Second

// empty empties the mailboxes: Dovecot takes longer to deliver into a large one.
func (l *lane) empty(ctx context.Context, o load) error {
	for _, address := range o.boxes {
		if err := l.stage.Empty(ctx, address); err != nil {
			return err
		}
	}
	if len(o.boxes) > 0 && !pause(ctx, deletedRest) {
		return ctx.Err()
	}
	return nil
}
