package logstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
	"pecd/pec/message"
)

// What the child has signed, told to the parent before the crash.
type crashScene struct {
	Before, During pec.Identifier
	Texts          map[string]string // by Message-ID
	Infected       map[pec.Identifier]string
}

// crashChild commits one access transaction, takes the half of it, commits
// another and takes the envelope of the first, purges what the first kept, and
// kills itself at step on the way. Its bodies have as many octets as arg says; the
// same is kept as infected.
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
	scene := crashScene{Texts: map[string]string{}, Infected: map[pec.Identifier]string{}}
	access := func() logstore.Tx {
		ev := p.NewEvent(t, "bob@beta.example", "bruna@beta.example")
		body, err := s.NewBody()
		if err != nil {
			t.Fatal(err)
		}
		original := storetest.Original(ev, size)
		if _, err := body.Write([]byte(original)); err != nil {
			t.Fatal(err)
		}
		envelope, acceptance := p.Transport(t, ev, body), p.Acceptance(t, ev)
		scene.Texts[envelope.MessageID()] = storetest.Text(t, envelope.Content())
		scene.Texts[acceptance.MessageID()] = storetest.Text(t, acceptance.Content())
		scene.Infected[ev.Identifier] = original
		tx := storetest.Access(envelope, acceptance)
		tx.Acts[0].Keep = storetest.KeepAct(ev, message.Section(body, message.Range{Len: body.Size()})).Keep
		return tx
	}
	first, second := access(), access()
	first.Acts[0].Keep.Until = purgeTime
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
	if _, err := s.PurgeInfected(ctx, purgeTime); err != nil {
		t.Fatal(err)
	}
	t.Fatal("the step was not reached")
}

// purgeTime is before the term of all that is kept but the first message.
var purgeTime = storetest.At.Add(time.Hour)

// A crash at any step leaves all of a transaction or nothing, and no file too
// many or too few.
func TestCrash(t *testing.T) {
	const nothing, everything = false, true
	rows := map[logstore.Step]crashRow{
		logstore.StepPrepared:      {nothing, nothing, nothing},
		logstore.StepSynced:        {nothing, nothing, nothing},
		logstore.StepNamed:         {nothing, nothing, nothing},
		logstore.StepNameSynced:    {nothing, nothing, nothing},
		logstore.StepBegun:         {nothing, nothing, nothing},
		logstore.StepWritten:       {nothing, nothing, nothing},
		logstore.StepCommitted:     {everything, nothing, nothing},
		logstore.StepSettled:       {everything, nothing, nothing},
		logstore.StepTakeBegun:     {everything, nothing, nothing},
		logstore.StepTakeWritten:   {everything, nothing, nothing},
		logstore.StepTakeCommitted: {everything, everything, nothing},
		logstore.StepTakeSettled:   {everything, everything, nothing},

		logstore.StepPurgeBegun:     {everything, everything, nothing},
		logstore.StepPurgeWritten:   {everything, everything, nothing},
		logstore.StepPurgeCommitted: {everything, everything, everything},
		logstore.StepPurgeSettled:   {everything, everything, everything},
	}
	steps := append(logstore.Steps(), logstore.PurgeSteps()...)
	if len(rows) != len(steps) {
		t.Errorf("the table has %d of %d steps", len(rows), len(steps))
	}
	for _, step := range steps {
		for _, size := range []int{1_000, 200_000} {
			t.Run(fmt.Sprintf("%s/%d", step, size), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				runKilledChild(t, "crash", dir, fmt.Sprint(step, " ", size))
				checkAfterCrash(t, dir, rows[step], size > 100_000)
			})
		}
	}
}

// A crashRow says what is in the store after a crash.
type crashRow struct{ committed, taken, purged bool }

func checkAfterCrash(t *testing.T, dir string, row crashRow, files bool) {
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
	mustVerify(t, s, logstore.VerifyOptions{})

	has := func(n bool) int {
		if n {
			return 1
		}
		return 0
	}
	during := has(row.committed)
	keys := []logstore.Key{
		storetest.KeyOf(pec.KindAcceptance, scene.Before, ""), storetest.KeyOf(pec.KindTransport, scene.Before, ""),
		storetest.KeyOf(pec.KindAcceptance, scene.During, ""), storetest.KeyOf(pec.KindTransport, scene.During, ""),
	}
	issued, err := s.Issued(ctx, keys)
	if err != nil || !issued[0] || !issued[1] || issued[2] != row.committed || issued[3] != row.committed {
		t.Errorf("issued: %v, %v", issued, err)
	}
	for id, want := range map[pec.Identifier]int{scene.Before: 2, scene.During: 2 * during} {
		entries := want
		if id == scene.Before {
			entries += has(row.purged)
		}
		n := 0
		err := s.Search(ctx, logstore.Query{Identifier: id}, func(logstore.Entry) error { n++; return nil })
		if err != nil || n != entries {
			t.Errorf("register: %d entries, %v; want %d", n, err, entries)
		}
		if rows, err := s.Awaited(ctx, id); err != nil || len(rows) != want {
			t.Errorf("ledger: %d rows, %v; want %d", len(rows), err, want)
		}
	}
	out, err := s.Outgoing(ctx, storetest.At, 10, nil)
	if want := 2 + 2*during - has(row.taken); err != nil || len(out) != want {
		t.Errorf("outbox: %d messages, %v; want %d", len(out), err, want)
	}
	for _, m := range out {
		if got := storetest.Text(t, m.Content); got != scene.Texts[m.MessageID] {
			t.Errorf("%s %s differs from what was signed", m.Kind, m.MessageID)
		}
	}
	bodies := 1 + during - has(row.taken)
	if !files {
		bodies = 0
	}
	if names := bodyFiles(t, filepath.Join(dir, "store")); len(names) != bodies || strings.Contains(fmt.Sprint(names), "tmp") {
		t.Errorf("files %v, want %d", names, bodies)
	}
	checkKeptAfterCrash(t, s, dir, scene, row)
}

func checkKeptAfterCrash(t *testing.T, s *logstore.SQLite, dir string, scene crashScene, row crashRow) {
	t.Helper()
	var want []pec.Identifier
	if !row.purged {
		want = append(want, scene.Before)
	}
	if row.committed {
		want = append(want, scene.During)
	}
	list, err := s.Infected(context.Background(), logstore.InfectedQuery{})
	if err != nil || len(list) != len(want) {
		t.Fatalf("%d infected messages, %v; want %d", len(list), err, len(want))
	}
	names := []string{}
	for i, m := range list {
		if text, err := readInfected(s, m.ID); err != nil || m.Identifier != want[i] || text != scene.Infected[want[i]] {
			t.Errorf("infected message %d of %s: %v", m.ID, m.Identifier, err)
		}
		names = append(names, fmt.Sprint(m.ID))
	}
	if got := virusFiles(t, filepath.Join(dir, "store")); !slices.Equal(got, names) {
		t.Errorf("files of infected messages %v, want %v", got, names)
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
	return filesIn(t, filepath.Join(dir, "bodies"))
}

func virusFiles(t testing.TB, dir string) []string {
	t.Helper()
	return filesIn(t, filepath.Join(dir, "virus"))
}

func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
