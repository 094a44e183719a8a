package socket

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
)

// TestPrompt wants the kernel to acknowledge at once although a talk of questions and
// answers has taught it to wait for the answer.
func TestPrompt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = Patient(context.Background(), l, func(err error) { t.Error(err) })
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for range 20 {
		for _, step := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
			if _, err := step.from.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(step.to, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if step.to == server && !quick(t, server) {
				t.Fatal("the kernel waits before it acknowledges")
			}
		}
	}
	if quick(t, client) {
		t.Error("the client's kernel does not wait: this test shows nothing")
	}
}

func quick(t *testing.T, c net.Conn) bool {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if cerr := raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return v != 0
}
