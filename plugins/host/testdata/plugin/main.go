// Command plugin misbehaves in the way that its settings, or the name of the
// file, ask for: the tests of package host link it under several names.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pecd/plugins/sdk"
	"pecd/plugins/sdk/point"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "crash-start":
		fmt.Fprintln(os.Stderr, "no such moon")
		os.Exit(3)
	case "junk":
		fmt.Println("Hello, I am a plugin!")
	case "silent":
		select {}
	case "future":
		fmt.Fprintln(os.Stderr, `{"@level":"debug","@message":"plugin starts","@timestamp":"2026-01-01T00:00:00.000000Z","sdk":"go 9.1.0"}`)
		fmt.Println("1|9|unix|/nowhere|grpc|")
		select {}
	case "elsewhere":
		fmt.Println("1|1|unix|/run/other.sock|grpc|")
		select {}
	}
	go sdk.Main(sdk.Plugin{Name: "misbehaving", Version: "0.1", About: "does what a plugin should not", Open: open,
		Keys: []sdk.Key{{Name: "mode", Type: "string", Default: "clean", About: "what it does"}}})
	// Another program, that is no plugin and hears nothing.
	<-become
	syscall.Exec("/bin/sleep", []string{"sleep", "600"}, nil)
}

// become is closed to have the process become another program.
var become = make(chan struct{})

// The main goroutine stays on the first thread, to which the kernel's promise
// about the host's death belongs.
func init() { runtime.LockOSThread() }

type settings struct {
	Mode  string
	Path  string
	Point string
}

func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	var t settings
	if err := c.Decode(&t); err != nil {
		return nil, err
	}
	switch t.Mode {
	case "bad":
		return nil, errors.Join(c.Problem("mode", "it is bad", "make it good"), errors.New("and the rest is no better"))
	case "deaf": // it hears neither signals nor the end of its standard input
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	case "open-hangs":
		select {}
	}
	switch t.Point {
	case "access":
		return point.Access(accessPoint{t}), nil
	case "reception":
		return point.Reception(reception.Builtin{}), nil
	case "delivery":
		return point.Delivery(delivery.Builtin{}), nil
	}
	s := sdk.Check(t.check, points.Submission, points.Incoming).WithEngine(func() string { return "pid " + fmt.Sprint(os.Getpid()) })
	if t.Mode == "deaf" {
		s.WithClose(func() error { select {} })
	}
	return s, nil
}

type accessPoint struct{ settings }

func (p accessPoint) Decide(ctx context.Context, s access.Submission) (access.Decision, error) {
	switch p.Mode {
	case "accept":
		return access.Decision{Verdict: points.Accept}, nil
	case "chatty":
		return access.Decision{}, errors.New("\x1b[2Jmoon\n" + strings.Repeat("x", 5000))
	}
	return access.Builtin{}.Decide(ctx, s)
}

// check does what the mode says; the login of a message can say it too.
func (t settings) check(ctx context.Context, m *sdk.Message) (points.Finding, error) {
	mode := t.Mode
	if strings.HasPrefix(m.Login, "mode:") {
		mode = strings.TrimPrefix(m.Login, "mode:")
	}
	switch mode {
	case "crash":
		os.Exit(4)
	case "hang", "deaf":
		select {}
	case "slow":
		<-ctx.Done()
		return points.Finding{}, ctx.Err()
	case "panic":
		panic("at the disco")
	case "error":
		return points.Finding{}, errors.New("the scanner is away")
	case "refuse":
		return sdk.Refuse("non si puo'", "it is forbidden"), nil
	case "infected":
		return sdk.Infected("Eicar-Test"), nil
	case "nonsense":
		return sdk.Refuse("perch\xe8", "line\nbreak"), nil
	case "endless":
		return sdk.Infected(strings.Repeat("x", 2<<20)), nil
	case "stopped":
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {} // another thread takes the signal
	case "become":
		close(become)
		select {}
	case "print":
		fmt.Println("not for you")
	case "child":
		return child()
	case "noop":
		return sdk.Clean(), nil
	case "read", "write", "append", "chmod", "truncate", "empty", "empty-read", "openat2", "setxattr", "rlimit", "links", "dial", "signal":
		return points.Finding{}, fmt.Errorf("result: %v", attempt(mode, t.Path, m))
	case "sum":
		return sum(m)
	}
	return sdk.Clean(), nil
}

// child leaves a grandchild behind that holds our pipes.
func child() (points.Finding, error) {
	cmd := exec.Command("/bin/sleep", "600")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return points.Finding{}, err
	}
	return points.Finding{}, fmt.Errorf("result: %d", cmd.Process.Pid)
}

// attempt tries what a plugin may not do, and returns the error.
func attempt(mode, path string, m *sdk.Message) error {
	switch mode {
	case "read":
		_, err := os.ReadFile(path)
		return err
	case "write":
		return os.WriteFile(path, []byte("mine"), 0o600)
	case "append":
		r, err := m.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		files, err := filepath.Glob(filepath.Join(path, "*"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("%d files, %v", len(files), err)
		}
		_, err = os.OpenFile(files[0], os.O_WRONLY|os.O_APPEND, 0)
		return err
	case "links":
		files, err := filepath.Glob(filepath.Join(path, "*"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("%d files, %v", len(files), err)
		}
		fi, err := os.Stat(files[0])
		if err != nil {
			return err
		}
		return fmt.Errorf("%d link", fi.Sys().(*syscall.Stat_t).Nlink)
	case "chmod":
		return os.Chmod(path, 0)
	case "truncate":
		return syscall.Truncate(path, 0)
	case "empty": // flags that ask for neither reading nor writing
		return opened(syscall.Open(path, syscall.O_ACCMODE|syscall.O_TRUNC, 0))
	case "empty-read":
		return opened(syscall.Open(path, syscall.O_RDONLY|syscall.O_TRUNC, 0))
	case "openat2":
		return opened(unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_TRUNC}))
	case "setxattr":
		return syscall.Setxattr(path, "user.mine", []byte("mine"), 0)
	case "rlimit":
		return unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil)
	case "dial":
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	return syscall.Kill(os.Getppid(), syscall.SIGUSR1)
}

func opened(fd int, err error) error {
	if err == nil {
		syscall.Close(fd)
	}
	return err
}

// sum tells what it read: its size and its first and last octets.
func sum(m *sdk.Message) (points.Finding, error) {
	r, err := m.Open()
	if err != nil {
		return points.Finding{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return points.Finding{}, err
	}
	h, err := m.Header()
	if err != nil {
		return points.Finding{}, err
	}
	return sdk.Refuse("letto", fmt.Sprintf("%s %d %d %q %q %s %s", m.Stage, m.Size, len(b), b[:4], b[len(b)-4:], h.Get("Subject"), m.Sender)), nil
}
