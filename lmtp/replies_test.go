package lmtp_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pecd/lmtp"
)

// A spy is a listener that writes down what its connections do.
type spy struct {
	net.Listener
	octets bool // each read finds an octet, as from one who sends them one by one
	mu     sync.Mutex
	deaf   bool     // writes fail
	wrote  []string // write by write
	failed int      // reads that failed
}

var errDeaf = errors.New("nobody listens")

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spied{c, s}, nil
}

func (s *spy) deafen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
}

type spied struct {
	net.Conn
	s *spy
}

func (c *spied) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.deaf {
		return 0, errDeaf
	}
	c.s.wrote = append(c.s.wrote, string(p))
	return c.Conn.Write(p)
}

func (c *spied) Read(p []byte) (int, error) {
	if c.s.octets {
		p = p[:1]
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.s.failed++
	}
	return n, err
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

// TestBeginWaits: who is to send the content hears so, and all that was said before, while
// the backend takes its time.
func TestBeginWaits(t *testing.T) {
	r := newRecorder()
	goOn := make(chan struct{})
	defer close(goOn)
	r.begin = func(lmtp.Envelope) error { <-goOn; return nil }
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.envelope("bob@x")
	goOn <- struct{}{}
	c.send("one\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
	for _, want := range []string{"250 2.0.0 <bob@x>", "250", "250", "354"} {
		c.expect(want)
	}
	goOn <- struct{}{}
	c.send("two\r\n.\r\n")
	c.expect("250 2.0.0 <c@d>")
}

// TestDeaf: that replies are not taken is told once, if a message was under way.
func TestDeaf(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		when    func(l *spy, r *recorder)
		log     string
	}{
		"go ahead": {"", func(l *spy, _ *recorder) { l.deafen() }, "message not taken"},
		"what became": {"x\r\n.\r\n", func(l *spy, r *recorder) {
			r.end = func(context.Context, *record) []lmtp.Status { l.deafen(); return []lmtp.Status{{Code: 250}} }
		}, "error handling"},
		"no message": {"", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, r := &spy{Listener: listen(t)}, newRecorder()
			s := serve(t, l, lmtp.Options{Backend: r})
			c := s.dial(t)
			if tt.when != nil {
				c.cmd("MAIL FROM:<a@b>", "250")
				c.cmd("RCPT TO:<c@d>", "250")
				tt.when(l, r)
				c.send("DATA\r\n" + tt.content)
			} else {
				l.deafen()
				c.send("NOOP\r\n")
			}
			c.mustClose()
			s.stop(t)
			for began := time.Now(); !strings.Contains(s.log.String(), tt.log) && time.Since(began) < patience; { // it is logged at the very end
				time.Sleep(time.Millisecond)
			}
			if got := s.log.String(); strings.Count(got, errDeaf.Error()) != min(1, len(tt.log)) || !strings.Contains(got, tt.log) {
				t.Errorf("logged %q", got)
			}
		})
	}
}

func TestTooManyCommands(t *testing.T) {
	const limit = 1000
	r := newRecorder()
	s := start(t, lmtp.Options{Backend: r, MaxRecipients: 50})
	mta := s.dial(t)
	for range 2 { // a message gives the next ones as many again
		for range 330 { // questions whether a recipient exists, on a connection that is kept
			mta.send("RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n")
			for range 4 {
				mta.expect("250")
			}
		}
		mta.envelope("bob@x")
		mta.send(".\r\n")
		mta.expect("250")
	}
	const last = "\r\n421 4.7.0 Too many commands without a message\r\n"
	for name, tt := range map[string]struct {
		before string // the commands that are no RCPT
		often  string
		n      int // of which the last is one too many
		last   string
	}{
		"commands":          {"LHLO x\r\n", "NOOP\r\n", limit, "\r\n250 2.0.0 I have successfully done nothing" + last},
		"RCPT":              {"LHLO x\r\n", "RCPT\r\n", 501, "\r\n502 5.5.1 Missing MAIL FROM command." + last},
		"RCPT in a message": {"LHLO x\r\nMAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", 501, "\r\n452 4.5.3 Maximum limit of 50 recipients reached" + last},
		"lines of a chunk":  {"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 99999\r\n", "x\r\n", limit - 2, "gets this" + last},
	} {
		t.Run(name, func(t *testing.T) {
			stranger := s.raw(t)
			stranger.send(tt.before + strings.Repeat(tt.often, tt.n))
			said := stranger.mustClose()
			if !strings.HasSuffix(said, tt.last) || strings.Count(said, "421") != 1 {
				t.Errorf("the end: %q", said[max(0, len(said)-200):])
			}
			if n := strings.Count(said, "done nothing"); name == "commands" && n != limit-1 {
				t.Errorf("%d answers to NOOP", n)
			}
		})
	}
	mta.cmd("NOOP", "250")
	if n := strings.Count(s.log.String(), "too many commands"); n != 4 {
		t.Errorf("told of %d times", n)
	}
}

// TestSleep: who writes whole lines, and content in blocks, is never made to wait; who
// writes octet by octet is.
func TestSleep(t *testing.T) {
	for _, octets := range []bool{false, true} {
		r := newRecorder()
		l := &spy{Listener: listen(t), octets: octets}
		var naps atomic.Int64
		c := serve(t, l, lmtp.Options{Backend: r, Sleep: func(time.Duration) { naps.Add(1) }}).dial(t)
		for range 20 {
			c.envelope("bob@x")
			c.cmd("x\r\n.", "250")
			for range 5 {
				c.cmd("NOOP", "250")
			}
		}
		c.envelope("bob@x")
		c.send("x\r\n")
		for range 100 {
			c.send(strings.Repeat("0123456789\r\n", 20))
		}
		c.cmd(".", "250")
		if n := naps.Load(); (n > 0) != octets {
			t.Errorf("octet by octet: %v; made to wait %d times", octets, n)
		}
	}
}

// A slicer is a listener whose connections are read a few octets at a time.
type slicer struct{ net.Listener }

func (s slicer) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	return sliced{c}, err
}

type sliced struct{ net.Conn }

func (c sliced) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(len(p), 7)]) }

// TestBadNamesInPieces: a line that comes in pieces is looked at as a whole.
func TestBadNamesInPieces(t *testing.T) {
	l := slicer{listen(t)}
	c := dial(t, l.Addr().String())
	serve(t, l, lmtp.Options{Backend: newRecorder(), Sleep: func(time.Duration) {}})
	c.expect("220")
	c.cmd("LHLO mx", "250")
	c.cmd("MAIL FROM:<a@b> ENVID=perch+C3+A9", "250")
	c.cmd("RCPT TO:<c@d> ORCPT=x400;/C=it/", "250")
	c.cmd("QUIT", "221")
}
