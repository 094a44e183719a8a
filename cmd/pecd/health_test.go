package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/pec/message"
)

func TestHealth(t *testing.T) {
	store, server, asked := error(nil), error(nil), 0
	h := &health{
		&checkup{fresh: time.Hour, checks: []healthCheck{{"store", func(context.Context) error { asked++; return store }}}},
		&checkup{fresh: time.Hour, checks: []healthCheck{{"mta", func(context.Context) error { return server }}}}}
	get := func(f http.HandlerFunc) (int, string) {
		w := httptest.NewRecorder()
		f(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code, w.Body.String()
	}
	again := func() { h.accepting.last, h.around.last = nil, nil }
	for range 3 {
		if code, text := get(h.ready); code != 200 || !strings.Contains(text, `"ready":true`) {
			t.Errorf("%d %s", code, text)
		}
	}
	if asked != 1 {
		t.Errorf("the store was asked %d times", asked)
	}
	again()
	server = errors.New("refused")
	if code, text := get(h.ready); code != 503 || !strings.Contains(text, `{"name":"mta","ok":false,"error":"refused"}`) {
		t.Errorf("server away: %d %s", code, text)
	}
	if code, text := get(h.alive); code != 200 {
		t.Errorf("server away: %d %s", code, text)
	}
	again()
	store = errors.New("disk full")
	if code, text := get(h.alive); code != 503 {
		t.Errorf("disk full: %d %s", code, text)
	}
}

// TestGreeting: a server that takes connections and says nothing, or the wrong thing,
// does not work.
func TestGreeting(t *testing.T) {
	for says, good := range map[string]bool{"220 mail ESMTP\r\n": true, "421 too busy\r\n": false, "": false, "220 without end": false} {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(says))      // whoever asks may be gone
			_, _ = c.Read(make([]byte, 1024)) // until it is
			c.Close()
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		if err := greeting(ctx, "unix:"+l.Addr().String(), "220"); (err == nil) != good {
			t.Errorf("%q: %v", says, err)
		}
		cancel()
		l.Close()
		<-done
	}
}

func TestQueueID(t *testing.T) {
	for field, want := range map[string]string{
		"from a (b [192.0.2.1])\r\n\tby mail (Postfix) with ESMTPS id 4Q1abcXYZ\r\n\tfor <bob@beta.example>; Sun, 22 Nov 2026 10:45:37 +0100": "4Q1abcXYZ",
		"from a by mail (8.18.1/8.18.1) with ESMTPS id 8BMAjbXY012345 for x; Sun, 22 Nov 2026 10:45:37 +0100":                                 "8BMAjbXY012345",
		"from a by mail with SMTP; id 4Q1":        "",
		"by mail id":                              "",
		"by mail id \"><script>":                  "",
		"by mail id " + strings.Repeat("A", 65):   "",
		"by mail (Postfix, from userid 0) id 4Q2": "4Q2",
	} {
		h := message.Header{Fields: []message.Field{}}
		m, err := message.Read(strings.NewReader("Received: " + field + "\r\n\r\n"))
		if err == nil {
			h = m.Header
		}
		if got := queueID(h); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", field, got, err, want)
		}
	}
}

// TestLogFormat: each line is an object where that is wanted.
func TestLogFormat(t *testing.T) {
	stderr := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	log, _ := newLogger("info", "json")
	os.Stderr = stderr
	log.Info("message accepted", "qid", "4Q1", "id", "x@alfa.example")
	w.Close()
	line := make([]byte, 4096)
	n, err := r.Read(line)
	if text := string(line[:n]); err != nil || !strings.HasPrefix(text, "{") || !strings.Contains(text, `"qid":"4Q1","id":"x@alfa.example"`) {
		t.Errorf("%s, %v", text, err)
	}
}
