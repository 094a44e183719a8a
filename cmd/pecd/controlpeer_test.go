package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/cmd/pecd/config"
)

// TestPluginsNoCommand: at the control socket a process of our user is turned away that
// lost privileges within our control group, as plugins do; others, and root, are not.
func TestPluginsNoCommand(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test becomes other users: it needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "peer") // others may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "control")
	inner, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	const us, other = 12345, 12346
	var reported []int
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := newCommandListener(inner, func(pid int) { reported = append(reported, pid) })
	l.user, l.now = us, func() time.Time { return at }
	ended := make(chan struct{})
	go func() { // until inner is closed
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err = io.WriteString(c, "x"); errors.Join(err, c.Close()) != nil {
				t.Error(err)
			}
		}
	}()
	const program = `import ctypes, socket, sys
if sys.argv[2] == "1" and ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) != 0: sys.exit(2) # PR_SET_NO_NEW_PRIVS
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
sys.exit(s.recv(1) == b'')`
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	free := slices.Equal(statusField(status, "NoNewPrivs"), []string{"0"}) // not in a container that has lost them
	for _, c := range []struct {
		user  uint32
		lost  string
		letIn bool
	}{{us, "1", false}, {us, "0", free}, {us, "1", false}, {other, "1", true}, {0, "1", true}} {
		cmd := exec.Command("/usr/bin/python3", "-c", program, path, c.lost)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code > 1 || (code == 0) != c.letIn {
			t.Errorf("%+v: %v\n%s", c, err, out)
		}
	}
	inner.Close()
	<-ended
	if len(reported) != 1 || reported[0] == 0 {
		t.Errorf("reported: %v", reported)
	}
}

// TestCertainlyNoPlugin: who is let in has either kept what a plugin loses, or is where
// no plugin can be. What cannot be read is no proof.
func TestCertainlyNoPlugin(t *testing.T) {
	proc := t.TempDir()
	write := func(pid, name, text string) {
		t.Helper()
		if text == "" {
			return
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(proc, pid), 0o700), os.WriteFile(filepath.Join(proc, pid, name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	const ours, theirs = "0::/system.slice/pecd.service\n", "0::/user.slice/session-2.scope\n"
	write("self", "cgroup", ours)
	status := func(uid, lost string) string {
		return fmt.Sprintf("Name:\tNoNewPrivs: 0\nUid:\t%s\nNoNewPrivs:\t%s\n", uid, lost)
	}
	const us, root = "12\t12\t12\t12", "12\t0\t0\t12"
	l := &commandListener{user: 12, proc: proc}
	for i, c := range []struct {
		status, cgroup string
		want           bool
	}{
		{status(us, "1"), ours, false},
		{status(us, "0"), ours, true},
		{status(us, "1"), theirs, true},
		{status(us, "0"), theirs, true},
		{"Uid:\t" + us + "\n", ours, false},
		{"Uid:\t" + us + "\n", theirs, true},
		{status(root, "0"), theirs, false},
		{"NoNewPrivs:\t0\n", theirs, false},
		{status(us, "1"), "", false},
		{"", theirs, false},
	} {
		pid := strconv.Itoa(100 + i)
		write(pid, "status", c.status)
		write(pid, "cgroup", c.cgroup)
		if got := l.free(100 + i); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	if err := os.Remove(filepath.Join(proc, "self", "cgroup")); err != nil {
		t.Fatal(err)
	}
	if l.free(102) {
		t.Error("without knowing our own control group")
	}
}

// TestTurnedAwayTold: a command that the daemon hung up on says what to do, unless that
// cannot be why.
func TestTurnedAwayTold(t *testing.T) {
	hungUp := &url.Error{Op: "Get", Err: io.EOF}
	if err := unanswered(hungUp, 12); !errors.Is(err, errTurnedAway) || !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "as root") {
		t.Error(err)
	}
	if err := unanswered(&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: syscall.ENOENT}}, 12); !errors.Is(err, errNoDaemon) {
		t.Error(err)
	}
	for user, err := range map[int]error{0: hungUp, 12: &url.Error{Op: "Get", Err: context.Canceled}, 13: &url.Error{Op: "Get", Err: context.DeadlineExceeded}} {
		if err := unanswered(err, user); errors.Is(err, errTurnedAway) {
			t.Errorf("user %d: %v", user, err)
		}
	}
}

// TestNoBackupForPlugins: no copy of the store is made where plugins write.
func TestNoBackupForPlugins(t *testing.T) {
	dir := t.TempDir()
	cfg := &config.Config{}
	cfg.Store.Path = filepath.Join(dir, "store")
	cfg.Plugins = []config.Plugin{{Write: []string{filepath.Join(dir, "shared")}}}
	state := filepath.Join(cfg.Store.Path, "plugins", "state", "check")
	if err := errors.Join(os.MkdirAll(state, 0o700), os.Mkdir(filepath.Join(dir, "shared"), 0o700), os.Symlink(state, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{state: true, filepath.Join(state, "new"): true, filepath.Join(dir, "link", "new"): true, filepath.Join(dir, "shared"): true,
		filepath.Join(dir, "new"): false, filepath.Join(dir, "shared-not"): false, cfg.Store.Path + "plugins": false} {
		if _, got := forPlugins(cfg, path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
	if _, err := makeBackup(t.Context(), nil, cfg, filepath.Join(state, "new"), nil); !errors.Is(err, errUsage) {
		t.Error(err)
	}
}
