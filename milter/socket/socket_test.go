package socket_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/milter/socket"
)

func TestParse(t *testing.T) {
	for addr, want := range map[string]string{
		"unix:/run/pecd/access.sock": "unix /run/pecd/access.sock",
		"unix:/run/../x":             "unix /x",
		"inet:127.0.0.1:10031":       "tcp 127.0.0.1:10031",
		"inet:[::1]:10031":           "tcp [::1]:10031",
		"inet:localhost:25":          "tcp localhost:25",
		"inet::25":                   "tcp :25",
		"":                           "",
		"unix:":                      "",
		"unix:relative":              "",
		"unix:/a\x00b":               "",
		"/run/x":                     "",
		"inet:10031":                 "",
		"inet:localhost:smtp":        "",
		"inet:localhost:99999":       "",
		"inet:localhost:-1":          "",
		"tcp:localhost:25":           "",
		"inet:10031@localhost":       "",
	} {
		network, address, err := socket.Parse(addr)
		if want == "" {
			if !errors.Is(err, socket.ErrAddress) {
				t.Errorf("%q: %v", addr, err)
			}
		} else if got := network + " " + address; err != nil || got != want {
			t.Errorf("%q: %q, %v", addr, got, err)
		}
	}
}

func listen(t *testing.T, addr string, mode fs.FileMode, group string) net.Listener {
	t.Helper()
	l, err := socket.Listen(context.Background(), addr, mode, group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// answers reports whether somebody answers at addr.
func answers(t *testing.T, addr string, l net.Listener) {
	t.Helper()
	c, err := socket.Dial(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	addr := "unix:" + path
	l := listen(t, addr, 0o660, "12345")
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != fs.ModeSocket|0o660 || gid != 12345 {
		t.Errorf("mode %v, group %d", info.Mode(), gid)
	}
	if l.Addr().String() != path {
		t.Errorf("address %q", l.Addr())
	}
	answers(t, addr, l)
	if _, err := socket.Listen(context.Background(), addr, 0o660, ""); !errors.Is(err, socket.ErrInUse) {
		t.Errorf("second server: %v", err)
	}
	answers(t, addr, l)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A socket whose server died is replaced, by another mode.
func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	answers(t, "unix:"+path, listen(t, "unix:"+path, 0o600, ""))
}

// A listener that closes late must not remove the socket of its successor.
func TestCloseLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	first := listen(t, "unix:"+path, 0o600, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := listen(t, "unix:"+path, 0o600, "")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	answers(t, "unix:"+path, second)
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]error{
		"unix:" + file:          socket.ErrInUse,
		"unix:" + dir:           socket.ErrInUse,
		"unix:" + dir + "/link": socket.ErrInUse,
		"nonsense":              socket.ErrAddress,
	} {
		if _, err := socket.Listen(context.Background(), addr, 0o600, ""); !errors.Is(err, want) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"unix:" + dir + "/no/such", "unix:" + dir + "/" + strings.Repeat("x", 120), "inet:192.0.2.1:1"} {
		if l, err := socket.Listen(context.Background(), addr, 0o600, ""); err == nil {
			l.Close()
			t.Errorf("%s was opened", addr)
		}
	}
	if _, err := socket.Listen(context.Background(), "unix:"+dir+"/s", 0o600, "no-such-group"); err == nil {
		t.Error("unknown group")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestInet(t *testing.T) {
	l := listen(t, "inet:127.0.0.1:0", 0, "")
	answers(t, "inet:"+l.Addr().String(), l)
	if _, err := socket.Dial(context.Background(), "nonsense"); !errors.Is(err, socket.ErrAddress) {
		t.Error(err)
	}
}

// A failing listener fails some times, then gives a connection, then is closed.
type failing struct {
	net.Listener
	failures int
	conn     net.Conn
}

func (l *failing) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, fmt.Errorf("accept: %w", syscall.EMFILE)
	}
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func TestPatient(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	reported := 0
	l := socket.Patient(context.Background(), &failing{failures: 3, conn: theirs}, func(err error) {
		if !errors.Is(err, syscall.EMFILE) {
			t.Error(err)
		}
		reported++
	})
	if c, err := l.Accept(); err != nil || c != theirs || reported != 3 {
		t.Errorf("%v, %v, %d errors reported", c, err, reported)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestPatientEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	l := socket.Patient(ctx, &failing{failures: 1 << 30}, func(error) { cancel() })
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Accept goes on")
	}
}
