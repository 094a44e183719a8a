package milter_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pecd/milter"
	"pecd/milter/miltertest"
	"pecd/milter/socket"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// A recorder is a backend that keeps what it was given. Its hooks may be nil.
type recorder struct {
	begin func(milter.Envelope) error
	write func([]byte) error
	end   func(context.Context, *record) milter.Verdict
	abort func()
	ended chan *record // gets each message when it ended or was aborted
}

type record struct {
	r          *recorder
	atBegin    milter.Envelope
	atEnd      milter.Envelope
	content    bytes.Buffer
	ends       int
	aborts     int
	afterwards int // writes after the end
}

func newRecorder() *recorder { return &recorder{ended: make(chan *record, 100)} }

func (r *recorder) Begin(_ context.Context, env milter.Envelope) (milter.Message, error) {
	if r.begin != nil {
		if err := r.begin(env); err != nil {
			return nil, err
		}
	}
	return &record{r: r, atBegin: env}, nil
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

func (m *record) End(ctx context.Context, env milter.Envelope) milter.Verdict {
	m.ends++
	m.atEnd = env
	v := milter.Verdict{Action: milter.Discard}
	if m.r.end != nil {
		v = m.r.end(ctx, m)
	}
	m.r.ended <- m
	return v
}

func (m *record) Abort() {
	m.aborts++
	m.r.ended <- m
	if m.r.abort != nil {
		m.r.abort()
	}
}

// next returns the next message that ended.
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

// none fails if a message ended that nobody asked for.
func (r *recorder) none(t testing.TB) {
	t.Helper()
	select {
	case m := <-r.ended:
		t.Fatalf("a message ended: %d times, aborted %d times, from %q", m.ends, m.aborts, m.atBegin.Sender)
	default:
	}
}

// A log collects what the server logs and observes.
type log struct {
	mu     sync.Mutex
	text   bytes.Buffer
	events map[string]int
}

func newLog() *log { return &log{events: map[string]int{}} }

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

func (l *log) count(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[event]
}

// A server under test.
type server struct {
	*milter.Server
	addr   string
	log    *log
	served chan error
}

// listen opens a socket that has a short path.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := socket.Listen(context.Background(), "unix:"+filepath.Join(t.TempDir(), "m"), 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t testing.TB, o milter.Options) *server {
	t.Helper()
	return serve(t, listen(t), o)
}

// serve serves l until the test ends.
func serve(t testing.TB, l net.Listener, o milter.Options) *server {
	t.Helper()
	s := &server{log: newLog(), served: make(chan error, 1)}
	o.Log, o.Observe = slog.New(slog.NewTextHandler(s.log, nil)), s.log.observe
	s.Server = milter.NewServer(o)
	s.addr = "unix:" + l.Addr().String()
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
	if err := <-s.served; !errors.Is(err, milter.ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
	s.served <- milter.ErrServerClosed // for a second stop
}

func (s *server) dial(t testing.TB) *miltertest.Client {
	t.Helper()
	c, err := miltertest.Dial(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw connects without a negotiation.
func (s *server) raw(t testing.TB) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := socket.Dial(ctx, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// mustClose reads until the server closes the connection.
func mustClose(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the connection was not closed: %v", err)
	} else if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Fatal("the connection was not closed")
	}
}

func mustSend(t testing.TB, c *miltertest.Client, m miltertest.Mail, want byte) miltertest.Answer {
	t.Helper()
	a, err := c.Send(m)
	if err != nil {
		t.Fatal(err)
	}
	if a.Code != want {
		t.Fatalf("answer %q %q, want %q", a.Code, a.Reply, want)
	}
	return a
}

// does fails if a step of a session does.
func does(t testing.TB, a miltertest.Answer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if a.Code != 'c' {
		t.Fatalf("answer %q %q", a.Code, a.Reply)
	}
}

var plain = miltertest.Mail{
	From: "alice@alfa.example", To: []string{"bob@beta.example"}, Auth: "alice", QueueID: "4Q1",
	Bytes: []byte("From: alice\r\nSubject: one\r\n\r\nBody.\r\n"),
}
