package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
)

// scripted is a world whose two pecd are a few lines of shell. They know their
// folder as DIR.
func scripted(t *testing.T, body string) *world {
	t.Helper()
	provider := func(label string) *stage.Provider {
		dir := t.TempDir()
		bin := filepath.Join(dir, "pecd")
		if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := &stage.Provider{MailServer: stage.MailServer{Label: label, Domain: label + ".example", Dir: dir}}
		p.Pecd = &stage.Pecd{Bin: bin, ConfigFile: filepath.Join(dir, "pecd.toml"), Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid"), Env: []string{"DIR=" + dir}}
		t.Cleanup(func() {
			if err := p.Pecd.Kill(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	return &world{stage: &stage.Stage{Alfa: provider("alfa"), Beta: provider("beta")}}
}

const ready = `echo "time=now level=INFO msg=ready doors=2" >&2; `

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A pecd that ends by itself ends the run, though the next fault starts it again.
func TestWatched(t *testing.T) {
	ctx := within(t)
	w := scripted(t, ready+`read -r line <"$DIR/pipe"; exit 3`)
	p := w.stage.Beta
	pipe := filepath.Join(p.Dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.watched(ctx, func(ctx context.Context) error {
		return errors.Join(p.Pecd.Start(ctx), p.Pecd.Kill(), p.Pecd.Start(ctx))
	}); err != nil {
		t.Errorf("killed and started again: %v", err)
	}
	err := w.watched(ctx, func(ctx context.Context) error {
		if err := os.WriteFile(pipe, []byte("end\n"), 0o600); err != nil {
			return err
		}
		<-ctx.Done()
		return errors.Join(p.Pecd.Kill(), w.startAgain(within(t), p))
	})
	if !errors.Is(err, stage.ErrEnded) || !strings.Contains(err.Error(), "pecd beta") {
		t.Errorf("ended by itself: %v", err)
	}
}

// A start that fails is forgiven only while the key is away.
func TestStartAgain(t *testing.T) {
	ctx := within(t)
	w := scripted(t, `[ -e "$DIR/key" ] || { touch "$DIR/key"; echo no key >&2; exit 1; }; `+ready+`exec sleep 600`)
	if err := w.startAgain(ctx, w.stage.Beta); !errors.Is(err, stage.ErrNotReady) {
		t.Errorf("with nothing broken: %v", err)
	}
	now := time.Now()
	w.history = []fault{
		{Target: "token alfa", Begin: seconds(now.Add(-time.Hour)), End: seconds(now.Add(-time.Minute))},
		{Target: "clamd", Begin: seconds(now)},
	}
	if w.met("token alfa", now) {
		t.Error("a token that came back before is away")
	}
	w.history = append(w.history, fault{Target: "token alfa", Begin: seconds(now)})
	if err := w.startAgain(ctx, w.stage.Alfa); err != nil || w.stage.Alfa.Pecd.PID() == 0 {
		t.Errorf("with its key away for a while: %v", err)
	}
}

// Faults of what does not run are errors, and never signals to others.
func TestNobodyIsSignalled(t *testing.T) {
	ctx := within(t)
	w := scripted(t, ready+`sleep 600 & exec sleep 600`)
	p := w.stage.Beta
	if err := w.signalPlugin(ctx, p, 0); err == nil {
		t.Error("signalled the plugins of a pecd that does not run")
	}
	if err := limitFiles(ctx, p, "unlimited"); err == nil {
		t.Error("limited the files of a pecd that does not run")
	}
	if _, err := signalServer(p, "Dovecot", "dovecot/run", 0); err == nil {
		t.Error("signalled a Dovecot without a pid")
	}
	if err := p.Pecd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.signalPlugin(ctx, p, 0); err != nil {
		t.Errorf("a plugin that runs: %v", err)
	}
	children := childrenOf(p.Pecd.PID())
	if err := w.signalPlugin(ctx, p, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	for len(childrenOf(p.Pecd.PID())) > 0 && pause(ctx, 10*time.Millisecond) {
	}
	if err := w.signalPlugin(soon, p, 0); err == nil {
		t.Errorf("a plugin was signalled after the only one, %v, was killed", children)
	}
	if err := os.MkdirAll(filepath.Join(p.Dir, "dovecot/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	for pid, fine := range map[string]bool{"": false, "1": false, "0": false, "999999999": false, fmt.Sprint(p.Pecd.PID()): true} {
		if err := os.WriteFile(filepath.Join(p.Dir, "dovecot/run/master.pid"), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := signalServer(p, "Dovecot", "dovecot/run", 0); (err == nil) != fine {
			t.Errorf("master.pid says %q: %v", pid, err)
		}
	}
	pid := p.Pecd.PID()
	if err := errors.Join(syscall.Kill(pid, syscall.SIGKILL), untilEnded(ctx, []int{pid})); err != nil || p.Pecd.PID() != 0 && len(statOf(pid)) > 0 && statOf(pid)[0] != "Z" {
		t.Errorf("killed: %v, %v", err, statOf(pid))
	}
}

func TestPanics(t *testing.T) {
	w := scripted(t, "")
	for p, log := range map[*stage.Provider]string{
		w.stage.Alfa: "level=INFO msg=ready\nlevel=ERROR msg=\"lmtp: panic in the backend\" panic=boo\n",
		w.stage.Beta: "level=INFO msg=ready\nlevel=INFO msg=\"courier: taken by the MTA\" message_id=202611301240580000lvm6nrc88vl7ksd3panicii@alfa.example\n",
	} {
		if err := os.WriteFile(p.Pecd.Log, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wrong, err := w.panics()
	if err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "alfa.example") || !strings.Contains(wrong[0], "boo") {
		t.Errorf("%q, %v", wrong, err)
	}
}

// The library below the C library lets fail what it is told to, under the store
// alone, and counts it.
func TestShim(t *testing.T) {
	dir := t.TempDir()
	shim := filepath.Join(dir, "shim.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", shim, "testdata/shim.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	store, control, hits := filepath.Join(dir, "store"), filepath.Join(dir, "io"), filepath.Join(dir, "hits")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	const program = `
import os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for name, call in (("fsync", lambda: os.fsync(f)), ("fdatasync", lambda: os.fdatasync(f)), ("write", lambda: os.pwrite(f, b"x", 0))):
    try:
        call()
    except OSError as e:
        print(name, e.errno)
`
	for _, c := range []struct {
		control, folder, fail string
		hits                  int
	}{
		{"", store, "", 0},
		{"fsync", store, "fsync 5\nfdatasync 5\n", 2},
		{"write", store, "write 28\n", 1},
		{"fsync", dir, "", 0},
	} {
		if err := os.WriteFile(control, []byte(c.control), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("python3", "-c", program, filepath.Join(c.folder, "file"))
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+shim, "CHAOS_STORE="+store, "CHAOS_CONTROL="+control, "CHAOS_HITS="+hits)
		out, err := cmd.Output()
		if err != nil || string(out) != c.fail {
			t.Errorf("%q in %s: %q failed, %v", c.control, c.folder, out, err)
		}
		if n, err := takeHits(hits); err != nil || n != c.hits {
			t.Errorf("%q in %s: %d hits, %v; want %d", c.control, c.folder, n, err, c.hits)
		}
	}
}

func TestCompare(t *testing.T) {
	series := func(last float64) (list []sample) {
		for _, files := range []float64{500, 500, 10, 10, last, last} {
			list = append(list, sample{goroutines: 40, descriptors: 40, memory: 60e6, log: 33e6, files: files})
		}
		return list
	}
	var said bytes.Buffer
	wrong, err := compare(&said, map[string][]sample{"alfa.example": series(31)})
	if err != nil || len(wrong) != 0 || !strings.Contains(said.String(), "of at most           31 (1.1 times, and 20): within bounds") {
		t.Errorf("at the bound: %q, %v; said %s", wrong, err, said.String())
	}
	if wrong, err = compare(io.Discard, map[string][]sample{"alfa.example": series(32)}); err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "files of bodies") {
		t.Errorf("past the bound: %q, %v", wrong, err)
	}
	if _, err = compare(io.Discard, map[string][]sample{"alfa.example": series(1)[:2]}); err == nil {
		t.Error("two samples have thirds")
	}
}

// What is held at rest after the load is what was held before, but for very little.
func TestCompareIdle(t *testing.T) {
	held := func(more float64, files ...string) map[string]idling {
		return map[string]idling{"alfa.example": {sample{goroutines: 40 + more, descriptors: 40, database: databaseMost}, files}}
	}
	if wrong := compareIdle(io.Discard, held(0, "a"), held(idleMore, "a")); len(wrong) != 0 {
		t.Errorf("at the bound: %q", wrong)
	}
	wrong := compareIdle(io.Discard, held(0, "a"), held(idleMore+1, "a", "b"))
	if len(wrong) != 2 || !strings.Contains(wrong[0], "goroutines at rest") || !strings.HasSuffix(wrong[1], "left over: b") {
		t.Errorf("past the bound: %q", wrong)
	}
	a, b := held(0), held(0)
	b["alfa.example"] = idling{sample: sample{goroutines: 40, descriptors: 41 + idleMore, database: databaseMost + 1}}
	wrong = compareIdle(io.Discard, a, b)
	if len(wrong) != 2 || !strings.Contains(wrong[0], "descriptors at rest were 40 before the load and 44") || !strings.Contains(wrong[1], "12 descriptors of the database") {
		t.Errorf("descriptors past the bounds: %q", wrong)
	}
}

// What SQLite has open is counted apart, as the kernel names it.
func TestDescriptors(t *testing.T) {
	before, _, err := descriptors(os.Getpid(), "")
	if err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(t.TempDir(), "pecd.db")
	for _, name := range []string{database, database + "-wal", database + "-shm", database + "-wal", database + ".old"} {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if others, of, err := descriptors(os.Getpid(), database); err != nil || others != before+1 || of != 4 {
		t.Errorf("%.0f others after %.0f, %.0f of the database, %v", others, before, of, err)
	}
	if _, _, err := descriptors(-1, database); err == nil {
		t.Error("the descriptors of no process")
	}
}

func TestTemporary(t *testing.T) {
	w := scripted(t, "")
	w.dir = t.TempDir()
	p := w.stage.Alfa
	store := filepath.Join(p.Dir, "store")
	p.Pecd.Config.Store.Path = store
	files := []string{filepath.Join(store, "bodies", "1"), filepath.Join(store, "plugins", "messages", "2"), filepath.Join(store, "trust", "3.tmp"), filepath.Join(w.control(p, "tmp"), "pecd-4", "sock")}
	for _, file := range append(slices.Clone(files), filepath.Join(store, "pecd.db"), filepath.Join(store, "trust", "crl")) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := w.temporary(p); err != nil || !slices.Equal(got, files) {
		t.Errorf("%q, %v", got, err)
	}
}

// In a soak nobody may be put off; under faults anybody may.
func TestDisappointed(t *testing.T) {
	w := scripted(t, "")
	w.disappointed(true, errors.New("gone"))
	w.faults = 1
	w.disappointed(false, errors.New("later"))
	if len(w.wrong) != 1 || !strings.Contains(w.wrong[0], "left without a reply") || w.putOff.Load() != 2 {
		t.Errorf("%q, %d put off", w.wrong, w.putOff.Load())
	}
}

// A client tries again and again, but not for ever when nothing is broken.
func TestPatienceEnds(t *testing.T) {
	w := scripted(t, "")
	w.settle, w.faults = 10*time.Millisecond, 1
	s := sending{MsgID: "<1@client.example>", From: "nobody@alfa.example", File: filepath.Join(t.TempDir(), "1")}
	if err := os.WriteFile(s.File, []byte("\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.stage.Ordinary = &stage.Ordinary{}
	over := make(chan struct{})
	close(over)
	if err := w.deliver(within(t), &s, over); !errors.Is(err, errViolation) || !strings.Contains(err.Error(), s.MsgID) {
		t.Errorf("it ended with %v", err)
	}
}

func TestFigure(t *testing.T) {
	page := []byte("# HELP a b 1\na_total 7\na{b=\"c d\"} 2.5e3\n")
	if v, err := figure(page, "a"); err != nil || v != 2500 {
		t.Errorf("a: %v, %v", v, err)
	}
	if v, err := figure(page, "b"); err == nil {
		t.Errorf("a figure that is not there is %v", v)
	}
}
