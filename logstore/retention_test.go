package logstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

// An old register has an entry for each hour; those up to over are older than the
// term at now.
const over = 250

var (
	now      = storetest.At.AddDate(3, 0, 0)
	overTime = storetest.At.Add((over + 1) * time.Hour) // of the first that stays
)

func oldRegister(t testing.TB, dir string) *logstore.SQLite {
	t.Helper()
	s := open(t, logstore.Options{Dir: dir})
	tx := logstore.Tx{}
	for i := 1; i <= over+30; i++ {
		tx.At = storetest.At.Add(time.Duration(i) * time.Hour)
		tx.Acts = []logstore.Act{registerAct(i)}
		mustCommit(t, s, tx)
	}
	return s
}

func purgeOf(t testing.TB, s *logstore.SQLite, through int64) logstore.Purge {
	t.Helper()
	l, err := s.LinkAt(context.Background(), through)
	if err != nil {
		t.Fatal(err)
	}
	return logstore.Purge{First: 1, Through: through, Chain: l.Chain, Before: overTime, At: now, Proof: []byte("pacchetto 2031-07, sigillato")}
}

func TestPurgeEntries(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := oldRegister(t, dir)
	p, err := s.Purgeable(ctx, overTime)
	if err != nil || p.Through.Seq != over || p.Entries != over || p.Kept != over+1 {
		t.Fatalf("Purgeable: %+v, %v", p, err)
	}
	var anchors []logstore.Anchor
	for _, seq := range []int64{3, over, over + 7} {
		l, err := s.LinkAt(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		anchors = append(anchors, logstore.Anchor{Seq: seq, Chain: l.Chain})
	}
	var told []int64
	purge := purgeOf(t, s, over)
	purge.Progress = func(done, total int64) {
		told = append(told, done)
		if total != over {
			t.Errorf("progress of %d", total)
		}
		mustVerify(t, s, logstore.VerifyOptions{Known: anchors}) // also half way
	}
	n, err := s.PurgeEntries(ctx, purge)
	if err != nil || n != over || !slices.Equal(told, []int64{100, 200, 250}) {
		t.Fatalf("PurgeEntries: %d, %v; progress %v", n, err, told)
	}
	checkPurged(t, s, dir, anchors)
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	checkPurged(t, s, dir, anchors)
	if p, err := s.Purgeable(ctx, overTime); err != nil || p.Through.Seq != 0 || p.Entries != 0 {
		t.Errorf("Purgeable once more: %+v, %v", p, err)
	}
}

// checkPurged expects that entries up to over are gone and nothing else.
func checkPurged(t *testing.T, s *logstore.SQLite, dir string, anchors []logstore.Anchor) {
	t.Helper()
	ctx := context.Background()
	res := mustVerify(t, s, logstore.VerifyOptions{Known: anchors, Pages: true})
	if res.First != over+1 || res.Last != over+31 || res.Purged != over || res.Below != 1 || res.Covered.Seq != over+7 {
		t.Errorf("Verify: %+v", res)
	}
	if res = mustVerify(t, s, logstore.VerifyOptions{Known: anchors[:2]}); res.Covered.Seq != over {
		t.Errorf("covered up to %d by an anchor of the last entry that went", res.Covered.Seq)
	}
	if bad := verify(t, s, logstore.VerifyOptions{Known: []logstore.Anchor{{Seq: over}}}); bad.Sound() {
		t.Error("an anchor of the last entry that went is not compared")
	}
	for table, want := range map[string]int{"entry": 31, "entry_address": 90, "entry_message": 90, "issued": 90} {
		if n := queryRaw[int](t, dir, "SELECT count(*) FROM "+table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	issued, err := s.Issued(ctx, append(slices.Clone(registerAct(over).Keys), registerAct(over+1).Keys...))
	if err != nil || !slices.Equal(issued, []bool{false, false, false, true, true, true}) {
		t.Errorf("Issued: %v, %v", issued, err)
	}
	if st := statsOf(t, s); st.Entries != 31 {
		t.Errorf("stats: %d entries", st.Entries)
	}
	through, err := s.PurgedThrough(ctx)
	if err != nil || through.Seq != over || through.Chain != anchors[1].Chain {
		t.Errorf("PurgedThrough: %+v, %v", through, err)
	}
	if head, err := s.Head(ctx); err != nil || !strings.Contains(string(head.Record), `"type":"cancellazione"`) ||
		!strings.Contains(string(head.Record), `"purge":{"through":250,"chain":"`+through.Chain.String()) {
		t.Errorf("the entry about it: %s, %v", head.Record, err)
	}
}

// What is young, in the outbox or in the virus store, or not what was archived,
// does not go.
func TestPurgeRefused(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := oldRegister(t, dir)
	defer closeStore(t, s)
	good := purgeOf(t, s, over)
	for what, c := range map[string]struct {
		change func(*logstore.Purge)
		needed bool
	}{
		"another chain":  {func(p *logstore.Purge) { p.Chain[0] ^= 1 }, false},
		"another entry":  {func(p *logstore.Purge) { p.Through-- }, false},
		"with the first": {func(p *logstore.Purge) { p.First = 2 }, false},
		"no first":       {func(p *logstore.Purge) { p.First = 0 }, false},
		"no proof":       {func(p *logstore.Purge) { p.Proof = nil }, false},
		"a large proof":  {func(p *logstore.Purge) { p.Proof = make([]byte, 2<<20) }, false},
		"no instant":     {func(p *logstore.Purge) { p.At = time.Time{} }, false},
		"of the future":  {func(p *logstore.Purge) { p.Before = p.At.Add(1) }, false},
		"what is young":  {func(p *logstore.Purge) { p.Before = p.Before.Add(-time.Hour) }, true},
		"what is not":    {func(p *logstore.Purge) { p.Through = 1000 }, true},
		"nothing":        {func(p *logstore.Purge) { p.First = p.Through + 1 }, false},
		"what was never": {func(p *logstore.Purge) { p.Through = 0; p.Chain = logstore.Digest{} }, false},
	} {
		p := good
		c.change(&p)
		n, err := s.PurgeEntries(ctx, p)
		if n != 0 || !errors.Is(err, logstore.ErrInvalid) || errors.Is(err, logstore.ErrNeeded) != c.needed {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	if st := statsOf(t, s); st.Entries != over+30 {
		t.Errorf("%d entries are left", st.Entries)
	}
	for _, query := range []string{
		"DELETE FROM entry WHERE seq = 1",
		"INSERT INTO purged SELECT seq, chain, 280, at, x'00' FROM entry WHERE seq = 5",
		"INSERT INTO purged SELECT 0, chain, seq, at, x'00' FROM entry WHERE seq = 280",
	} {
		if err := raw(t, dir, query); err == nil || !strings.Contains(err.Error(), "register") {
			t.Errorf("%s: %v, want to be refused", query, err)
		}
	}
	if n, err := s.PurgeEntries(ctx, good); n != over || err != nil {
		t.Errorf("what may go: %d, %v", n, err)
	}
	for _, query := range []string{
		"DELETE FROM entry WHERE seq = 251", "DELETE FROM entry WHERE seq = 281", "DELETE FROM issued", "DELETE FROM entry_address",
		"DELETE FROM entry_message", "DELETE FROM purged", "UPDATE purged SET through = 260",
	} {
		if err := raw(t, dir, query); err == nil || !strings.Contains(err.Error(), "register") {
			t.Errorf("after a purge: %s: %v, want to be refused", query, err)
		}
	}
}

func TestPurgeNeeds(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	ctx := context.Background()
	register(t, s, 1, 2)
	mustCommit(t, s, smallAccess(t, storetest.NewProvider(t))) // 3 and 4, in the outbox
	mustCommit(t, s, keeps("x"))                               // 5
	register(t, s, 6, 2)
	for _, want := range []int64{3, 5, 8} { // 8 says that 5 has left the virus store
		p, err := s.Purgeable(ctx, now)
		if err != nil || p.Kept != want || p.Through.Seq != want-1 || p.Entries != want-1 {
			t.Errorf("Purgeable: %d entries through %d, %v; want that %d is kept", p.Entries, p.Through.Seq, err, want)
		}
		purge := purgeOf(t, s, 6)
		purge.Before = now
		if n, err := s.PurgeEntries(ctx, purge); errors.Is(err, logstore.ErrNeeded) != (want < 8) || want == 8 && n != 6 {
			t.Errorf("PurgeEntries while %d is needed: %d, %v", want, n, err)
		}
		out, err := s.Outgoing(ctx, now, 10, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out {
			if err := s.Taken(ctx, m.ID, m.To); err != nil {
				t.Fatal(err)
			}
		}
		if want == 5 {
			if _, err := s.PurgeInfected(ctx, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
}

// A purge that was broken off is sound, and goes on.
func TestPurgeBrokenOff(t *testing.T) {
	dir := t.TempDir()
	s := oldRegister(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	p := purgeOf(t, s, over)
	p.Progress = func(int64, int64) { cancel() }
	if n, err := s.PurgeEntries(ctx, p); n != 100 || !errors.Is(err, context.Canceled) {
		t.Errorf("PurgeEntries: %d, %v", n, err)
	}
	register(t, s, over+31, 1)
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	if res := mustVerify(t, s, logstore.VerifyOptions{Pages: true}); res.First != over+1 || res.Last != over+32 {
		t.Errorf("half way: %+v", res)
	}
	if n, err := s.FinishPurge(context.Background(), nil); n != over-100 || err != nil {
		t.Errorf("FinishPurge: %d, %v", n, err)
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	if n := queryRaw[int](t, dir, "SELECT count(*) FROM entry"); n != 32 {
		t.Errorf("%d entries, want 32", n)
	}
	if n, err := s.FinishPurge(context.Background(), nil); n != 0 || err != nil {
		t.Errorf("FinishPurge with nothing to do: %d, %v", n, err)
	}
}

// Two purges at once end both: what the one has removed, the other does not wait for.
func TestPurgeAtOnce(t *testing.T) {
	s := oldRegister(t, t.TempDir())
	defer closeStore(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	p := purgeOf(t, s, over)
	p.Progress = func(int64, int64) { cancel() }
	if n, err := s.PurgeEntries(ctx, p); n != 100 || !errors.Is(err, context.Canceled) {
		t.Fatalf("PurgeEntries: %d, %v", n, err)
	}
	var g errgroup.Group
	var all atomic.Int64
	finish := func() error {
		n, err := s.FinishPurge(context.Background(), nil)
		all.Add(n)
		return err
	}
	// The second comes while the first is under way.
	first := func(int64, int64) { g.Go(finish) }
	n, err := s.FinishPurge(context.Background(), first)
	if err := errors.Join(err, g.Wait()); err != nil || n+all.Load() != over-100 {
		t.Errorf("%d and %d entries removed: %v", n, all.Load(), err)
	}
	again := purgeOf(t, s, over+1)
	again.Through = over
	if n, err := s.PurgeEntries(context.Background(), again); n != 0 || !errors.Is(err, logstore.ErrInvalid) || !strings.Contains(err.Error(), "gone already") {
		t.Errorf("the same once more: %d, %v", n, err)
	}
}

// A second purge goes on where the first ended, and takes its entry in its turn.
func TestPurgeTwice(t *testing.T) {
	s := oldRegister(t, t.TempDir())
	defer closeStore(t, s)
	ctx := context.Background()
	for _, through := range []int64{100, 270, 281, 282} { // 281 is the entry of the first purge
		p := purgeOf(t, s, through)
		if through > 100 {
			p.First = 101 // an archive may begin in what is gone
		}
		p.Before = now.Add(time.Duration(through) * time.Hour)
		p.At = p.Before
		if _, err := s.PurgeEntries(ctx, p); err != nil {
			t.Fatalf("through %d: %v", through, err)
		}
		if res := mustVerify(t, s, logstore.VerifyOptions{Pages: true}); res.First != through+1 {
			t.Errorf("through %d: first %d", through, res.First)
		}
	}
	if bad := verify(t, s, logstore.VerifyOptions{From: 284}); !bad.Sound() {
		t.Errorf("from the last entry on: %v", bad.Broken)
	}
}

// Entries that somebody removes at the start, with a row that says they were purged,
// are told: no entry says so.
func TestVerifyFindsFalsePurge(t *testing.T) {
	dir := t.TempDir()
	s := oldRegister(t, dir)
	if _, err := s.PurgeEntries(context.Background(), purgeOf(t, s, 100)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	copyDir := func() string {
		to := t.TempDir()
		data, err := os.ReadFile(filepath.Join(dir, "pecd.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "pecd.db"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	for _, query := range []string{
		"INSERT INTO purged SELECT 120, (SELECT chain FROM entry WHERE seq = 120), seq, at, x'00' FROM purged",
		"UPDATE purged SET through = 101, chain = (SELECT chain FROM entry WHERE seq = 101)",
		"UPDATE purged SET seq = seq - 1", "UPDATE purged SET proof = x'00'", "DELETE FROM purged",
		"UPDATE purged SET chain = zeroblob(32)",
	} {
		to := copyDir()
		attack(t, to, func(a *attacker) {
			a.exec(query)
			for _, table := range []string{"entry_address", "entry_message", "issued", "entry"} {
				a.exec("DELETE FROM " + table + " WHERE seq <= (SELECT max(through) FROM purged)")
			}
		})
		r, err := logstore.OpenReadOnly(context.Background(), to)
		if err != nil {
			t.Fatal(err)
		}
		if res := verify(t, r, logstore.VerifyOptions{}); res.Sound() {
			t.Errorf("%s: nothing is told", query)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Space goes back to the file system while commits go on.
func TestReclaim(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	fillRegister(t, s, 6000)
	p := purgeOf(t, s, 5000)
	p.Before = storetest.At.Add(time.Hour)
	if _, err := s.PurgeEntries(ctx, p); err != nil {
		t.Fatal(err)
	}
	size := func() int {
		return queryRaw[int](t, dir, "SELECT page_count FROM pragma_page_count") * 4096
	}
	before, n := size(), 7000
	freed, err := s.Reclaim(ctx, 100_000, func(done, total int64) {
		if done > total || done == 0 {
			t.Errorf("progress %d of %d", done, total)
		}
		register(t, s, n, 1)
		n++
	})
	free := queryRaw[int](t, dir, "SELECT freelist_count FROM pragma_freelist_count") * 4096
	if err != nil || freed < 1<<20 || n < 7002 || size() >= before-1<<19 || free > 100_000+4096 {
		t.Errorf("Reclaim: %d octets in %d steps, %v; %d octets before, %d after, %d free", freed, n-7000, err, before, size(), free)
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	if freed, err := s.Reclaim(ctx, 100_000, nil); freed > 4096 || err != nil {
		t.Errorf("with nothing to do: %d, %v", freed, err)
	}
}
