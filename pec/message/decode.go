package message

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
)

// newBase64Reader undoes base64 (RFC 2045, 6.8). Octets that are not of the
// alphabet are left out, the first "=" is the end, and a piece that is not whole
// at the end is dropped.
func newBase64Reader(r io.Reader) io.Reader {
	// The decoder asks for a kilobyte at a time.
	in := &alphabetReader{r: bufio.NewReaderSize(r, 32<<10)}
	return &base64Reader{base64.NewDecoder(base64.RawStdEncoding, in)}
}

type base64Reader struct{ r io.Reader }

func (b *base64Reader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	// After the filter only a single letter at the end can be wrong.
	if err != nil && errors.As(err, new(base64.CorruptInputError)) {
		err = io.EOF
	}
	return n, err
}

// An alphabetReader lets only letters of base64 pass.
type alphabetReader struct {
	r   io.Reader
	end bool
}

func (a *alphabetReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for !a.end {
		n, err := a.r.Read(p)
		kept := a.keep(p[:n])
		if kept > 0 || err != nil {
			return kept, err
		}
	}
	return 0, io.EOF
}

// keep moves the letters of p to its front and returns how many they are.
func (a *alphabetReader) keep(p []byte) int {
	kept := 0
	for _, c := range p {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/':
			p[kept] = c
			kept++
		case c == '=':
			a.end = true
			return kept
		}
	}
	return kept
}

// newQuotedReader undoes quoted-printable (RFC 2045, 6.7). A "=" that begins
// nothing stands for itself; line ends stay as they are. The reader of the
// standard library fails with both, and with long lines.
func newQuotedReader(r io.Reader) io.Reader {
	return &quotedReader{in: bufio.NewReaderSize(r, 4<<10)}
}

type quotedReader struct {
	in  *bufio.Reader
	buf []byte
	out []byte // of buf, what is decoded and not yet read
	err error
}

func (q *quotedReader) Read(p []byte) (int, error) {
	for len(q.out) == 0 && len(p) > 0 {
		if q.err != nil {
			return 0, q.err
		}
		q.fill()
	}
	n := copy(p, q.out)
	q.out = q.out[n:]
	return n, nil
}

// fill decodes whole lines, or a piece of one that is longer than the buffer.
func (q *quotedReader) fill() {
	b, err := q.in.Peek(q.in.Size())
	q.err = err
	if err == nil {
		b = b[:wholeQuoted(b)]
	}
	q.buf = q.buf[:0]
	for line := range bytes.Lines(b) {
		q.buf = appendQuoted(q.buf, line)
	}
	q.out = q.buf
	if _, err := q.in.Discard(len(b)); err != nil && q.err == nil {
		q.err = err
	}
}

// wholeQuoted returns how much of b can be decoded before what follows is known:
// up to the last line end, or without one, up to what the line may end with.
func wholeQuoted(b []byte) int {
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	n := len(bytes.TrimRight(b, " \t\r"))
	if i := bytes.LastIndexByte(b[:n], '='); i >= 0 && n-i <= 2 {
		n = i
	}
	if n == 0 { // blanks without an end
		n = len(b)
	}
	return n
}

// appendQuoted appends line decoded. Blanks at its end are not part of it.
func appendQuoted(out, line []byte) []byte {
	end := lineEnd(line)
	text := bytes.TrimRight(line[:len(line)-len(end)], " \t")
	if soft, ok := bytes.CutSuffix(text, []byte("=")); ok {
		text, end = soft, ""
	}
	for {
		i := bytes.IndexByte(text, '=')
		if i < 0 {
			return append(append(out, text...), end...)
		}
		out, text = append(out, text[:i]...), text[i:]
		var c [1]byte
		if len(text) < 3 {
			c[0], text = '=', text[1:]
		} else if _, err := hex.Decode(c[:], text[1:3]); err != nil {
			c[0], text = '=', text[1:]
		} else {
			text = text[3:]
		}
		out = append(out, c[0])
	}
}
