package lmtp_test

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"pecd/lmtp"
)

// A spy is a listener that writes down what its connections send, write by write.
type spy struct {
	net.Listener
	mu    sync.Mutex
	wrote []string
}

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spied{c, s}, nil
}

type spied struct {
	net.Conn
	s *spy
}

func (c *spied) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.wrote = append(c.s.wrote, string(p))
	return c.Conn.Write(p)
}

// TestRepliesTogether: each write wakes the client.
func TestRepliesTogether(t *testing.T) {
	l := &spy{Listener: listen(t)}
	c := dial(t, l.Addr().String())
	serve(t, l, lmtp.Options{Backend: newRecorder()})
	c.expect("220")
	c.cmd("LHLO mx", "250")
	c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "250", "354"} {
		c.expect(want)
	}
	c.send("x\r\n.\r\nQUIT\r\n")
	for _, want := range []string{"250 2.0.0 <c@d>", "250 2.0.0 <e@f>", "221"} {
		c.expect(want)
	}
	c.mustClose()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []int
	for _, w := range l.wrote {
		lines = append(lines, strings.Count(w, "\n"))
	}
	if len(lines) != 4 || !slices.Equal([]int{lines[0], lines[2], lines[3]}, []int{1, 4, 3}) {
		t.Errorf("written %q; want the greeting, the extensions, four answers, and three", l.wrote)
	}
}

func TestTooManyCommands(t *testing.T) {
	r := newRecorder()
	s := start(t, lmtp.Options{Backend: r})
	mta := s.dial(t)
	for range 3 { // a message gives the next one as many again
		for range 66 {
			mta.cmd("MAIL FROM:<a@b>", "250")
			mta.cmd("RCPT TO:<c@d>", "250")
			mta.cmd("RSET", "250")
		}
		mta.envelope("bob@x")
		mta.send(".\r\n")
		mta.expect("250")
	}
	mta.cmd("MAIL FROM:<a@b>", "250")
	for range 500 {
		mta.cmd("RCPT TO:<c@d>", "250")
	}
	stranger := s.raw(t)
	stranger.send("LHLO x\r\n" + strings.Repeat("NOOP\r\n", 1000))
	said := stranger.mustClose()
	if n := strings.Count(said, "\r\n250 2.0.0"); n != 199 || !strings.HasSuffix(said, "\r\n421 4.7.0 Too many commands without a message\r\n") {
		t.Errorf("after %d answers to NOOP: %q", n, said[max(0, len(said)-100):])
	}
	mta.cmd("NOOP", "250")
}
