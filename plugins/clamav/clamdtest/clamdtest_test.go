package clamdtest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"pecd/plugins/clamav/clamdtest"
)

func start(t *testing.T, settings ...string) *clamdtest.Clamd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	c, err := clamdtest.Start(ctx, t.TempDir(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("clamd answers after %v", time.Since(begin).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ask sends one stream and returns the answer.
func ask(t *testing.T, addr string, content []byte) string {
	t.Helper()
	network, address := "unix", strings.TrimPrefix(addr, "unix:")
	if tcp, ok := strings.CutPrefix(addr, "inet:"); ok {
		network, address = "tcp", tcp
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := binary.BigEndian.AppendUint32([]byte("zINSTREAM\x00"), uint32(len(content)))
	b = append(append(b, content...), 0, 0, 0, 0)
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

const found, ok = "stream: " + clamdtest.Virus + " FOUND\x00", "stream: OK\x00"

func TestBothDoorsFindTheTestString(t *testing.T) {
	c := start(t)
	for _, addr := range []string{c.Unix, c.TCP} {
		if got := ask(t, addr, clamdtest.EICAR()); got != found {
			t.Errorf("%s: EICAR: %q", addr, got)
		}
		if got := ask(t, addr, []byte("Buongiorno")); got != ok {
			t.Errorf("%s: clean text: %q", addr, got)
		}
	}
}

func TestStopRestartKill(t *testing.T) {
	c := start(t)
	refused := func(when string) {
		t.Helper()
		if conn, err := net.Dial("tcp", strings.TrimPrefix(c.TCP, "inet:")); err == nil {
			conn.Close()
			t.Errorf("%s: it still answers", when)
		}
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	refused("stopped")
	if err := c.Stop(); err != nil {
		t.Errorf("stopping what is stopped: %v", err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	refused("killed")
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, c.Unix, clamdtest.EICAR()); got != found {
		t.Errorf("after all that: %q", got)
	}
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stopping what is paused: %v", err)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	_, err := clamdtest.Start(t.Context(), t.TempDir(), "NoSuchSetting yes")
	if err == nil || !strings.Contains(err.Error(), "NoSuchSetting") {
		t.Errorf("a bad setting: %v", err)
	}
	if _, err := clamdtest.Start(t.Context(), "/tmp/"+strings.Repeat("x", 100)); err == nil {
		t.Error("a path that is too long for a socket is let pass")
	}
}

func TestNoFileHoldsTheTestString(t *testing.T) {
	for _, name := range []string{"clamdtest.go", "clamdtest_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, clamdtest.EICAR()) {
			t.Errorf("%s holds the test string", name)
		}
	}
	if n := len(clamdtest.EICAR()); n != 68 {
		t.Errorf("the test string has %d octets", n)
	}
}
