package message

import (
	"bytes"
	"errors"
	"io"
)

// A Source is stored bytes that do not change: a spooled message, or memory.
// ReadAt may be called concurrently.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Bytes is a Source in memory.
type Bytes []byte

// ReadAt implements io.ReaderAt.
func (b Bytes) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}

// Size implements Source.
func (b Bytes) Size() int64 { return int64(len(b)) }

// A Range is a run of bytes of a Source.
type Range struct {
	Off, Len int64
}

// End returns the offset after the last byte.
func (r Range) End() int64 { return r.Off + r.Len }

// A Piece is a run of bytes: Text, or where Source is set, Range of it.
type Piece struct {
	Text   []byte
	Source Source
	Range  Range
}

// Size returns the number of bytes of p.
func (p Piece) Size() int64 {
	if p.Source != nil {
		return p.Range.Len
	}
	return int64(len(p.Text))
}

// Content is a message made of pieces, so that an original of many megabytes is
// stored once and every message that carries it only points to it. A Content
// that has been handed on is not changed any more.
type Content []Piece

// Text returns the content that is just b.
func Text(b []byte) Content { return Content{{Text: b}} }

// Section returns the content that is r of src.
func Section(src Source, r Range) Content { return Content{{Source: src, Range: r}} }

// Size returns the number of bytes of c.
func (c Content) Size() int64 {
	var n int64
	for _, p := range c {
		n += p.Size()
	}
	return n
}

// Reader returns a reader over the bytes of c.
func (c Content) Reader() io.Reader { return io.NewSectionReader(c, 0, c.Size()) }

// WriteTo writes the bytes of c to w, stored pieces through a buffer of its own.
func (c Content) WriteTo(w io.Writer) (int64, error) {
	var n int64
	var buf []byte
	for _, p := range c {
		if p.Source == nil {
			m, err := w.Write(p.Text)
			n += int64(m)
			if err != nil {
				return n, err
			}
			continue
		}
		if buf == nil {
			buf = make([]byte, 64<<10)
		}
		// The wrappers hide WriterTo and ReaderFrom, which would bring larger
		// buffers of their own.
		m, err := io.CopyBuffer(struct{ io.Writer }{w},
			struct{ io.Reader }{io.NewSectionReader(p.Source, p.Range.Off, p.Range.Len)}, buf)
		n += m
		if err != nil {
			return n, err
		}
		if m != p.Range.Len {
			return n, io.ErrUnexpectedEOF
		}
	}
	return n, nil
}

// ReadAt implements io.ReaderAt, so that a Content is itself a Source.
func (c Content) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("message: negative offset")
	}
	n := 0
	for _, p := range c {
		size := p.Size()
		if off >= size {
			off -= size
			continue
		}
		want := b[n:]
		if int64(len(want)) > size-off {
			want = want[:size-off]
		}
		if p.Source == nil {
			copy(want, p.Text[off:])
		} else if m, err := p.Source.ReadAt(want, p.Range.Off+off); m < len(want) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n + m, err
		}
		n += len(want)
		off = 0
		if n == len(b) {
			return n, nil
		}
	}
	return n, io.EOF
}
