package logstore_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// limitFiles lets no file of the process grow beyond limit octets: a write then
// fails as on a full disk.
func limitFiles(t testing.TB, limit uint64) {
	t.Helper()
	var r syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r)
	if err == nil {
		r.Cur = min(limit, r.Max)
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const noLimit = ^uint64(0)

func TestDiskFull(t *testing.T) {
	for _, what := range []string{"log", "body", "named body", "infected"} {
		t.Run(what, func(t *testing.T) {
			runChild(t, "full", filepath.Join(t.TempDir(), "store"), what)
		})
	}
}

// fullChild fills the disk for what arg says and checks that commits fail as
// something that passes, leave nothing behind, and succeed when it has passed.
func fullChild(t testing.TB, dir, arg string) {
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	s := open(t, logstore.Options{Dir: dir})
	p := storetest.NewProvider(t)
	mustCommit(t, s, smallAccess(t, p))
	out, err := s.Outgoing(ctx, storetest.At, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := statsOf(t, s)

	limit, files := uint64(8<<10), 0 // less than the log has
	var tx logstore.Tx
	switch arg {
	case "log":
		tx = smallAccess(t, p)
	case "body":
		limit = 400_000 // enough for the log
		tx, _ = largeAccess(t, p, nil)
	case "infected":
		limit = 400_000
		tx = smallAccess(t, p)
		tx.Acts[1].Keep = storetest.KeepAct(pec.Event{}, message.Text(make([]byte, 500_000))).Keep
	case "named body":
		var body logstore.Body
		tx, body = largeAccess(t, p, s)
		files = 1
		defer closeBody(t, body)
	}
	limitFiles(t, limit)
	for range 3 {
		if _, err := s.Commit(ctx, tx); !errors.Is(err, logstore.ErrUnavailable) || errors.Is(err, logstore.ErrUncertain) {
			t.Errorf("Commit on a full disk: %v", err)
		}
	}
	if limit == 8<<10 {
		if err := s.Taken(ctx, out[0].ID, out[0].To); !errors.Is(err, logstore.ErrUnavailable) {
			t.Errorf("Taken on a full disk: %v", err)
		}
	}
	if after := statsOf(t, s); after != before {
		t.Errorf("failed commits left %+v, before %+v", after, before)
	}
	if names := bodyFiles(t, dir); len(names) != files {
		t.Errorf("failed commits left %v, want %d", names, files)
	}
	if names := virusFiles(t, dir); len(names) != 0 {
		t.Errorf("failed commits left %v in the virus store", names)
	}
	fillBody(t, s)

	limitFiles(t, noLimit)
	mustCommit(t, s, tx)
	if err := s.Taken(ctx, out[0].ID, out[0].To); err != nil {
		t.Errorf("Taken with room again: %v", err)
	}
	closeStore(t, s)
	s = open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	if after := statsOf(t, s); after.Entries != before.Entries+2 || after.Outbox != before.Outbox+1 {
		t.Errorf("in the end %+v, before %+v", after, before)
	}
}

// fillBody checks that a body cannot be written, and leaves nothing.
func fillBody(t testing.TB, s logstore.Store) {
	t.Helper()
	body, err := s.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(t, body)
	for range 2 {
		if _, err := body.Write(make([]byte, 500_000)); !errors.Is(err, logstore.ErrUnavailable) {
			t.Errorf("writing a body on a full disk: %v", err)
		}
	}
}

func closeBody(t testing.TB, b logstore.Body) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("closing a body: %v", err)
	}
}

// largeAccess returns an access transaction whose original is in a body of s, or
// in memory if s is nil.
func largeAccess(t testing.TB, p *storetest.Provider, s logstore.Store) (logstore.Tx, logstore.Body) {
	t.Helper()
	ev := p.NewEvent(t, "bob@beta.example")
	text := storetest.Original(ev, 500_000)
	if s == nil {
		return storetest.Access(p.Transport(t, ev, message.Bytes(text)), p.Acceptance(t, ev)), nil
	}
	body, err := s.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := body.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return storetest.Access(p.Transport(t, ev, body), p.Acceptance(t, ev)), body
}

func smallAccess(t testing.TB, p *storetest.Provider) logstore.Tx {
	t.Helper()
	ev := p.NewEvent(t, "bob@beta.example")
	original := message.Bytes(storetest.Original(ev, 500))
	return storetest.Access(p.Transport(t, ev, original), p.Acceptance(t, ev))
}

func mustCommit(t testing.TB, s logstore.Store, tx logstore.Tx) {
	t.Helper()
	done, err := s.Commit(context.Background(), tx)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	for i, d := range done {
		if !d {
			t.Fatalf("act %d was left out", i)
		}
	}
}

func statsOf(t testing.TB, s logstore.Store) logstore.Stats {
	t.Helper()
	st, err := s.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	defer func() { // or the test's directory cannot be removed
		for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Error(err)
			}
		}
	}()
	runChild(t, "readonly", dir, "")
}

// readOnlyChild has no right to write and cannot open a store.
func readOnlyChild(t testing.TB, dir, _ string) {
	// Root may write everywhere, so it becomes somebody else. The way to dir must
	// be open to him.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Join(dir, "new")} {
		if _, err := logstore.Open(context.Background(), logstore.Options{Dir: d}); !errors.Is(err, logstore.ErrUnavailable) {
			t.Errorf("Open of %s without the right to write: %v", d, err)
		}
	}
}

// The directory of the bodies is gone for a while.
func TestBodiesGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	p := storetest.NewProvider(t)
	tx, body := largeAccess(t, p, s)
	bodies := filepath.Join(dir, "bodies")
	if err := os.Rename(bodies, bodies+"-away"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(context.Background(), tx); !errors.Is(err, logstore.ErrUnavailable) {
		t.Errorf("Commit without the directory of bodies: %v", err)
	}
	if st := statsOf(t, s); st != (logstore.Stats{}) {
		t.Errorf("it left %+v", st)
	}
	if err := os.Rename(bodies+"-away", bodies); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, tx)
	closeBody(t, body)
	if names := bodyFiles(t, dir); len(names) != 1 {
		t.Errorf("files %v, want one", names)
	}
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	cmd := childCommand(t, "hold", dir, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, err = logstore.Open(context.Background(), logstore.Options{Dir: dir})
	if !errors.Is(err, logstore.ErrInUse) || !errors.Is(err, logstore.ErrUnavailable) || !strings.Contains(err.Error(), "process "+strings.TrimSpace(pid)+" ") {
		t.Errorf("Open of a store that process %s has open: %v", strings.TrimSpace(pid), err)
	}
	r, err := logstore.OpenReadOnly(context.Background(), dir)
	if err != nil {
		t.Errorf("OpenReadOnly while a daemon runs: %v", err)
	} else {
		n := 0
		err := r.Search(context.Background(), logstore.Query{}, func(logstore.Entry) error { n++; return nil })
		if err != nil || n != 2 {
			t.Errorf("it finds %d entries, %v; want 2", n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
	closeStore(t, open(t, logstore.Options{Dir: dir}))
}

// holdChild keeps a store open until its input ends.
func holdChild(t testing.TB, dir, _ string) {
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	mustCommit(t, s, smallAccess(t, storetest.NewProvider(t)))
	if _, err := os.Stdout.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		t.Fatal("unexpected input")
	}
}

// One transaction that cannot be committed does not spoil those that share the
// SQL transaction with it.
func TestOneBadTransaction(t *testing.T) {
	p := storetest.NewProvider(t)
	// Whether they share one is a matter of luck, usually good.
	for range 50 {
		if oneBadTransaction(t, p) {
			return
		}
	}
	t.Error("the transactions never shared one")
}

// oneBadTransaction reports whether the bad transaction shared one with others.
func oneBadTransaction(t *testing.T, p *storetest.Provider) bool {
	const good = 6
	g := gate{arrived: make(chan struct{}), begun: make(chan struct{}), pass: make(chan struct{})}
	s := open(t, logstore.Options{Dir: t.TempDir(), AtStep: g.at})
	defer closeStore(t, s)
	bad := pointsNowhere(t, s, p)
	before := statsOf(t, s)
	g.beginnings.Store(0)
	outcomes := make(chan error)
	commit := func(tx logstore.Tx) {
		go func() {
			_, err := s.Commit(context.Background(), tx)
			outcomes <- err
		}()
	}
	g.shut.Store(true)
	commit(smallAccess(t, p))
	<-g.arrived
	<-g.begun // the writer stands still with the first
	for i := range good {
		if i == good/2 {
			commit(bad)
		}
		commit(smallAccess(t, p))
	}
	for range good + 1 {
		<-g.arrived // about to queue
	}
	g.shut.Store(false)
	close(g.pass)
	failed := 0
	for range good + 2 {
		if err := <-outcomes; err != nil {
			failed++
			if errors.Is(err, logstore.ErrUnavailable) {
				t.Errorf("a transaction that can never succeed: %v", err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d transactions failed, want the bad one only", failed)
	}
	if st := statsOf(t, s); st.Entries != before.Entries+2*(good+1) || st.Outbox != before.Outbox+2*(good+1) {
		t.Errorf("%+v, before %+v", st, before)
	}
	return g.beginnings.Load() > good+2 || t.Failed() // some began twice
}

// A gate stops the writer when a transaction begins, while it is shut.
type gate struct {
	shut                 atomic.Bool
	beginnings           atomic.Int64
	arrived, begun, pass chan struct{}
}

func (g *gate) at(step logstore.Step) {
	switch {
	case step == logstore.StepNameSynced && g.shut.Load():
		g.arrived <- struct{}{}
	case step == logstore.StepBegun:
		g.beginnings.Add(1)
		if g.shut.Load() {
			g.begun <- struct{}{}
			<-g.pass
		}
	}
}

// pointsNowhere returns a transaction with a message that points into one which
// has left the outbox.
func pointsNowhere(t *testing.T, s logstore.Store, p *storetest.Provider) logstore.Tx {
	t.Helper()
	ctx := context.Background()
	ev := p.NewEvent(t, "bob@beta.example")
	original := message.Bytes(storetest.Original(ev, 200_000))
	mustCommit(t, s, storetest.Access(p.Transport(t, ev, original), p.Acceptance(t, ev)))
	out, err := s.Outgoing(ctx, storetest.At, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	var tx logstore.Tx
	for _, m := range out {
		if m.Kind == pec.KindTransport {
			around := p.Delivery(t, p.NewEvent(t, "bob@beta.example"), m.Content)
			tx = logstore.Tx{At: storetest.At, Acts: []logstore.Act{storetest.ActOf(around)}}
		}
		if err := s.Taken(ctx, m.ID, m.To); err != nil {
			t.Fatal(err)
		}
	}
	return tx
}
