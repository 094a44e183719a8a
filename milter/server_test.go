package milter_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"pecd/milter"
	"pecd/milter/miltertest"
)

// head is the packet that opens a good session.
func head() string {
	return packet("O" + string(miltertest.Offer(6, miltertest.OfferedActions, miltertest.OfferedProtocol)))
}

func packet(s string) string {
	n := len(s)
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + s
}

// hostile are inputs that end their own connection, and nothing else.
func hostile() map[string]string {
	begun := head() + packet("M<a@b>\x00") + packet("LSubject\x00 x\x00")
	return map[string]string{
		"HTTP":               "GET / HTTP/1.1\r\nHost: pec\r\n\r\n",
		"zero length":        head() + "\x00\x00\x00\x00",
		"zero length first":  "\x00\x00\x00\x00",
		"oversized":          head() + "\x00\x20\x00\x00L",
		"oversized body":     begun + "\x7f\xff\xff\xffB",
		"large body":         begun + packet("N") + packet("B"+strings.Repeat("x", 64<<10+1)),
		"large command":      head() + packet("M<"+strings.Repeat("x", 8<<10)),
		"large value":        head() + packet("DMi\x00"+strings.Repeat("x", 4<<10+1)+"\x00"),
		"endless field":      head() + "\x00\x10\x00\x00L" + strings.Repeat("x", 1<<20-1),
		"no negotiation":     packet("M<a@b>\x00") + packet("E"),
		"body first":         packet("Bxx"),
		"unknown command":    head() + packet("Zxx"),
		"unasked command":    head() + packet("UHELP\x00"),
		"recipient outside":  head() + packet("R<a@b>\x00"),
		"field outside":      head() + packet("LA\x00b\x00"),
		"end outside":        head() + packet("E"),
		"second end":         begun + packet("N") + packet("E") + packet("E"),
		"end with content":   begun + packet("N") + packet("Exx"),
		"short connect":      head() + packet("C"),
		"connect no family":  head() + packet("Chost\x00"),
		"connect no port":    head() + packet("Chost\x004\x01"),
		"large macros":       head() + packet("DM"+strings.Repeat("x", 64<<10)),
		"macros of nothing":  head() + packet("D"),
		"truncated":          begun + "\x00\x00\x00\x09Bxx",
		"truncated header":   begun + "\x00\x00\x00\x09Lxx",
		"truncated length":   begun + "\x00\x00",
		"field in the body":  begun + packet("N") + packet("LA\x00b\x00") + packet("Q"),
		"short negotiation":  packet("Oxx"),
		"negotiation refuse": packet("O" + strings.Repeat("\x00", 12)),
	}
}

func TestHostile(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: r})
	good := s.dial(t)
	a, err := good.Mail(plain.From, miltertest.Macros{"{auth_authen}": "alice"})
	does(t, a, err)
	for name, input := range hostile() {
		t.Run(name, func(t *testing.T) {
			c := s.raw(t)
			if _, err := io.WriteString(c, input); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "truncated") {
				c.Close()
			} else {
				mustClose(t, c)
			}
		})
	}
	a, err = good.Rcpt(plain.To[0], nil)
	does(t, a, err)
	a, err = good.Content(plain.Bytes, nil)
	does(t, a, err)
	if a, err := good.End(nil); err != nil || a.Code != 'd' {
		t.Fatalf("the good session: %v, %v", a, err)
	}
	if err := good.Quit(); err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	close(r.ended)
	for m := range r.ended {
		if m.ends+m.aborts != 1 {
			t.Errorf("%q ended %d times, aborted %d times", m.content.String(), m.ends, m.aborts)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: r, MaxConnections: 2})
	first := s.dial(t)
	s.dial(t)
	if _, err := miltertest.Dial(s.addr); err == nil {
		t.Fatal("a third connection was served")
	}
	if s.log.count(milter.EventBusy) != 1 {
		t.Error("not observed")
	}
	mustSend(t, first, plain, 'd')
	if err := first.Quit(); err != nil {
		t.Fatal(err)
	}
	// The place is free when the server has seen the end.
	deadline := time.Now().Add(patience)
	for {
		c, err := miltertest.Dial(s.addr)
		if err == nil {
			mustSend(t, c, plain, 'd')
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// Shutdown ends idle connections, lets messages end, and then their connections.
func TestShutdown(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: checker{r}, Linger: 100 * time.Millisecond}) // answers to recipients, so we know how far it is
	idle, used := s.dial(t), s.dial(t)
	mustSend(t, idle, plain, 'd')
	r.next(t)
	a, err := used.Mail(plain.From, nil)
	does(t, a, err)
	a, err = used.Rcpt(plain.To[0], nil)
	does(t, a, err)

	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	mustClose(t, idle)
	if _, err := miltertest.Dial(s.addr); err == nil {
		t.Error("a new connection was served")
	}
	a, err = used.Content(plain.Bytes, nil)
	does(t, a, err)
	select {
	case err := <-done:
		t.Fatalf("shutdown did not wait: %v", err)
	default:
	}
	if a, err := used.End(nil); err != nil || a.Code != 'd' {
		t.Fatal(a, err)
	}
	if m := r.next(t); m.ends != 1 || m.content.String() != string(plain.Bytes) {
		t.Errorf("message %q", m.content.String())
	}
	mustClose(t, used)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Serve(listen(t)); !errors.Is(err, milter.ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// A connection whose client goes on is served while others drain.
func TestShutdownLingers(t *testing.T) {
	r := newRecorder()
	s := start(t, milter.Options{Backend: r, Linger: patience})
	c := s.dial(t)
	mustSend(t, c, plain, 'd')
	r.next(t)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	for { // until the shutdown has begun
		other, err := miltertest.Dial(s.addr)
		if err != nil {
			break
		}
		other.Close()
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A shutdown that can wait no longer cancels what the backend does.
func TestShutdownNow(t *testing.T) {
	r := newRecorder()
	inEnd := make(chan struct{})
	r.end = func(ctx context.Context, _ *record) milter.Verdict {
		close(inEnd)
		<-ctx.Done()
		return milter.Verdict{}
	}
	s := start(t, milter.Options{Backend: r})
	open, stuck := s.dial(t), s.dial(t)
	a, err := open.Mail(plain.From, nil)
	does(t, a, err)
	a, err = open.Field("Subject", " x")
	does(t, a, err)
	sent := make(chan struct{})
	go func() { // ends when the connection is closed
		defer close(sent)
		if a, err := stuck.Send(plain); err == nil {
			t.Errorf("answer %q", a.Code)
		}
	}()
	<-inEnd
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	<-sent
	mustClose(t, open)
}
