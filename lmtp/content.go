package lmtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// A content reads what follows DATA block by block: it drops the dot that
// begins a line and stops before the line that is only a dot. Only CRLF ends a
// line (RFC 5321, 2.3.8); a bare CR or LF is content, so that nobody can smuggle
// an end of message.
type content struct {
	r      *bufio.Reader
	inLine bool // the next octet does not begin a line
}

// next returns the next block, valid until the next call, and io.EOF at the end.
// The final ".\r\n" is left unread: go-smtp waits for it.
func (c *content) next() ([]byte, error) {
	if !c.inLine {
		if err := c.lineStart(); err != nil {
			return nil, err
		}
	}
	return c.rest()
}

// lineStart looks for the dot.
func (c *content) lineStart() error {
	c.inLine = true
	b, err := c.r.Peek(1)
	if err != nil {
		return cutShort(err)
	}
	if b[0] != '.' {
		return nil
	}
	if b, err = c.r.Peek(2); err == nil && b[1] == '\r' {
		b, err = c.r.Peek(3)
	}
	if err != nil {
		return cutShort(err)
	}
	if string(b) == ".\r\n" {
		c.inLine = false // to be said again if asked again
		return io.EOF
	}
	_, err = c.r.Discard(1)
	return err
}

// rest returns what is buffered, up to a line that begins with a dot.
func (c *content) rest() ([]byte, error) {
	b, err := c.r.Peek(1)
	if err == nil && b[0] == '\r' { // the start of a line end?
		_, err = c.r.Peek(2)
	}
	if err != nil {
		return nil, cutShort(err)
	}
	b, _ = c.r.Peek(c.r.Buffered()) // no error: they are buffered
	if i := bytes.Index(b, []byte("\r\n.")); i >= 0 {
		b = b[:i+2]
		c.inLine = false
	} else if bytes.HasSuffix(b, []byte("\r\n")) {
		c.inLine = false
	} else if b[len(b)-1] == '\r' && len(b) > 1 {
		b = b[:len(b)-1]
	}
	_, err = c.r.Discard(len(b)) // b stays valid until the next read
	return b, err
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
