package logstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

// A COMMIT that reports an error has happened or not; Commit finds out, or says
// that it could not.
func TestCommitReportsError(t *testing.T) {
	for _, c := range []struct {
		happens, known bool
		want           error
	}{
		{happens: true, known: true, want: nil},
		{happens: false, known: true, want: logstore.ErrUnavailable},
		{happens: true, known: false, want: logstore.ErrUncertain},
		{happens: false, known: false, want: logstore.ErrUncertain},
	} {
		t.Run(fmt.Sprintf("happens %t known %t", c.happens, c.known), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, logstore.Options{Dir: dir})
			defer func() { closeStore(t, s) }()
			s.SetPatience(time.Millisecond)
			p := storetest.NewProvider(t)
			mustCommit(t, s, smallAccess(t, p))

			tx, body := largeAccess(t, p, s)
			database := filepath.Join(dir, "pecd.db")
			s.FailNextCommit(c.happens, func() {
				if !c.known {
					rename(t, database, database+"-away")
				}
			})
			done, err := s.Commit(context.Background(), tx)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("Commit: %v, %v; want %v", done, err, c.want)
			}
			if err != nil && !errors.Is(err, logstore.ErrUnavailable) {
				t.Errorf("Commit: %v, want ErrUnavailable", err)
			}
			if !c.known {
				if _, err := s.Commit(context.Background(), smallAccess(t, p)); !errors.Is(err, logstore.ErrUnavailable) {
					t.Errorf("Commit while the store is broken: %v", err)
				}
				rename(t, database+"-away", database)
			}
			closeBody(t, body)
			mustCommit(t, s, smallAccess(t, p)) // works again
			checkFailedCommit(t, s, c.happens)
			closeStore(t, s)
			s = open(t, logstore.Options{Dir: dir})
			checkFailedCommit(t, s, c.happens)
			want := 0
			if c.happens {
				want = 1
			}
			if names := bodyFiles(t, dir); len(names) != want {
				t.Errorf("files %v, want %d", names, want)
			}
		})
	}
}

// A commit of which its caller heard that it is uncertain, and which did happen, wakes
// the courier as soon as that is found out, by whatever comes next.
func TestUncertainWakes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir})
	defer closeStore(t, s)
	s.SetPatience(time.Millisecond)
	database := filepath.Join(dir, "pecd.db")
	s.FailNextCommit(true, func() { rename(t, database, database+"-away") })
	if _, err := s.Commit(context.Background(), smallAccess(t, storetest.NewProvider(t))); !errors.Is(err, logstore.ErrUncertain) {
		t.Fatalf("Commit: %v", err)
	}
	rename(t, database+"-away", database)
	select {
	case <-s.Wake():
		t.Error("woken before it is known")
	default:
	}
	mustCommit(t, s, logstore.Tx{At: storetest.At})
	select {
	case <-s.Wake():
	default:
		t.Errorf("%d messages in the outbox, and nobody is woken", statsOf(t, s).Outbox)
	}
}

// checkFailedCommit expects two small transactions, and if happened the large
// one between.
func checkFailedCommit(t *testing.T, s *logstore.SQLite, happened bool) {
	t.Helper()
	want := 2
	if happened {
		want = 3
	}
	out, err := s.Outgoing(context.Background(), storetest.At, 100, nil)
	if err != nil || len(out) != 2*want {
		t.Errorf("outbox: %d messages, %v; want %d", len(out), err, 2*want)
	}
	for _, m := range out {
		if n := int64(len(storetest.Text(t, m.Content))); n != m.Content.Size() {
			t.Errorf("%s has %d octets of %d", m.Kind, n, m.Content.Size())
		}
	}
	next := int64(1)
	err = s.Search(context.Background(), logstore.Query{}, func(e logstore.Entry) error {
		if e.Seq != next {
			t.Errorf("entry %d where %d should be", e.Seq, next)
		}
		next++
		return nil
	})
	if err != nil || next != int64(2*want)+1 {
		t.Errorf("register: %d entries, %v; want %d", next-1, err, 2*want)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Error(err)
	}
}

// The bytes of a body are on stable storage before it has its name, and the name
// before a row points to it. A process that is killed cannot show that: the
// kernel lives on.
func TestSyncOrder(t *testing.T) {
	var order []string
	s := open(t, logstore.Options{Dir: t.TempDir(), AtStep: func(at logstore.Step) { order = append(order, string(at)) }})
	defer closeStore(t, s)
	s.WatchSyncs(func(name string) error {
		order = append(order, name)
		return nil
	})
	tx, body := largeAccess(t, storetest.NewProvider(t), s)
	defer closeBody(t, body)
	mustCommit(t, s, tx)
	want := []string{
		string(logstore.StepPrepared), "1.tmp", string(logstore.StepSynced), string(logstore.StepNamed),
		"bodies", string(logstore.StepNameSynced), string(logstore.StepBegun), string(logstore.StepWritten),
		string(logstore.StepCommitted),
	}
	if len(order) < len(want) || !slices.Equal(order[:len(want)], want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestSyncFails(t *testing.T) {
	for _, what := range []string{"1.tmp", "bodies"} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, logstore.Options{Dir: dir})
			defer closeStore(t, s)
			p := storetest.NewProvider(t)
			s.WatchSyncs(func(name string) error {
				if name == what {
					return syscall.EIO
				}
				return nil
			})
			tx, body := largeAccess(t, p, s)
			for range 2 {
				if _, err := s.Commit(context.Background(), tx); !errors.Is(err, logstore.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
					t.Errorf("Commit: %v", err)
				}
			}
			closeBody(t, body)
			if st := statsOf(t, s); st != (logstore.Stats{}) || len(bodyFiles(t, dir)) != 0 {
				t.Errorf("it left %+v and files %v", st, bodyFiles(t, dir))
			}
		})
	}
}

// What the writer finds out about a commit it finds again when it must look once more:
// the mark that it puts itself is not taken for the transaction's, nor hides it.
func TestFindOutAgain(t *testing.T) {
	s := open(t, logstore.Options{Dir: t.TempDir()})
	defer closeStore(t, s)
	for i := range 3 {
		for _, happened := range []bool{true, false} {
			if first, second, err := s.FindOutAgain(context.Background(), happened); first != happened || second != happened || err != nil {
				t.Errorf("happened %v: found %v and then %v, %v", happened, first, second, err)
			}
		}
		register(t, s, 1+2*i, 2)
	}
	mustVerify(t, s, logstore.VerifyOptions{Pages: true})
}
