package lmtp

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/milter/socket"
)

// maxLine is the length of a command line in octets. RFC 5321 allows 512, and
// its extensions add some hundreds for each parameter.
const maxLine = 8 << 10

// maxCommands is how many commands a client may send without the content of a message,
// RCPT apart: an MTA that asks whether recipients exist sends two for each.
const maxCommands = 200

// A conn is the connection as go-smtp sees it. It gives go-smtp at most one line
// at a time, so that go-smtp's own buffer is empty when a DATA command is
// handled; the content is then read block by block from r, past go-smtp (see
// content).
type conn struct {
	*replies
	s        *Server
	slow     *socket.Trickle // since open
	r        *bufio.Reader   // since open
	line     int             // octets of the command line so far
	commands int             // since the last content
	// greetBy is when LHLO must have come. Since open.
	greetBy time.Time

	mu       sync.Mutex // guards what follows, and the order of read deadlines
	greeted  bool       // LHLO came
	busy     bool       // a message is under way
	draining bool       // to end when not busy
	closed   bool
}

func newConn(s *Server, raw net.Conn) *conn {
	return &conn{replies: &replies{Conn: raw, timeout: s.opts.WriteTimeout}, s: s}
}

// open makes room for what comes, once there is a place for the connection.
func (c *conn) open() {
	c.slow = socket.NewTrickle(c.Conn, time.Sleep)
	c.r = bufio.NewReaderSize(timed{c}, 64<<10)
	c.greetBy = time.Now().Add(c.s.opts.GreetTimeout)
}

// timed reads from the network with the timeouts of the server, after it has said
// what there was to say.
type timed struct{ c *conn }

func (t timed) Read(p []byte) (int, error) {
	if t.c.flush() != nil {
		return 0, io.EOF // who takes no replies has gone
	}
	if err := t.c.await(); err != nil {
		return 0, err
	}
	return t.c.slow.Read(p)
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
	if c.line == 0 {
		c.slow.Next()
	}
	if _, err := c.r.Peek(1); err != nil {
		return 0, err
	}
	b, _ := c.r.Peek(min(c.r.Buffered(), len(p))) // no error: they are buffered
	if c.line == 0 && !c.mayCommand(b) {
		return 0, io.EOF
	}
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

// mayCommand counts a command that begins with b. False: it was one too many, and the
// client has been told.
func (c *conn) mayCommand(b []byte) bool {
	if len(b) < 4 || !bytes.EqualFold(b[:4], []byte("RCPT")) {
		c.commands++
	}
	if c.commands <= maxCommands {
		return true
	}
	c.s.opts.Log.Warn("lmtp: connection ended: too many commands without a message")
	_, _ = io.WriteString(c, "421 4.7.0 Too many commands without a message\r\n") // best effort: it ends anyway
	return false
}

// Write holds replies until the next read. Of the extensions that go-smtp announces it
// keeps CHUNKING back: BDAT is refused (see session.LMTPData).
func (c *conn) Write(p []byte) (int, error) {
	if string(p) == "250-CHUNKING\r\n" {
		return len(p), nil
	}
	return c.replies.Write(p)
}

// SetReadDeadline does nothing: deadlines are set for each read.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: deadlines are set for each write.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

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
	_ = c.flush() // the last word; who cannot hear it has gone
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
