package seal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
)

// TestStore: a real store is sealed while it is written, and what its chain says
// is what the seals say.
func TestStore(t *testing.T) {
	s := newScene(t)
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: filepath.Join(t.TempDir(), "store"), Rand: bytes.NewReader(make([]byte, 64))})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	n := 0
	commit := func(at string) {
		t.Helper()
		n++
		e := entry(fmt.Sprintf("opec%d@alfa.example", n))
		e.At = romeTime(at)
		act := logstore.Act{Keys: []logstore.Key{{Kind: "accettazione", Origin: "alfa.example", Identifier: e.Identifier}}, Entry: e}
		if _, err := store.Commit(t.Context(), logstore.Tx{At: e.At, Acts: []logstore.Act{act}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{"2026-05-04 09:00:00", "2026-05-05 00:00:01", "2026-05-04 23:59:59", "2026-05-05 09:00:00", "2026-05-07 09:00:00"} {
		commit(at)
	}
	s.set("2026-05-07 10:00:00")
	sealer := s.sealer(func(o *seal.Options) { o.Register = store })
	if sealed, err := sealer.Seal(t.Context()); err != nil || len(sealed) != 3 || sealed[0].Last != 3 || sealed[2].Entries != 0 {
		t.Fatalf("%+v, %v", sealed, err)
	}
	commit("2026-05-07 11:00:00")
	s.set("2026-05-08 10:00:00")
	if sealed, err := sealer.Seal(t.Context()); err != nil || len(sealed) != 1 || sealed[0].Entries != 2 {
		t.Fatalf("%+v, %v", sealed, err)
	}
	s.sound(4)
	anchors, _ := s.anchors()
	for _, a := range anchors {
		if l, err := store.LinkAt(t.Context(), a.Seq); err != nil || l.Chain != a.Chain {
			t.Errorf("%s: %v", a.By, err)
		}
	}
}

// manyEntries is a scene with a sealed day of n entries.
func manyEntries(b *testing.B, n int) *scene {
	s := newScene(b)
	for i := range n {
		s.register.add(b, romeTime("2026-05-04 09:00:00").Add(time.Duration(i)*time.Millisecond), entry(fmt.Sprintf("opec%d@alfa.example", i)))
	}
	s.set("2026-05-05 09:00:00")
	return s
}

// BenchmarkSeal seals a day of 20,000 entries, with the verification that is part
// of it.
func BenchmarkSeal(b *testing.B) {
	s := manyEntries(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := os.RemoveAll(s.dir); err != nil {
			b.Fatal(err)
		}
		if _, err := s.sealer(nil).Seal(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/20_000, "ns/entry")
}

// BenchmarkVerifyDay verifies a day of 20,000 entries.
func BenchmarkVerifyDay(b *testing.B) {
	s := manyEntries(b, 20_000)
	if _, err := s.sealer(nil).Seal(b.Context()); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.dir, "2026-05-04", "2026-05-04.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	b.ReportAllocs()
	for b.Loop() {
		if r := s.verifier.VerifyDay(b.Context(), os.DirFS(s.dir), day("2026-05-04")); !r.Sound {
			b.Fatal(r.Problem)
		}
	}
}
