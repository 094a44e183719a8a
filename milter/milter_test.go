package milter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/milter"
	"pecd/milter/miltertest"
)

func TestMessage(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: r})
	c := s.dial(t)
	a, err := c.Connect("client.example", "192.0.2.7", miltertest.Macros{
		"{daemon_name}": "SUBMISSION", "{client_name}": "named.example", "j": "mx.alfa.example"})
	does(t, a, err)
	a, err = c.Helo("before", nil)
	does(t, a, err)
	if err := c.Abort(); err != nil { // STARTTLS
		t.Fatal(err)
	}
	a, err = c.Helo("laptop", miltertest.Macros{"{tls_version}": "TLSv1.3"})
	does(t, a, err)
	m := plain
	m.To = []string{"bob@beta.example", "bruna@beta.example"}
	mustSend(t, c, m, 'd')

	got := r.next(t)
	want := milter.Envelope{
		Sender: "alice@alfa.example", Recipients: []string{"bob@beta.example", "bruna@beta.example"},
		Auth: "alice", QueueID: "4Q1", ClientAddr: "192.0.2.7", ClientName: "named.example",
		Helo: "laptop", TLSVersion: "TLSv1.3", DaemonName: "SUBMISSION",
	}
	for _, env := range []milter.Envelope{got.atBegin, got.atEnd} {
		if fmt.Sprint(env) != fmt.Sprint(want) {
			t.Errorf("envelope %+v\nwant     %+v", env, want)
		}
	}
	if !bytes.Equal(got.content.Bytes(), m.Bytes) {
		t.Errorf("content %q", got.content.Bytes())
	}
	if n := s.log.count("discard"); n != 1 {
		t.Errorf("observed %d messages", n)
	}
}

// What the door asks for decides whether bytes are exact and macros arrive.
func TestNegotiation(t *testing.T) {
	c := start(t, milter.Options{Backend: newRecorder()}).dial(t)
	if c.Protocol != 0x1cf380 {
		t.Errorf("protocol %#x: all but the end answers to nothing, with leading space", c.Protocol)
	}
	if !slices.Contains(c.Symbols[2], "{auth_authen}") || !slices.Contains(c.Symbols[5], "i") {
		t.Errorf("macros %v", c.Symbols)
	}
}

func TestOldMTA(t *testing.T) {
	s := start(t, milter.Options{Backend: newRecorder()})
	for _, offer := range [][]byte{
		miltertest.Offer(2, 0x3f, 0x7f),
		miltertest.Offer(6, miltertest.OfferedActions, miltertest.OfferedProtocol&^(1<<20)),
		miltertest.Offer(6, miltertest.OfferedActions, miltertest.OfferedProtocol&^(1<<7)),
		miltertest.Offer(6, 0x3f, miltertest.OfferedProtocol),
		{0, 0, 0, 6},
	} {
		c := &miltertest.Client{Conn: s.raw(t)}
		if err := c.Packet('O', offer); err != nil {
			t.Fatal(err)
		}
		if code, _, err := c.ReadPacket(); err == nil {
			t.Errorf("offer %x was answered with %q", offer, code)
		}
	}
}

// Fields come byte for byte as the client sent them.
func TestBytes(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r}).dial(t)
	long := strings.Repeat("X-Long: "+strings.Repeat(strings.Repeat("x", 990)+"\r\n ", 50)+"end\r\n", 3)
	for name, content := range map[string]string{
		"spacing":   "A:x\r\nB: x\r\nC:  x\r\nD:\tx\r\nE:\r\nF: \r\nG: x \t\r\n\r\n",
		"folds":     "A: x\r\n y\r\n\tz\r\nB:\r\n x\r\nC: \r\n \r\n x\r\n\r\nbody",
		"8bit":      "A: \xe0\xff\xc3\xa8\r\n\r\n\x00\xff\r\n",
		"bare CR":   "A: x\ry\r\nB: z\r\r\n\r\n\r",
		"no fields": "\r\nbody\r\n",
		"no body":   "A: b\r\n\r\n",
		"long":      long + "\r\n" + strings.Repeat("0123456789abcdef\r\n", 20_000),
		"dots":      "A: b\r\n\r\n.\r\n..\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			m := plain
			m.Bytes = []byte(content)
			mustSend(t, c, m, 'd')
			if got := r.next(t).content.String(); got != content {
				t.Errorf("content %.200q\nwant    %.200q", got, content)
			}
		})
	}
}

func TestSeveralMessages(t *testing.T) {
	for name, send := range map[string]func(*miltertest.Client, miltertest.Mail) (miltertest.Answer, error){
		"Postfix":  (*miltertest.Client).Send,
		"Sendmail": (*miltertest.Client).SendOnly, // sends no ABORT between messages
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			c := start(t, milter.Options{Backend: r}).dial(t)
			a, err := c.Connect("client.example", "192.0.2.7", miltertest.Macros{"{daemon_name}": "SUBMISSION"})
			does(t, a, err)
			for i := range 3 {
				m := plain
				m.From, m.QueueID = fmt.Sprintf("u%d@alfa.example", i), fmt.Sprintf("Q%d", i)
				m.Bytes = fmt.Appendf(nil, "Subject: %d\r\n\r\n", i)
				if i == 2 { // the macros of the others must not stand in for those that are missing
					m.Auth, m.QueueID = "", ""
				}
				if a, err := send(c, m); err != nil || a.Code != 'd' {
					t.Fatal(a, err)
				}
				got := r.next(t)
				e := got.atEnd
				if e.Sender != m.From || e.QueueID != m.QueueID || e.Auth != m.Auth || e.DaemonName != "SUBMISSION" ||
					len(e.Recipients) != 1 || !bytes.Equal(got.content.Bytes(), m.Bytes) {
					t.Errorf("message %d: %+v %q", i, e, got.content.Bytes())
				}
			}
		})
	}
}

// steps play a session up to a stage, for tests that break it there.
var steps = []struct {
	name  string
	begun bool // the backend has a message
	do    func(*miltertest.Client) (miltertest.Answer, error)
}{
	{"mail", false, func(c *miltertest.Client) (miltertest.Answer, error) {
		return c.Mail("lost@alfa.example", miltertest.Macros{"{auth_authen}": "lost"})
	}},
	{"rcpt", false, func(c *miltertest.Client) (miltertest.Answer, error) { return c.Rcpt("lost@beta.example", nil) }},
	{"header", true, func(c *miltertest.Client) (miltertest.Answer, error) { return c.Field("Lost", " x") }},
	{"end of header", true, func(c *miltertest.Client) (miltertest.Answer, error) { return c.EndHeader(nil) }},
	{"body", true, func(c *miltertest.Client) (miltertest.Answer, error) { return c.Body([]byte("lost")) }},
}

// RSET at any stage ends the message there, and the next one knows nothing of it.
func TestReset(t *testing.T) {
	for i, last := range steps {
		t.Run(last.name, func(t *testing.T) {
			r := newRecorder()
			c := start(t, milter.Options{Backend: r}).dial(t)
			for _, s := range steps[:i+1] {
				a, err := s.do(c)
				does(t, a, err)
			}
			for range 2 { // Postfix sends it twice at the end of a session
				if err := c.Abort(); err != nil {
					t.Fatal(err)
				}
			}
			if last.begun {
				if m := r.next(t); m.aborts != 1 || m.ends != 0 {
					t.Errorf("aborted %d times, ended %d times", m.aborts, m.ends)
				}
			}
			m := plain
			m.Auth = ""
			mustSend(t, c, m, 'd')
			got := r.next(t)
			if got.ends != 1 || got.aborts != 0 || got.atEnd.Auth != "" || got.atEnd.Sender != m.From ||
				!slices.Equal(got.atEnd.Recipients, m.To) || !bytes.Equal(got.content.Bytes(), m.Bytes) {
				t.Errorf("next message: %+v %q", got.atEnd, got.content.Bytes())
			}
			r.none(t)
		})
	}
}

// Sendmail goes on to the next MAIL without ABORT when another milter has ended
// the message.
func TestMailAfterMail(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r}).dial(t)
	for _, s := range steps {
		a, err := s.do(c)
		does(t, a, err)
	}
	if a, err := c.SendOnly(plain); err != nil || a.Code != 'd' {
		t.Fatal(a, err)
	}
	if m := r.next(t); m.aborts != 1 || m.ends != 0 || m.atBegin.Sender != "lost@alfa.example" {
		t.Errorf("first: aborted %d times, ended %d times", m.aborts, m.ends)
	}
	if m := r.next(t); m.ends != 1 || !slices.Equal(m.atEnd.Recipients, plain.To) {
		t.Errorf("second: %+v", m.atEnd)
	}
}

func TestLostConnection(t *testing.T) {
	for i, last := range steps {
		for _, quit := range []bool{false, true} {
			t.Run(fmt.Sprint(last.name, " quit=", quit), func(t *testing.T) {
				r := newRecorder()
				s := start(t, milter.Options{Backend: r})
				c := s.dial(t)
				for _, s := range steps[:i+1] {
					a, err := s.do(c)
					does(t, a, err)
				}
				if quit { // without ABORT
					if err := c.Quit(); err != nil {
						t.Fatal(err)
					}
				} else if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				if last.begun {
					if m := r.next(t); m.aborts != 1 || m.ends != 0 {
						t.Errorf("aborted %d times, ended %d times", m.aborts, m.ends)
					}
				}
				s.stop(t) // all connections have ended
				r.none(t)
			})
		}
	}
}

// A checker is a backend that refuses some recipients.
type checker struct{ *recorder }

func (checker) Recipient(_ context.Context, env milter.Envelope, to string) milter.Verdict {
	switch {
	case strings.HasPrefix(to, "no"):
		return milter.Verdict{Action: milter.Reject, Reply: "550 5.1.1 No " + to + " after " + fmt.Sprint(len(env.Recipients))}
	case strings.HasPrefix(to, "later"):
		return milter.Verdict{}
	case strings.HasPrefix(to, "discard"):
		return milter.Verdict{Action: milter.Discard}
	case strings.HasPrefix(to, "panic"):
		panic("recipient")
	}
	return milter.Verdict{Action: milter.Continue}
}

func TestRefusedRecipients(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: checker{r}}).dial(t)
	a, err := c.Connect("client.example", "192.0.2.7", miltertest.Macros{"{daemon_name}": "SUBMISSION"})
	does(t, a, err)
	for range 2 { // state must survive the refusals, and the message
		a, err := c.Mail(plain.From, miltertest.Macros{"{auth_authen}": "alice"})
		does(t, a, err)
		for _, to := range []struct {
			name  string
			code  byte
			reply string
		}{
			{"no1", 'y', "550 5.1.1 No no1@x after 0"}, {"bob", 'c', ""}, {"later", 't', ""}, {"discard", 't', ""},
			{"panic", 't', ""}, {"bruna", 'c', ""}, {"no2", 'y', "550 5.1.1 No no2@x after 2"},
		} {
			a, err := c.Rcpt(to.name+"@x", nil)
			if err != nil || a.Code != to.code || a.Reply != to.reply {
				t.Errorf("%s: %q %q, %v", to.name, a.Code, a.Reply, err)
			}
		}
		a, err = c.Content(plain.Bytes, miltertest.Macros{"i": "Q"})
		does(t, a, err)
		if a, err := c.End(nil); err != nil || a.Code != 'd' {
			t.Fatal(a, err)
		}
		e := r.next(t).atEnd
		if e.Sender != plain.From || e.Auth != "alice" || e.DaemonName != "SUBMISSION" || e.QueueID != "Q" ||
			!slices.Equal(e.Recipients, []string{"bob@x", "bruna@x"}) {
			t.Errorf("envelope %+v", e)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		verdict milter.Verdict
		code    byte
		reply   string
	}{
		{milter.Verdict{}, 't', ""},
		{milter.Verdict{Action: milter.Discard, Reply: "ignored"}, 'd', ""},
		{milter.Verdict{Action: milter.Continue}, 'c', ""},
		{milter.Verdict{Action: milter.Reject}, 'r', ""},
		{milter.Verdict{Action: milter.Reject, Reply: "550 5.7.1 No"}, 'y', "550 5.7.1 No"},
		{milter.Verdict{Action: milter.Defer, Reply: "451 4.3.0 Wait"}, 'y', "451 4.3.0 Wait"},
		{milter.Verdict{Action: milter.Reject, Reply: "451 4.3.0 Wait"}, 'r', ""},
		{milter.Verdict{Action: milter.Defer, Reply: "550 5.7.1 No"}, 't', ""},
		{milter.Verdict{Action: milter.Defer, Reply: "250 2.0.0 Ok"}, 't', ""},
		{milter.Verdict{Action: milter.Reject, Reply: "no code"}, 'r', ""},
		{milter.Verdict{Action: milter.Reject, Reply: "550-5.7.1 a"}, 'r', ""},
		{milter.Verdict{Action: milter.Action(99), Reply: "550 5.7.1 No"}, 't', ""},
		{milter.Verdict{Action: milter.Reject, Reply: "550 5.7.1 a\r\n250 ok\x00b\tè 100%"}, 'y',
			"550 5.7.1 a  250 ok b ? 100%%"},
		{milter.Verdict{Action: milter.Reject, Reply: "550 " + strings.Repeat("x", 1000)}, 'y',
			"550 " + strings.Repeat("x", 476)},
	} {
		r := newRecorder()
		r.end = func(context.Context, *record) milter.Verdict { return test.verdict }
		a := mustSend(t, start(t, milter.Options{Backend: r}).dial(t), plain, test.code)
		if a.Reply != test.reply {
			t.Errorf("%+v: %q", test.verdict, a.Reply)
		}
	}
}

// A failing backend delays its message, and only that.
func TestBackendFails(t *testing.T) {
	fail := errors.New("disk full")
	for name, test := range map[string]struct {
		set    func(*recorder)
		ended  bool // the backend sees the message end
		panics bool
		ends   int
	}{
		"begin":        {func(r *recorder) { r.begin = func(milter.Envelope) error { return fail } }, false, false, 0},
		"begin panics": {func(r *recorder) { r.begin = func(milter.Envelope) error { panic("begin") } }, false, true, 0},
		"write":        {func(r *recorder) { r.write = func([]byte) error { return fail } }, true, false, 0},
		"write panics": {func(r *recorder) { r.write = func([]byte) error { panic("write") } }, true, true, 0},
		"end panics":   {func(r *recorder) { r.end = func(context.Context, *record) milter.Verdict { panic("end") } }, true, true, 1},
		"abort panics too": {func(r *recorder) {
			r.write = func([]byte) error { return fail }
			r.abort = func() { panic("abort") }
		}, true, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			test.set(r)
			s := start(t, milter.Options{Backend: r})
			c := s.dial(t)
			m := plain
			m.Bytes = append(slices.Clone(plain.Bytes), make([]byte, 300_000)...) // the rest is drained
			mustSend(t, c, m, 't')
			if test.ended {
				if m := r.next(t); m.aborts != 1 || m.ends != test.ends || m.afterwards != 0 {
					t.Errorf("aborted %d times, ended %d times, %d writes afterwards", m.aborts, m.ends, m.afterwards)
				}
			}
			if panicked := s.log.count(milter.EventPanic) > 0; panicked != test.panics {
				t.Errorf("panic observed: %v", panicked)
			}
			if test.panics && !strings.Contains(s.log.text.String(), "milter_test.go") {
				t.Errorf("no stack in the log: %s", s.log.text.String())
			}
			r.begin, r.write, r.end, r.abort = nil, nil, nil, nil
			mustSend(t, c, plain, 'd')
			if m := r.next(t); m.ends != 1 || m.aborts != 0 {
				t.Error("the next message did not end")
			}
			r.none(t)
		})
	}
}

type emptyBackend struct{}

func (emptyBackend) Begin(context.Context, milter.Envelope) (milter.Message, error) { return nil, nil }

func TestNoMessage(t *testing.T) {
	mustSend(t, start(t, milter.Options{Backend: emptyBackend{}}).dial(t), plain, 't')
}

func TestTooLarge(t *testing.T) {
	r := newRecorder()
	limit := int64(len(plain.Bytes))
	c := start(t, milter.Options{Backend: r, MaxMessage: limit,
		TooLarge: milter.Verdict{Action: milter.Reject, Reply: "552 5.3.4 Too large"}}).dial(t)
	mustSend(t, c, plain, 'd') // exactly the limit
	r.next(t)
	m := plain
	m.Bytes = append(slices.Clone(m.Bytes), 'x')
	if a := mustSend(t, c, m, 'y'); a.Reply != "552 5.3.4 Too large" {
		t.Errorf("reply %q", a.Reply)
	}
	if got := r.next(t); got.aborts != 1 || got.ends != 0 || int64(got.content.Len()) > limit {
		t.Errorf("aborted %d times, ended %d times, %d octets", got.aborts, got.ends, got.content.Len())
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
}

func TestLargeHeader(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r, LargeHeader: milter.Verdict{Action: milter.Reject}}).dial(t)
	m := plain
	for name, header := range map[string]string{
		"octets": strings.Repeat("X: "+strings.Repeat("x", 40_000)+"\r\n", 27),
		"fields": strings.Repeat("X: y\r\n", 9_901),
		"folds":  strings.Repeat("X: "+strings.Repeat("\r\n x", 10_000)+"\r\n", 25),
	} {
		m.Bytes = []byte(header + "\r\nbody")
		mustSend(t, c, m, 'r')
		if got := r.next(t); got.aborts != 1 || got.ends != 0 {
			t.Errorf("%s: aborted %d times, ended %d times", name, got.aborts, got.ends)
		}
	}
	m.Bytes = []byte(strings.Repeat("X: y\r\n", 9_900) + "\r\n")
	mustSend(t, c, m, 'd')
	if got := r.next(t); !bytes.Equal(got.content.Bytes(), m.Bytes) {
		t.Error("9,900 fields are within the limit")
	}
}

func TestManyRecipients(t *testing.T) {
	for name, backend := range map[string]func(*recorder) milter.Backend{
		"unasked": func(r *recorder) milter.Backend { return r },
		"asked":   func(r *recorder) milter.Backend { return checker{r} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			c := start(t, milter.Options{Backend: backend(r)}).dial(t)
			a, err := c.Mail(plain.From, nil)
			does(t, a, err)
			for i := range 10_000 {
				a, err := c.Rcpt(fmt.Sprint(i, "@x"), nil)
				does(t, a, err)
			}
			a, err = c.Rcpt("one.more@x", nil)
			const reply = "452 4.5.3 Too many recipients"
			if name == "asked" {
				if err != nil || a.Reply != reply {
					t.Errorf("answer %q %q, %v", a.Code, a.Reply, err)
				}
			}
			a, err = c.Content(plain.Bytes, nil)
			does(t, a, err)
			if a, err = c.End(nil); err != nil {
				t.Fatal(err)
			}
			if name == "unasked" { // it cannot be told that one recipient is refused
				if a.Reply != reply {
					t.Errorf("answer %q %q", a.Code, a.Reply)
				}
				r.none(t)
			} else if got := r.next(t); a.Code != 'd' || len(got.atEnd.Recipients) != 10_000 {
				t.Errorf("answer %q, %d recipients", a.Code, len(got.atEnd.Recipients))
			}
		})
	}
}

// QUIT_NC: the MTA uses the connection for another client.
func TestNewClientOnConnection(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r}).dial(t)
	a, err := c.Connect("first.example", "192.0.2.1", miltertest.Macros{"{daemon_name}": "FIRST"})
	does(t, a, err)
	a, err = c.Helo("first", miltertest.Macros{"{tls_version}": "TLSv1.3"})
	does(t, a, err)
	mustSend(t, c, plain, 'd')
	r.next(t)
	if err := c.Packet('K', nil); err != nil {
		t.Fatal(err)
	}
	a, err = c.Connect("second.example", "192.0.2.2", nil)
	does(t, a, err)
	m := plain
	m.Auth = ""
	mustSend(t, c, m, 'd')
	e := r.next(t).atEnd
	if e.ClientAddr != "192.0.2.2" || e.ClientName != "second.example" || e.DaemonName != "" || e.Helo != "" ||
		e.TLSVersion != "" || e.Auth != "" {
		t.Errorf("the second client has what the first one had: %+v", e)
	}
}

func TestIdleTooLong(t *testing.T) {
	r := newRecorder()
	l := listen(t)
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// All is there before the server reads, and then comes no more.
	begun := head() + packet("M<a@b>\x00") + packet("LSubject\x00 x\x00") + "\x00\x00\x00\x63Bx"
	if _, err := io.WriteString(c, begun); err != nil {
		t.Fatal(err)
	}
	serve(t, l, milter.Options{Backend: r, ReadTimeout: 300 * time.Millisecond})
	mustClose(t, c)
	if m := r.next(t); m.aborts != 1 {
		t.Errorf("aborted %d times", m.aborts)
	}
}

// TestGreetTooLate: who does not negotiate loses the place long before ReadTimeout,
// whatever else is sent; who has negotiated has all of it.
func TestGreetTooLate(t *testing.T) {
	s := start(t, milter.Options{Backend: newRecorder(), GreetTimeout: time.Second})
	good := s.dial(t)
	silent, slow := s.raw(t), s.raw(t)
	if _, err := io.WriteString(slow, head()[:7]); err != nil {
		t.Fatal(err)
	}
	mustClose(t, silent)
	mustClose(t, slow)
	mustSend(t, good, plain, 'd')
}

func TestEndTimeout(t *testing.T) {
	r := newRecorder()
	r.end = func(ctx context.Context, _ *record) milter.Verdict {
		<-ctx.Done()
		return milter.Verdict{}
	}
	s := start(t, milter.Options{Backend: r, EndTimeout: 10 * time.Millisecond})
	mustSend(t, s.dial(t), plain, 't')
}
