package courier

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// A sink is a connection that keeps what is written to it.
type sink struct {
	net.Conn
	bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error)      { return s.Buffer.Write(p) }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Read(p []byte) (int, error)       { return s.Buffer.Read(p) }

// dotted returns data as a dotWriter sends it, cut at the given places, with what
// the SMTP client adds.
func dotted(t testing.TB, data []byte, cuts ...int) string {
	t.Helper()
	var s sink
	w := &dotWriter{conn: &s}
	at := 0
	for _, c := range append(cuts, len(data)) {
		if n, err := w.Write(data[at:c]); err != nil || n != c-at {
			t.Fatalf("Write: %d, %v", n, err)
		}
		at = c
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return s.String() + "\r\n.\r\n"
}

func TestDotWriter(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "\r\n.\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{"a\r\n.\r\n..\r\n...b.\r\n", "a\r\n..\r\n...\r\n....b.\r\n.\r\n"},
		{"\r\n\r\n", "\r\n\r\n.\r\n"},
		{"a\n.\nb\r\n", "a\n..\nb\r\n.\r\n"}, // not even a bare LF may end the data
		{"a\n.\r\nb\r\n", "a\n..\r\nb\r\n.\r\n"},
		{"a.b\r\n", "a.b\r\n.\r\n"},
		{"a\r.\r\n", "a\r.\r\n.\r\n"},
	} {
		for cut := range len(c.in) + 1 {
			if got := dotted(t, []byte(c.in), cut); got != c.want {
				t.Errorf("%q cut at %d: %q, want %q", c.in, cut, got, c.want)
			}
		}
	}
}

// FuzzDotWriter holds the dotWriter against the reader and the writer of the
// standard library.
func FuzzDotWriter(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nb"), uint16(3), uint16(4))
	f.Add([]byte("..\r\n.\r\n\r\n"), uint16(0), uint16(1))
	f.Add([]byte(strings.Repeat(".\r\n", 30000)), uint16(65535), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, cut1, cut2 uint16) {
		data = append(bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r"), nil), []byte("\n"), []byte("\r\n")), "\r\n"...)
		a := min(int(cut1), len(data))
		b := min(a+int(cut2), len(data))
		got := dotted(t, data, a, b)

		var want bytes.Buffer
		bw := bufio.NewWriter(&want)
		w := textproto.NewWriter(bw).DotWriter()
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got != want.String() {
			t.Errorf("%q becomes %q, want %q", data, got, &want)
		}
		back, err := textproto.NewReader(bufio.NewReader(strings.NewReader(got))).ReadDotBytes()
		if err != nil || !bytes.Equal(back, bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))) {
			t.Errorf("%q is read back as %q, %v", data, back, err)
		}
	})
}

// A large message leaves in bounded blocks.
func TestDotWriterBlocks(t *testing.T) {
	data := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{})
	if _, err := rnd.Read(data); err != nil {
		t.Fatal(err)
	}
	var s sink
	w := &dotWriter{conn: &s}
	for i := 0; i < len(data); i += 1000 {
		if _, err := w.Write(data[i:min(i+1000, len(data))]); err != nil {
			t.Fatal(err)
		}
		if len(w.buf) > dotBlock+2000 {
			t.Fatalf("%d octets are held back", len(w.buf))
		}
	}
}

// discardConn takes everything.
type discardConn struct{ net.Conn }

func (discardConn) Write(p []byte) (int, error)      { return len(p), nil }
func (discardConn) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkDotWriter(b *testing.B) {
	block := []byte(strings.Repeat(strings.Repeat("x", 74)+"\r\n", 64<<10/76))
	b.Run("blocks", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		w := &dotWriter{conn: discardConn{}}
		for range b.N {
			if _, err := w.Write(block); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("textproto", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		w := textproto.NewWriter(bufio.NewWriter(io.Discard)).DotWriter()
		for range b.N {
			if _, err := w.Write(block); err != nil {
				b.Fatal(err)
			}
		}
	})
}
