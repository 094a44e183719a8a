package socket

import (
	"net"
	"syscall"
)

// Prompt returns c so that what comes is acknowledged at once. Sendmail sends a command
// to a milter in two pieces and does not ask for TCP_NODELAY: its kernel keeps the second
// until ours has acknowledged the first, which takes 40 ms for each command otherwise. A
// connection that is not TCP stays what it is.
func Prompt(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c // it is closed already, as the first Read tells
	}
	return &prompt{TCPConn: tcp, raw: raw}
}

type prompt struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Read reads. The kernel falls back to waiting by itself, so it is told each time.
func (p *prompt) Read(b []byte) (int, error) {
	err := p.raw.Control(func(fd uintptr) {
		acknowledge(int(fd))
	})
	if err != nil {
		return 0, err
	}
	return p.TCPConn.Read(b)
}
