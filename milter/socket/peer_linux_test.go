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
)

// TestOwnUser: who calls as pecd's user is turned away, once told of; the MTA's user,
// and root, are let in.
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
	defer inner.Close()
	for _, f := range []string{dir, path} {
		if err := os.Chmod(f, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	const pecd, mta = 12345, 12346
	var reported []error
	l := &patient{Listener: inner, ctx: t.Context(), user: pecd, report: func(err error) { reported = append(reported, err) }}
	call := func(user uint32) *exec.Cmd {
		cmd := exec.Command("/usr/bin/python3", "-c", "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.exit(s.recv(1) == b'')", path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	for _, user := range []uint32{pecd, pecd, mta, 0} {
		cmd := call(user)
		if user == pecd {
			go func() { // Accept goes on waiting: this one is the next
				if err := cmd.Wait(); err == nil {
					t.Errorf("user %d was let in", user)
				}
				call(mta)
			}()
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Error(err)
		}
		if user != pecd {
			if err := cmd.Wait(); err != nil {
				t.Errorf("user %d: %v", user, err)
			}
		}
		c.Close()
	}
	if len(reported) != 1 || !errors.Is(reported[0], ErrOwnUser) {
		t.Errorf("reported: %v", reported)
	}
}
