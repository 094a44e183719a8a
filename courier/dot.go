package courier

import (
	"bytes"
	"net"
	"time"
)

// dotBlock is the size in octets of what a dotWriter writes at a time.
const dotBlock = 64 << 10

// A dotWriter writes message data to a connection with the transparency of RFC
// 5321, 4.5.2, a block at a time: the one of net/textproto goes octet by octet.
// The CRLF at the end of the message is not written; who ends the data writes
// it before the dot.
type dotWriter struct {
	conn    net.Conn
	timeout time.Duration // for each block
	buf     []byte
	midline bool
}

// Write implements io.Writer.
func (w *dotWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if !w.midline && p[0] == '.' {
			w.buf = append(w.buf, '.')
		}
		run := p
		if i := bytes.Index(p, []byte("\n.")); i >= 0 {
			run = p[:i+1]
		}
		w.buf = append(w.buf, run...)
		w.midline = run[len(run)-1] != '\n'
		p = p[len(run):]
		if len(w.buf) >= dotBlock {
			// The last two octets may be the CRLF of the end.
			if err := w.flush(len(w.buf) - 2); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// finish writes what is left but for the final CRLF.
func (w *dotWriter) finish() error {
	return w.flush(len(bytes.TrimSuffix(w.buf, []byte("\r\n"))))
}

// flush writes the first n octets of the buffer and keeps the others.
func (w *dotWriter) flush(n int) error {
	if n == 0 {
		return nil
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	if _, err := w.conn.Write(w.buf[:n]); err != nil {
		return err
	}
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	return nil
}
