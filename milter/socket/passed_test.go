package socket_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pecd/milter/socket"
)

// TestMain makes this program the daemon that TestFromSystemd starts.
func TestMain(m *testing.M) {
	if os.Getenv("PASSED_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := child(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
	}
}

// child takes the sockets at the addresses, answers one call at each, and says
// what is left. exec keeps the process id that the shell put into LISTEN_PID.
func child(addrs []string) error {
	p, err := socket.FromSystemd(os.Getenv, os.Getpid())
	if err != nil {
		return err
	}
	defer p.Close()
	for _, addr := range addrs {
		l, err := p.Take(addr)
		if err != nil {
			return err
		}
		if l == nil {
			fmt.Println("none at", addr)
			continue
		}
		again, err := p.Take(addr)
		if again != nil || err != nil {
			return fmt.Errorf("taken twice: %v", err)
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	fmt.Println("rest", p.Rest())
	return nil
}

// daemon runs child as systemd would, with these sockets.
func daemon(t *testing.T, files []*os.File, addrs ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, exe}, addrs...)...)
	cmd.Env = append(os.Environ(), "PASSED_CHILD=1", "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// file is the socket as systemd holds it.
func file(t *testing.T, l net.Listener) *os.File {
	t.Helper()
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Who calls while no daemon runs waits for the next one: two daemons, one after
// the other, answer at the same sockets.
func TestFromSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	inet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inet.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	files := []*os.File{file(t, other), file(t, unix), file(t, inet)}
	addrs := []string{"unix:" + path, "inet:" + inet.Addr().String(), "unix:/elsewhere", "inet:127.0.0.2:" + port(inet)}
	for range 2 {
		var callers []net.Conn
		for _, addr := range addrs[:2] {
			c, err := socket.Dial(context.Background(), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			callers = append(callers, c)
		}
		want := fmt.Sprintf("none at unix:/elsewhere\nnone at %s\nrest [%s]\n", addrs[3], other.Addr())
		if got := daemon(t, files, addrs...); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		for i, c := range callers {
			if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
				t.Errorf("%s answers %q, %v", addrs[i], line, err)
			}
		}
	}
}

func port(l net.Listener) string {
	_, p, _ := strings.Cut(l.Addr().String(), ":")
	return p
}

func TestFromSystemdRefuses(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := daemon(t, []*os.File{f}, "unix:/x"); !strings.HasPrefix(got, "error: socket 1 of systemd: ") {
		t.Errorf("a file: %q", got)
	}
	for _, n := range []string{"", "x", "-1", "65"} {
		env := map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": n}
		if p, err := socket.FromSystemd(func(k string) string { return env[k] }, 7); err == nil || p != nil {
			t.Errorf("LISTEN_FDS=%q: %v, %v", n, p, err)
		}
	}
	// They were for another process.
	env := map[string]string{"LISTEN_PID": "8", "LISTEN_FDS": "1"}
	p, err := socket.FromSystemd(func(k string) string { return env[k] }, 7)
	if p != nil || err != nil {
		t.Errorf("of another: %v, %v", p, err)
	}
	if l, err := p.Take("unix:/x"); l != nil || err != nil || p.Rest() != nil || p.Close() != nil {
		t.Errorf("none: %v, %v", l, err)
	}
	if _, err := p.Take("nonsense"); err == nil {
		t.Error("nonsense was taken for an address")
	}
}
