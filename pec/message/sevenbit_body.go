package message

import (
	"encoding/base64"
	"fmt"
	"io"
)

// A wholeReader fails where its reader ends before left octets are read.
type wholeReader struct {
	r    io.Reader
	left int64
}

func (w *wholeReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = fmt.Errorf("message: a source shorter than its size: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

func writeAll(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// writeBase64 writes r to w in base64, lines of 76 columns; RFC 2045, 6.8. None
// of them can be a delimiter, there is no "-" in it.
func writeBase64(w io.Writer, r io.Reader) error {
	const octets, lines = maxColumns / 4 * 3, 512
	in := make([]byte, octets*lines)
	out := make([]byte, 0, (maxColumns+2)*lines)
	for {
		n, err := io.ReadFull(r, in)
		out = out[:0]
		for b := in[:n]; len(b) > 0; {
			line := b[:min(octets, len(b))]
			out = append(base64.StdEncoding.AppendEncode(out, line), "\r\n"...)
			b = b[len(line):]
		}
		if err := writeAll(w, out); err != nil {
			return err
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeQuoted writes r to w in quoted-printable, through buf.
func writeQuoted(w io.Writer, r io.Reader, buf []byte) error {
	var q quotedWriter
	for {
		n, err := r.Read(buf)
		q.octets(buf[:n])
		if err == io.EOF {
			q.close()
		}
		if werr := writeAll(w, q.out); werr != nil {
			return werr
		}
		q.out = q.out[:0]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A quotedWriter encodes octets in quoted-printable, lines of 76 columns;
// RFC 2045, 6.7. CRLF is a line end, CR and LF alone are encoded. No line begins
// with "--", so that none becomes a delimiter (RFC 2046, 5.1.1).
type quotedWriter struct {
	out    []byte
	column int
	blank  byte // held back: at the end of a line it is encoded
	cr     bool // held back, after blank: LF may follow
	dash   bool // the line began with "-"
}

// plain is what stands for itself everywhere in a line.
var plain = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != '=' && c != '-'
	}
	return t
}()

func (q *quotedWriter) octets(b []byte) {
	for len(b) > 0 {
		n := 0
		if q.blank == 0 && !q.cr {
			room := min(len(b), maxColumns-1-q.column)
			for n < room && (plain[b[n]] || b[n] == ' ' && n+1 < room && plain[b[n+1]]) {
				n++
			}
		}
		if n == 0 {
			q.octet(b[0])
			b = b[1:]
			continue
		}
		if q.column == 0 {
			q.dash = false
		}
		q.out = append(q.out, b[:n]...)
		q.column += n
		b = b[n:]
	}
}

func (q *quotedWriter) octet(c byte) {
	if q.cr && c == '\n' {
		q.cr = false
		q.release(true)
		q.out = append(q.out, "\r\n"...)
		q.column = 0
		return
	}
	if q.cr {
		q.cr = false
		q.release(false)
		q.encoded('\r')
	}
	switch {
	case c == '\r':
		q.cr = true
	case isBlank(c):
		q.release(false)
		q.blank = c
	default:
		q.release(false)
		if plain[c] || c == '-' {
			q.literal(c)
		} else {
			q.encoded(c)
		}
	}
}

// close ends the text.
func (q *quotedWriter) close() {
	q.release(!q.cr)
	if q.cr {
		q.encoded('\r')
	}
}

// release writes the blank that is held; last says that a line ends with it.
func (q *quotedWriter) release(last bool) {
	switch c := q.blank; {
	case c == 0:
	case last:
		q.encoded(c)
	default:
		q.literal(c)
	}
	q.blank = 0
}

func (q *quotedWriter) literal(c byte) {
	if c == '-' && q.column == 1 && q.dash {
		q.encoded(c)
		return
	}
	q.room(1)
	if q.column == 0 {
		q.dash = c == '-'
	}
	q.out = append(q.out, c)
	q.column++
}

func (q *quotedWriter) encoded(c byte) {
	const hex = "0123456789ABCDEF"
	q.room(3)
	if q.column == 0 {
		q.dash = false
	}
	q.out = append(q.out, '=', hex[c>>4], hex[c&15])
	q.column += 3
}

// room ends the line softly if n columns do not fit before the "=".
func (q *quotedWriter) room(n int) {
	if q.column+n > maxColumns-1 {
		q.out = append(q.out, "=\r\n"...)
		q.column = 0
	}
}
