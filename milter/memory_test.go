package milter_test

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pecd/milter"
	"pecd/milter/miltertest"
)

// heap is what is in use, in octets.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHeaderMemory: of a header that passes all limits nothing is kept, also not by
// the library, which forgets fields only at an ABORT.
func TestHeaderMemory(t *testing.T) {
	const fields, size = 2500, 40_000 // 100 MB
	r := newRecorder()
	c := start(t, milter.Options{Backend: r, LargeHeader: milter.Verdict{Action: milter.Reject}}).dial(t)
	value := strings.Repeat("x", size)
	before := heap()
	a, err := c.Mail(plain.From, nil)
	does(t, a, err)
	a, err = c.Rcpt("bob@x", nil)
	does(t, a, err)
	name := []byte("Name-000000")
	for i := range fields { // names of their own, which it would keep too
		binary.BigEndian.PutUint32(name[5:], 0x41414141+uint32(i%26)+uint32(i/26)<<8)
		a, err := c.Field(string(name), value)
		does(t, a, err)
	}
	a, err = c.EndHeader(nil)
	does(t, a, err)
	if a, err := c.End(nil); err != nil || a.Code != 'r' {
		t.Errorf("answer %q %q, %v", a.Code, a.Reply, err)
	}
	r.next(t) // aborted at the limit
	if kept := heap() - before; kept > 5<<20 {
		t.Errorf("%d octets are kept of %d", kept, fields*size)
	}
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
}

// TestMacroMemory: macros that nobody asked for, or for commands that have none, are
// not kept, and those that hold nothing cost nothing.
func TestMacroMemory(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r}).dial(t)
	var strange []byte
	for i := 0; len(strange) < 60_000; i++ {
		strange = binary.BigEndian.AppendUint32(strange, 0x41414141+uint32(i%26)+uint32(i/26%26)<<8+uint32(i/676)<<16)
		strange = append(strange, "\x00x\x00"...)
	}
	before := heap()
	for stage := range 256 {
		for _, values := range [][]byte{strange, make([]byte, 60_000), miltertest.Strings("i", strings.Repeat("x", 4<<10))} {
			if err := c.Packet('D', append([]byte{byte(stage)}, values...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
	// A connection may have a value of 4 KB for each command that has macros.
	if kept := heap() - before; kept > 1<<18 {
		t.Errorf("%d octets are kept of the macros", kept)
	}
}

// A meter is a listener that counts the octets that its connections have read. With octets
// each read finds one, as from who sends them one by one.
type meter struct {
	net.Listener
	octets bool
	read   atomic.Int64
}

func (m *meter) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &metered{c, m}, nil
}

type metered struct {
	net.Conn
	m *meter
}

func (c *metered) Read(p []byte) (int, error) {
	if c.m.octets {
		p = p[:1]
	}
	n, err := c.Conn.Read(p)
	c.m.read.Add(int64(n))
	return n, err
}

// TestPacketMemory: what a connection takes follows what has come on it, not what its
// client has announced, and of a long packet no more is kept than an MTA sends.
func TestPacketMemory(t *testing.T) {
	begun := head() + packet("M<a@b>\x00") + packet("R<c@d>\x00")
	long := "\x00\x10\x00\x00L" + strings.Repeat("x", 1<<20-2) // one octet is missing
	chunk := "\x00\x01\x00\x01B" + strings.Repeat("x", 64<<10)
	for _, tt := range []struct {
		name    string
		clients int
		input   string
		limit   int64 // octets for each
	}{
		{"1 MB announced first", 500, "\x00\x10\x00\x00", 24 << 10},
		{"1 MB announced", 500, begun + long[:5], 24 << 10},
		{"1 MB but for an octet", 50, begun + long, 24 << 10},
		{"1 MB came", 50, begun + long + "x", 24 << 10},
		{"64 KB announced", 500, begun + packet("N") + chunk[:5], 24 << 10},
		{"64 KB but for an octet", 500, begun + packet("N") + chunk[:len(chunk)-1], 100 << 10},
		{"64 KB came", 50, begun + packet("N") + chunk, 100 << 10},
		{"64 KB of fields", 50, begun + packet("LA\x00"+strings.Repeat("x", 15_000)+"\x00") + packet("LA\x00"+strings.Repeat("x", 49_000)+"\x00") + packet("N")[:4], 100 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &meter{Listener: listen(t)}
			s := serve(t, l, milter.Options{Backend: noop{io.Discard}})
			before := heap()
			for range tt.clients {
				if _, err := io.WriteString(s.raw(t), tt.input); err != nil {
					t.Fatal(err)
				}
			}
			all := int64(tt.clients) * int64(len(tt.input))
			for began := time.Now(); l.read.Load() < all; time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > patience {
					t.Fatalf("%d octets of %d were read", l.read.Load(), all)
				}
			}
			kept := heap() - before
			t.Logf("%d connections: %.1f MB, %d octets each", tt.clients, float64(kept)/1e6, kept/int64(tt.clients))
			if kept > int64(tt.clients)*tt.limit {
				t.Errorf("%d octets are kept for each connection, which sent %d", kept/int64(tt.clients), len(tt.input))
			}
		})
	}
}

// TestRecipientMemory: there is a bound to what recipients take, those of a message and
// those of all, and who comes when it is reached hears "later".
func TestRecipientMemory(t *testing.T) {
	const one, all = "452 4.5.3 Too many recipients", "452 4.3.1 Too many recipients of other messages are under way, try again later"
	s := start(t, milter.Options{Backend: checker{newRecorder()}})
	long := strings.Repeat("x", 8000) + "@x"
	fill := func(c *miltertest.Client) (taken int) {
		t.Helper()
		a, err := c.Mail(plain.From, nil)
		does(t, a, err)
		for ; ; taken++ {
			a, err := c.Rcpt(long, nil)
			if err != nil {
				t.Fatal(err)
			}
			if a.Code != 'c' {
				if want := map[bool]string{true: one, false: all}[taken == 130]; a.Reply != want {
					t.Errorf("answer %q %q, want %q", a.Code, a.Reply, want)
				}
				return taken
			}
		}
	}
	first := s.dial(t)
	if n := fill(first); n != 130 {
		t.Errorf("%d recipients in 1 MB", n)
	}
	others := []*miltertest.Client{}
	for {
		c := s.dial(t)
		others = append(others, c)
		if fill(c) < 130 {
			break
		}
	}
	if n := len(others); n < 34 || n > 36 {
		t.Errorf("32 MB beside what each has of its own have room for %d messages with 1 MB of recipients", n)
	}
	mustSend(t, s.dial(t), plain, 'd') // who names a few is not held up by the others
	if err := first.Abort(); err != nil {
		t.Fatal(err)
	}
	mustSend(t, first, plain, 'd') // there is room again
	for _, c := range others {
		if err := c.Abort(); err != nil {
			t.Fatal(err)
		}
		mustSend(t, c, plain, 'd')
	}
	for range 36 {
		if n := fill(first); n != 130 {
			t.Fatalf("%d recipients when all others have ended", n)
		}
		if a, err := first.End(nil); err != nil || a.Code != 'd' {
			t.Fatalf("answer %q, %v", a.Code, err)
		}
	}
}

// TestSleep: who writes whole packets is never made to wait, nor who writes the head of a
// packet and the rest, as Sendmail does; who writes octet by octet is.
func TestSleep(t *testing.T) {
	for _, octets := range []bool{false, true} {
		l := &meter{Listener: listen(t), octets: octets}
		var naps atomic.Int64
		s := serve(t, l, milter.Options{Backend: noop{io.Discard}, Sleep: func(time.Duration) { naps.Add(1) }})
		c := s.dial(t)
		m := plain
		m.Bytes = []byte("From: alice\r\n\r\n" + strings.Repeat("x", 300_000))
		for range 20 {
			mustSend(t, c, plain, 'd')
			if !octets {
				mustSend(t, c, m, 'd')
			}
		}
		whole := []byte(wholeSession()[len(head()):])
		for range 10 {
			for rest := whole; len(rest) > 0; {
				n := 4 + int(binary.BigEndian.Uint32(rest))
				for _, part := range [][]byte{rest[:5], rest[5:n]} {
					if _, err := c.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				rest = rest[n:]
			}
			if a, err := c.ReadAnswer(); err != nil || a.Code != 'd' {
				t.Fatal(a, err)
			}
		}
		if n := naps.Load(); (n > 0) != octets {
			t.Errorf("octet by octet: %v; made to wait %d times", octets, n)
		}
	}
}
