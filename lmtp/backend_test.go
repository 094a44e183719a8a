package lmtp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/lmtp"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// A recorder is a backend that keeps what it was given. Its hooks may be nil.
type recorder struct {
	begin func(lmtp.Envelope) error
	write func([]byte) error
	end   func(context.Context, *record) []lmtp.Status
	abort func()
	ended chan *record // gets each message when it ended or was aborted
}

type record struct {
	r          *recorder
	env        lmtp.Envelope
	content    bytes.Buffer
	ends       int
	aborts     int
	afterwards int // writes after the end
}

func newRecorder() *recorder { return &recorder{ended: make(chan *record, 100)} }

func (r *recorder) Begin(_ context.Context, env lmtp.Envelope) (lmtp.Message, error) {
	if r.begin != nil {
		if err := r.begin(env); err != nil {
			return nil, err
		}
	}
	return &record{r: r, env: env}, nil
}

func (m *record) Write(p []byte) (int, error) {
	if m.ends+m.aborts > 0 {
		m.afterwards++
	}
	if m.r.write != nil {
		if err := m.r.write(p); err != nil {
			return 0, err
		}
	}
	return m.content.Write(p)
}

func (m *record) End(ctx context.Context, env lmtp.Envelope) []lmtp.Status {
	m.ends++
	var s []lmtp.Status
	if m.r.end != nil {
		s = m.r.end(ctx, m)
	} else {
		for range env.Recipients {
			s = append(s, lmtp.Status{Code: 250, Enhanced: [3]int{2, 0, 0}, Text: "Taken"})
		}
	}
	m.r.ended <- m
	return s
}

func (m *record) Abort() {
	m.aborts++
	m.r.ended <- m
	if m.r.abort != nil {
		m.r.abort()
	}
}

func (r *recorder) next(t testing.TB) *record {
	t.Helper()
	select {
	case m := <-r.ended:
		return m
	case <-time.After(patience):
		t.Fatal("no message ended")
		return nil
	}
}

func (r *recorder) none(t testing.TB) {
	t.Helper()
	select {
	case m := <-r.ended:
		t.Fatalf("a message ended: %d times, aborted %d times, %+v", m.ends, m.aborts, m.env)
	default:
	}
}

// A log collects what the server logs and observes.
type log struct {
	mu     sync.Mutex
	text   bytes.Buffer
	events map[string]int
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) observe(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[event]++
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) count(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[event]
}

// A server under test.
type server struct {
	*lmtp.Server
	addr   string
	log    *log
	served chan error
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t testing.TB, o lmtp.Options) *server {
	t.Helper()
	return serve(t, listen(t), o)
}

// serve serves l until the test ends.
func serve(t testing.TB, l net.Listener, o lmtp.Options) *server {
	t.Helper()
	s := &server{addr: l.Addr().String(), log: &log{events: map[string]int{}}, served: make(chan error, 1)}
	o.Log, o.Observe = slog.New(slog.NewTextHandler(s.log, nil)), s.log.observe
	s.Server = lmtp.NewServer(o)
	go func() { s.served <- s.Serve(l) }()
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) stop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-s.served; !errors.Is(err, lmtp.ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
	s.served <- lmtp.ErrServerClosed // for a second stop
}

// A client speaks LMTP without changing anything.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (s *server) raw(t testing.TB) *client {
	t.Helper()
	return dial(t, s.addr)
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{c, t, bufio.NewReader(c)}
}

func (s *server) dial(t testing.TB) *client {
	t.Helper()
	c := s.raw(t)
	c.expect("220")
	c.cmd("LHLO mx", "250")
	return c
}

func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads a reply with all its lines.
func (c *client) reply() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("after %q: %v", all.String(), err)
		}
		all.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(all.String())
		}
	}
}

func (c *client) expect(want string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("reply %q, want %q", got, want)
	}
	return got
}

func (c *client) cmd(line, want string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.expect(want)
}

// envelope plays MAIL, RCPT and DATA.
func (c *client) envelope(to ...string) {
	c.t.Helper()
	c.cmd("MAIL FROM:<alice@alfa.example>", "250")
	for _, to := range to {
		c.cmd("RCPT TO:<"+to+">", "250")
	}
	c.cmd("DATA", "354")
}

// mustClose reads until the server closes the connection.
func (c *client) mustClose() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection was not closed; it said %q", b)
	}
	return string(b)
}
