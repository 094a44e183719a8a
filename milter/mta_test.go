package milter_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"pecd/milter"
)

// What the tests with a real Postfix and those with a real Sendmail share.

// freePort returns an address that no other test is likely to take before it is
// used: from below the range that the system gives to those who do not ask.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// An smtpClient speaks SMTP without changing anything.
type smtpClient struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func dialSMTP(t testing.TB, addr string) *smtpClient {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s := &smtpClient{t, c, bufio.NewReader(c)}
	s.expect("220")
	return s
}

// expect reads a reply and returns its last line.
func (s *smtpClient) expect(code string) string {
	s.t.Helper()
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		if len(line) > 3 && line[3] == ' ' {
			if !strings.HasPrefix(line, code) {
				s.t.Fatalf("reply %q, want %s", line, code)
			}
			return strings.TrimSpace(line)
		}
	}
}

func (s *smtpClient) send(raw string) {
	s.t.Helper()
	if _, err := s.c.Write([]byte(raw)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *smtpClient) cmd(line, code string) string {
	s.t.Helper()
	s.send(line + "\r\n")
	return s.expect(code)
}

// data sends DATA with the content as it is, but for dots, and returns the reply.
func (s *smtpClient) data(content, code string) string {
	s.t.Helper()
	s.cmd("DATA", "354")
	stuffed := strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n..")[2:]
	s.send(stuffed + ".\r\n")
	return s.expect(code)
}

func (s *smtpClient) message(content, code string, to ...string) string {
	s.t.Helper()
	s.cmd("MAIL FROM:<alice@alfa.example> BODY=8BITMIME", "250")
	for _, to := range to {
		s.cmd("RCPT TO:<"+to+">", "250")
	}
	return s.data(content, code)
}

// toTheOctet are contents that a milter must see as the client sent them.
var toTheOctet = map[string]string{
	"spacing":           "A:x\r\nB: x\r\nC:  x\r\nD:\tx\r\nE:\r\nF: \r\nG: x \t\r\n\r\n",
	"folds":             "A: x\r\n y\r\n\tz\r\nB:\r\n x\r\nC: \r\n \r\n x\r\nD: x\r\n \r\n\r\nbody\r\n",
	"8-bit":             "Subject: perch\xe8 \xc3\xa8\r\n\r\n\xff\xe8\r\n",
	"dropped fields":    "Bcc: b@beta.example\r\nReturn-Path: <x@y>\r\nContent-Length: 3\r\nResent-Bcc: q@x\r\n\r\nx\r\n",
	"addresses":         "From: <alice>\r\nTo: bob,  bruna@beta.example (c)\r\nMessage-ID:<a@b>\r\nDate: x\r\n\r\nz\r\n",
	"order, duplicates": "Received: from x\r\nA: 1\r\nB: 2\r\na: 3\r\nA: 1\r\nReceived: from y\r\n\r\n",
	"no fields":         "\r\nbody\r\n",
	"no body":           "A: b\r\n\r\n",
	"dots and From":     "A: b\r\n\r\nFrom x\r\n.\r\n..\r\n.a\r\n\r\n\r\n",
	"long lines":        "A: " + strings.Repeat("x", 5000) + "\r\n\r\n" + strings.Repeat("y", 70000) + "\r\n",
	"long header":       strings.Repeat("A: "+lines(40_000)+"z\r\n", 3) + "\r\n\r\n",
	"blank in MIME part": "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type : text/plain\r\n" +
		"X:y\r\n\r\n\xe8\r\n--b--\r\n",
	"large": "A: b\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 100_000),
}

// otherwise are contents that a milter sees otherwise, by either MTA: what is sent, and
// what is seen.
var otherwise = map[string][2]string{
	"blank before colon":      {"A : x\r\nB\t: y\r\n\r\nb\r\n", "A: x\r\nB: y\r\n\r\nb\r\n"},
	"no empty line":           {"A: b\r\n", "A: b\r\n\r\n"},
	"body only":               {"body only\r\n", "\r\nbody only\r\n"},
	"header ended by a line":  {"A: b\r\nnot a field\r\nB: c\r\n", "A: b\r\n\r\nnot a field\r\nB: c\r\n"},
	"8-bit name of a field":   {"A: b\r\nn\xc3\xa4: x\r\n\r\nb\r\n", "A: b\r\n\r\nn\xc3\xa4: x\r\n\r\nb\r\n"},
	"empty name of a field":   {": x\r\nA: b\r\n\r\nz\r\n", "\r\n: x\r\nA: b\r\n\r\nz\r\n"},
	"first line begins blank": {" x\r\nA: b\r\n\r\nz\r\n", "\r\n x\r\nA: b\r\n\r\nz\r\n"},
}

// differs sends the contents of otherwise and those of one MTA alone, and wants each to
// be seen as it says.
func differs(t *testing.T, seen func(t *testing.T, content string) (got, reply string), alone map[string][2]string) {
	t.Helper()
	tests := maps.Clone(otherwise)
	maps.Copy(tests, alone)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, reply := seen(t, test[0]); got != test[1] {
				t.Errorf("sent %q\nseen %q\nwant %q\n%s", test[0], got, test[1], reply)
			}
		})
	}
}

// lines returns n octets of header field text in folded lines.
func lines(n int) string {
	return strings.Repeat(strings.Repeat("x", 498)+"\r\n ", n/500)
}

// tellVerdicts answers messages in each way. says is what the client hears to a verdict
// without a reply of its own: to Discard, Reject, none and Continue. look is shown the
// rest.
func tellVerdicts(t *testing.T, r *recorder, c *smtpClient, says []string, look func(v milter.Verdict, reply, id string)) {
	t.Helper()
	var verdict milter.Verdict
	r.end = func(context.Context, *record) milter.Verdict { return verdict }
	defer func() { r.end = nil }()
	for _, test := range []struct {
		verdict milter.Verdict
		reply   string
	}{
		{milter.Verdict{Action: milter.Discard}, says[0]},
		{milter.Verdict{Action: milter.Reject, Reply: "550 5.7.1 Not today: 100% full, 5%% off"},
			"550 5.7.1 Not today: 100% full, 5%% off"},
		{milter.Verdict{Action: milter.Defer, Reply: "451 4.3.0 Later, please"}, "451 4.3.0 Later, please"},
		{milter.Verdict{Action: milter.Reject}, says[1]},
		{milter.Verdict{}, says[2]},
		{milter.Verdict{Action: milter.Continue}, says[3]},
		{milter.Verdict{Action: milter.Reject, Reply: "550 5.7.1 " + strings.Repeat("x", 600)},
			"550 5.7.1 " + strings.Repeat("x", 470)},
	} {
		verdict = test.verdict
		reply := c.message("A: b\r\n\r\nx\r\n", "", "bob@beta.example")
		if !strings.HasPrefix(reply, test.reply) {
			t.Errorf("%+v: the client hears %q", test.verdict, reply)
		}
		look(verdict, reply, r.next(t).atEnd.QueueID)
	}
}
