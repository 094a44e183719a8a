package milter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"

	"pecd/milter/socket"
)

var (
	errProtocol = errors.New("packet out of turn")
	errDraining = errors.New("shutting down")
	errQuit     = errors.New("end of the connection")
)

// A conn is the connection as go-milter sees it. It adds deadlines and buffering,
// and looks at each packet first: what go-milter would read wrongly, keep without
// bounds, or answer although no answer is due, does not reach it. Its Read ends with io.EOF and its
// Write always succeeds, since go-milter prints other errors to the standard
// logger; they go to ours.
type conn struct {
	net.Conn
	s       *Server
	session *session
	slow    *socket.Trickle // since open
	r       *bufio.Reader   // since open

	// These belong to the connection's goroutine.
	ready   []byte // what go-milter is to read next
	packet  []byte // the last one that came; the memory of ready
	greeted bool   // options were negotiated
	failure error  // why nothing more is read

	mu       sync.Mutex // guards what follows, and the order of read deadlines
	busy     bool       // a message is under way
	draining bool       // to end when it has been without a message for a while
}

func newConn(s *Server, raw net.Conn) *conn {
	c := &conn{Conn: raw, s: s}
	c.session = &session{s: s, c: c, pending: map[gomilter.Code]macros{}}
	return c
}

// open makes room for what comes, once there is a place for the connection.
func (c *conn) open() {
	c.slow = socket.NewTrickle(c.Conn, c.s.opts.Sleep)
	c.r = bufio.NewReaderSize(c.slow, 16<<10)
}

// Read gives go-milter the packets of the MTA, whole ones only: it would print
// the end of the connection within one.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.ready) == 0 {
		if err := c.next(); err != nil {
			c.fail(err)
			return 0, io.EOF
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// next makes the next packet for go-milter ready.
func (c *conn) next() error {
	for c.failure == nil {
		code, data, err := c.readPacket()
		if err != nil {
			return err
		}
		dealtWith, err := c.look(code, data)
		if err != nil {
			return err
		}
		if !dealtWith {
			c.ready = c.packet
			return nil
		}
	}
	return c.failure
}

// readPacket reads a packet into c.packet. Of a field that is too long to be taken it keeps
// nothing.
func (c *conn) readPacket() (gomilter.Code, []byte, error) {
	if err := c.awaitPacket(); err != nil {
		return 0, nil, err
	}
	c.slow.Next()
	c.packet = c.packet[:0]
	if err := c.readMore(4); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(c.packet)
	if size == 0 || size > maxLongField {
		return 0, nil, fmt.Errorf("%w: length %d", errPacket, size)
	}
	if err := c.readMore(1); err != nil {
		return 0, nil, cutShort(err)
	}
	code, n := gomilter.Code(c.packet[4]), int(size)-1
	if n > mostData(code) {
		if code != gomilter.CodeHeader {
			return 0, nil, fmt.Errorf("%w: command %q with %d octets", errPacket, code, n)
		}
		if _, err := c.r.Discard(n); err != nil {
			return 0, nil, cutShort(err)
		}
		return code, nil, nil
	}
	if err := c.readMore(n); err != nil {
		return 0, nil, cutShort(err)
	}
	return code, c.packet[5:], nil
}

// readMore reads n octets more into c.packet. It takes memory as octets come, since a
// length is only a promise.
func (c *conn) readMore(n int) error {
	for n > 0 {
		have := len(c.packet)
		step := min(n, max(cap(c.packet)-have, have, 1<<10))
		if have+step > cap(c.packet) {
			c.packet = append(make([]byte, 0, max(have+step, 1<<10)), c.packet...)
		}
		c.packet = c.packet[:have+step]
		if _, err := io.ReadFull(c.r, c.packet[have:]); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// awaitPacket sets the deadline for the next packet as a whole, unless the
// connection is to end now.
func (c *conn) awaitPacket() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	patience := c.s.opts.ReadTimeout
	if !c.greeted {
		patience = min(patience, c.s.opts.GreetTimeout)
	}
	if c.draining && !c.busy {
		patience = min(patience, c.s.opts.Linger)
	}
	if patience < 0 {
		return errDraining
	}
	return c.Conn.SetReadDeadline(time.Now().Add(patience))
}

// cutShort is the error of a connection that ended within a packet.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("within a packet: %w", err)
}

// look examines a packet before go-milter sees it. What is dealt with go-milter must
// not see: it would keep all fields of a message until an ABORT, and the last macros,
// and it knows no other use of the connection.
func (c *conn) look(code gomilter.Code, data []byte) (dealtWith bool, err error) {
	if !c.greeted && code != gomilter.CodeOptNeg && code != gomilter.CodeQuit {
		return false, fmt.Errorf("%w: %q before the negotiation", errProtocol, code)
	}
	switch code {
	case gomilter.CodeOptNeg:
		c.greeted = true
		return false, checkOffers(data)
	case gomilter.CodeMacro:
		stage, m, err := parseMacros(data)
		if err == nil && hasMacros(stage) {
			c.session.pending[stage] = m
		}
		return true, err
	case gomilter.CodeConn:
		return false, checkConnect(data)
	case gomilter.CodeMail:
		c.begin()
		return false, nil
	case gomilter.CodeHeader:
		c.session.field(data)
		return true, nil
	case gomilter.CodeEOB:
		if len(data) > 0 { // go-milter would drop these octets of the body
			return false, fmt.Errorf("%w: end of message with content", errProtocol)
		}
		return false, nil
	case gomilter.CodeQuitNewConn:
		c.session.forget()
		return true, nil
	case gomilter.CodeQuit:
		return false, errQuit
	case gomilter.CodeHelo, gomilter.CodeRcpt, gomilter.CodeEOH, gomilter.CodeBody, gomilter.CodeAbort, gomilter.CodeData:
		return false, nil
	default:
		return false, fmt.Errorf("%w: command %q", errProtocol, code)
	}
}

// begin marks that a message is under way, which a shutdown waits for.
func (c *conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = true
}

func (c *conn) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
}

// Drain makes the connection end when there is no message on it for a while.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if !c.busy {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.s.opts.Linger)) // fails only if the connection has ended already
	}
}

// Kill implements socket.Kept.
func (c *conn) Kill() { _ = c.Conn.Close() } // one that is closed already has ended

// fail keeps the connection from being read further, so that it ends and the MTA
// applies its default action. The first reason is logged.
func (c *conn) fail(err error) {
	if c.failure != nil {
		return
	}
	c.failure = err
	if errors.Is(err, errQuit) || errors.Is(err, io.EOF) && !c.session.underWay() || c.isDraining() {
		return
	}
	c.s.opts.Observe(EventBroken)
	c.s.opts.Log.Warn("milter: connection ended early", "error", err, "qid", c.session.queueID())
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// Write sends an answer to the MTA. After an error nothing more is read.
func (c *conn) Write(p []byte) (int, error) {
	err := c.Conn.SetWriteDeadline(time.Now().Add(c.s.opts.WriteTimeout))
	if err == nil {
		_, err = c.Conn.Write(p)
	}
	if err != nil {
		c.fail(fmt.Errorf("in an answer: %w", err))
	}
	return len(p), nil
}

// Close is called once, by go-milter when the connection ends.
func (c *conn) Close() error {
	defer c.s.keep.Remove(c)
	c.session.forget()
	return c.Conn.Close()
}
