package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// TestAskersLimited: at the listener of the figures and at the control socket, no more
// than maxAskers are served at once; the next is when one has gone.
func TestAskersLimited(t *testing.T) {
	d := &daemon{metrics: newMetrics(nil), log: slog.New(slog.DiscardHandler)}
	d.health = &health{&checkup{fresh: time.Hour}, &checkup{fresh: time.Hour}}
	for name, tc := range map[string]struct {
		path  string
		serve func(context.Context, net.Listener) error
	}{
		"figures": {"/healthz", func(ctx context.Context, l net.Listener) error { return d.metrics.serve(ctx, l, d.health) }},
		"control": {"/plugins", d.serveControl},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- tc.serve(ctx, l) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			// Each place is taken by one that was served and stays.
			var list []net.Conn
			for range maxAskers {
				c := ask(t, l, tc.path)
				heard(t, c)
				list = append(list, c)
			}
			late := ask(t, l, tc.path)
			if err := late.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, _ := late.Read(make([]byte, 1)); n > 0 {
				t.Error("one more than maxAskers was served")
			}
			list[0].Close()
			heard(t, late)
		})
	}
}

// ask sends a request over a connection of its own.
func ask(t *testing.T, l net.Listener, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: pecd\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

// heard wants the answer 200.
func heard(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("answer %s", res.Status)
	}
}
