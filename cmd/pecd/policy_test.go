package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// TestPolicyOfAddress: what is set for a mailbox counts for its address as it is
// written, and for no other that a mailbox store may deliver there (docs/dovecot.md).
func TestPolicyOfAddress(t *testing.T) {
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: t.TempDir(), Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	set := func(subject string) {
		t.Helper()
		tx := logstore.Tx{At: time.Now(), Acts: []logstore.Act{{Entry: logstore.Entry{Type: logstore.EntryPolicy, Recipients: []pec.Recipient{}, SendingProvider: "Beta"}, Policy: &logstore.Policy{Subject: subject, Ordinary: policyRefuse}}}}
		if _, err := store.Commit(context.Background(), tx); err != nil {
			t.Fatal(err)
		}
	}
	d := &doors{store: store}
	want := func(addr pec.Address, policy string) {
		t.Helper()
		if got, err := d.policy(t.Context(), addr); err != nil || got != policy {
			t.Errorf("%s: %q, %v; want %q", addr, got, err, policy)
		}
	}
	set("bob@beta.example")
	want("bob@Beta.EXAMPLE", policyRefuse)
	want("BOB@beta.example", policyAnomaly)
	want("bob+offers@beta.example", policyAnomaly)
	set("beta.example")
	want("BOB@beta.example", policyRefuse)
	want("bob+offers@beta.example", policyRefuse)
}
