package lmtp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/lmtp"
)

func TestExtensions(t *testing.T) {
	s := start(t, lmtp.Options{Backend: newRecorder(), Domain: "mx.beta.example", MaxMessage: 1000})
	c := s.raw(t)
	if got := c.expect("220"); !strings.Contains(got, "mx.beta.example LMTP") {
		t.Errorf("greeting %q", got)
	}
	got := c.cmd("LHLO mx", "250")
	for _, want := range []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "SIZE 1000"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if strings.Contains(got, "CHUNKING") {
		t.Errorf("BDAT is announced, but refused: %q", got)
	}
	c.cmd("EHLO mx", "500")
}

func TestEnvelope(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.cmd("MAIL FROM:<alice@alfa.example> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=PEC+2B123 SMTPUTF8", "250")
	c.cmd("RCPT TO:<bob@beta.example> NOTIFY=FAILURE ORCPT=rfc822;b+2Bob@beta.example", "250")
	c.cmd("RCPT TO:<bruna@beta.example>", "250")
	c.cmd("RCPT TO:<perché@beta.example>", "250")
	c.cmd(`RCPT TO:<"a \"b>c"@beta.example>`, "250")
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n.\r\n")
	for range 4 {
		c.expect("250 2.0.0 <")
	}
	got := r.next(t)
	want := lmtp.Envelope{
		Sender:             "alice@alfa.example",
		Recipients:         []string{"bob@beta.example", "bruna@beta.example", "perché@beta.example", `"a \"b>c"@beta.example`},
		ClientAddr:         c.LocalAddr().String(),
		EnvelopeID:         "PEC+123",
		OriginalRecipients: []string{"b+ob@beta.example", "", "", ""},
		UTF8:               true,
	}
	if !reflect.DeepEqual(got.env, want) {
		t.Errorf("envelope %+v\nwant     %+v", got.env, want)
	}
	c.cmd("MAIL FROM:<>", "250") // nothing of the first may be left
	c.cmd("RCPT TO:<bob@beta.example>", "250")
	c.cmd("DATA", "354")
	c.send(".\r\n")
	c.expect("250")
	want = lmtp.Envelope{Recipients: []string{"bob@beta.example"}, ClientAddr: want.ClientAddr, OriginalRecipients: []string{""}}
	if got := r.next(t); !reflect.DeepEqual(got.env, want) || got.content.Len() != 0 {
		t.Errorf("envelope %+v, content %q", got.env, got.content.String())
	}
}

// TestBadNames: what go-smtp does not understand of ORCPT and ENVID is no reason to refuse
// a recipient.
func TestBadNames(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	for envid, want := range map[string]string{"perch+C3+A9": "", "+00": "", "a+2Bb+7E": "a+b~", "+e9": ""} {
		c.cmd("MAIL FROM:<a@b> ENVID="+envid+" SIZE=3", "250")
		names := map[string]string{ // ORCPT and what is known of it
			"rfc822;a+2Bb@x":       "a+b@x",
			"RFC822;a@x":           "a@x",
			"rfc822;perch+C3+A9@x": "",
			"rfc822;a+1@x":         "",
			"rfc822;a+7F":          "",
			"rfc822;":              "",
			"a@x":                  "",
			"x400;/C=it/":          "",
			"utf-8;perch\u00e9@x":  "perch\u00e9@x",
			"utf-8;perch+C3+A9@x":  "",
			"utf-8;\\x{20}@x":      "",
		}
		var known []string
		for orcpt, name := range names {
			c.cmd("RCPT TO:<c@d> NOTIFY=FAILURE orcpt="+orcpt, "250")
			known = append(known, name)
		}
		c.cmd(`RCPT TO:<"e ORCPT=x"@f> ORCPT=x;y NOTIFY=NEVER`, "250")
		c.cmd("RCPT TO:<c@d> ORCPT=rfc822;a NOTIFY=HALF", "501") // go-smtp is still asked
		c.cmd("DATA", "354")
		c.send(".\r\n")
		for range len(names) + 1 {
			c.expect("250 2.0.0 <")
		}
		env := r.next(t).env
		if env.EnvelopeID != want || !slices.Equal(env.OriginalRecipients, append(known, "")) || env.Recipients[len(known)] != `"e ORCPT=x"@f` {
			t.Errorf("%s: %+v", envid, env)
		}
	}
}

func TestBadAddresses(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	for _, from := range []string{`"a@b"@c`, "a@b@c", "a@b\rc", "a@b<c"} {
		c.cmd("MAIL FROM:<"+from+">", "501 5.1.7")
	}
	c.cmd("MAIL FROM:<a@b>", "250")
	for _, to := range []string{`"a@b"@c`, "a@b@c", "a@b\x01c", `a@b"c`, "a@b,c"} {
		c.cmd("RCPT TO:<"+to+">", "553 5.1.3")
	}
	c.cmd("DATA", "502") // no recipients
	r.none(t)
}

func TestStatuses(t *testing.T) {
	r := newRecorder()
	statuses := []lmtp.Status{
		{Code: 250, Enhanced: [3]int{2, 1, 5}, Text: "Delivered"},
		{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: "No such\r\n250 user"},
		{Code: 451, Enhanced: [3]int{5, 1, 1}, Text: "wrong class"},
		{},
		{Code: 200 + 99, Text: "perché"},
		{Code: 354},
		{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: strings.Repeat("x", 1000)},
		{Code: 250, Text: "second time"},
	}
	r.end = func(context.Context, *record) []lmtp.Status { return statuses }
	s := start(t, lmtp.Options{Backend: r})
	c := s.dial(t)
	c.envelope("a@x", "b@x", "c@x", "d@x", "e@x", "f@x", "g@x", "a@x")
	c.send(".\r\n")
	for i, want := range []string{
		"250 2.1.5 <a@x> Delivered",
		"550 5.1.1 <b@x> No such  250 user",
		"451 4.0.0 <c@x> wrong class",
		"451 4.3.0 <d@x> Temporary failure, try again later",
		"299 2.0.0 <e@x> perch?",
		"451 4.3.0 <f@x> Temporary failure, try again later",
		"550 5.1.1 <g@x> " + strings.Repeat("x", 400),
		"250 2.0.0 <a@x> second time",
	} {
		if got := c.reply(); got != want {
			t.Errorf("recipient %d: %q, want %q", i, got, want)
		}
	}
	if s.log.count("delivered") != 3 || s.log.count("refused") != 2 || s.log.count("deferred") != 3 {
		t.Errorf("observed %v", s.log.events)
	}
}

func TestBackendFails(t *testing.T) {
	fail := errors.New("secret: disk full")
	for name, test := range map[string]struct {
		set    func(*recorder)
		ended  bool // the backend sees the message end
		panics bool
		ends   int
	}{
		"begin":        {func(r *recorder) { r.begin = func(lmtp.Envelope) error { return fail } }, false, false, 0},
		"begin panics": {func(r *recorder) { r.begin = func(lmtp.Envelope) error { panic("secret") } }, false, true, 0},
		"write":        {func(r *recorder) { r.write = func([]byte) error { return fail } }, true, false, 0},
		"write panics": {func(r *recorder) { r.write = func([]byte) error { panic("secret") } }, true, true, 0},
		"end panics": {func(r *recorder) {
			r.end = func(context.Context, *record) []lmtp.Status { panic("secret") }
		}, false, true, 0},
		"too few statuses": {func(r *recorder) {
			r.end = func(context.Context, *record) []lmtp.Status { return []lmtp.Status{{Code: 250}} }
		}, true, false, 1},
		"too many statuses": {func(r *recorder) {
			r.end = func(context.Context, *record) []lmtp.Status {
				return []lmtp.Status{{Code: 250}, {Code: 250}, {Code: 250}}
			}
		}, true, false, 1},
		"abort panics too": {func(r *recorder) {
			r.write = func([]byte) error { return fail }
			r.abort = func() { panic("secret") }
		}, true, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			test.set(r)
			s := start(t, lmtp.Options{Backend: r})
			c := s.dial(t)
			c.envelope("bob@x", "bruna@x")
			c.send("Subject: x\r\n\r\n" + strings.Repeat("line\r\n", 100_000) + ".\r\n")
			for range 2 {
				if got := c.expect("451 4.3.0 <b"); strings.Contains(got, "secret") {
					t.Errorf("the reply says too much: %q", got)
				}
			}
			if test.ended {
				if m := r.next(t); m.aborts != 1-test.ends || m.ends != test.ends || m.afterwards != 0 {
					t.Errorf("aborted %d times, ended %d times, %d writes afterwards", m.aborts, m.ends, m.afterwards)
				}
			} else if strings.HasPrefix(name, "end") {
				if m := r.next(t); m.aborts != 1 || m.ends != 1 {
					t.Errorf("aborted %d times, ended %d times", m.aborts, m.ends)
				}
			}
			if panicked := s.log.count(lmtp.EventPanic) > 0; panicked != test.panics {
				t.Errorf("panic observed: %v", panicked)
			}
			r.begin, r.write, r.end, r.abort = nil, nil, nil, nil
			c.envelope("bob@x")
			c.send("x\r\n.\r\n")
			c.expect("250")
			if m := r.next(t); m.ends != 1 || m.aborts != 0 {
				t.Error("the next message did not end")
			}
			r.none(t)
		})
	}
}

type emptyBackend struct{}

func (emptyBackend) Begin(context.Context, lmtp.Envelope) (lmtp.Message, error) { return nil, nil }

func TestNoMessage(t *testing.T) {
	c := start(t, lmtp.Options{Backend: emptyBackend{}}).dial(t)
	c.envelope("bob@x")
	c.send(".\r\n")
	c.expect("451")
}

// contents are byte sequences after DATA and what they mean.
var contents = map[string][2]string{
	"empty":             {"", ""},
	"plain":             {"A: b\r\n\r\nbody\r\n", "A: b\r\n\r\nbody\r\n"},
	"dots":              {"..\r\n..a\r\n...\r\na.\r\n..\r\n", ".\r\n.a\r\n..\r\na.\r\n.\r\n"},
	"unstuffed dot":     {".a\r\n", "a\r\n"},
	"dot and CR":        {".\rx\r\n", "\rx\r\n"},
	"bare LF":           {"a\n.\nb\n\r\n", "a\n.\nb\n\r\n"},
	"bare CR":           {"a\r.\rb\r\r\n", "a\r.\rb\r\r\n"},
	"smuggled end":      {"a\n.\r\nMAIL FROM:<x@y>\r\n", "a\n.\r\nMAIL FROM:<x@y>\r\n"},
	"smuggled end 2":    {"a\r.\r\nMAIL FROM:<x@y>\r\n", "a\r.\r\nMAIL FROM:<x@y>\r\n"},
	"smuggled end 3":    {"a\r\n.\nMAIL FROM:<x@y>\r\n", "a\r\n\nMAIL FROM:<x@y>\r\n"},
	"8-bit, NUL":        {"\xff\x00\xe8\r\n", "\xff\x00\xe8\r\n"},
	"998":               {strings.Repeat("x", 998) + "\r\n", strings.Repeat("x", 998) + "\r\n"},
	"long line":         {strings.Repeat("x", 300_000) + "\r\n", strings.Repeat("x", 300_000) + "\r\n"},
	"empty lines":       {"\r\n\r\n\r\n", "\r\n\r\n\r\n"},
	"many lines of dot": {strings.Repeat("..\r\n", 50_000), strings.Repeat(".\r\n", 50_000)},
}

func TestContent(t *testing.T) {
	r := newRecorder()
	s := start(t, lmtp.Options{Backend: r})
	for _, pieces := range []int{1 << 20, 1, 3, 4096} {
		for name, content := range contents {
			if pieces < 10 && len(content[0]) > 1000 {
				continue // one system call per octet
			}
			t.Run(fmt.Sprint(name, pieces), func(t *testing.T) {
				c := s.dial(t)
				c.envelope("bob@x")
				all := content[0] + ".\r\nNOOP\r\n" // what follows must be a command again
				for len(all) > 0 {
					n := min(pieces, len(all))
					c.send(all[:n])
					all = all[n:]
				}
				c.expect("250 2.0.0 <bob@x> Taken")
				c.expect("250 2.0.0 I have")
				if got := r.next(t).content.String(); got != content[1] {
					t.Errorf("content %.200q\nwant    %.200q", got, content[1])
				}
			})
		}
	}
}

// After a failure in the midst of a line the rest is still content, whatever it
// begins with.
func TestFailureWithinLine(t *testing.T) {
	r := newRecorder()
	failed := make(chan struct{})
	r.write = func([]byte) error { close(failed); return errors.New("disk full") }
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.envelope("bob@x")
	c.send("a")
	<-failed
	c.send(".\r\nMAIL FROM:<x@y>\r\n.\r\n")
	c.expect("451 4.3.0 <bob@x>")
	c.cmd("NOOP", "250 2.0.0 I have")
	r.next(t)
	r.none(t)
}

func TestPipelining(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<bad\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("501")
	c.expect("354")
	c.send("one\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\ntwo\r\n.\r\nQUIT\r\n")
	for _, want := range []string{"250 2.0.0 <c@d>", "250", "250", "354", "250 2.0.0 <e@f>", "221"} {
		c.expect(want)
	}
	for _, want := range []string{"one\r\n", "two\r\n"} {
		if got := r.next(t).content.String(); got != want {
			t.Errorf("content %q, want %q", got, want)
		}
	}
}

func TestSize(t *testing.T) {
	r := newRecorder()
	const limit = 100_000
	c := start(t, lmtp.Options{Backend: r, MaxMessage: limit}).dial(t)
	c.cmd("MAIL FROM:<a@b> SIZE=100001", "552 5.3.4")
	c.cmd("MAIL FROM:<a@b> SIZE=100000", "250")
	c.cmd("RSET", "250")
	c.envelope("bob@x", "bruna@x")
	c.send(strings.Repeat("x", limit-2) + "\r\n.\r\n") // exactly the limit
	c.expect("250")
	c.expect("250")
	if m := r.next(t); m.content.Len() != limit {
		t.Errorf("%d octets", m.content.Len())
	}
	c.envelope("bob@x", "bruna@x")
	c.send(strings.Repeat("x", limit-1) + "\r\n" + strings.Repeat("y\r\n", 500_000) + ".\r\n")
	c.expect("552 5.3.4 <bob@x>")
	c.expect("552 5.3.4 <bruna@x>")
	if m := r.next(t); m.aborts != 1 || m.ends != 0 || m.content.Len() > limit {
		t.Errorf("aborted %d times, ended %d times, %d octets", m.aborts, m.ends, m.content.Len())
	}
	c.cmd("NOOP", "250")
}

func TestManyRecipients(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r, MaxRecipients: 2}).dial(t)
	c.cmd("MAIL FROM:<a@b>", "250")
	c.cmd("RCPT TO:<a@x>", "250")
	c.cmd("RCPT TO:<b@x>", "250")
	c.cmd("RCPT TO:<c@x>", "452 4.5.3")
	c.cmd("DATA", "354")
	c.send(".\r\n")
	c.expect("250")
	c.expect("250")
	if m := r.next(t); len(m.env.Recipients) != 2 {
		t.Errorf("recipients %q", m.env.Recipients)
	}
}

// TestRecipientMemory: recipients may be few and long.
func TestRecipientMemory(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	for range 2 { // the next message has room again
		c.cmd("MAIL FROM:<a@b>", "250")
		for range 64 {
			c.cmd("RCPT TO:<c@d> ORCPT=rfc822;"+strings.Repeat("x", 8<<10-len("RCPT TO:<c@d> ORCPT=rfc822;\r\n")), "250")
		}
		c.cmd("RCPT TO:<e@f>", "452 4.5.3")
		c.cmd("DATA", "354")
		c.send(".\r\n")
		for range 64 {
			c.expect("250 2.0.0 <c@d>")
		}
		if m := r.next(t); len(m.env.Recipients) != 64 {
			t.Errorf("%d recipients", len(m.env.Recipients))
		}
	}
}

// go-smtp would keep the recipients of the first MAIL, and answer 250 for them.
func TestNestedMail(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.cmd("MAIL FROM:<a@b>", "250")
	c.cmd("RCPT TO:<a@x>", "250")
	c.cmd("MAIL FROM:<c@d>", "503 5.5.1")
	c.cmd("DATA", "354")
	c.send(".\r\n")
	c.expect("250 2.0.0 <a@x>")
	if m := r.next(t); m.env.Sender != "a@b" {
		t.Errorf("sender %q", m.env.Sender)
	}
	c.cmd("MAIL FROM:<a@b>", "250")
	c.cmd("LHLO again", "250") // as RSET
	c.cmd("MAIL FROM:<c@d>", "250")
}

func TestBDAT(t *testing.T) {
	r := newRecorder()
	c := start(t, lmtp.Options{Backend: r}).dial(t)
	c.cmd("MAIL FROM:<a@b>", "250")
	c.cmd("RCPT TO:<c@d>", "250")
	c.send("BDAT 10 LAST\r\n0123456789")
	c.expect("502 5.5.1")
	c.cmd("NOOP", "250")
	c.cmd("MAIL FROM:<a@b>", "250")
	r.none(t)
}

func TestLostConnection(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":      "",
		"in line":      "Subject: x",
		"before dot":   "Subject: x\r\n",
		"in the dot":   "Subject: x\r\n.",
		"in the dot 2": "Subject: x\r\n.\r",
		"large":        strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			s := start(t, lmtp.Options{Backend: r})
			c := s.dial(t)
			c.envelope("bob@x")
			c.send(content)
			c.Close()
			if m := r.next(t); m.aborts != 1 || m.ends != 0 || m.content.Len() > len(content) {
				t.Errorf("aborted %d times, ended %d times, content %.100q", m.aborts, m.ends, m.content.String())
			}
			s.stop(t)
			r.none(t)
		})
	}
}

// hostile are inputs that end their own connection, and nothing else.
var hostile = map[string]string{
	"HTTP":         "GET / HTTP/1.1\r\nHost: pec\r\nA: b\r\nC: d\r\nE: f\r\n\r\n",
	"long command": "NOOP " + strings.Repeat("x", 9000) + "\r\n",
	"endless line": strings.Repeat("x", 1<<20),
	"binary":       strings.Repeat("\x00\xff\r\n\n", 100),
	"milter":       "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff\r\n\r\n\r\n\r\n\r\n",
}

func TestHostile(t *testing.T) {
	r := newRecorder()
	s := start(t, lmtp.Options{Backend: r})
	good := s.dial(t)
	good.envelope("bob@x")
	for name, input := range hostile {
		t.Run(name, func(t *testing.T) {
			c := s.raw(t)
			_, _ = io.WriteString(c, input) // the server may hang up early
			c.mustClose()
		})
	}
	good.send("x\r\n.\r\n")
	good.expect("250")
	r.next(t)
	r.none(t)
}

func TestIdle(t *testing.T) {
	for name, input := range map[string]string{
		"commands": "LHLO x\r\nNOOP\r\n",
		"content":  "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			l := listen(t)
			c := dial(t, l.Addr().String())
			c.send(input) // all is there before the server reads, and then comes no more
			serve(t, l, lmtp.Options{Backend: r, IdleTimeout: 300 * time.Millisecond})
			if got := c.mustClose(); name == "commands" && !strings.Contains(got, "\r\n421 4.4.2") {
				t.Errorf("the server says %q", got)
			}
			if name == "content" {
				if m := r.next(t); m.aborts != 1 {
					t.Errorf("aborted %d times", m.aborts)
				}
			}
		})
	}
}

// TestPauseInContent: after a pause that was too long nothing more is read, not even for a
// moment: what comes belongs to the content, and would be executed.
func TestPauseInContent(t *testing.T) {
	for name, content := range map[string]string{"in a line": "x\r\nfoo", "after a line": "x\r\n", "in the dot": "x\r\n.\r"} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			l := &spy{Listener: listen(t)}
			s := serve(t, l, lmtp.Options{Backend: r, IdleTimeout: 300 * time.Millisecond})
			c := s.dial(t)
			r.abort = func() { // who did not wait for it to end goes on
				_, _ = io.WriteString(c, ".\r\nMAIL FROM:<x@y>\r\nRCPT TO:<y@z>\r\nDATA\r\nx\r\n.\r\n"+strings.Repeat("NOOP\r\n", 10))
			}
			c.envelope("bob@x")
			c.send(content)
			said := c.mustClose()
			if !strings.HasPrefix(said, "451 4.3.0 <bob@x>") || strings.Count(said, "\r\n") != 2 || !strings.Contains(said, "\r\n421 4.4.2") {
				t.Errorf("the server says %q", said)
			}
			if m := r.next(t); m.aborts != 1 {
				t.Errorf("aborted %d times", m.aborts)
			}
			s.stop(t)
			r.none(t)
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.failed != 1 {
				t.Errorf("read %d times in vain", l.failed)
			}
		})
	}
}

// TestAfterQuit: what comes together with QUIT is not executed, nor what comes with the
// command that is an error too many.
func TestAfterQuit(t *testing.T) {
	for name, input := range map[string]string{
		"a message":       "LHLO x\r\nQUIT\r\nLHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
		"no LHLO":         "LHLO x\r\nQUIT\r\nMAIL FROM:<a@b>\r\n",
		"too many errors": "LHLO x\r\nA\r\nB\r\nC\r\nD\r\nLHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			begun := make(chan struct{})
			r.begin = func(lmtp.Envelope) error { close(begun); return nil }
			s := start(t, lmtp.Options{Backend: r})
			c := s.raw(t)
			c.send(input)
			c.mustClose()
			select {
			case <-begun:
				t.Error("a message began")
			case <-time.After(200 * time.Millisecond): // it would have been executed by now
			}
			if got := s.log.String(); strings.Contains(got, "panic") {
				t.Errorf("logged %q", got)
			}
		})
	}
}

// TestGreetTooLate: who does not say who he is, or says it too slowly, makes room.
func TestGreetTooLate(t *testing.T) {
	s := start(t, lmtp.Options{Backend: newRecorder(), GreetTimeout: time.Second})
	good := s.dial(t)
	silent, slow := s.raw(t), s.raw(t)
	slow.send("NOOP\r\nLHL")
	silent.mustClose()
	slow.mustClose()
	good.cmd("NOOP", "250")
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, lmtp.Options{Backend: newRecorder(), MaxConnections: 1})
	first := s.dial(t)
	if got := s.raw(t).mustClose(); !strings.HasPrefix(got, "421 4.3.2") {
		t.Errorf("second connection: %q", got)
	}
	if s.log.count(lmtp.EventBusy) != 1 {
		t.Error("not observed")
	}
	first.cmd("QUIT", "221")
	first.mustClose()
	// The place is free when the server has seen the end.
	for deadline := time.Now().Add(patience); ; {
		c := s.raw(t)
		if strings.HasPrefix(c.reply(), "220") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of the first connection is not free")
		}
	}
}

func TestShutdown(t *testing.T) {
	r := newRecorder()
	begun := make(chan struct{})
	r.begin = func(lmtp.Envelope) error { close(begun); return nil }
	s := start(t, lmtp.Options{Backend: r})
	idle, open, used := s.dial(t), s.dial(t), s.dial(t)
	open.cmd("MAIL FROM:<a@b>", "250")
	used.envelope("bob@x")
	<-begun
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	if got := idle.mustClose(); !strings.HasPrefix(got, "421") {
		t.Errorf("idle connection: %q", got)
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		c.Close()
		t.Error("a new connection was taken")
	}
	open.cmd("RSET", "250") // no message any more
	open.mustClose()
	select {
	case err := <-done:
		t.Fatalf("shutdown did not wait: %v", err)
	default:
	}
	used.send("x\r\n.\r\nMAIL FROM:<a@b>\r\n")
	used.expect("250 2.0.0 <bob@x>")
	if got := used.mustClose(); !strings.HasPrefix(got, "421") {
		t.Errorf("next message: %q", got)
	}
	if m := r.next(t); m.ends != 1 {
		t.Error("the message did not end")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !errors.Is(err, lmtp.ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// A shutdown that can wait no longer cancels what the backend does, and lets it finish:
// whoever called may take away what the backend stands on.
func TestShutdownNow(t *testing.T) {
	r := newRecorder()
	inEnd, closed, finished := make(chan struct{}), make(chan struct{}), false
	r.end = func(ctx context.Context, _ *record) []lmtp.Status {
		close(inEnd)
		<-ctx.Done()
		<-closed
		finished = true
		return nil
	}
	s := start(t, lmtp.Options{Backend: r})
	c := s.dial(t)
	c.envelope("bob@x")
	c.send(".\r\n")
	<-inEnd
	go func() { defer close(closed); c.mustClose() }()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) || !finished {
		t.Errorf("shutdown: %v; the backend has finished: %v", err, finished)
	}
	r.next(t)
}

func TestEndTimeout(t *testing.T) {
	r := newRecorder()
	r.end = func(ctx context.Context, _ *record) []lmtp.Status {
		<-ctx.Done()
		return []lmtp.Status{{}}
	}
	c := start(t, lmtp.Options{Backend: r, EndTimeout: 10 * time.Millisecond}).dial(t)
	c.envelope("bob@x")
	c.send(".\r\n")
	c.expect("451")
}
