package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// systemd is the socket at which systemd would hear the daemon.
func systemd(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

// hear is the next thing that systemd is told.
func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	if err := notify(systemdReady); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	conn := systemd(t)
	for _, state := range []string{systemdReady, systemdStopping, systemdBeat} {
		if err := notify(state); err != nil {
			t.Fatal(err)
		}
		if got := hear(t, conn); got != state {
			t.Errorf("%q, want %q", got, state)
		}
	}
	if err := notify(systemdReloading); err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(hear(t, conn), "RELOADING=1\nMONOTONIC_USEC=")
	if us, err := strconv.ParseInt(rest, 10, 64); !ok || err != nil || us <= 0 {
		t.Errorf("reloading: %q", rest)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere/at/all")
	if notify(systemdReady) == nil {
		t.Error("nobody listens, and there is no error")
	}
}

func TestWatchdogEvery(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"60000000", own, 30 * time.Second}, {"60000000", "", 30 * time.Second}, {"60000000", "1", 0},
		{"", own, 0}, {"x", own, 0}, {"0", own, 0}, {"-1", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := watchdogEvery(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// A daemon that is stuck tells nothing; one that goes on tells again.
func TestBeat(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	stuck, told := make(chan struct{}), make(chan struct{})
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		beat(ctx, time.Millisecond, func(context.Context) {
			if n++; n == 3 {
				<-stuck
			}
		}, func() { told <- struct{}{} })
	}()
	<-told
	<-told
	select {
	case <-told:
		t.Error("the daemon is stuck and tells that it lives")
	case <-time.After(50 * time.Millisecond): // many beats
	}
	close(stuck)
	<-told
	cancel()
	for open := true; open; {
		select {
		case <-told: // one more may be under way
		case <-done:
			open = false
		}
	}
	beat(context.Background(), 0, nil, nil) // nobody asked: returns at once
}
