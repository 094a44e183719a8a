package milter_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"pecd/milter"
	"pecd/milter/miltertest"
)

// wholeSession is a good message up to its end.
func wholeSession() string {
	return head() + packet("DC{daemon_name}\x00X\x00") + packet("Chost\x0040912.0.0.1\x00") + packet("Hhelo\x00") +
		packet("DM{auth_authen}\x00alice\x00i\x00Q\x00") + packet("M<a@b>\x00SIZE=1\x00") + packet("R<c@d>\x00") +
		packet("LSubject\x00 x\n y\x00") + packet("N") + packet("Bbody\r\n") + packet("E")
}

// lengths are all up to 300, and beyond that steps and what lies around the powers
// of two, to 70,000.
func lengths() (list []int) {
	for n := range 300 {
		list = append(list, n+1)
	}
	for n := 512; n <= 65536; n *= 2 {
		list = append(list, n-1, n, n+1)
	}
	for n := 1009; n <= 70_000; n += 1009 {
		list = append(list, n)
	}
	return append(list, 70_000)
}

// TestHostileLengths has packets of every length: as content each comes to the
// backend to the octet, and with any other command it ends its own connection at
// most.
func TestHostileLengths(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: r, Malformed: milter.Verdict{Action: milter.Reject}})
	t.Run("content", func(t *testing.T) {
		c := s.dial(t)
		want := make([]byte, 0, 70_000)
		for i := range cap(want) {
			want = append(want, byte(i%251))
		}
		for _, n := range lengths() {
			a, err := c.Mail(plain.From, nil)
			does(t, a, err)
			a, err = c.Rcpt(plain.To[0], nil)
			does(t, a, err)
			a, err = c.EndHeader(nil)
			does(t, a, err)
			for b := range slices.Chunk(want[:n], max(n/2, 1)) {
				if err := c.Packet('B', b); err != nil {
					t.Fatal(err)
				}
			}
			if a, err := c.End(nil); err != nil || a.Code != 'd' {
				t.Fatalf("%d octets: %q, %v", n, a.Code, err)
			}
			if got := r.next(t).content.String(); got != "\r\n"+string(want[:n]) {
				t.Fatalf("%d octets came as %d", n, len(got)-2)
			}
		}
	})
	begun, ended := 0, 0
	for _, n := range lengths() {
		for _, code := range "OCHMRLNBEDAKTQUZ" {
			c := s.raw(t)
			text := head() + packet("M<a@b>\x00") + packet("LA\x00 b\x00") + packet(string(code)+strings.Repeat("\x00x", n/2+1)[:n]) + packet("Q")
			if _, err := io.WriteString(c, text); err == nil {
				mustClose(t, c)
			}
			c.Close()
			m := r.next(t) // the message began, and ends once whatever comes
			if begun, ended = begun+1, ended+m.ends; m.ends+m.aborts != 1 {
				t.Fatalf("%q of %d octets: ended %d times, aborted %d times", code, n, m.ends, m.aborts)
			}
		}
	}
	mustSend(t, s.dial(t), plain, 'd')
	r.next(t)
	t.Logf("%d packets with %d lengths", begun, len(lengths()))
	if ended != 0 { // none of them is a good end
		t.Errorf("%d messages came to their end", ended)
	}
	if n := s.log.count(milter.EventPanic); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestHostileCuts ends a session after each of its octets: no message comes to its
// end but the whole one. Then each of its packets says that it is longer or shorter
// than it is, and at last the whole session comes octet by octet.
func TestHostileCuts(t *testing.T) {
	r := &recorder{ended: make(chan *record, 1000)}
	s := start(t, milter.Options{Backend: r})
	whole := wholeSession()
	for n := range len(whole) {
		c := s.raw(t)
		if _, err := io.WriteString(c, whole[:n]); err != nil {
			t.Fatal(err)
		}
		// The server sees the end of the input, and we what it has to say.
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, c)
	}
	for at := 0; at < len(whole); at += 4 + int(binary.BigEndian.Uint32([]byte(whole[at:]))) {
		size := binary.BigEndian.Uint32([]byte(whole[at:]))
		for _, wrong := range []uint32{0, size - 1, size + 1, 1<<20 + 1, 1 << 31, 1<<32 - 1} {
			if wrong == size-1 && wrong == 0 {
				continue
			}
			b := []byte(whole)
			binary.BigEndian.PutUint32(b[at:], wrong)
			c := s.raw(t)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := c.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			mustClose(t, c)
			c.Close()
		}
	}
	for len(r.ended) > 0 { // each connection has ended, so each message has
		if m := <-r.ended; m.ends != 0 || m.aborts != 1 {
			t.Errorf("a broken session: %q ended %d times, aborted %d times", m.content.String(), m.ends, m.aborts)
		}
	}
	c := s.raw(t)
	for i := range len(whole) {
		if _, err := io.WriteString(c, whole[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := (&miltertest.Client{Conn: c}).ReadAnswer(); err != nil || a.Code != 'O' {
		t.Errorf("octet by octet: %q, %v", a.Code, err)
	}
	if m := r.next(t); m.ends != 1 || !strings.HasSuffix(m.content.String(), "\r\n\r\nbody\r\n") {
		t.Errorf("octet by octet: %q ended %d times", m.content.String(), m.ends)
	}
	if n := s.log.count(milter.EventPanic); n != 0 {
		t.Errorf("%d panics", n)
	}
}
