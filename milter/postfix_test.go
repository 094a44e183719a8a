package milter_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pecd/milter"
	"pecd/milter/socket"
)

// A postfix is a private instance. It has one listener as the manual wants it for
// submission, and one with the defaults of Postfix.
type postfix struct {
	dir        string
	milter     string // the address at which it calls us
	submission string // host:port
	defaults   string // the same, for the listener with the default settings
}

const mainCF = `compatibility_level = 3.6
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
queue_directory = %[1]s/queue
data_directory = %[1]s/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.alfa.example
mynetworks = 127.0.0.0/8
maillog_file = %[1]s/maillog
maillog_file_prefixes = %[1]s
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
default_transport = discard:
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_authorized_xclient_hosts = 127.0.0.1
relay_domains = beta.example
smtpd_recipient_restrictions = check_recipient_access inline:{ { refused@beta.example = 550 5.1.1 Refused by Postfix } }, reject_unauth_destination
smtpd_milters = unix:%[1]s/milter
milter_default_action = tempfail
message_size_limit = 10000000
local_header_rewrite_clients =
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
`

const masterCF = `%[1]s inet n - n - 10 smtpd` + recommended + `
%[2]s inet n - n - 10 smtpd
cleanup unix n - n - 0 cleanup
subcleanup unix n - n - 0 cleanup` + recommendedCleanup + `
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func startPostfix(t *testing.T) *postfix {
	t.Helper()
	// Not t.TempDir: user postfix must be able to enter, and the path be short.
	dir, err := os.MkdirTemp("/tmp", "pf")
	if err != nil {
		t.Fatal(err)
	}
	p := &postfix{dir: dir, milter: "unix:" + dir + "/milter",
		submission: freePort(t), defaults: freePort(t)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755))
	must(os.Mkdir(dir+"/queue", 0o755))
	must(os.Mkdir(dir+"/data", 0o755))
	must(os.Mkdir(dir+"/etc", 0o755))
	must(exec.Command("chown", "postfix", dir+"/data").Run())
	must(os.WriteFile(dir+"/etc/main.cf", fmt.Appendf(nil, mainCF, dir), 0o644))
	must(os.WriteFile(dir+"/etc/master.cf", fmt.Appendf(nil, masterCF, p.submission, p.defaults), 0o644))
	if out, err := exec.Command("postfix", "-c", dir+"/etc", "start").CombinedOutput(); err != nil {
		t.Fatalf("postfix start: %v\n%s%s", err, out, p.maillog())
	}
	t.Cleanup(func() {
		if out, err := exec.Command("postfix", "-c", dir+"/etc", "stop").CombinedOutput(); err != nil {
			t.Errorf("postfix stop: %v\n%s", err, out)
		}
		if t.Failed() {
			t.Logf("maillog:\n%s", p.maillog())
		}
	})
	return p
}

func (p *postfix) maillog() []byte {
	b, err := os.ReadFile(filepath.Join(p.dir, "maillog"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

// serve serves the milter socket of the instance until the test ends.
func (p *postfix) serve(t *testing.T, o milter.Options) *server {
	t.Helper()
	l, err := socket.Listen(context.Background(), p.milter, 0o666, "")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l, o)
}

// login makes Postfix believe that the client has authenticated.
func (s *smtpClient) login(user string) {
	s.t.Helper()
	s.cmd("XCLIENT LOGIN="+user+" ADDR=192.0.2.7 NAME=laptop.example", "220")
	s.cmd("EHLO laptop", "250")
}

// recommended are the settings of a submission listener and its cleanup under
// which a milter sees what the client sent.
const recommended = `
  -o cleanup_service_name=subcleanup -o milter_macro_daemon_name=SUBMISSION
  -o smtpd_forbid_bare_newline=reject -o smtpd_forbid_bare_newline_exclusions=`

const recommendedCleanup = `
  -o message_drop_headers= -o cleanup_replace_stray_cr_lf=no
  -o disable_mime_input_processing=yes -o message_reject_characters=\0`

// seen sends a message and returns what the backend got, and Postfix's reply.
func (p *postfix) seen(t *testing.T, r *recorder, addr, content string) (got, reply string) {
	t.Helper()
	c := dialSMTP(t, addr)
	c.login("alice")
	c.cmd("MAIL FROM:<alice@alfa.example> BODY=8BITMIME", "250")
	c.cmd("RCPT TO:<bob@beta.example>", "250")
	reply = c.data(content, "")
	c.cmd("QUIT", "221")
	m := r.next(t)
	if m.ends != 1 {
		return "", reply
	}
	return m.content.String(), reply
}

func testPostfixBytes(t *testing.T, p *postfix, r *recorder) {
	contents := maps.Clone(toTheOctet)
	contents["bare CR"] = "A: b\rc\r\nB: d\r\r\n\r\nx\ry\r\nz\r\r\n\r\r\n"
	for name, content := range contents {
		t.Run(name, func(t *testing.T) {
			if got, reply := p.seen(t, r, p.submission, content); got != content {
				t.Errorf("sent %.500q\nseen %.500q\n%s", content, got, reply)
			}
		})
	}
}

// What a milter of Postfix cannot see, even with the recommended settings.
func testPostfixDifferences(t *testing.T, p *postfix, r *recorder) {
	differs(t, func(t *testing.T, content string) (string, string) { return p.seen(t, r, p.submission, content) }, map[string][2]string{
		"From line": {"From a b\r\nA: b\r\n\r\nx\r\n", "X-Mailbox-Line: From a b\r\nA: b\r\n\r\nx\r\n"},
	})
}

// What the default settings hide, and the recommended ones show or refuse.
func testPostfixDefaults(t *testing.T, p *postfix, r *recorder) {
	for name, test := range map[string]struct{ sent, seen, refusal string }{
		"Bcc": {sent: "A: b\r\nBcc: b@beta.example\r\nReturn-Path: <x@y>\r\nContent-Length: 3\r\n\r\nx\r\n",
			seen: "A: b\r\n\r\nx\r\n"},
		"bare CR": {sent: "A: b\rc\r\n\r\nx\ry\r\nz\r\r\n", seen: "A: b c\r\n\r\nx y\r\nz\r\n"},
		"bare LF": {sent: "A: b\r\n\r\nx\ny\r\n", seen: "A: b\r\n\r\nx\r\ny\r\n", refusal: "550 5.5.2"},
		"NUL in a field": {sent: "A: b\x00c\r\nB: d\r\n\r\nx\r\n", seen: "A: b\r\nB: d\r\n\r\nx\r\n",
			refusal: "550 5.7.1"},
		"NUL in the name": {sent: "A\x00B: c\r\n\r\nx\r\n", seen: "\r\nA\x00B: c\r\n\r\nx\r\n", refusal: "550 5.7.1"},
		"blank in MIME part": {
			sent: "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX : y\r\n\r\nz\r\n--b--\r\n",
			seen: "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n\r\nz\r\n--b--\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, reply := p.seen(t, r, p.defaults, test.sent); got != test.seen {
				t.Errorf("default settings: sent %q\nseen %q\nwant %q\n%s", test.sent, got, test.seen, reply)
			}
			if test.refusal == "" {
				return // shown byte for byte: see testPostfixBytes
			}
			c := dialSMTP(t, p.submission)
			c.login("alice")
			c.message(test.sent, test.refusal, "bob@beta.example")
			c.cmd("QUIT", "221")
		})
	}
	for len(r.ended) > 0 { // of the refused ones a milter may see the beginning
		if m := <-r.ended; m.ends > 0 {
			t.Errorf("a refused message came to its end: %q", m.content.String())
		}
	}
}

// Postfix cuts long fields and says nothing; so they must be refused.
func testPostfixLongField(t *testing.T, p *postfix, r *recorder) {
	for name, field := range map[string]string{
		"one line":     strings.Repeat("x", 70_000),
		"short lines":  lines(70_000),
		"long lines":   strings.Repeat("\r\n "+strings.Repeat("x", 5999), 12),
		"longer lines": strings.Repeat("\r\n "+strings.Repeat("x", 8999), 9),
		"last line":    strings.Repeat("x", 52_000) + "\r\n " + strings.Repeat("x", 8_100),
	} {
		t.Run(name, func(t *testing.T) {
			content := "A: " + field + "\r\nB: c\r\n\r\nx\r\n"
			if got, reply := p.seen(t, r, p.submission, content); !strings.HasPrefix(reply, "550 5.6.0 Malformed") {
				t.Errorf("%s; %d of %d octets were seen", reply, len(got), len(content))
			}
		})
	}
}

func testPostfixVerdicts(t *testing.T, p *postfix, r *recorder) {
	c := dialSMTP(t, p.submission)
	c.login("alice")
	const taken = "250 2.0.0 Ok: queued as "
	tellVerdicts(t, r, c, []string{taken, "550 5.7.1 Command rejected", "451 4.7.1 Service unavailable - try again later", taken}, func(_ milter.Verdict, reply, id string) {
		if strings.HasPrefix(reply, "250") && !strings.HasSuffix(reply, " "+id) {
			t.Errorf("queue id %q, the client hears %q", id, reply)
		}
	})
}

// Several messages, resets and refused recipients on one connection.
func testPostfixSession(t *testing.T, p *postfix, r *recorder) {
	c := dialSMTP(t, p.submission)
	c.login("alice")
	for i := range 3 {
		c.cmd("MAIL FROM:<lost@alfa.example>", "250")
		c.cmd("RCPT TO:<lost@beta.example>", "250")
		c.cmd("RSET", "250")
		c.cmd(fmt.Sprintf("MAIL FROM:<u%d@alfa.example> SIZE=100", i), "250")
		c.cmd("RCPT TO:<refused@beta.example>", "550 5.1.1")
		if reply := c.cmd("RCPT TO:<no@beta.example>", "550"); !strings.Contains(reply, "No no@beta.example") {
			t.Errorf("reply %q", reply)
		}
		c.cmd("RCPT TO:<bob@beta.example>", "250")
		c.cmd("RCPT TO:<later@beta.example>", "451")
		c.cmd("RCPT TO:<bruna@beta.example> NOTIFY=NEVER", "250")
		c.data(fmt.Sprintf("Subject: %d\r\n\r\n", i), "250")
		m := r.next(t)
		want := milter.Envelope{Sender: fmt.Sprintf("u%d@alfa.example", i),
			Recipients: []string{"bob@beta.example", "bruna@beta.example"}, Auth: "alice", AuthType: "XCLIENT",
			QueueID: m.atEnd.QueueID, ClientAddr: "192.0.2.7", ClientName: "laptop.example", Helo: "laptop",
			DaemonName: "SUBMISSION"}
		if fmt.Sprint(m.atEnd) != fmt.Sprint(want) || want.QueueID == "" ||
			m.content.String() != fmt.Sprintf("Subject: %d\r\n\r\n", i) {
			t.Errorf("message %d: %+v\nwant %+v\n%q", i, m.atEnd, want, m.content.String())
		}
	}
	c.cmd("QUIT", "221")
	c = dialSMTP(t, p.submission)
	c.cmd("EHLO stranger", "250")
	c.cmd("MAIL FROM:<>", "250")
	c.cmd("RCPT TO:<bob@beta.example>", "250")
	c.cmd("DATA", "354")
	c.send("A: b\r\n\r\n" + strings.Repeat("x\r\n", 100_000))
	if err := c.c.Close(); err != nil { // in the midst
		t.Fatal(err)
	}
	c = dialSMTP(t, p.submission)
	c.cmd("EHLO stranger", "250")
	c.message("A: b\r\n\r\n", "250", "bob@beta.example")
	if m := r.next(t); m.ends != 1 || m.atEnd.Auth != "" {
		t.Errorf("envelope %+v", m.atEnd) // the lost one was never shown: Postfix sends content at the end
	}
}

func TestPostfix(t *testing.T) {
	p := startPostfix(t)
	r := newRecorder()
	s := p.serve(t, milter.Options{Backend: checker{r},
		Malformed: milter.Verdict{Action: milter.Reject, Reply: "550 5.6.0 Malformed header field"}})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *postfix, *recorder)
	}{
		{"bytes", testPostfixBytes},
		{"differences", testPostfixDifferences},
		{"default settings", testPostfixDefaults},
		{"long field", testPostfixLongField},
		{"verdicts", testPostfixVerdicts},
		{"session", testPostfixSession},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, p, r) })
	}
	if n := s.log.count(milter.EventBroken); n > 0 {
		t.Errorf("%d connections were not as they should be:\n%s", n, s.log.text.String())
	}
	s.stop(t)
	t.Run("without us", func(t *testing.T) { // the client is to try again
		c := dialSMTP(t, p.submission)
		c.login("alice")
		c.cmd("MAIL FROM:<alice@alfa.example>", "451")
	})
}
