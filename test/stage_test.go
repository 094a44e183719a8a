package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
)

// patience bounds every wait for something that should come soon.
const patience = 90 * time.Second

// within returns a context that ends after patience. Each wait has one of its own: of
// one for several the last would have what the others left.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

var mta = flag.String("mta", stage.MTAPostfix, "the providers' MTA: postfix or sendmail")

// newStage starts two providers and the ordinary server, and stops them when the
// test ends. If the test failed it shows the ends of their logs.
func newStage(t testing.TB, change ...func(*stage.Options)) *stage.Stage {
	t.Helper()
	o := stage.Options{Dir: t.TempDir(), PecdBinary: pecdBinary(t), MTA: *mta}
	for _, c := range change {
		c(&o)
	}
	if *outside {
		configure := o.Configure
		o.Configure = func(domain string, c *stage.PecdConfig) {
			c.Plugins = pointsOutside(t)
			if configure != nil {
				configure(domain, c)
			}
		}
	}
	s, err := stage.New(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			consistent(t, s)
		}
		if t.Failed() {
			showLogs(t, s)
		}
		if err := s.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// consistent wants the registers to hold by their own rules, whatever a test did:
// what has not come yet is explained.
func consistent(t testing.TB, s *stage.Stage) {
	t.Helper()
	for _, p := range s.Providers() {
		cmd := exec.Command(p.Pecd.Bin, "log", "check", "--config", p.Pecd.ConfigFile)
		cmd.Env = append(os.Environ(), p.Pecd.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: pecd log check: %v\n%s", p.Label, err, out)
		}
	}
}

// showLogs prints what the servers wrote last.
func showLogs(t testing.TB, s *stage.Stage) {
	files := []string{s.Ordinary.Maillog}
	for _, p := range s.Providers() {
		files = append(files, p.Pecd.Log, p.Maillog, p.DovecotLog)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Log(err)
			continue
		}
		if len(b) > 6000 {
			b = b[len(b)-6000:]
		}
		t.Logf("%s:\n%s", f, b)
	}
}

var (
	pecd   = binary{name: "pecd", pkg: "pecd/cmd/pecd"}
	drill  = binary{name: "pecd-drill", pkg: "pecd/cmd/pecd", flags: []string{"-tags", "faultdrill"}}
	clamav = binary{name: "clamav", pkg: "pecd/plugins/clamav"}
)

// A binary is built once for this run.
type binary struct {
	name  string
	pkg   string
	flags []string
	once  sync.Once
	file  string
	err   error
}

func (b *binary) build(t testing.TB) string {
	t.Helper()
	b.once.Do(func() {
		b.file = filepath.Join(binaries, b.name)
		b.err = stage.Build(context.Background(), b.file, b.pkg, b.flags...)
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.file
}

// pecdBinary returns the pecd to test; drillBinary one that can end itself at
// any step.
func pecdBinary(t testing.TB) string  { return pecd.build(t) }
func drillBinary(t testing.TB) string { return drill.build(t) }

// binaries is a folder for what the tests build.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pecd-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
