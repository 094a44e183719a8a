package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/milter"
	"pecd/milter/miltertest"
	"pecd/milter/socket"
	"pecd/pec"
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
// there until the sender's queue gives up. It passes, and by LMTP an envelope is
// delivered, and ordinary mail refused by who wants none.
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

	tx := logstore.Tx{At: w.now(), Acts: []logstore.Act{{Entry: logstore.Entry{Type: logstore.EntryPolicy, Recipients: []pec.Recipient{},
		SendingProvider: "Beta"}, Policy: &logstore.Policy{Subject: bob, Ordinary: policyRefuse}}}}
	if _, err := w.store.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	m = miltertest.Mail{From: "carl@gamma.example", To: []string{bob}, Bytes: longTo(t, []byte("From: carl@gamma.example\r\nTo: bob\r\nSubject: x\r\n\r\ny\r\n"))}
	if a := showTo(t, gate, m); a.Code != 'c' {
		t.Errorf("ordinary mail at the gate: %q %q", a.Code, a.Reply)
	}
	if heard := w.arrive(m.Bytes, m.From, bob); heard != "550" {
		t.Errorf("ordinary mail by LMTP: %s", heard)
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
