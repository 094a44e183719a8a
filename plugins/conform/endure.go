package conform

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"pecd/plugins/host"
	"pecd/plugins/protocol"
)

// maxGrowth is what a large message may cost of memory, in octets: one copy would
// pass, but a point of 32 calls at the same time, each with copies, would not
// live long.
const maxGrowth = 64 << 20

func large(ctx context.Context, k *kit) error {
	if k.desc.Kind == protocol.KindDelivery {
		return skip("a delivery point gets no message")
	}
	m, c, err := k.largeMail()
	if err != nil {
		return err
	}
	defer c.Close()
	before, err := peak(k.pid)
	if err != nil {
		return err
	}
	if err := k.ask(ctx, m); err != nil {
		return err
	}
	after, err := peak(k.pid)
	k.grown = max(0, after-before) // the system's counters are not exact
	return err
}

func memory(_ context.Context, k *kit) error {
	switch {
	case k.grown < 0:
		return skip("no large message was answered")
	case k.grown > maxGrowth:
		return fmt.Errorf("it took %d MB more", k.grown>>20)
	}
	return nil
}

// peak is the most memory that a process has had, in octets.
func peak(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if kb, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(kb, "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the system does not say how much memory the plugin has")
}

// late is how long a call may take to come back once nobody waits for it.
const late = 2 * time.Second

func deadline(ctx context.Context, k *kit) error {
	return k.givenUp(ctx, func(ctx context.Context, m mail) error {
		for d := time.Millisecond; d < 200*time.Millisecond; d *= 3 {
			ctx, cancel := context.WithTimeout(ctx, d)
			k.ask(ctx, m) // an answer in time is as good as none
			cancel()
		}
		return ctx.Err()
	})
}

func cancellation(ctx context.Context, k *kit) error {
	return k.givenUp(ctx, func(ctx context.Context, m mail) error {
		return together(func(i int) error {
			// One after the other, so that they are given up at any moment.
			ctx, cancel := context.WithTimeout(ctx, time.Duration(i)*4*time.Millisecond)
			defer cancel()
			k.ask(ctx, m) // as above
			return nil
		})
	})
}

// givenUp makes calls about a large message that end before their answers, and
// looks that the plugin lets go of them.
func (k *kit) givenUp(ctx context.Context, calls func(context.Context, mail) error) error {
	m, c, err := k.largeMail()
	if err != nil {
		return err
	}
	defer c.Close()
	begun := k.opts.Now()
	if err := calls(ctx, m); err != nil {
		return err
	}
	if took := k.opts.Now().Sub(begun); took > 2*late {
		return fmt.Errorf("the calls came back after %v", took.Round(time.Millisecond))
	}
	if err := k.idle(ctx); err != nil {
		return err
	}
	k.log.last()
	return k.ask(ctx, plain())
}

const (
	idleWithin = 10 * time.Second
	idleWindow = 300 * time.Millisecond
	// idleUse is little, since the rest of the machine may be busy too.
	idleUse = 2 * tick
	tick    = 10 * time.Millisecond // USER_HZ is 100 on Linux
)

// idle waits until the plugin has nothing to do any more.
func (k *kit) idle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	for {
		before, err := cpu(k.pid)
		if err != nil {
			return err
		}
		select {
		case <-time.After(idleWindow):
		case <-ctx.Done():
			return fmt.Errorf("%v later it still works for calls that nobody waits for", k.patience)
		}
		after, err := cpu(k.pid)
		if err != nil {
			return err
		}
		if after-before <= idleUse {
			return nil
		}
	}
}

// cpu is the processor time that a process has used.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("the plugin is gone: %w", err)
	}
	// The name of the program stands in brackets and may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0, errors.New("the system does not say how much the plugin works")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

func panicked(_ context.Context, k *kit) error {
	if n := k.log.panicked(); n > 0 {
		return fmt.Errorf("%d have; the log has the stack", n)
	}
	if !strings.HasPrefix(k.desc.SDK, "go ") {
		return skip("only the SDK for Go tells of panics")
	}
	return nil
}

func alive(_ context.Context, k *kit) error {
	s := k.host.Status()[0]
	if s.State != host.Running || s.Pid != k.pid || s.Restarts > 0 {
		return fmt.Errorf("it was started %d times more; it is %s: %s", s.Restarts, s.State, s.LastError)
	}
	return nil
}

// endTime is how long a plugin has to end.
const endTime = 2 * time.Second

func shutdown(ctx context.Context, k *kit) error {
	pid := k.host.Status()[0].Pid
	begun := k.opts.Now()
	err := k.stop()
	took := k.opts.Now().Sub(begun)
	switch {
	case err != nil:
		return err
	case took >= endTime:
		return fmt.Errorf("it took %v, and had to be killed", took.Round(time.Millisecond))
	case !gone(pid):
		return errors.New("its process is still there")
	}
	return nil
}

// gone reports whether a process is no more, or waits for nothing but that its
// parent takes note.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return len(f) == 0 || f[0] == "Z" || f[0] == "X"
}
