package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBelongs(t *testing.T) {
	const root = "/x/run"
	for _, c := range []struct {
		what string
		p    process
		want bool
	}{
		{"Postfix's smtpd", process{exe: "/usr/lib/postfix/sbin/smtpd", cwd: root + "/alfa/postfix/queue", running: true}, true},
		{"the same as a zombie", process{exe: "/usr/lib/postfix/sbin/smtpd", cwd: root + "/alfa/postfix/queue"}, false},
		{"the system's smtpd", process{exe: "/usr/lib/postfix/sbin/smtpd", cwd: "/var/spool/postfix", running: true}, false},
		{"another stage's", process{exe: "/usr/lib/postfix/sbin/smtpd", cwd: "/x/run2/alfa/postfix/queue", running: true}, false},
		{"Dovecot", process{exe: "/usr/sbin/dovecot", cwd: "/", argv: []string{"dovecot", "-c", root + "/alfa/dovecot/dovecot.conf"}, running: true}, true},
		{"pecd", process{exe: "/home/a/bin/pecd", cwd: "/", argv: []string{"pecd", "serve", "--config", root + "/alfa/pecd.toml"}, running: true}, true},
		{"a shell in the directory", process{exe: "/usr/bin/bash", cwd: root, running: true}, false},
		{"a pager", process{exe: "/usr/bin/less", cwd: "/", argv: []string{"less", root + "/alfa/pecd.toml"}, running: true}, false},
	} {
		if got := c.p.belongs(root); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// TestRunning: a process that has ended runs no more, whether or not it was collected.
func TestRunning(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if !Running(pid) {
		t.Error("a process that waits for its input does not run")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil { // leaves it to be collected
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil || Running(pid) {
		t.Errorf("a zombie runs: %v, a signal to it gives %v", Running(pid), err)
	}
	if err := cmd.Wait(); err != nil || Running(pid) {
		t.Errorf("a process that was collected runs: %v, %v", Running(pid), err)
	}
}

func TestPidOfTrustsNoNumber(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"", "x", "0", "-1", "1", fmt.Sprint(os.Getpid()), "99999999"} {
		file := filepath.Join(dir, "pid")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := pidOf(file, dir); got != 0 {
			t.Errorf("pid file %q gives %d", content, got)
		}
	}
}

// A stage does not depend on where the checkout lies.
func TestPlace(t *testing.T) {
	base, err := os.MkdirTemp(elsewhereDir, "pecd-place-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	private := filepath.Join(base, "private", "demo")
	open := filepath.Join(base, "open")
	long := filepath.Join(base, strings.Repeat("long", 20))
	if err := errors.Join(os.Chmod(base, 0o755), os.MkdirAll(filepath.Dir(private), 0o700)); err != nil {
		t.Fatal(err)
	}
	for dir, here := range map[string]bool{open: true, private: false, long: false} {
		root, err := place(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.HasPrefix(root, dir); got != here {
			t.Errorf("%s: servers live in %s", dir, root)
		}
		if len(root) > maxRoot || !traversable(root) {
			t.Errorf("%s will not do", root)
		}
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "run")); err != nil || real != root {
			t.Errorf("%s/run leads to %s, %v", dir, real, err)
		}
		if err := erase(dir); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", root, err)
		}
	}
}

func TestEraseFollowsNoForeignLink(t *testing.T) {
	dir, foreign := t.TempDir(), t.TempDir()
	if err := os.Symlink(foreign, filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if err := erase(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("erased somebody's directory: %v", err)
	}
}

func TestFreePorts(t *testing.T) {
	seen := map[int]bool{}
	for range 40 { // stages at the same time, none of which listens yet
		ports, claim, err := freePorts(16)
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Close()
		for _, p := range ports {
			if seen[p] || p < 1024 || p > 65535 {
				t.Errorf("port %d, twice: %v", p, seen[p])
			}
			seen[p] = true
		}
	}
	if _, _, err := freePorts(blockSize + 1); err == nil {
		t.Error("more ports than a block has")
	}
}

func TestWriteData(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ".\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{".a\r\n..\r\nb.\r\n", "..a\r\n...\r\nb.\r\n.\r\n"},
		{"a\n.b\r\n", "a\n.b\r\n.\r\n"}, // a bare LF begins no line, and stays
		{"\r\n\r\n", "\r\n\r\n.\r\n"},
	} {
		var b bytes.Buffer
		if err := writeData(bufio.NewWriter(&b), []byte(c.in)); err != nil || b.String() != c.want {
			t.Errorf("%q goes out as %q, %v", c.in, b.String(), err)
		}
	}
}

// script is a pecd of a few lines of shell.
func script(t *testing.T, body string) *Pecd {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "pecd")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &Pecd{Bin: bin, ConfigFile: filepath.Join(dir, "pecd.toml"), Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid")}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

const ready = `echo "time=now level=INFO msg=ready doors=2" >&2; `

// What panics is found as a word, not inside of an identifier.
func TestPanics(t *testing.T) {
	said := []string{`level=ERROR msg="lmtp: panic in the backend" panic=boo`, `level=WARN msg="a handler panicked" plugin=x`, "panic: runtime error: index out of range", "fatal error: all goroutines are asleep"}
	log := strings.Join(said, "\n") + "\nlevel=INFO msg=ready message_id=202611301240580000lvm6nrc88vl7ksd3panicii@alfa.example\nlevel=INFO msg=\"no fatal error: x\"\n"
	if got := Panics(log); !slices.Equal(got, said) {
		t.Errorf("%q", got)
	}
}

func TestPecdStartsAndStops(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := script(t, `echo "$A $*" >&2; `+ready+`exec sleep 600`)
	p.Env, p.Args = []string{"A=env"}, []string{"--more"}
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := p.PID()
	if err := p.Start(ctx); err != nil || p.PID() != first || first == 0 {
		t.Errorf("a second start: pid %d then %d, %v", first, p.PID(), err)
	}
	if log, err := os.ReadFile(p.Log); err != nil || !strings.Contains(string(log), "env serve --config "+p.ConfigFile+" --more") {
		t.Errorf("log: %s %v", log, err)
	}
	if err := p.Stop(ctx); err != nil || p.PID() != 0 {
		t.Errorf("stopped: pid %d, %v", p.PID(), err)
	}
	if err := p.Start(ctx); err != nil || p.PID() == 0 {
		t.Errorf("started again: pid %d, %v", p.PID(), err)
	}
	if err := p.Kill(); err != nil || p.PID() != 0 {
		t.Errorf("killed: pid %d, %v", p.PID(), err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Errorf("stopping what is stopped: %v", err)
	}
}

// What a pecd says that may not write files is in the log all the same, if it comes by a pipe.
func TestPecdPiped(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := script(t, ready+`ulimit -f 0; echo "cut off" >&2; exit 3`)
	p.Piped = true
	if err := p.Start(ctx); err != nil && !errors.Is(err, ErrNotReady) {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(ctx); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v", err)
	}
	if log, err := os.ReadFile(p.Log); err != nil || !strings.HasSuffix(string(log), "cut off\n") {
		t.Errorf("the log is %q, %v", log, err)
	}
}

// A ready line of an earlier run does not count.
func TestPecdThatEndsIsNotReady(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := script(t, "echo broken key >&2; exit 78")
	if err := os.WriteFile(p.Log, []byte("level=INFO msg=ready\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := p.Start(ctx)
	if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "broken key") {
		t.Errorf("start: %v", err)
	}
	var exit *exec.ExitError
	if err := p.Wait(ctx); !errors.As(err, &exit) || exit.ExitCode() != 78 {
		t.Errorf("wait: %v", err)
	}
	if err := p.Ended(); err != nil {
		t.Errorf("ended by itself: %v; it was never ready", err)
	}
}

// An end that nobody asked for is not forgotten at the next start.
func TestPecdThatEndsByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := script(t, ready+`read -r line <"$PIPE"; echo out of luck >&2; exit 3`)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Env = []string{"PIPE=" + pipe}
	if err := errors.Join(p.Start(ctx), p.Kill(), p.Start(ctx), p.Stop(ctx), p.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := p.Ended(); err != nil {
		t.Errorf("killed and stopped: %v", err)
	}
	if err := os.WriteFile(pipe, []byte("end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(ctx); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("wait: %v", err)
	}
	if err := errors.Join(p.Kill(), p.Start(ctx), p.Kill()); err != nil {
		t.Fatal(err)
	}
	if err := p.Ended(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("ended by itself: %v", err)
	}
}

func TestPecdThatSaysNothingTimesOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	p := script(t, "exec sleep 600")
	if err := p.Start(ctx); !errors.Is(err, ErrNotReady) || p.PID() != 0 {
		t.Errorf("start: %v, pid %d", err, p.PID())
	}
}
