package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second // of one server; a loaded machine is slow, not broken
	stopTimeout  = 30 * time.Second // of one server
	// pecd finishes what is under way, also where a mailbox store does not answer: as
	// long as its unit allows (TimeoutStopSec).
	pecdStopTimeout = 200 * time.Second
	pollInterval    = 20 * time.Millisecond
)

// until polls f until it is true. It returns ctx's error if that comes first.
func until(ctx context.Context, f func() bool) error {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

// process is what /proc says about one process.
type process struct {
	pid     int
	exe     string   // without " (deleted)"
	cwd     string   //
	argv    []string //
	running bool     // not a zombie that nobody collected
}

func inspect(pid int) process {
	base := fmt.Sprintf("/proc/%d/", pid)
	p := process{pid: pid}
	stat, err := os.ReadFile(base + "stat")
	if err != nil {
		return p
	}
	// "pid (name) S …": the name may hold anything, the last parenthesis ends it.
	i := bytes.LastIndexByte(stat, ')')
	p.running = i >= 0 && i+2 < len(stat) && stat[i+2] != 'Z' && stat[i+2] != 'X'
	p.exe, _ = os.Readlink(base + "exe") // empty for a process that is going away
	p.exe = strings.TrimSuffix(p.exe, " (deleted)")
	p.cwd, _ = os.Readlink(base + "cwd")
	cmdline, _ := os.ReadFile(base + "cmdline")
	p.argv = strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	return p
}

// Running reports whether there is a process with that number. One that has ended and
// that nobody collected is none, although it still takes signals.
func Running(pid int) bool { return inspect(pid).running }

// belongs reports whether p is a server of the stage in root. A shell or a
// pager that looks at the stage's files is not.
func (p process) belongs(root string) bool {
	if !p.running {
		return false
	}
	below := root + string(filepath.Separator)
	inside := strings.HasPrefix(p.cwd+"/", below)
	for _, a := range p.argv {
		inside = inside || strings.HasPrefix(a, below)
	}
	if !inside {
		return false
	}
	if strings.HasPrefix(p.exe, "/usr/") && (strings.Contains(p.exe, "/postfix/") || strings.Contains(p.exe, "/dovecot")) {
		return true
	}
	if p.exe == sendmailProgram("sendmail") {
		return true
	}
	return len(p.argv) > 3 && p.argv[1] == "serve" && filepath.Base(p.argv[3]) == "pecd.toml"
}

// pidOf reads a pid file and returns the pid if that process is one of root's
// servers; otherwise 0. A pid file outlives its process, and the number may be
// somebody else's by now.
func pidOf(file, root string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n") // Sendmail writes its command behind it
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 || !inspect(pid).belongs(root) {
		return 0
	}
	return pid
}

// terminate asks a process to end and waits until it has; when its patience is over
// it kills it and says so.
func terminate(ctx context.Context, what string, pid func() int, patience time.Duration) error {
	p := pid()
	if p == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := syscall.Kill(p, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if until(ctx, func() bool { return pid() != p }) == nil {
		return nil
	}
	err := fmt.Errorf("%s (pid %d) did not end when asked and was killed", what, p)
	if kerr := syscall.Kill(p, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
		return errors.Join(err, kerr)
	}
	return err
}

// sweep ends whatever server of root still runs: children that outlive their
// master for a moment, and leftovers of a stage whose pid files are lost.
func sweep(ctx context.Context, root string) error {
	patience, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if until(patience, func() bool { return len(leftovers(root)) == 0 }) == nil {
		return nil
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, p := range leftovers(root) {
			_ = syscall.Kill(p.pid, sig) // it may be gone by now, which is what we want
		}
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := until(wait, func() bool { return len(leftovers(root)) == 0 })
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("stage: still running: %v", leftovers(root))
}

func leftovers(root string) []process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // only a bad pattern gives an error
	}
	var found []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p := inspect(pid); p.belongs(root) {
			found = append(found, p)
		}
	}
	return found
}

func (p process) String() string { return fmt.Sprintf("%d %s", p.pid, strings.Join(p.argv, " ")) }

// launch runs a command that leaves a daemon behind. Its output goes to a file,
// since a pipe would be held open by the daemon.
func launch(ctx context.Context, output, name string, args ...string) error {
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = f, f
	// Its own session: an interrupt from the terminal is for us to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w%s", name, strings.Join(args, " "), err, tail(output, 10))
	}
	return nil
}

// answers waits until a server greets on addr.
func answers(ctx context.Context, addr, greeting string) error {
	var last error
	err := until(ctx, func() bool {
		last = greets(ctx, addr, greeting)
		return last == nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

func greets(ctx context.Context, addr, greeting string) error {
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(c, 1024)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no greeting from %s: %w", addr, err)
	}
	if !strings.HasPrefix(line, greeting) {
		return fmt.Errorf("%s greets with %q", addr, line)
	}
	return nil
}

// tail returns the last n lines of a log, set off for an error text.
func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "\n" + file + ":\n    " + strings.Join(lines, "\n    ")
}
