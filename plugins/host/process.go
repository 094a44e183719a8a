package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a plugin's process with its pipes: the runner.Runner that
// go-plugin talks to. go-plugin's own one neither kills the process group nor
// ends the plugin with the host.
type process struct {
	name    string
	launch  launch
	spawner *spawner
	owner   *syscall.Credential // whose process it is; ours if nil
	bound   context.Context     // of the start
	env     []string
	sockets string // the directory in which the plugin may listen

	cmd            *exec.Cmd
	stdin          *os.File // held open: its end tells the plugin that the host is no more
	stdout, stderr *os.File
	first          head          // of what came on the standard output
	last           tail          // of what came on standard error
	report         launched      // of the launcher
	done           chan struct{} // closed when the process has ended
	err            error         // how it ended; valid after done

	mu      sync.Mutex // guards what follows
	started bool       // there is a process
	ended   bool       // it is reaped: its id may be another's
	closed  bool       // stdin is closed
}

// drainTime is how long a grandchild that holds the pipes of a dead plugin is
// listened to.
const drainTime = 500 * time.Millisecond

// listenIn has the plugin listen in dir, with what go-plugin adds to its
// environment.
func (p *process) listenIn(dir string, env []string) error {
	p.sockets = dir
	p.env = append(p.env, env...)
	p.launch.Write = append(p.launch.Write, dir)
	if p.owner == nil {
		return nil
	}
	return GiveDir(dir, p.owner)
}

// GiveDir makes owner the owner of a directory, and of nothing else: where he may put
// something else in its place, root must not give him what a link leads to.
func GiveDir(dir string, owner *syscall.Credential) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(int(owner.Uid), int(owner.Gid)), f.Close())
}

// Start implements runner.Runner. It returns when the launcher has become the
// plugin.
func (p *process) Start(ctx context.Context) error {
	argument, err := json.Marshal(p.launch)
	if err != nil {
		return err
	}
	// Not os.Executable: after an upgrade its path is that of another program.
	p.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{launcherName, string(argument)}, Env: p.env, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Credential: p.owner}}
	report, err := p.spawn()
	if err != nil {
		return err
	}
	defer report.Close()
	go p.reap()
	if err := p.listen(report); err != nil {
		p.kill()
		p.Wait(ctx) // how it ended is not news
		return err
	}
	return nil
}

// spawn makes the pipes and starts the launcher. It returns the pipe on which the
// launcher reports.
func (p *process) spawn() (*os.File, error) {
	var pipes, theirs, ours []*os.File
	defer func() { closeAll(theirs) }()
	for range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(pipes)
			return nil, err
		}
		pipes = append(pipes, r, w)
	}
	theirs = []*os.File{pipes[0], pipes[3], pipes[5], pipes[7]}
	ours = []*os.File{pipes[1], pipes[2], pipes[4], pipes[6]}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = theirs[0], theirs[1], theirs[2], theirs[3:]
	if err := p.spawner.start(p.cmd); err != nil {
		closeAll(ours)
		return nil, err
	}
	p.stdin, p.stdout, p.stderr = ours[0], ours[1], ours[2]
	p.first.r, p.last.r = p.stdout, p.stderr
	p.mu.Lock()
	p.started = true
	p.mu.Unlock()
	return ours[3], nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// listen reads what the launcher reports, until it has become the plugin.
func (p *process) listen(report *os.File) error {
	stop := context.AfterFunc(p.bound, p.kill)
	defer stop()
	d := json.NewDecoder(io.LimitReader(report, 64<<10))
	for {
		var l launched
		err := d.Decode(&l)
		switch {
		case errors.Is(err, io.EOF) && p.report.SHA256 != "":
			return p.bound.Err()
		case err != nil:
			p.kill()
			<-p.done
			return fmt.Errorf("the launcher failed (%v): is host.LaunchIfAsked called first thing in main?", p.err)
		case l.Failure != "":
			return l.err()
		}
		p.report = l
	}
}

// reap waits for the end of the process and leaves nothing of it. It ends with
// the process.
func (p *process) reap() {
	pid := p.cmd.Process.Pid
	var info unix.Siginfo
	for errors.Is(unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	// Before it is reaped, so that the group's number cannot be another's yet.
	p.mu.Lock()
	syscall.Kill(-pid, syscall.SIGKILL) // fails if nothing of the group is left
	p.err = p.cmd.Wait()
	p.ended = true
	p.mu.Unlock()
	until := time.Now().Add(drainTime)
	p.stdout.SetReadDeadline(until) // pipes have deadlines; without one a
	p.stderr.SetReadDeadline(until) // grandchild could keep the readers waiting
	p.leave()
	close(p.done)
}

// kill kills the process with its group.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started && !p.ended {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails only if it is dead
	}
}

// leave closes the plugin's standard input, which asks it to end.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.stdin.Close()
	}
}

// Wait implements runner.Runner. go-plugin calls it when it has read both pipes.
func (p *process) Wait(context.Context) error {
	<-p.done
	p.stdout.Close()
	p.stderr.Close()
	return p.err
}

// Kill implements runner.Runner.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// Stdout implements runner.Runner.
func (p *process) Stdout() io.ReadCloser { return &p.first }

// Stderr implements runner.Runner.
func (p *process) Stderr() io.ReadCloser { return &p.last }

// Name implements runner.Runner.
func (p *process) Name() string { return p.name }

// ID implements runner.Runner.
func (p *process) ID() string { return strconv.Itoa(p.pid()) }

func (p *process) pid() int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Diagnose implements runner.Runner; what is to be said of a start that failed is
// said by session.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.Runner: a plugin listens where it was told to,
// and the host connects nowhere else.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(address) != p.sockets {
		return "", "", fmt.Errorf("%w: it listens on %s %q instead of a unix socket in its directory", ErrHandshake, network, address)
	}
	return network, address, nil
}

// HostToPlugin implements runner.Runner.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// A head is a reader that keeps the beginning of what it has read.
type head struct {
	r  *os.File
	mu sync.Mutex // guards b
	b  []byte
}

// kept bounds what a head or tail keeps, in octets.
const kept = 1 << 10

func (h *head) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	h.mu.Lock()
	h.b = append(h.b, b[:min(n, kept-len(h.b))]...)
	h.mu.Unlock()
	return n, ended(err)
}

func (h *head) Close() error { return h.r.Close() }

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}

// A tail is a reader that keeps the end of what it has read.
type tail struct {
	r  *os.File
	mu sync.Mutex // guards b
	b  []byte
}

func (t *tail) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.mu.Lock()
	t.b = append(t.b, b[:n]...)
	t.b = append([]byte(nil), t.b[max(0, len(t.b)-kept):]...)
	t.mu.Unlock()
	return n, ended(err)
}

func (t *tail) Close() error { return t.r.Close() }

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// ended makes of the deadline after a process' death what it means.
func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return io.EOF
	}
	return err
}

// end says how the process ended; it has.
func (p *process) end() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}
