package milter_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/milter"
	"pecd/milter/socket"
)

// seen sends a message and returns what the backend got, and Sendmail's reply.
func (s *sendmail) seen(t *testing.T, r *recorder, content string) (got, reply string) {
	t.Helper()
	c := dialSMTP(t, s.submission)
	c.auth(alice)
	reply = c.message(content, "", "bob@beta.example")
	if !strings.HasPrefix(reply, "421") { // after which Sendmail hangs up
		c.cmd("QUIT", "221")
	}
	select {
	case m := <-r.ended:
		if m.ends == 1 {
			return m.content.String(), reply
		}
	default: // it never began
	}
	return "", reply
}

func testSendmailBytes(t *testing.T, s *sendmail, r *recorder) {
	for name, content := range toTheOctet {
		t.Run(name, func(t *testing.T) {
			if got, reply := s.seen(t, r, content); got != content {
				t.Errorf("sent %.500q\nseen %.500q\n%s", content, got, reply)
			}
		})
	}
}

// What a milter of Sendmail cannot see.
func testSendmailDifferences(t *testing.T, s *sendmail, r *recorder) {
	differs(t, func(t *testing.T, content string) (string, string) { return s.seen(t, r, content) }, map[string][2]string{
		"From line":       {"From a b\r\nA: b\r\n\r\nx\r\n", "A: b\r\n\r\nx\r\n"},
		"NUL in a field":  {"A: b\x00c\r\n\r\nx\r\n", "A: bc\r\n\r\nx\r\n"},
		"NUL in the name": {"A\x00B: c\r\n\r\nx\r\n", "AB: c\r\n\r\nx\r\n"},
	})
}

// What Sendmail refuses before a milter sees it, and what we refuse.
func testSendmailRefuses(t *testing.T, s *sendmail, r *recorder) {
	for name, test := range map[string][2]string{
		"bare CR in a field": {"A: b\rc\r\n\r\nx\r\n", "421 4.5.0 Bare carriage return"},
		"bare CR":            {"A: b\r\n\r\nx\ry\r\n", "421 4.5.0 Bare carriage return"},
		"bare LF":            {"A: b\r\n\r\nx\ny\r\n", "421 4.5.0 Bare linefeed"},
		"long field":         {"A: " + strings.Repeat("x", 60_000) + "\r\n\r\nx\r\n", "550 5.6.0 Malformed"},
		"long folded field":  {"A: " + lines(60_000) + "z\r\n\r\nx\r\n", "550 5.6.0 Malformed"},
		// It shows no milter more than 65,535 octets at once, and gives it up instead.
		"longer field":      {"A: " + strings.Repeat("x", 70_000) + "\r\n\r\nx\r\n", "451 4.3.2 Please try again later"},
		"too long a header": {strings.Repeat("A: "+lines(40_000)+"z\r\n", 30) + "\r\nx\r\n", "552 5.6.0 Headers too large"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, reply := s.seen(t, r, test[0]); got != "" || !strings.HasPrefix(reply, test[1]) {
				t.Errorf("%s; %d octets were seen", reply, len(got))
			}
		})
	}
}

// A message as large as they come goes through, in pieces.
func testSendmailLarge(t *testing.T, s *sendmail, r *recorder) {
	largest := 0
	r.write = func(p []byte) error { largest = max(largest, len(p)); return nil }
	defer func() { r.write = nil }()
	content := "A: b\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 300_000)
	if got, reply := s.seen(t, r, content); got != content {
		t.Errorf("sent %d octets, %d were seen\n%s", len(content), len(got), reply)
	}
	if largest > 65_535 {
		t.Errorf("a piece had %d octets", largest)
	}
}

func testSendmailVerdicts(t *testing.T, s *sendmail, r *recorder) {
	c := dialSMTP(t, s.submission)
	c.auth(alice)
	const taken = "250 2.0.0 "
	tellVerdicts(t, r, c, []string{taken, "554 5.7.1 Command rejected", "451 4.3.2 Please try again later", taken}, func(v milter.Verdict, reply, id string) {
		if strings.HasPrefix(reply, "250") && !strings.HasPrefix(reply, taken+id+" ") {
			t.Errorf("queue id %q, the client hears %q", id, reply)
		}
		if body, kept := s.queued(t, id); kept != (v.Action == milter.Continue) || kept && body != "x\n" {
			t.Errorf("%+v: in the queue is %q (%v)", v, body, kept)
		}
	})
}

// queued returns the body that Sendmail keeps of a message, if it does.
func (s *sendmail) queued(t *testing.T, id string) (body string, kept bool) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(s.dir, "queue", "qf"+id)); err != nil {
		return "", false
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "queue", "df"+id))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), true
}

// Several messages, resets and refused recipients on one connection.
func testSendmailSession(t *testing.T, s *sendmail, r *recorder) {
	c := dialSMTP(t, s.submission)
	c.auth(alice)
	for i := range 3 {
		c.cmd("MAIL FROM:<lost@alfa.example>", "250")
		c.cmd("RCPT TO:<lost@beta.example>", "250")
		c.cmd("RSET", "250")
		c.cmd(fmt.Sprintf("MAIL FROM:<u%d@alfa.example> SIZE=100 RET=HDRS ENVID=x%d", i, i), "250")
		c.cmd("RCPT TO:<refused@beta.example>", "550 5.1.1 <refused@beta.example>... Refused by Sendmail")
		if reply := c.cmd("RCPT TO:<no@beta.example>", "550"); !strings.Contains(reply, "No no@beta.example") {
			t.Errorf("reply %q", reply)
		}
		c.cmd("RCPT TO:<bob@beta.example>", "250")
		c.cmd("RCPT TO:<later@beta.example>", "451")
		c.cmd("RCPT TO:<bruna@beta.example> NOTIFY=NEVER ORCPT=rfc822;b@x.example", "250")
		c.data(fmt.Sprintf("Subject: %d\r\n\r\n", i), "250")
		m := r.next(t)
		want := milter.Envelope{Sender: fmt.Sprintf("u%d@alfa.example", i),
			Recipients: []string{"bob@beta.example", "bruna@beta.example"}, Auth: alice, AuthType: "PLAIN",
			QueueID: m.atEnd.QueueID, ClientAddr: "127.0.0.1", ClientName: m.atEnd.ClientName, Helo: "laptop",
			DaemonName: "SUBMISSION"}
		if fmt.Sprint(m.atEnd) != fmt.Sprint(want) || want.QueueID == "" || m.atBegin.QueueID != want.QueueID ||
			m.content.String() != fmt.Sprintf("Subject: %d\r\n\r\n", i) {
			t.Errorf("message %d: %+v\nwant %+v\n%q", i, m.atEnd, want, m.content.String())
		}
	}
	c.cmd("QUIT", "221")
}

// A client that is lost, one of whom nobody knows who it is, and what holds for it
// alone.
func testSendmailStrangers(t *testing.T, s *sendmail, r *recorder) {
	c := dialSMTP(t, s.submission)
	c.auth(alice)
	c.cmd("MAIL FROM:<>", "250")
	c.cmd("RCPT TO:<bob@beta.example>", "250")
	c.cmd("DATA", "354")
	c.send("A: b\r\n\r\n" + strings.Repeat("x\r\n", 100_000))
	if err := c.c.Close(); err != nil { // in the midst
		t.Fatal(err)
	}
	c = dialSMTP(t, s.submission)
	c.cmd("EHLO stranger", "250")
	c.message("A: b\r\n\r\n", "250", "bob@beta.example")
	if m := r.next(t); m.ends != 1 || m.atEnd.Auth != "" || m.atEnd.Helo != "stranger" || m.atEnd.TLSVersion != "" {
		t.Errorf("envelope %+v", m.atEnd) // the lost one was never shown: Sendmail sends content at the end
	}
}

// What was said before STARTTLS does not count after it.
func testSendmailTLS(t *testing.T, s *sendmail, r *recorder) {
	c := dialSMTP(t, s.submission)
	c.cmd("EHLO before", "250")
	c.startTLS()
	c.auth(alice)
	c.message("A: b\r\n\r\n", "250", "bob@beta.example")
	if m := r.next(t); m.atEnd.TLSVersion != "TLSv1.3" || m.atEnd.Helo != "laptop" || m.atEnd.Auth != alice {
		t.Errorf("envelope %+v", m.atEnd)
	}
}

// The same at a port: the way to write it is Sendmail's, the protocol the same.
func testSendmailPort(t *testing.T, s *sendmail, r *recorder) {
	c := dialSMTP(t, s.overPort)
	c.auth(alice)
	for range 2 {
		content := toTheOctet["folds"]
		c.message(content, "250", "bob@beta.example")
		if m := r.next(t); m.content.String() != content || m.atEnd.DaemonName != "PORT" || m.atEnd.Auth != alice {
			t.Errorf("envelope %+v, content %q", m.atEnd, m.content.String())
		}
	}
}

func TestSendmail(t *testing.T) {
	s := startSendmail(t)
	r := newRecorder()
	o := milter.Options{Backend: checker{r}, Malformed: milter.Verdict{Action: milter.Reject, Reply: "550 5.6.0 Malformed header field"}}
	var servers []*server
	for _, addr := range []string{s.milter, "inet:" + s.milterPort} {
		l, err := socket.Listen(context.Background(), addr, 0o666, "")
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, serve(t, l, o))
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *sendmail, *recorder)
	}{
		{"bytes", testSendmailBytes},
		{"differences", testSendmailDifferences},
		{"refuses", testSendmailRefuses},
		{"large", testSendmailLarge},
		{"verdicts", testSendmailVerdicts},
		{"session", testSendmailSession},
		{"strangers", testSendmailStrangers},
		{"TLS", testSendmailTLS},
		{"port", testSendmailPort},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, r) })
	}
	r.none(t)
	for i, server := range servers {
		// Sendmail says no QUIT when it hangs up itself (421), when its client is lost, and
		// when it gives us up: five of the tests at the first.
		want := []int{5, 0}[i]
		for end := time.Now().Add(patience); server.log.count(milter.EventBroken) < want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
		server.stop(t)
		if n := server.log.count(milter.EventBroken); n != want {
			t.Errorf("%d connections were not as they should be, want %d:\n%s", n, want, server.log.text.String())
		}
	}
	t.Run("without us", func(t *testing.T) { // the client is to try again
		for _, addr := range []string{s.submission, s.overPort} {
			c := dialSMTP(t, addr)
			c.cmd("EHLO laptop", "250")
			c.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+alice+"\x00secret")), "454")
			c.cmd("MAIL FROM:<alice@alfa.example>", "451")
		}
	})
}
