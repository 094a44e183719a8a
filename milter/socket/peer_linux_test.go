package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestOwnUser: who calls as pecd's user is turned away, which is told once an hour; the
// MTA's user, and root, are let in.
func TestOwnUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test becomes other users: it needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "peer") // others may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "door")
	inner, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{dir, path} {
		if err := os.Chmod(f, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	const pecd, mta = 12345, 12346
	var reported []error
	at := make(chan time.Time, 1) // when the next is turned away
	l := &patient{Listener: inner, ctx: t.Context(), user: pecd, now: func() time.Time { return <-at }, report: func(err error) { reported = append(reported, err) }}
	ended := make(chan struct{})
	go func() { // until inner is closed
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, err = io.WriteString(c, "x")
			if err = errors.Join(err, c.Close()); err != nil {
				t.Error(err)
			}
		}
	}()
	first := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	turns := []time.Time{first, first.Add(tellAgain - 1), first.Add(tellAgain)}
	for _, user := range []uint32{pecd, mta, pecd, 0, pecd} {
		if user == pecd {
			at <- turns[0]
			turns = turns[1:]
		}
		cmd := exec.Command("/usr/bin/python3", "-c", "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.exit(s.recv(1) == b'')", path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		if letIn := err == nil; letIn != (user != pecd) {
			t.Errorf("user %d: let in %t, %v\n%s", user, letIn, err, out)
		}
	}
	inner.Close()
	<-ended
	if len(reported) != 2 || !errors.Is(errors.Join(reported...), ErrOwnUser) {
		t.Errorf("reported: %v", reported)
	}
}
