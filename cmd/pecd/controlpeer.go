package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pecd/milter/socket"
)

// errTurnedAway says what a command may do to whom the daemon answers nothing.
var errTurnedAway = errors.New("the daemon broke off; within its own unit it takes whoever runs as its user for a plugin: run the command as root, or outside of the daemon's unit")

// A commandListener is the control socket's. It turns plugins away: they run as our
// user, so the socket's mode lets them in, and a backup, say, would give them all mail.
// Where we are root nobody is.
type commandListener struct {
	net.Listener
	user   int    // ours
	proc   string // where processes are told of
	now    func() time.Time
	report func(pid int) // hears of it once an hour
	told   time.Time
}

func newCommandListener(l net.Listener, report func(pid int)) *commandListener {
	return &commandListener{Listener: l, user: os.Getuid(), proc: "/proc", now: clock, report: report}
}

func (l *commandListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		pid, ok := l.own(c)
		if !ok || l.free(pid) {
			return c, nil
		}
		c.Close()
		if now := l.now(); l.told.IsZero() || now.Sub(l.told) >= time.Hour {
			l.told = now
			l.report(pid)
		}
	}
}

// own reports whether c is of a process of our user, and which. If the kernel cannot
// say whose it is it may be.
func (l *commandListener) own(c net.Conn) (pid int, _ bool) {
	u, ok := c.(*net.UnixConn)
	if !ok || l.user == 0 {
		return 0, false
	}
	pid, user, err := socket.Peer(u)
	return pid, err != nil || user == l.user
}

// free reports whether process pid of our user is certainly no plugin and was started
// by none: it may gain privileges, or is not in our control group. Plugins have lost
// the first and are in ours, and what they start inherits both. A process that is gone
// cannot be told of, nor can one of another user that has its number by now.
func (l *commandListener) free(pid int) bool {
	dir := filepath.Join(l.proc, strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil || !l.ours(status) {
		return false
	}
	if v := statusField(status, "NoNewPrivs"); len(v) == 1 && v[0] == "0" {
		return true
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return false
	}
	own, err := os.ReadFile(filepath.Join(l.proc, "self", "cgroup"))
	return err == nil && !bytes.Equal(theirs, own)
}

// ours reports whether the process of a status has our user throughout.
func (l *commandListener) ours(status []byte) bool {
	users := statusField(status, "Uid")
	for _, u := range users {
		if u != strconv.Itoa(l.user) {
			return false
		}
	}
	return len(users) > 0
}

// statusField are the words of a field of /proc/PID/status.
func statusField(status []byte, name string) []string {
	for line := range strings.Lines(string(status)) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.Fields(value)
		}
	}
	return nil
}
