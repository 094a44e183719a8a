package lmtp

import (
	"bufio"
	"bytes"
	"io"
)

// A stuffer writes the content of a message after DATA block by block. It puts a
// dot before each line that begins with one. Here a bare LF ends a line too, since
// some stores (Dovecot) read it so. The CRLF at the very end is held back: the
// writer of go-smtp begins its final dot with one. So a content without a line end
// gets one, as SMTP wants it, and any other is sent as it is.
type stuffer struct {
	w      *bufio.Writer
	inLine bool // the next octet does not begin a line
	held   int  // octets of "\r\n" held back
}

func newStuffer(w io.Writer) *stuffer {
	return &stuffer{w: bufio.NewWriterSize(w, 32<<10)}
}

var crlf = []byte("\r\n")

// Write implements io.Writer.
func (d *stuffer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b := p
	if d.held == 1 && b[0] == '\n' {
		d.held, b = 2, b[1:]
		if len(b) == 0 {
			return len(p), nil
		}
	}
	if err := d.release(); err != nil {
		return 0, err
	}
	switch {
	case bytes.HasSuffix(b, crlf):
		d.held = 2
	case b[len(b)-1] == '\r':
		d.held = 1
	}
	if err := d.stuff(b[:len(b)-d.held]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish writes what is left, but for a CRLF at the end.
func (d *stuffer) finish() error {
	if d.held == 1 {
		if err := d.release(); err != nil {
			return err
		}
	}
	return d.w.Flush()
}

// release writes what was held back: it was not the end.
func (d *stuffer) release() error {
	if d.held == 0 {
		return nil
	}
	_, err := d.w.Write(crlf[:d.held])
	d.inLine = d.held < len(crlf)
	d.held = 0
	return err
}

func (d *stuffer) stuff(b []byte) error {
	for len(b) > 0 {
		if !d.inLine && b[0] == '.' {
			if err := d.w.WriteByte('.'); err != nil {
				return err
			}
		}
		n := len(b)
		if i := bytes.Index(b, []byte("\n.")); i >= 0 {
			n = i + 1
		}
		if _, err := d.w.Write(b[:n]); err != nil {
			return err
		}
		d.inLine = b[n-1] != '\n'
		b = b[n:]
	}
	return nil
}
