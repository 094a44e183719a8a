package logstore_test

import (
	"context"
	"errors"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

// TestSearchReadsNoMore: whoever is content with the first entry does not pay for the
// many that follow. One that cannot be read tells whether somebody has tried.
func TestSearchReadsNoMore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	tx := logstore.Tx{At: storetest.At}
	const entries = 20
	for range entries {
		tx.Acts = append(tx.Acts, logstore.Act{Entry: logstore.Entry{Type: "other", Identifier: "x@alfa.example"}})
	}
	mustCommit(t, s, tx)
	closeStore(t, s)
	attack(t, dir, func(a *attacker) { a.exec("UPDATE entry SET record = '{' WHERE seq > 1") })
	r, err := logstore.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := errors.New("found")
	got := r.Search(context.Background(), logstore.Query{Identifier: "x@alfa.example"}, func(logstore.Entry) error { return first })
	if !errors.Is(got, first) {
		t.Errorf("the first: %v", got)
	}
	if got := r.Search(context.Background(), logstore.Query{}, func(logstore.Entry) error { return nil }); got == nil {
		t.Error("all can be read")
	}
}

// TestSearchPages: no entry is left out or told twice between pages of any size.
func TestSearchPages(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	fillRegister(t, s, 2000) // a thousand of the same instant
	for name, tt := range map[string]struct {
		q    logstore.Query
		want int
	}{"all": {logstore.Query{}, 2000}, "address": {logstore.Query{Address: entryNumber(7).Sender}, 2}} {
		seen, last := map[int64]bool{}, int64(0)
		err := s.Search(t.Context(), tt.q, func(e logstore.Entry) error {
			if seen[e.Seq] || e.Seq < last {
				t.Fatalf("%s: entry %d after %d", name, e.Seq, last)
			}
			seen[e.Seq], last = true, e.Seq
			return nil
		})
		if err != nil || len(seen) != tt.want {
			t.Errorf("%s: %d entries, %v", name, len(seen), err)
		}
	}
}
