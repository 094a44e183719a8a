package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pecd/packaging/demo/stage"
)

// patience is how long the story waits for all messages to arrive.
const patience = 90 * time.Second

// story brings everything up in a directory of its own, so that a demo that is
// up is not disturbed, tells the story, and cleans up. After a failure the files
// stay for whoever wants to know why; the processes never do.
func story(ctx context.Context, t *terminal, o stage.Options) error {
	own := filepath.Join(o.Dir, "story")
	o.Dir = own
	t.printf("%s\n", t.paint("1", "pecd: a certified message goes its whole way"))
	t.printf("Two providers of certified mail and an ordinary mail server on 127.0.0.1, each with a\n")
	t.printf("%s and a Dovecot of its own. The keys are made now and thrown away at the end.\n", mtaName(o))
	t.heading("The servers")
	s, err := bringUp(ctx, t, o)
	if err == nil {
		err = tell(ctx, t, s)
	}
	// Even if ctx is over.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(err, cleanUp(end, t, own, s, err))
}

// tell is the story proper.
func tell(ctx context.Context, t *terminal, s *stage.Stage) error {
	sent := original(time.Now())
	start, err := send(ctx, t, s, sent)
	if err != nil {
		return err
	}
	t.heading("What follows")
	got, err := follow(ctx, t, s, start)
	if err != nil {
		return err
	}
	showText(t, got)
	t.heading("The checks")
	failed := check(ctx, t, s, sent, got)
	t.heading("The mailboxes at the end")
	showMailboxes(t, s, got)
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	t.printf("\n%s\n", t.good(fmt.Sprintf("All is as it should be: %d messages, each signed and verified.", len(got))))
	return nil
}

// send submits the message as alice and shows the answer.
func send(ctx context.Context, t *terminal, s *stage.Stage, sent []byte) (time.Time, error) {
	t.heading("%s sends a message", sender)
	t.printf("  To       %s, %s\n  Cc       %s, %s\n", bob, bruna, anna, mario)
	t.printf("  Subject  %s\n", subject)
	t.printf("  Content  8-bit text and %s, %d octets in all\n", fileName, len(sent))
	start := time.Now()
	t.begin("submission")
	reply, err := s.Submit(ctx, sender, sender, recipients, sent)
	if err != nil {
		return start, fmt.Errorf("submission: %w", err)
	}
	t.drop()
	t.printf("  %6.2f s  her server answers: 250 %s\n", time.Since(start).Seconds(), reply)
	return start, nil
}

// An arrival is a message in a mailbox.
type arrival struct {
	mailbox string
	after   time.Duration // since the submission began
	*system
}

// key says what an arrival is, regardless of when it came.
func (a arrival) key() string { return a.mailbox + " " + a.kind + " " + a.data.Delivered }

// expected are the messages that must arrive, once each, and no others.
// Take-charge receipts are apart: their number is the provider's choice.
func expected() map[string]bool {
	want := map[string]bool{sender + " accettazione ": true}
	for _, r := range recipients {
		want[r+" posta-certificata "] = true
	}
	for _, r := range certified {
		want[sender+" avvenuta-consegna "+r] = true
	}
	return want
}

// follow reads all mailboxes until everything that is expected has come and no
// server has anything left to send, and shows each message as it arrives.
func follow(ctx context.Context, t *terminal, s *stage.Stage, start time.Time) ([]arrival, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	arrivals, stop := watch(ctx, s, start)
	defer stop()
	t.printf("  %s\n", t.paint("2", fmt.Sprintf("%8s  %-20s %-28s %s", "after", "message", "in the mailbox of", "verified by OpenSSL")))
	t.begin("waiting for messages")
	defer t.drop()
	var all []arrival
	settled := time.NewTicker(100 * time.Millisecond)
	defer settled.Stop()
	for {
		select {
		case a, ok := <-arrivals:
			if !ok {
				return all, fmt.Errorf("not everything arrived: missing %s%s", strings.Join(missing(all), "; "), where(s))
			}
			if a.system == nil {
				return all, fmt.Errorf("a message for %s cannot be read", a.mailbox)
			}
			all = append(all, a)
			t.printf("  %6.2f s  %-20s %-28s %s\n", a.after.Seconds(), a.name(), a.mailbox, verified(ctx, t, s, a))
		case <-settled.C:
			if len(missing(all)) == 0 && quiet(ctx, s) {
				return all, nil
			}
		}
	}
}

// watch follows every mailbox. The channel closes when ctx is over or stop is
// called; stop waits for the watchers.
func watch(ctx context.Context, s *stage.Stage, start time.Time) (<-chan arrival, func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan arrival)
	var watchers sync.WaitGroup
	for _, box := range mailboxes(s) {
		watchers.Add(1)
		go func() {
			defer watchers.Done()
			seen := 0
			// The error is that of ctx, or an IMAP error that shows as a message that does not come.
			_, _ = s.WaitMail(ctx, box, func(mails [][]byte) bool {
				for ; seen < len(mails); seen++ {
					m, err := readSystem(mails[seen])
					if err != nil {
						m = nil
					}
					select {
					case out <- arrival{box, time.Since(start), m}:
					case <-ctx.Done():
						return true
					}
				}
				return false
			})
		}()
	}
	done := make(chan struct{})
	go func() { watchers.Wait(); close(out); close(done) }()
	return out, func() { cancel(); <-done }
}

// mailboxes are all mailboxes that mail of the story could reach.
func mailboxes(s *stage.Stage) []string {
	var list []string
	for _, p := range s.Providers() {
		for _, u := range append(append([]stage.User{}, p.Users...), p.Service...) {
			list = append(list, u.Address)
		}
	}
	return append(list, mario)
}

// missing lists what has not come yet.
func missing(all []arrival) []string {
	want := expected()
	taken := map[string]bool{}
	for _, a := range all {
		delete(want, a.key())
		for _, r := range a.data.Taken {
			taken[r] = true
		}
	}
	var list []string
	for k := range want {
		list = append(list, strings.TrimSpace(k))
	}
	for _, r := range certified {
		if !taken[r] {
			list = append(list, "take-charge receipt for "+r)
		}
	}
	return list
}

// quiet reports whether all queues are empty.
func quiet(ctx context.Context, s *stage.Stage) bool {
	for _, m := range []*stage.MailServer{&s.Alfa.MailServer, &s.Beta.MailServer, &s.Ordinary.MailServer} {
		if q, err := m.Queue(ctx); err != nil || len(q) > 0 {
			return false
		}
	}
	return true
}

func where(s *stage.Stage) string {
	return fmt.Sprintf("\n\nThe logs:\n  %s\n  %s\n  %s\n  %s", s.Alfa.Maillog, s.Alfa.Pecd.Log, s.Beta.Maillog, s.Beta.Pecd.Log)
}

// verified is what OpenSSL says of a message, for people.
func verified(ctx context.Context, t *terminal, s *stage.Stage, a arrival) string {
	signer, err := s.Verify(ctx, a.raw)
	if err != nil {
		return t.bad("NO")
	}
	return t.good("yes") + ", signer " + signer
}

// cleanUp stops everything. The files stay after a failure.
func cleanUp(ctx context.Context, t *terminal, dir string, s *stage.Stage, failure error) error {
	t.begin("stopping the servers")
	defer t.drop()
	if failure != nil && !errors.Is(failure, context.Canceled) {
		if s == nil {
			return nil // it did not come up, and bringUp has stopped what there was
		}
		return s.Stop(ctx)
	}
	if err := errors.Join(stage.Clean(ctx, dir), removeIfEmpty(dir)); err != nil || failure != nil {
		return err
	}
	t.drop()
	t.printf("The servers are stopped and removed. \"make demo-up\" brings them up to stay.\n")
	return nil
}
