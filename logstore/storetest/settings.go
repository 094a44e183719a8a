package storetest

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

func (b *bench) policies(subjects ...string) []logstore.Policy {
	b.Helper()
	p, err := b.store.Policies(context.Background(), subjects...)
	if err != nil {
		b.Fatalf("Policies: %v", err)
	}
	return p
}

// policyAct returns an act that sets a policy.
func policyAct(subject, ordinary string) logstore.Act {
	act := entry("", time.Time{})
	act.Entry.Type = logstore.EntryPolicy
	act.Policy = &logstore.Policy{Subject: subject, Ordinary: ordinary}
	return act
}

func testPolicies(b *bench) {
	if p := b.policies(); len(p) != 0 {
		b.Errorf("a new store has policies: %v", p)
	}
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{
		policyAct("beta.example", "refuse"), policyAct("Bob@beta.example", "anomaly"),
		policyAct("alfa.example", "discard"), policyAct("alfa.example", "anomaly"), policyAct("gone.example", "refuse"),
	}})
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{policyAct("gone.example", ""), policyAct("never.example", "")}})
	bob := logstore.Policy{Subject: "Bob@beta.example", Ordinary: "anomaly"}
	alfa := logstore.Policy{Subject: "alfa.example", Ordinary: "anomaly"}
	beta := logstore.Policy{Subject: "beta.example", Ordinary: "refuse"}
	for range 2 {
		for _, c := range []struct {
			subjects []string
			want     []logstore.Policy
		}{
			{nil, []logstore.Policy{bob, alfa, beta}},
			{[]string{"beta.example", "bob@beta.example", "Bob@beta.example"}, []logstore.Policy{bob, beta}},
			{[]string{"alfa.example", "alfa.example"}, []logstore.Policy{alfa}},
			{[]string{"gone.example", "ALFA.example", "", "x' OR 1 --"}, nil},
		} {
			if got := b.policies(c.subjects...); !reflect.DeepEqual(got, c.want) {
				b.Errorf("Policies(%q): %v, want %v", c.subjects, got, c.want)
			}
		}
		b.reopen()
	}
	if got := b.search(logstore.Query{}); len(got) != 7 || got[6].Type != logstore.EntryPolicy {
		b.Errorf("the register has %d entries of 7", len(got))
	}
}

// A policy is set with its entry or not at all.
func testPolicyWithKey(b *bench) {
	act := policyAct("beta.example", "refuse")
	act.Keys = []logstore.Key{KeyOf("k", "1@alfa.example", "")}
	again := policyAct("beta.example", "discard")
	again.Keys = act.Keys
	if done := b.commit(logstore.Tx{At: At, Acts: []logstore.Act{act, again}}); !done[0] || done[1] {
		b.Errorf("done = %v", done)
	}
	if got := b.policies("beta.example"); len(got) != 1 || got[0].Ordinary != "refuse" {
		b.Errorf("Policies: %v; want what the first act set", got)
	}
}

func testSecret(b *bench) {
	secret := func() []byte {
		b.Helper()
		s, err := b.store.Secret(context.Background())
		if err != nil || len(s) != 32 || bytes.Equal(s, make([]byte, 32)) {
			b.Fatalf("Secret: %d octets, %v", len(s), err)
		}
		return s
	}
	first := secret()
	mine := secret()
	mine[0]++ // the caller's own
	b.access(300, "bob@beta.example")
	b.reopen()
	if !bytes.Equal(secret(), first) {
		b.Error("the secret changed")
	}
	other := b.openStore(b.T, b.TempDir())
	theirs, err := other.Secret(context.Background())
	if err != nil || bytes.Equal(theirs, first) {
		b.Errorf("another store has the same secret, or none: %v", err)
	}
	if err := other.Close(); err != nil {
		b.Error(err)
	}
}

func testLongIssued(b *bench) {
	at := At.Add(123456789)
	act := entry("1@alfa.example", time.Time{})
	first, second := KeyOf("k", "1@alfa.example", ""), KeyOf("k", "1@alfa.example", "Bob@Beta.example")
	act.Keys = []logstore.Key{first, second}
	b.mustCommit(logstore.Tx{At: at, Acts: []logstore.Act{act}})
	act.Keys = []logstore.Key{first}
	b.commit(logstore.Tx{At: at.Add(time.Hour), Acts: []logstore.Act{act}}) // left out
	keys := []logstore.Key{
		first, KeyOf("other", "1@alfa.example", ""), KeyOf("k", "1@alfa.example", "Bob@beta.EXAMPLE"), KeyOf("k", "1@alfa.example", "bob@beta.example"),
	}
	for term, want := range map[time.Duration][]bool{
		2 * time.Hour: {true, false, true, false}, 2*time.Hour + 1: make([]bool, len(keys)),
	} {
		if got, err := b.store.LongIssued(context.Background(), keys, at.Add(2*time.Hour), term); err != nil || !slices.Equal(got, want) {
			b.Errorf("LongIssued, %v: %v, %v; want %v", term, got, err, want)
		}
	}
	if got, err := b.store.IssuedAt(context.Background(), keys); err != nil || !slices.EqualFunc(got, []time.Time{at, {}, at, {}}, time.Time.Equal) {
		b.Errorf("IssuedAt: %v, %v", got, err)
	}
	if got, err := b.store.LongIssued(context.Background(), nil, at, 0); err != nil || len(got) != 0 {
		b.Errorf("LongIssued of nothing: %v, %v", got, err)
	}
}

// The ENVID is the act's, or the identifier.
func testEnvelopeID(b *bench) {
	ev := b.NewEvent(b, "bob@beta.example")
	named, plain := ActOf(b.TakeCharge(b, ev)), ActOf(b.Acceptance(b, ev))
	named.EnvelopeID = "1+2=3 " + string(ev.Identifier)
	b.mustCommit(logstore.Tx{At: At, Acts: []logstore.Act{named, plain}})
	b.reopen()
	want := map[pec.Kind]string{pec.KindTakeCharge: named.EnvelopeID, pec.KindAcceptance: string(ev.Identifier)}
	out := b.outgoing(At)
	if len(out) != len(want) {
		b.Fatalf("%d messages, want %d", len(out), len(want))
	}
	for _, m := range out {
		if m.EnvelopeID != want[m.Kind] {
			b.Errorf("%s has ENVID %q, want %q", m.Kind, m.EnvelopeID, want[m.Kind])
		}
	}
}
