package lmtp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/lmtp"
)

// A fakeStore answers each command as reply says. Its fields are set before it is
// dialled.
type fakeStore struct {
	t testing.TB
	l net.Listener
	// reply returns the answer to a command of the n-th connection, from 1;
	// "" : 250; "close": hang up. The command "." stands for the end of the
	// content; its answer may have several lines.
	reply func(n int, command string) string

	mu       sync.Mutex
	commands []string
	contents []string
	cut      []string // contents without a final dot
	conns    int
	ended    chan struct{} // a value for each connection that ended
}

func startFake(t testing.TB, reply func(n int, command string) string) *fakeStore {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeStore{t: t, l: l, reply: reply, ended: make(chan struct{}, 1000)}
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns++
			n := f.conns
			f.mu.Unlock()
			go f.serve(n, c)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return f
}

func (f *fakeStore) store() *lmtp.Store {
	s := &lmtp.Store{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", f.l.Addr().String())
	}}
	f.t.Cleanup(func() { s.Close() })
	return s
}

func (f *fakeStore) serve(n int, c net.Conn) {
	defer func() {
		c.Close()
		f.ended <- struct{}{}
	}()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		f.t.Error(err)
	}
	r := bufio.NewReader(c)
	say := func(command, otherwise string) bool {
		answer := f.reply(n, command)
		if answer == "close" {
			return false
		}
		if answer == "" {
			answer = otherwise
		}
		hangUp := strings.HasSuffix(answer, "close")
		_, err := io.WriteString(c, strings.TrimSuffix(answer, "close")+"\r\n")
		return err == nil && !hangUp
	}
	if !say("greeting", "220 fake LMTP") {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		f.mu.Lock()
		f.commands = append(f.commands, line)
		f.mu.Unlock()
		otherwise := "250 2.0.0 Ok"
		if strings.HasPrefix(line, "LHLO") {
			otherwise = "250-fake\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"
		}
		if line == "DATA" {
			otherwise = "354 Go on"
		}
		if !say(line, otherwise) {
			return
		}
		if line == "DATA" && f.reply(n, "DATA") == "" && !(f.content(r) && say(".", "250 2.0.0 Ok")) {
			return
		}
	}
}

// content reads up to the final dot, as a store that wants CRLF.
func (f *fakeStore) content(r *bufio.Reader) bool {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		f.mu.Lock()
		if err != nil {
			f.cut = append(f.cut, b.String()+line)
			f.mu.Unlock()
			return false
		}
		if line == ".\r\n" && (b.Len() == 0 || strings.HasSuffix(b.String(), "\r\n")) {
			f.contents = append(f.contents, b.String())
			f.mu.Unlock()
			return true
		}
		f.mu.Unlock()
		b.WriteString(line)
	}
}

// await waits until n connections have ended.
func (f *fakeStore) await(n int) {
	f.t.Helper()
	for range n {
		select {
		case <-f.ended:
		case <-time.After(patience):
			f.t.Fatal("a connection did not end")
		}
	}
}

func (f *fakeStore) received() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.contents...)
}

func (f *fakeStore) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

func (f *fakeStore) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.commands...)
}

func write(content string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}
}

// deliver delivers with a deadline.
func deliver(t testing.TB, s *lmtp.Store, content string, to ...string) ([]lmtp.Status, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.Deliver(ctx, "alice@alfa.example", to, int64(len(content)), true, write(content))
}

func texts(s []lmtp.Status) []string {
	var all []string
	for _, s := range s {
		all = append(all, s.String())
	}
	return all
}

const noAnswer = "451 4.3.0 No answer from the mailbox store"

func always(command, answer string) func(int, string) string {
	return func(_ int, c string) string {
		if strings.HasPrefix(c, command) {
			return answer
		}
		return ""
	}
}

// The answers of the store, in whatever way it gives them or does not.
func TestDeliver(t *testing.T) {
	to := []string{"bob@x", "bruna@x", "bob@x"}
	for name, test := range map[string]struct {
		reply func(int, string) string
		want  []string // nil: an error
	}{
		"taken": {always(".", "250 2.1.5 <bob@x> Saved\r\n250 no code"),
			[]string{"250 2.1.5 <bob@x> Saved", "250 2.0.0 no code", "250 2.1.5 <bob@x> Saved"}},
		"one refused": {always("RCPT TO:<bob", "550 5.1.1 No such user"),
			[]string{"550 5.1.1 No such user", "250 2.0.0 Ok", "550 5.1.1 No such user"}},
		"all refused": {always("RCPT", "550-5.1.1 No such\r\n550 5.1.1 user"),
			[]string{"550 5.1.1 No such user", "550 5.1.1 No such user", "550 5.1.1 No such user"}},
		"one refused at the end": {always(".", "250 2.0.0 Ok\r\n552 5.2.2 Full"),
			[]string{"250 2.0.0 Ok", "552 5.2.2 Full", "250 2.0.0 Ok"}},
		"both ways": {func(_ int, c string) string {
			switch {
			case strings.HasPrefix(c, "RCPT TO:<bob"):
				return "451 4.2.0 Later"
			case c == ".":
				return "552 5.2.2 Full"
			}
			return ""
		}, []string{"451 4.2.0 Later", "552 5.2.2 Full", "451 4.2.0 Later"}},
		"other success":      {always(".", "251 2.1.5 Forwarded\r\n250 2.0.0 Ok"), []string{"251 2.1.5 Forwarded", "250 2.0.0 Ok", "251 2.1.5 Forwarded"}},
		"sender refused":     {always("MAIL", "550 5.7.1 No"), []string{"550 5.7.1 No", "550 5.7.1 No", "550 5.7.1 No"}},
		"sender deferred":    {always("MAIL", "421 4.3.2 Going"), []string{"421 4.3.2 Going", "421 4.3.2 Going", "421 4.3.2 Going"}},
		"content refused":    {always("DATA", "554 5.6.0 No"), []string{"554 5.6.0 No", "554 5.6.0 No", "554 5.6.0 No"}},
		"strange answer":     {always("DATA", "250 2.0.0 Ok"), nil},
		"no LMTP":            {always("greeting", "554 5.0.0 Go away"), nil},
		"hangs up":           {always("greeting", "close"), nil},
		"hangs up LHLO":      {always("LHLO", "close"), nil},
		"hangs up MAIL":      {always("MAIL", "close"), nil},
		"hangs up RCPT":      {always("RCPT TO:<bruna", "close"), nil},
		"hangs up DATA":      {always("DATA", "close"), nil},
		"hangs up end":       {always(".", "close"), nil},
		"no 8-bit":           {always("LHLO", "250 fake"), nil},
		"garbage":            {always("MAIL", "what?"), nil},
		"endless line":       {always("MAIL", "250 "+strings.Repeat("x", 3000)), nil},
		"endless lines":      {always("MAIL", strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 5000)+"250 x"), nil},
		"hangs up in answer": {always(".", "250 2.0.0 Saved\r\nclose"), []string{"250 2.0.0 Saved", noAnswer, "250 2.0.0 Saved"}},
		"refuses, hangs up":  {always(".", "552 5.2.2 Full\r\nclose"), []string{"552 5.2.2 Full", noAnswer, "552 5.2.2 Full"}},
		"refuses one, hangs up": {func(_ int, c string) string {
			switch {
			case strings.HasPrefix(c, "RCPT TO:<bob"):
				return "550 5.1.1 No such user"
			case c == "DATA":
				return "close"
			}
			return ""
		}, []string{"550 5.1.1 No such user", noAnswer, "550 5.1.1 No such user"}},
		"refuses one, no LMTP": {func(_ int, c string) string {
			switch {
			case strings.HasPrefix(c, "RCPT TO:<bruna"):
				return "550 5.1.1 No such user"
			case c == ".":
				return "close"
			}
			return ""
		}, []string{noAnswer, "550 5.1.1 No such user", noAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			reply := test.reply
			f := startFake(t, func(n int, c string) string {
				a := reply(n, c)
				if c == "." && a == "" && name != "one refused" {
					return "250 2.0.0 Ok\r\n250 2.0.0 Ok"
				}
				return a
			})
			s := f.store()
			got, err := deliver(t, s, "A: b\r\n", to...)
			if (err != nil) != (test.want == nil) {
				t.Fatalf("%q, %v", texts(got), err)
			}
			unanswered := test.want == nil && name != "no 8-bit" || slices.Contains(test.want, noAnswer)
			if failed := s.Failures() == 1; failed != unanswered || failed == (s.Answers() == 1) {
				t.Errorf("%d failures, %d answers", s.Failures(), s.Answers())
			}
			if fmt.Sprint(texts(got)) != fmt.Sprint(test.want) {
				t.Errorf("statuses %q\nwant     %q", texts(got), test.want)
			}
			if n := strings.Count(strings.Join(f.said(), "\n"), "RCPT TO:<bob@x>"); n > 1 {
				t.Errorf("bob was named %d times", n)
			}
		})
	}
}

func TestDeliverNobody(t *testing.T) {
	s := &lmtp.Store{Dial: func(context.Context) (net.Conn, error) { panic("dialled") }}
	if got, err := deliver(t, s, "x"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDialFails(t *testing.T) {
	fail := errors.New("refused")
	s := &lmtp.Store{Dial: func(context.Context) (net.Conn, error) { return nil, fail }}
	if _, err := deliver(t, s, "x", "bob@x"); !errors.Is(err, fail) {
		t.Error(err)
	}
}

// A body that fails must never be followed by the final dot.
func TestBodyFails(t *testing.T) {
	f := startFake(t, always("", ""))
	fail := errors.New("disk")
	for _, half := range []string{"", "Subject: x\r\n", "Subject: x\r\n\r\n.\r\n", strings.Repeat("x\r\n", 100_000)} {
		_, err := f.store().Deliver(context.Background(), "a@b", []string{"bob@x"}, 0, true, func(w io.Writer) error {
			if _, err := io.WriteString(w, half); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Error(err)
		}
	}
	f.await(4)
	if len(f.received()) > 0 || len(f.cut) != 4 {
		t.Errorf("%d delivered, %d cut", len(f.received()), len(f.cut))
	}
}

func TestReuse(t *testing.T) {
	f := startFake(t, func(_ int, c string) string {
		if strings.HasPrefix(c, "RCPT TO:<nobody") {
			return "550 5.1.1 No such user"
		}
		return ""
	})
	s := f.store()
	for _, to := range []string{"bob@x", "nobody@x", "bruna@x"} {
		if _, err := deliver(t, s, to+"\r\n", to); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"LHLO localhost",
		"MAIL FROM:<alice@alfa.example> BODY=8BITMIME", "RCPT TO:<bob@x>", "DATA",
		"MAIL FROM:<alice@alfa.example> BODY=8BITMIME", "RCPT TO:<nobody@x>", "RSET", "LHLO localhost",
		"MAIL FROM:<alice@alfa.example> BODY=8BITMIME", "RCPT TO:<bruna@x>", "DATA"}
	if got := f.said(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("said %q", got)
	}
	if f.connections() != 1 || fmt.Sprint(f.received()) != fmt.Sprint([]string{"bob@x\r\n", "bruna@x\r\n"}) {
		t.Errorf("%d connections, contents %q", f.connections(), f.received())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := deliver(t, s, "x", "bob@x"); !errors.Is(err, lmtp.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A kept connection that the store has closed costs a second try, no delivery.
func TestStaleConnection(t *testing.T) {
	for name, answer := range map[string]string{
		"closed": "close", "said so": "421 4.4.2 Disconnected for inactivity\r\nclose",
	} {
		t.Run(name, func(t *testing.T) {
			mails := 0
			f := startFake(t, func(n int, c string) string {
				if n == 1 && strings.HasPrefix(c, "MAIL") {
					if mails++; mails > 1 {
						return answer
					}
				}
				return ""
			})
			s := f.store()
			for range 2 {
				if got, err := deliver(t, s, "x\r\n", "bob@x"); err != nil || !got[0].OK() {
					t.Fatal(got, err)
				}
			}
			if f.connections() != 2 || len(f.received()) != 2 {
				t.Errorf("%d connections, %d messages", f.connections(), len(f.received()))
			}
			if n := s.Failures(); n != 0 {
				t.Errorf("%d failures", n)
			}
		})
	}
}

// A store that takes its leave with an answer is not asked again on that
// connection.
func TestLeaving(t *testing.T) {
	f := startFake(t, func(n int, c string) string {
		if n == 1 && strings.HasPrefix(c, "RCPT") {
			return "421 4.3.2 Shutting down"
		}
		return ""
	})
	s := f.store()
	if got, err := deliver(t, s, "x\r\n", "bob@x"); err != nil || !got[0].Deferred() {
		t.Fatal(got, err)
	}
	if got, err := deliver(t, s, "x\r\n", "bob@x"); err != nil || !got[0].OK() || f.connections() != 2 {
		t.Fatal(got, err, f.connections())
	}
}

func TestIdleConnections(t *testing.T) {
	f := startFake(t, always("", ""))
	s := f.store()
	s.IdleTime = time.Millisecond
	if _, err := deliver(t, s, "x\r\n", "bob@x"); err != nil {
		t.Fatal(err)
	}
	f.await(1)
	s2 := f.store()
	s2.MaxIdle = -1
	if _, err := deliver(t, s2, "x\r\n", "bob@x"); err != nil {
		t.Fatal(err)
	}
	f.await(1)
}

func TestCancelled(t *testing.T) {
	for _, at := range []string{"greeting", "MAIL", "RCPT", "DATA", "."} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			stop := make(chan struct{})
			f := startFake(t, func(_ int, c string) string {
				if strings.HasPrefix(c, at) {
					cancel()
					<-stop
				}
				return ""
			})
			got, err := f.store().Deliver(ctx, "a@b", []string{"bob@x"}, 0, true, write("x\r\n"))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, %v", got, err)
			}
			close(stop)
		})
	}
}

func TestTimeout(t *testing.T) {
	stop := make(chan struct{})
	f := startFake(t, func(_ int, c string) string {
		if c == "DATA" || c == "." {
			<-stop
		}
		return ""
	})
	s := f.store()
	s.CommandTimeout = 50 * time.Millisecond
	if _, err := deliver(t, s, "x\r\n", "bob@x"); err == nil {
		t.Error("no error")
	}
	close(stop)
}

// Concurrent deliveries share the kept connections.
func TestConcurrentDeliveries(t *testing.T) {
	f := startFake(t, always("", ""))
	s := f.store()
	s.MaxIdle = 2
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				if got, err := deliver(t, s, "x\r\n", "bob@x"); err != nil || !got[0].OK() {
					t.Error(got, err)
				}
			}
		}()
	}
	wg.Wait()
	if len(f.received()) != 80 {
		t.Errorf("%d messages", len(f.received()))
	}
}

// What the client sends, the server receives, whatever the pieces.
func TestStuffing(t *testing.T) {
	r := newRecorder()
	srv := start(t, lmtp.Options{Backend: r})
	s := &lmtp.Store{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", srv.addr)
	}}
	defer s.Close()
	for name, content := range map[string][2]string{
		"plain":        {"A: b\r\n\r\nbody\r\n", ""},
		"dots":         {".\r\n..\r\n.a\r\na.\r\n.\r\n", ""},
		"only a dot":   {".\r\n", ""},
		"empty lines":  {"\r\n\r\n\r\n", ""},
		"8-bit, NUL":   {"\xff\x00\r\n", ""},
		"bare CR":      {"a\rb\r.c\r\r\n.\r\n", ""},
		"CR at end":    {"a\r", "a\r\r\n"},
		"long lines":   {strings.Repeat("x", 998) + "\r\n" + strings.Repeat("y", 200_000) + "\r\n", ""},
		"no final":     {"a\r\nb", "a\r\nb\r\n"},
		"dot at end":   {"a\r\n.", "a\r\n.\r\n"},
		"nothing":      {"", "\r\n"},
		"final LF":     {"a\n", "a\n\r\n"},
		"LF and dot":   {"a\n.\nb\r\n", "a\n..\nb\r\n"}, // some stores read a bare LF as a line end
		"LF, dot, end": {"a\n.\r\nMAIL FROM:<x@y>\r\n", "a\n..\r\nMAIL FROM:<x@y>\r\n"},
		"many lines":   {strings.Repeat(".x\r\n", 50_000), ""},
	} {
		want := content[1]
		if want == "" {
			want = content[0]
		}
		for _, piece := range []int{1, 2, 3, 7, 1 << 20} {
			got, err := s.Deliver(context.Background(), "a@b", []string{"bob@x"}, 0, true, func(w io.Writer) error {
				for rest := content[0]; len(rest) > 0; {
					n := min(piece, len(rest))
					if m, err := io.WriteString(w, rest[:n]); err != nil || m != n {
						return fmt.Errorf("%d of %d written: %w", m, n, err)
					}
					rest = rest[n:]
				}
				return nil
			})
			if err != nil || !got[0].OK() {
				t.Fatal(name, got, err)
			}
			if m := r.next(t); m.content.String() != want {
				t.Errorf("%s in pieces of %d: %.100q, want %.100q", name, piece, m.content.String(), want)
			}
		}
	}
}

func TestUTF8Addresses(t *testing.T) {
	for extensions, want := range map[string]string{
		"250-fake\r\n250-SMTPUTF8\r\n250-SIZE 1000\r\n250 8BITMIME": "MAIL FROM:<perché@x> BODY=8BITMIME SIZE=3 SMTPUTF8",
		"250-fake\r\n250 8BITMIME":                                  "MAIL FROM:<perché@x> BODY=8BITMIME",
	} {
		f := startFake(t, always("LHLO", extensions))
		got, err := f.store().Deliver(context.Background(), "perché@x", []string{"bob@x"}, 3, true, write("x\r\n"))
		if err != nil || !got[0].OK() || f.said()[1] != want {
			t.Errorf("%v %v: said %q", got, err, f.said())
		}
	}
	// An address cannot become a second command.
	f := startFake(t, always("", ""))
	if _, err := f.store().Deliver(context.Background(), "a@b", []string{"b@x>\r\nRCPT TO:<c@x"}, 3, true, write("x")); err == nil {
		t.Error("no error")
	}
}
