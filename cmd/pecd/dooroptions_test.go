package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/milter"
	"pecd/milter/miltertest"
	"pecd/milter/socket"
	"pecd/points/pointstest"
)

// showTo has an MTA show a message to a door, and returns what the door says of it.
func showTo(t *testing.T, o milter.Options, m miltertest.Mail) miltertest.Answer {
	t.Helper()
	l, err := socket.Listen(t.Context(), "unix:"+filepath.Join(t.TempDir(), "m"), 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	s := milter.NewServer(o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	mta, err := miltertest.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	defer mta.Close()
	a, err := mta.Send(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// longTo gives a message a To field that the MTA shows to no milter as it is.
func longTo(t *testing.T, raw []byte) []byte {
	t.Helper()
	field := "To: bob@beta.example" + strings.Repeat(",\r\n someone.with.a.name@gamma.example", 2000) + "\r\n"
	at := bytes.Index(raw, []byte("To: "))
	end := bytes.Index(raw[at:], []byte("\r\n"))
	if at < 0 || end < 0 || len(field) <= 60_000 {
		t.Fatal("no such field")
	}
	return append(append(bytes.Clone(raw[:at]), field...), raw[at+end+2:]...)
}

// TestGateLongField: what the MTA cannot show at port 25 to the octet is not put off
// there until the sender's queue gives up. From who may send certified mail it passes,
// and by LMTP an envelope is delivered. Ordinary mail is refused at once: nobody has
// looked at it, and refused by LMTP it would bounce to a sender who may be forged.
func TestGateLongField(t *testing.T) {
	world := pointstest.New(t)
	base := newCrashWorld(t, world, world.Beta)
	base.close()
	w := base.again(t)
	gate := gateOptions(w.doors, func(string) {})

	envelope := longTo(t, w.envelopeOf(bob))
	m := miltertest.Mail{From: "posta-certificata@alfa.example", To: []string{bob}, Bytes: envelope}
	if a := showTo(t, gate, m); a.Code != 'c' {
		t.Errorf("an envelope at the gate: %q %q", a.Code, a.Reply)
	}
	if heard := w.arrive(envelope, m.From, bob); heard != "250" || w.count(&w.mailbox) != 1 {
		t.Errorf("the envelope by LMTP: %s, %d in the mailbox", heard, w.count(&w.mailbox))
	}

	m.From = "" // of a notice, or a notification about a message of ours
	if a := showTo(t, gate, m); a.Code != 'c' {
		t.Errorf("from nobody at the gate: %q %q", a.Code, a.Reply)
	}
	m = miltertest.Mail{From: "carl@gamma.example", To: []string{bob}, Bytes: longTo(t, []byte("From: carl@gamma.example\r\nTo: bob\r\nSubject: x\r\n\r\ny\r\n"))}
	if a := showTo(t, gate, m); a.Code != 'y' || a.Reply != malformed.Reply {
		t.Errorf("ordinary mail at the gate: %q %q", a.Code, a.Reply)
	}
}

// TestGateHeaderGrows: a header that passes at port 25 is read by LMTP still, with what
// the MTA has added.
func TestGateHeaderGrows(t *testing.T) {
	world := pointstest.New(t)
	base := newCrashWorld(t, world, world.Beta)
	base.close()
	w := base.again(t)
	const added = "Received: from mail.gamma.example (mail.gamma.example [192.0.2.1])\r\n\tby mx.beta.example (Postfix) with ESMTPS id 4QUEUE1\r\n" +
		"\tfor <bob@beta.example>; Sun, 22 Nov 2026 10:45:37 +0100 (CET)\r\n"
	for name, piece := range map[string]string{"fields": "X: y\r\n", "octets": "X: " + strings.Repeat("y", 900) + "\r\n", "folds": "X: y" + strings.Repeat("\r\n z", 900) + "\r\n"} {
		passes := func(n int) bool {
			m := miltertest.Mail{From: "carl@gamma.example", To: []string{bob}, Bytes: []byte(strings.Repeat(piece, n) + "\r\ny\r\n")}
			return showTo(t, gateOptions(w.doors, func(string) {}), m).Code == 'c'
		}
		n := sort.Search(1<<20/len(piece)+1, func(n int) bool { return !passes(n) }) - 1
		if heard := w.arrive([]byte(added+strings.Repeat(piece, n)+"\r\ny\r\n"), "carl@gamma.example", bob); heard != "250" {
			t.Errorf("%d %s pass, and are answered %s by LMTP", n, name, heard)
		}
	}
}

// TestLargeHeaderReply: who sends a header that nobody here reads hears what is wrong,
// at both doors, and not how large a message may be.
func TestLargeHeaderReply(t *testing.T) {
	world := pointstest.New(t)
	base := newCrashWorld(t, world, world.Beta)
	base.close()
	w := base.again(t)
	m := miltertest.Mail{From: "carl@gamma.example", To: []string{bob}, Bytes: []byte(strings.Repeat("X: y\r\n", 10_001) + "\r\ny\r\n")}
	for door, o := range map[string]milter.Options{
		"access": accessOptions(w.doors, config.Access{MaxSize: 1 << 20, NoticeSize: 2 << 20}, func(string) {}),
		"gate":   gateOptions(w.doors, func(string) {}),
	} {
		if a := showTo(t, o, m); a.Code != 'y' || !strings.Contains(a.Reply, "The header exceeds") {
			t.Errorf("%s: %q %q", door, a.Code, a.Reply)
		}
	}
}
