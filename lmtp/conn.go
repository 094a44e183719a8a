package lmtp

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// maxLine is the length of a command line in octets. RFC 5321 allows 512, and
// its extensions add some hundreds for each parameter.
const maxLine = 8 << 10

// A conn is the connection as go-smtp sees it. It gives go-smtp at most one line
// at a time, so that go-smtp's own buffer is empty when a DATA command is
// handled; the content is then read block by block from r, past go-smtp (see
// content).
type conn struct {
	net.Conn
	s    *Server
	r    *bufio.Reader // since open
	line int           // octets of the command line so far
	// greetBy is when LHLO must have come. Since open.
	greetBy time.Time

	mu       sync.Mutex // guards what follows, and the order of read deadlines
	greeted  bool       // LHLO came
	busy     bool       // a message is under way
	draining bool       // to end when not busy
	closed   bool
}

func newConn(s *Server, raw net.Conn) *conn {
	return &conn{Conn: raw, s: s}
}

// open makes room for what comes, once there is a place for the connection.
func (c *conn) open() {
	c.r = bufio.NewReaderSize(timed{c}, 64<<10)
	c.greetBy = time.Now().Add(c.s.opts.GreetTimeout)
}

// timed reads from the network with the timeouts of the server.
type timed struct{ c *conn }

func (t timed) Read(p []byte) (int, error) {
	if err := t.c.await(); err != nil {
		return 0, err
	}
	return t.c.Conn.Read(p)
}

// await sets the deadline for the next read, unless the connection is to end.
func (c *conn) await() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.busy {
		return os.ErrDeadlineExceeded // go-smtp says 421 and ends
	}
	until := time.Now().Add(c.s.opts.IdleTimeout)
	if !c.greeted && c.greetBy.Before(until) {
		until = c.greetBy // however slowly it comes
	}
	return c.Conn.SetReadDeadline(until)
}

// greet marks that LHLO came.
func (c *conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
}

// Read gives go-smtp at most one line.
func (c *conn) Read(p []byte) (int, error) {
	if _, err := c.r.Peek(1); err != nil {
		return 0, err
	}
	b, _ := c.r.Peek(min(c.r.Buffered(), len(p))) // no error: they are buffered
	n := bytes.IndexByte(b, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(b)
	}
	if c.line += n; c.line > maxLine {
		return 0, smtp.ErrTooLongLine
	}
	if whole {
		c.line = 0
	}
	copy(p, b[:n])
	_, err := c.r.Discard(n)
	return n, err
}

// Write sends replies. Of the extensions that go-smtp announces it keeps
// CHUNKING back: BDAT is refused (see session.LMTPData).
func (c *conn) Write(p []byte) (int, error) {
	if string(p) == "250-CHUNKING\r\n" {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// SetReadDeadline does nothing: deadlines are set for each read.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// Close may be called more than once.
func (c *conn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	defer c.s.keep.Remove(c)
	return c.Conn.Close()
}

// begin marks that a message is under way, which a shutdown waits for. False: it
// may not begin.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.busy = true
	return true
}

func (c *conn) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
}

// Kill implements socket.Kept.
func (c *conn) Kill() { _ = c.Conn.Close() } // one that is closed already has ended

// Drain makes the connection end: now, or when its message has ended.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if !c.busy {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // fails only if the connection has ended already
	}
}
