package lmtp_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"pecd/lmtp"
)

// TestHostileCuts ends a session after each of its octets: no message comes to its
// end but the whole one. Then the whole session comes octet by octet.
func TestHostileCuts(t *testing.T) {
	r := &recorder{ended: make(chan *record, 1000)}
	s := start(t, lmtp.Options{Backend: r})
	const content = "Subject: x\r\n\r\n..body\r\n"
	whole := "LHLO mx\r\nMAIL FROM:<a@b> SIZE=30\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f> NOTIFY=NEVER\r\nDATA\r\n" + content + ".\r\n"
	for n := range len(whole) {
		c := s.raw(t)
		c.send(whole[:n])
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.mustClose()
		c.Close()
	}
	for len(r.ended) > 0 { // each connection has ended, so each message has
		if m := <-r.ended; m.ends != 0 || m.aborts != 1 || m.afterwards != 0 {
			t.Errorf("a broken session: %q ended %d times, aborted %d times", m.content.String(), m.ends, m.aborts)
		}
	}
	c := s.raw(t)
	for i := range len(whole) {
		if _, err := io.WriteString(c, whole[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"220", "250", "250", "250", "250", "354", "250 2.0.0 <c@d>", "250 2.0.0 <e@f>"} {
		c.expect(want)
	}
	if got := r.next(t).content.String(); got != strings.Replace(content, "..", ".", 1) {
		t.Errorf("octet by octet: %q", got)
	}
	if n := s.log.count(lmtp.EventPanic); n != 0 {
		t.Errorf("%d panics", n)
	}
}
