package message

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestContent(t *testing.T) {
	src := Bytes("0123456789")
	c := Content{{Text: []byte("ab")}, {}, {Source: src, Range: Range{3, 4}}, {Source: src, Range: Range{9, 0}}, {Text: []byte("c")}}
	const want = "ab3456c"
	if c.Size() != int64(len(want)) {
		t.Errorf("Size %d", c.Size())
	}
	if err := iotest.TestReader(c.Reader(), []byte(want)); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	if n, err := c.WriteTo(&b); n != int64(len(want)) || err != nil || b.String() != want {
		t.Errorf("WriteTo %d, %v: %q", n, err, b.String())
	}
	for off := range len(want) + 2 {
		for n := range len(want) + 2 {
			p := make([]byte, n)
			got, err := c.ReadAt(p, int64(off))
			rest := want[min(off, len(want)):]
			whole := n <= len(rest)
			if got != min(n, len(rest)) || string(p[:got]) != rest[:got] || (err == nil) != whole && n > 0 {
				t.Errorf("ReadAt %d at %d: %q, %v", n, off, p[:got], err)
			}
		}
	}
	if _, err := c.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt before the beginning")
	}
}

// A Content is a Source: it can be read like what it is made of.
func TestContentAsSource(t *testing.T) {
	b := []byte(certified)
	c := Content{{Text: b[:100]}, {Source: Bytes(b), Range: Range{100, 700}}, {Text: b[800:]}}
	m, err := Read(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Structure()
	if err != nil {
		t.Fatal(err)
	}
	if got := outline(t, p); got != outline(t, part(t, certified)) {
		t.Errorf("%s", got)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		n := w.left
		w.left = 0
		return n, errDisk
	}
	w.left -= len(p)
	return len(p), nil
}

func TestContentErrors(t *testing.T) {
	src := Bytes("0123456789")
	c := Content{{Text: []byte("ab")}, {Source: src, Range: Range{0, 10}}}
	for left := range 12 {
		n, err := c.WriteTo(&failingWriter{left})
		if n != int64(left) || !errors.Is(err, errDisk) {
			t.Errorf("a writer that takes %d: %d, %v", left, n, err)
		}
	}
	short := Content{{Source: src, Range: Range{5, 6}}, {Text: []byte("x")}}
	if _, err := short.WriteTo(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("WriteTo of a source that is too short: %v", err)
	}
	if n, err := short.ReadAt(make([]byte, 7), 0); n != 5 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt of a source that is too short: %d, %v", n, err)
	}
	bad := Section(badSource{src, 5, errDisk}, Range{0, 10})
	if _, err := bad.WriteTo(io.Discard); !errors.Is(err, errDisk) {
		t.Errorf("WriteTo of a bad source: %v", err)
	}
}
