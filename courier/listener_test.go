package courier_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/courier"
	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
)

// A received is a message that the listener has taken.
type received struct {
	from string
	mail smtp.MailOptions
	to   []string
	rcpt []smtp.RcptOptions
	text string
}

// A listener plays the MTA's re-injection listener. Its hooks may refuse; they
// run on the goroutines of the server and must be set before it is started.
type listener struct {
	t      testing.TB
	server *smtp.Server
	addr   string

	onMail   func(from string) error
	onRcpt   func(to string) error
	onData   func(s *session, r io.Reader) error // before anything is read
	afterAll func(s *session) error              // everything is read, the reply is next

	mu          sync.Mutex
	taken       []received
	connections int
	open        int // of them, now
	got         chan received
}

// listen starts l on addr; empty means a free port.
func listen(t testing.TB, l *listener, addr string) *listener {
	t.Helper()
	l.t, l.got = t, make(chan received, 1000)
	if l.server == nil {
		l.server = smtp.NewServer(nil)
		l.server.EnableDSN, l.server.EnableSMTPUTF8 = true, true
	}
	l.server.Backend = smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.connections++
		l.open++
		return &session{listener: l, conn: c}, nil
	})
	l.server.Domain, l.server.MaxLineLength = "mta.test", 0
	l.server.ErrorLog = discard{}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	n, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	l.addr = n.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.server.Serve(n); err != nil {
			t.Errorf("listener: %v", err)
		}
	}()
	t.Cleanup(func() {
		_ = l.server.Close() // a test may have closed it
		<-done
	})
	return l
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// next returns the next message that is taken.
func (l *listener) next() received {
	l.t.Helper()
	select {
	case r := <-l.got:
		return r
	case <-time.After(patience):
		l.t.Fatal("no message comes")
		return received{}
	}
}

func (l *listener) count() (messages, connections int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.taken), l.connections
}

// deserted reports whether no connection is open.
func (l *listener) deserted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open == 0
}

type session struct {
	listener *listener
	conn     *smtp.Conn
	received
}

func (s *session) Reset() { s.received = received{} }

func (s *session) Logout() error {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	s.listener.open--
	return nil
}

func (s *session) Mail(from string, o *smtp.MailOptions) error {
	s.from, s.mail = from, *o
	if s.listener.onMail != nil {
		return s.listener.onMail(from)
	}
	return nil
}

func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	if s.listener.onRcpt != nil {
		if err := s.listener.onRcpt(to); err != nil {
			return err
		}
	}
	s.to, s.rcpt = append(s.to, to), append(s.rcpt, *o)
	return nil
}

func (s *session) Data(r io.Reader) error {
	if s.listener.onData != nil {
		if err := s.listener.onData(s, r); err != nil {
			return err
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.text = string(b)
	if s.listener.afterAll != nil {
		if err := s.listener.afterAll(s); err != nil {
			return err
		}
	}
	s.listener.mu.Lock()
	s.listener.taken = append(s.listener.taken, s.received)
	s.listener.mu.Unlock()
	select {
	case s.listener.got <- s.received:
	default: // nobody counts
	}
	return nil
}

// times returns a hook that returns err the first n times and then nil.
func times(n int, err error) func(string) error {
	var mu sync.Mutex
	return func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 {
			return nil
		}
		n--
		return err
	}
}

func reply(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: text}
}

// patience is how long a test waits for what must happen: only a failure takes
// that long.
const patience = 2 * time.Minute

var start = time.Now()

// clock runs like the real one, but after the events of storetest.
func clock() time.Time { return storetest.At.Add(time.Hour + time.Since(start)) }

// A fixture is a store, a provider that fills it, and a courier that empties it.
type fixture struct {
	*storetest.Provider
	t     *testing.T
	dir   string
	store *logstore.SQLite
	log   *logBuffer
	o     courier.Options

	mu       sync.Mutex
	outcomes []string
	stop     func()
}

func newFixture(t *testing.T, addr string) *fixture {
	t.Helper()
	f := &fixture{t: t, Provider: storetest.NewProvider(t), dir: t.TempDir(), log: &logBuffer{}}
	f.open()
	t.Cleanup(func() {
		f.halt()
		if err := f.store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	f.o = courier.Options{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
		Hostname: "pecd.test", Connections: 2, Now: clock, Log: slog.New(slog.NewTextHandler(f.log, nil)),
		Retry: func(int) time.Duration { return 5 * time.Millisecond },
		Observe: func(outcome string, _ time.Duration) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.outcomes = append(f.outcomes, outcome)
		},
	}
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.store, err = logstore.Open(context.Background(), logstore.Options{Dir: f.dir, Rand: f}); err != nil {
		f.t.Fatal(err)
	}
}

// run starts the courier for store, which may be a wrapped one; halt ends it.
func (f *fixture) run(store logstore.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- courier.New(store, f.o).Run(ctx) }()
	f.stop = func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				f.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			f.t.Error("Run does not end")
		}
	}
}

func (f *fixture) halt() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// access puts the envelope of a message of size octets and its acceptance into
// the outbox and returns their texts by sender.
func (f *fixture) access(size int, to ...pec.Address) (envelope, acceptance string) {
	f.t.Helper()
	ev := f.NewEvent(f.t, to...)
	return f.accessOf(ev, storetest.Original(ev, size))
}

func (f *fixture) accessOf(ev pec.Event, original string) (envelope, acceptance string) {
	f.t.Helper()
	body, err := f.store.NewBody()
	if err == nil {
		_, err = io.WriteString(body, original)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	e, a := f.Transport(f.t, ev, body), f.Acceptance(f.t, ev)
	tx := storetest.Access(e, a)
	envelope, acceptance = storetest.Text(f.t, e.Content()), storetest.Text(f.t, a.Content())
	if _, err = f.store.Commit(context.Background(), tx); err == nil {
		err = body.Close()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return envelope, acceptance
}

// empty waits until nothing is left in the outbox.
func (f *fixture) empty() {
	f.t.Helper()
	f.until("an empty outbox", func() bool { return f.stats().Outbox == 0 })
}

func (f *fixture) until(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited in vain for %s; log:\n%s", what, f.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (f *fixture) stats() logstore.Stats {
	f.t.Helper()
	s, err := f.store.Stats(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *fixture) observed(outcome string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.outcomes, outcome)
}

// A logBuffer holds what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) has(words ...string) bool {
	for _, line := range strings.Split(l.String(), "\n") {
		if all := !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }); all {
			return true
		}
	}
	return false
}
