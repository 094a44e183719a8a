package logstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// registerAct returns an act with all that the register derives from an entry.
func registerAct(n int) logstore.Act {
	id := pec.Identifier(fmt.Sprintf("%d@alfa.example", n))
	key := func(kind string, rcpt pec.Address) logstore.Key {
		return logstore.Key{Kind: kind, Origin: "alfa.example", Identifier: id, Recipient: rcpt}
	}
	return logstore.Act{
		Keys: []logstore.Key{key("prova", "Bob@Beta.example"), key("prova", ""), {Kind: fmt.Sprintf("digest-%d", n)}},
		Entry: logstore.Entry{
			Type: "prova", Identifier: id, MsgID: fmt.Sprintf("<%d&c@client>", n), Sender: "Alice@alfa.example",
			Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "carla@gamma.example", Type: pec.External}},
			Subject:    "Prova <urgente> \u2028 è così", Messages: []string{fmt.Sprintf("m%d@alfa.example", n), fmt.Sprintf("<n%d@alfa.example>", n)},
		},
	}
}

// register commits n entries, an hour apart.
func register(t testing.TB, s logstore.Store, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		mustCommit(t, s, logstore.Tx{At: storetest.At.Add(time.Duration(i) * time.Hour), Acts: []logstore.Act{registerAct(i)}})
	}
}

func verify(t testing.TB, e interface {
	Verify(context.Context, logstore.VerifyOptions) (logstore.Result, error)
}, o logstore.VerifyOptions) logstore.Result {
	t.Helper()
	res, err := e.Verify(context.Background(), o)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return res
}

func mustVerify(t testing.TB, e interface {
	Verify(context.Context, logstore.VerifyOptions) (logstore.Result, error)
}, o logstore.VerifyOptions) logstore.Result {
	t.Helper()
	res := verify(t, e, o)
	if !res.Sound() || res.More != 0 || res.Good != res.Last {
		t.Errorf("the register is not sound: %v", res.Broken)
	}
	return res
}

// A stranger computes the chain with public tools.
func TestChainWithOpenSSL(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	register(t, s, 1, 3)
	prev := strings.Repeat("0", 64)
	err := s.Chain(context.Background(), 1, func(l logstore.Link) error {
		cmd := exec.Command("sh", "-c", `printf '%s\n%s\n' "$prev" "$record" | openssl dgst -sha256 -r`)
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "prev=" + prev, "record=" + string(l.Record)}
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		if got := string(out[:64]); got != l.Chain.String() {
			t.Errorf("entry %d: OpenSSL computes %s, the chain is %v", l.Seq, got, l.Chain)
		}
		prev = l.Chain.String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if prev == strings.Repeat("0", 64) {
		t.Error("no entry was seen")
	}
}

// The octets of a record are documented; they must not change with the program.
func TestRecordEncoding(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	a := registerAct(7)
	a.Entry.Detail = "non UTF-8: \xff\xfe."
	mustCommit(t, s, logstore.Tx{At: storetest.At.Add(1), Acts: []logstore.Act{a}})
	l, err := s.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"seq":1,"at":"2031-07-04T09:05:03.000000001+02:00","type":"prova","identifier":"7@alfa.example","msgid":"<7&c@client>",` +
		`"sender":"Alice@alfa.example","recipients":[{"address":"bob@beta.example","type":"certificato"},{"address":"carla@gamma.example","type":"esterno"}],` +
		`"subject":"Prova <urgente> \u2028 è così","messages":["m7@alfa.example","<n7@alfa.example>"],"sending_provider":"","detail":"non UTF-8: \ufffd\ufffd.",` +
		`"keys":[{"kind":"prova","origin":"alfa.example","recipient":"Bob@beta.example"},{"kind":"prova","origin":"alfa.example"},{"kind":"digest-7","identifier":""}]}`
	if string(l.Record) != want {
		t.Errorf("record\n%s\nwant\n%s", l.Record, want)
	}
	if l.Chain != (logstore.Digest{}).Next(l.Record) {
		t.Error("its chain is another")
	}
}

func TestHead(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, logstore.Options{Dir: dir})
	if l, err := s.Head(ctx); err != nil || l.Seq != 0 || l.Chain != (logstore.Digest{}) {
		t.Errorf("Head of an empty register: %+v, %v", l, err)
	}
	register(t, s, 1, 3)
	r, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, e := range map[string]logstore.Evidence{"store": s, "reader": r} {
		head, err := e.Head(ctx)
		if err != nil || head.Seq != 3 || !head.At.Equal(storetest.At.Add(3*time.Hour)) || head.At.Location() != time.UTC {
			t.Errorf("%s: Head: %+v, %v", name, head, err)
		}
		if l, err := e.LinkAt(ctx, 3); err != nil || l.Chain != head.Chain || !bytes.Equal(l.Record, head.Record) {
			t.Errorf("%s: LinkAt: %+v, %v", name, l, err)
		}
		for _, seq := range []int64{-1, 0, 4} {
			if _, err := e.LinkAt(ctx, seq); !errors.Is(err, logstore.ErrNoEntry) || errors.Is(err, logstore.ErrUnavailable) {
				t.Errorf("%s: LinkAt(%d): %v", name, seq, err)
			}
		}
		if p, err := e.PurgedThrough(ctx); err != nil || p.Seq != 0 {
			t.Errorf("%s: PurgedThrough: %+v, %v", name, p, err)
		}
	}
}

func TestChainWalk(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	fillRegister(t, s, 3000) // more than two pages
	for _, from := range []int64{1, 1000, 1001, 3000, 3001} {
		next := from
		err := s.Chain(context.Background(), from, func(l logstore.Link) error {
			if l.Seq != next {
				t.Fatalf("entry %d, want %d", l.Seq, next)
			}
			next++
			return nil
		})
		if err != nil || next != 3001 {
			t.Errorf("from %d: up to %d, %v", from, next, err)
		}
	}
	stop := errors.New("stop")
	if err := s.Chain(context.Background(), 5, func(logstore.Link) error { return stop }); err != stop {
		t.Errorf("Chain returns %v", err)
	}
	if err := s.Chain(context.Background(), 0, func(logstore.Link) error { return nil }); !errors.Is(err, logstore.ErrNoEntry) {
		t.Errorf("Chain from 0: %v", err)
	}
}

// Days are of legal time; instants need not rise with the numbers.
func TestSpan(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	// The day on which summer time ends has 25 hours.
	day := func(d int) time.Time { return time.Date(2031, 10, d, 0, 0, 0, 0, rome) }
	for _, at := range []time.Time{
		day(26).Add(-1), day(26), day(26).Add(24*time.Hour + 30*time.Minute), day(27), day(27).Add(-1), day(27).Add(time.Hour),
	} {
		mustCommit(t, s, logstore.Tx{At: at, Acts: []logstore.Act{{Entry: logstore.Entry{Type: "prova"}}}})
	}
	for d, want := range map[int]logstore.Span{
		25: {First: 1, Last: 1, Entries: 1},
		26: {First: 2, Last: 5, Entries: 3},
		27: {First: 4, Last: 6, Entries: 2},
		28: {},
	} {
		if got, err := s.Span(context.Background(), day(d), day(d+1)); err != nil || got != want {
			t.Errorf("day %d: %+v, %v; want %+v", d, got, err, want)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := (logstore.Digest{}).Next([]byte("x"))
	text, err := d.MarshalText()
	var back logstore.Digest
	if err != nil || string(text) != d.String() || back.UnmarshalText(text) != nil || back != d {
		t.Errorf("%s comes back as %v, %v", text, back, err)
	}
	for _, bad := range []string{"", "00", strings.ToUpper(d.String()), d.String() + "0", strings.Repeat("g", 64)} {
		if back.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}

// The writer goes on with the chain after a commit that reported an error.
func TestChainAfterFailedCommit(t *testing.T) {
	for _, happens := range []bool{true, false} {
		s := open(t, logstore.Options{Dir: t.TempDir()})
		register(t, s, 1, 2)
		s.FailNextCommit(happens, func() {})
		_, err := s.Commit(context.Background(), logstore.Tx{At: storetest.At, Acts: []logstore.Act{registerAct(3)}})
		if (err == nil) != happens {
			t.Errorf("happens %t: Commit: %v", happens, err)
		}
		register(t, s, 4, 2)
		if res := mustVerify(t, s, logstore.VerifyOptions{}); res.Last < 4 {
			t.Errorf("happens %t: %d entries", happens, res.Last)
		}
		closeStore(t, s)
	}
}

// What the tests of a store write is sound, kept messages and all.
func TestVerifyWhatIsWritten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	p := storetest.NewProvider(t)
	mustCommit(t, s, smallAccess(t, p))
	mustCommit(t, s, keeps("uno"))
	mustCommit(t, s, keeps("due"))
	if _, err := s.PurgeInfected(context.Background(), storetest.Term); err != nil {
		t.Fatal(err)
	}
	late := storetest.KeepAct(p.NewEvent(t, "bob@beta.example"), message.Text([]byte("tre")))
	late.Keep.Until = storetest.Term.AddDate(9, 0, 0)
	mustCommit(t, s, logstore.Tx{At: storetest.Term, Acts: []logstore.Act{late, registerAct(1)}})
	res := mustVerify(t, s, logstore.VerifyOptions{Pages: true})
	if res.Entries != 8 || res.First != 1 || res.Last != 8 || res.Uncovered.First != 1 || res.Uncovered.Last != 8 {
		t.Errorf("result %+v", res)
	}
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	register(t, s, 2, 1)
	mustVerify(t, s, logstore.VerifyOptions{})
}
