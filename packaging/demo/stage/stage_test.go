package stage

import (
	"bytes"
	"context"
	"errors"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// TestServers runs the real servers as plain mail servers: what is proven here
// need not be doubted when pecd stands between them.
func TestServers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := New(ctx, Options{Dir: t.TempDir(), WithoutPecd: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		if left := leftovers(s.Root); len(left) > 0 {
			t.Errorf("still running: %v", left)
		}
	})
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if !s.Alive() {
		t.Error("not alive after the start")
	}
	t.Run("mail arrives as it was sent", func(t *testing.T) { arrives(ctx, t, s) })
	t.Run("what must not pass", func(t *testing.T) { refused(ctx, t, s) })
	t.Run("a failure comes back", func(t *testing.T) { bounces(ctx, t, s) })
	t.Run("stopped and started", func(t *testing.T) { restarted(ctx, t, s) })
}

const raw = "From: alice@alfa.example\r\nTo:bob@beta.example\r\nX-Odd:\ta \r\n  b\r\n\r\nperch\xc3\xa9\r\n.dot\r\n..\r\n\r\n"

func arrives(ctx context.Context, t *testing.T, s *Stage) {
	rcpts := []string{"bob@beta.example", "bruna@beta.example", "anna@alfa.example", "mario@ordinary.example"}
	if _, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", rcpts, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	for _, r := range rcpts {
		mails, err := s.WaitMail(ctx, r, Count(1))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(mails[0], []byte(raw)) {
			t.Errorf("%s has\n%s", r, mails[0])
		}
		if strings.HasSuffix(r, "beta.example") && !bytes.Contains(mails[0], []byte("with ESMTPS")) {
			t.Errorf("between providers in clear:\n%s", mails[0])
		}
	}
	if err := s.Empty(ctx, "bob@beta.example"); err != nil {
		t.Error(err)
	}
	if mails, err := s.Mailbox(ctx, "bob@beta.example"); err != nil || len(mails) != 0 {
		t.Errorf("emptied: %d messages, %v", len(mails), err)
	}
}

func refused(ctx context.Context, t *testing.T, s *Stage) {
	for what, send := range map[string]func() (string, error){
		"somebody else's address": func() (string, error) {
			return s.Submit(ctx, "alice@alfa.example", "anna@alfa.example", []string{"bob@beta.example"}, []byte(raw))
		},
		"relaying through port 25": func() (string, error) {
			return s.Deliver(ctx, s.Beta.SMTP, "x@nowhere.example", []string{"mario@ordinary.example"}, []byte(raw))
		},
		"submission without AUTH": func() (string, error) {
			return s.Deliver(ctx, s.Alfa.Submission, "alice@alfa.example", []string{"bob@beta.example"}, []byte(raw))
		},
	} {
		var refusal *textproto.Error
		if reply, err := send(); !errors.As(err, &refusal) || refusal.Code < 500 {
			t.Errorf("%s: %q, %v", what, reply, err)
		}
	}
	if _, err := s.Login(ctx, "nobody@alfa.example"); err == nil {
		t.Error("a user that is not there logged in")
	}
}

func bounces(ctx context.Context, t *testing.T, s *Stage) {
	for _, r := range []string{"nobody@beta.example", "x@nowhere.example"} {
		if _, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", []string{r}, []byte(raw)); err != nil {
			t.Fatal(err)
		}
		told := func(mails [][]byte) bool {
			for _, m := range mails {
				if bytes.Contains(m, []byte("Final-Recipient: rfc822; "+r)) {
					return true
				}
			}
			return false
		}
		if _, err := s.WaitMail(ctx, "alice@alfa.example", told); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
}

func restarted(ctx context.Context, t *testing.T, s *Stage) {
	beta := &s.Beta.MailServer
	if err := s.StopDovecot(ctx, beta); err != nil {
		t.Fatal(err)
	}
	if s.Alive() {
		t.Error("alive without a Dovecot")
	}
	if _, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, []byte(raw)); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, func() bool { q, err := beta.Queue(ctx); return err == nil && len(q) == 1 }); err != nil {
		t.Fatalf("Beta's queue does not hold the message: %v", err)
	}
	if err := errors.Join(s.Stop(ctx), s.Stop(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Start(ctx), s.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := beta.Flush(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.WaitMail(ctx, "bob@beta.example", Count(1)); err != nil {
		t.Error(err)
	}
}
