package message

import (
	"fmt"
	"io"
)

const (
	// lookAhead is how far a line is read to tell what it is: a field name or a
	// delimiter that is longer is none.
	lookAhead = 4 << 10

	smallWindow = 8 << 10  // for a header
	largeWindow = 64 << 10 // for a body
)

// A window is a run of buffered bytes that moves forward over a Source. What is
// in memory it does not copy: its window is all that is still to be read.
type window struct {
	src Source
	end int64 // bytes from here on are not read
	off int64 // where buf starts
	buf []byte
}

func newWindow(src Source, r Range, size int) *window {
	w := &window{src: src, end: r.End(), off: r.Off}
	if _, ok := src.(Bytes); !ok {
		w.buf = make([]byte, 0, min(int64(size), r.Len))
	}
	return w
}

// from returns the bytes at pos and after it: want of them (at most lookAhead),
// or more if there are more at hand, or fewer if the end comes first. They stand
// until the next call.
func (w *window) from(pos int64, want int) ([]byte, error) {
	want = int(min(int64(want), w.end-pos))
	if at := pos - w.off; at >= 0 && at+int64(want) <= int64(len(w.buf)) {
		return w.buf[at:], nil
	}
	if err := w.move(pos); err != nil {
		return nil, err
	}
	return w.buf, nil
}

// before returns the n bytes before pos, if they are at hand.
func (w *window) before(pos, n int64) ([]byte, bool) {
	at := pos - w.off
	if at < n || at > int64(len(w.buf)) {
		return nil, false
	}
	return w.buf[at-n : at], true
}

// move lets the window start at pos and fills it, keeping what it has already.
func (w *window) move(pos int64) error {
	if b, ok := w.src.(Bytes); ok && pos >= 0 && w.end <= b.Size() {
		w.off, w.buf = pos, b[pos:w.end:w.end]
		return nil
	}
	kept := 0
	if at := pos - w.off; at >= 0 && at < int64(len(w.buf)) {
		kept = copy(w.buf, w.buf[at:])
	}
	n := int(min(int64(cap(w.buf)), w.end-pos))
	w.off, w.buf = pos, w.buf[:n]
	return readFull(w.src, w.buf[kept:], pos+int64(kept))
}

// readFull fills b from off. A source that ends before its size is an error.
func readFull(src Source, b []byte, off int64) error {
	n, err := src.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("message: read at %d: %w", off+int64(n), err)
}
