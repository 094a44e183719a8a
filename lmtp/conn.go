package lmtp

import (
	"bufio"
	"bytes"
	"fmt"
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

// What a client may send without the content of a message. An MTA that only asks whether
// recipients exist sends three commands beside RCPT for each, on a connection that it
// keeps for minutes (Postfix: RSET, MAIL, RCPT, RSET for 300 seconds).
const (
	maxCommands  = 1000 // RCPT apart
	rcptsForEach = 10   // RCPT, for each recipient that a message may have
)

// A conn is the connection as go-smtp sees it. It gives go-smtp at most one line
// at a time, so that go-smtp's own buffer is empty when a DATA command is
// handled; the content is then read block by block from r, past go-smtp (see
// content).
type conn struct {
	*replies
	s    *Server
	slow *socket.Trickle // since open
	r    *bufio.Reader   // since open
	// greetBy is when LHLO must have come. Since open.
	greetBy time.Time

	// These belong to whoever reads: one goroutine at a time.
	line     int   // octets of the command line so far
	last     int   // octets of the last whole one
	commands int   // since the last content, RCPT apart
	rcpts    int   // RCPT since then
	owed     bool  // what became of a message is still to be sent
	enough   bool  // one command too many has come: none is taken any more
	broken   error // why nothing more is read from the network

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
	c.slow = socket.NewTrickle(c.Conn, c.s.opts.Sleep)
	c.r = bufio.NewReaderSize(timed{c}, 64<<10)
	c.greetBy = time.Now().Add(c.s.opts.GreetTimeout)
}

// timed reads from the network with the timeouts of the server, after it has said
// what there was to say. An error is the last that it does: what comes after a pause
// within the content is in the midst of it, and would be taken for commands.
type timed struct{ c *conn }

func (t timed) Read(p []byte) (int, error) {
	c := t.c
	if c.broken != nil {
		return 0, c.broken
	}
	if err := c.flush(); err != nil {
		return 0, c.unheard(err)
	}
	c.owed = false
	if c.broken = c.await(); c.broken != nil {
		return 0, c.broken
	}
	n, err := c.slow.Read(p)
	c.broken = err
	return n, err
}

// unheard is what reading ends with after replies were not taken: who does not take them
// has gone, which is worth a word in the log only within a message, or if what became of it
// was not heard.
func (c *conn) unheard(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || c.owed {
		return fmt.Errorf("in a reply: %w", err)
	}
	return io.EOF
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

// Read gives go-smtp at most one line, and none after it has closed the connection: it
// reads on, and would execute what came together with QUIT.
func (c *conn) Read(p []byte) (int, error) {
	if c.enough || c.isClosed() {
		return 0, io.EOF
	}
	if c.line == 0 {
		c.slow.Next()
	}
	if _, err := c.r.Peek(1); err != nil {
		return 0, err
	}
	b := c.begun(len(p))
	if c.line == 0 && !c.mayCommand(b) {
		return 0, io.EOF
	}
	n := bytes.IndexByte(b, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(b)
	}
	begins := c.line == 0
	if c.line += n; c.line > maxLine {
		return 0, smtp.ErrTooLongLine
	}
	if whole {
		c.line, c.last = 0, c.line
	}
	given := b[:n]
	if begins && whole {
		given = withoutBadNames(given)
	}
	taken := copy(p, given)
	_, err := c.r.Discard(n)
	return taken, err
}

// begun returns what has come of a line, up to most octets. MAIL and RCPT it returns whole
// (see withoutBadNames), unless they are longer or do not come.
func (c *conn) begun(most int) []byte {
	for {
		b, _ := c.r.Peek(min(c.r.Buffered(), most)) // no error: they are buffered
		if len(b) == most || c.line > 0 || !names(b) || bytes.IndexByte(b, '\n') >= 0 {
			return b
		}
		if _, err := c.r.Peek(len(b) + 1); err != nil {
			return b // the next read tells
		}
	}
}

// mayCommand counts a command that begins with b. False: it was one too many, and the
// client has been told.
func (c *conn) mayCommand(b []byte) bool {
	if len(b) >= 4 && bytes.EqualFold(b[:4], []byte("RCPT")) {
		c.rcpts++
	} else {
		c.commands++
	}
	if c.commands <= maxCommands && c.rcpts <= rcptsForEach*c.s.opts.MaxRecipients {
		return true
	}
	c.enough = true
	c.s.opts.Log.Warn("lmtp: connection ended: too many commands without a message")
	c.lastWord("421 4.7.0 Too many commands without a message\r\n")
	return false
}

// countAnew is called when the content of a message comes.
func (c *conn) countAnew() { c.commands, c.rcpts = 0, 0 }

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

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
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
