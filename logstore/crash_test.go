package logstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
)

// What the child has signed, told to the parent before the crash.
type crashScene struct {
	Before, During pec.Identifier
	Texts          map[string]string // by Message-ID
}

// crashChild commits one access transaction, takes the half of it, commits
// another and takes the envelope of the first, and kills itself at step on the
// way. Its bodies have as many octets as arg says.
func crashChild(t testing.TB, dir, arg string) {
	var step logstore.Step
	var size int
	if _, err := fmt.Sscan(arg, &step, &size); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var armed atomic.Bool
	s := open(t, logstore.Options{Dir: filepath.Join(dir, "store"), AtStep: func(at logstore.Step) {
		if armed.Load() && at == step {
			killSelf()
		}
	}})
	p := storetest.NewProvider(t)
	scene := crashScene{Texts: map[string]string{}}
	access := func() logstore.Tx {
		ev := p.NewEvent(t, "bob@beta.example", "bruna@beta.example")
		body, err := s.NewBody()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := body.Write([]byte(storetest.Original(ev, size))); err != nil {
			t.Fatal(err)
		}
		envelope, acceptance := p.Transport(t, ev, body), p.Acceptance(t, ev)
		scene.Texts[envelope.MessageID()] = storetest.Text(t, envelope.Content())
		scene.Texts[acceptance.MessageID()] = storetest.Text(t, acceptance.Content())
		return storetest.Access(envelope, acceptance)
	}
	first, second := access(), access()
	scene.Before, scene.During = first.Acts[0].Entry.Identifier, second.Acts[0].Entry.Identifier
	told, err := json.Marshal(scene)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "scene"), told, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, first); err != nil {
		t.Fatal(err)
	}
	out, err := s.Outgoing(ctx, storetest.At, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if _, err := s.Commit(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, m := range out {
		if m.Kind == pec.KindTransport {
			if err := s.Taken(ctx, m.ID, m.To); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatal("the step was not reached")
}

// A crash at any step leaves all of a transaction or nothing, and no body too
// many or too few.
func TestCrash(t *testing.T) {
	const nothing, everything = false, true
	rows := map[logstore.Step]struct{ committed, taken bool }{
		logstore.StepPrepared:      {nothing, nothing},
		logstore.StepSynced:        {nothing, nothing},
		logstore.StepNamed:         {nothing, nothing},
		logstore.StepNameSynced:    {nothing, nothing},
		logstore.StepBegun:         {nothing, nothing},
		logstore.StepWritten:       {nothing, nothing},
		logstore.StepCommitted:     {everything, nothing},
		logstore.StepSettled:       {everything, nothing},
		logstore.StepTakeBegun:     {everything, nothing},
		logstore.StepTakeWritten:   {everything, nothing},
		logstore.StepTakeCommitted: {everything, everything},
		logstore.StepTakeSettled:   {everything, everything},
	}
	if len(rows) != len(logstore.Steps()) {
		t.Errorf("the table has %d of %d steps", len(rows), len(logstore.Steps()))
	}
	for _, step := range logstore.Steps() {
		for _, size := range []int{1_000, 200_000} {
			t.Run(fmt.Sprintf("%s/%d", step, size), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				runKilledChild(t, "crash", dir, fmt.Sprint(step, " ", size))
				checkAfterCrash(t, dir, rows[step].committed, rows[step].taken, size > 100_000)
			})
		}
	}
}

func checkAfterCrash(t *testing.T, dir string, committed, taken, files bool) {
	var scene crashScene
	told, err := os.ReadFile(filepath.Join(dir, "scene"))
	if err == nil {
		err = json.Unmarshal(told, &scene)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	s := open(t, logstore.Options{Dir: filepath.Join(dir, "store")})
	defer closeStore(t, s)

	has := func(n bool) int {
		if n {
			return 1
		}
		return 0
	}
	during := has(committed)
	keys := []logstore.Key{
		storetest.KeyOf(pec.KindAcceptance, scene.Before, ""), storetest.KeyOf(pec.KindTransport, scene.Before, ""),
		storetest.KeyOf(pec.KindAcceptance, scene.During, ""), storetest.KeyOf(pec.KindTransport, scene.During, ""),
	}
	issued, err := s.Issued(ctx, keys)
	if err != nil || !issued[0] || !issued[1] || issued[2] != committed || issued[3] != committed {
		t.Errorf("issued: %v, %v", issued, err)
	}
	for id, want := range map[pec.Identifier]int{scene.Before: 2, scene.During: 2 * during} {
		n := 0
		err := s.Search(ctx, logstore.Query{Identifier: id}, func(logstore.Entry) error { n++; return nil })
		if err != nil || n != want {
			t.Errorf("register: %d entries, %v; want %d", n, err, want)
		}
		if rows, err := s.Awaited(ctx, id); err != nil || len(rows) != want {
			t.Errorf("ledger: %d rows, %v; want %d", len(rows), err, want)
		}
	}
	out, err := s.Outgoing(ctx, storetest.At, 10, nil)
	if want := 2 + 2*during - has(taken); err != nil || len(out) != want {
		t.Errorf("outbox: %d messages, %v; want %d", len(out), err, want)
	}
	for _, m := range out {
		if got := storetest.Text(t, m.Content); got != scene.Texts[m.MessageID] {
			t.Errorf("%s %s differs from what was signed", m.Kind, m.MessageID)
		}
	}
	bodies := 1 + during - has(taken)
	if !files {
		bodies = 0
	}
	if names := bodyFiles(t, filepath.Join(dir, "store")); len(names) != bodies || strings.Contains(fmt.Sprint(names), "tmp") {
		t.Errorf("files %v, want %d", names, bodies)
	}
}

func closeStore(t testing.TB, s *logstore.SQLite) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func bodyFiles(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "bodies"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
