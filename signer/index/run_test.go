package index

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/pec/directory"
	"pecd/signer"
)

// TestFile: a directory that somebody else puts there.
func TestFile(t *testing.T) {
	s := newScene(t)
	file := filepath.Join(t.TempDir(), "igpec.ldif.p7m")
	write := func(data []byte) {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k := s.keeper(func(o *Options) { o.URL, o.Client, o.File = "", nil, file })
	if _, err := k.Update(t.Context(), false); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	p7m := s.signed(ldif(t, provider("Alfa", "alfa.example")))
	write(p7m)
	if c := s.update(k); !c.Taken {
		t.Error("not taken")
	}
	if c := s.update(k); c.Taken {
		t.Error("taken twice")
	}
	write(p7m[:100])
	if _, err := k.Update(t.Context(), false); !errors.Is(err, signer.ErrMalformedSignature) || owner(k, "alfa.example") != "Alfa" {
		t.Error(err)
	}
	again := s.keeper(func(o *Options) { o.URL, o.Client, o.File = "", nil, file })
	if err := again.Load(t.Context()); err != nil || again.Status().Source != file {
		t.Error(err)
	}
}

// TestFileAge: a file is as old as it is, however often it is read, also after a start
// without it; and it is not read without a pause for being old.
func TestFileAge(t *testing.T) {
	s := newScene(t)
	s.now = s.now.Truncate(time.Second) // as dates of files are kept
	file := filepath.Join(t.TempDir(), "igpec.ldif.p7m")
	write := func(at time.Time, ps ...directory.Provider) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, s.signed(ldif(t, ps...)), 0o644), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	checked := func(k *Keeper, want time.Time) {
		t.Helper()
		if st := k.Status(); !st.Checked.Equal(want) {
			t.Errorf("checked at %s, want %s", st.Checked, want)
		}
	}
	ofFile := func(o *Options) { o.URL, o.Client, o.File = "", nil, file }
	k := s.keeper(ofFile)
	first := s.now.Add(-time.Hour)
	write(first, provider("Alfa", "alfa.example"))
	s.update(k)
	checked(k, first)
	s.forward(3 * day)
	if c := s.update(k); c.Taken {
		t.Error("taken twice")
	}
	checked(k, first)
	if d := k.pause(); d != DefaultInterval {
		t.Errorf("an old file is read again after %s", d)
	}
	second := s.now.Add(-time.Minute)
	write(second, provider("Alfa", "alfa.example"), provider("Beta", "beta.example"))
	s.update(k)
	checked(k, second)
	s.forward(day)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	again := s.keeper(ofFile)
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	checked(again, second)
	write(s.now.Add(day), provider("Alfa", "alfa.example")) // whose clock is ahead
	s.update(k)
	checked(k, s.now)
}

// TestRun: daily, sooner after a failure, at once if there is none.
func TestRun(t *testing.T) {
	s := newScene(t)
	var log bytes.Buffer
	waits, wake := make(chan time.Duration), make(chan time.Time)
	k := s.keeper(func(o *Options) {
		o.After = func(d time.Duration) <-chan time.Time {
			waits <- d
			return wake
		}
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Random = strings.NewReader("\x00\x00\x80")
	})
	s.web.Fail("/igpec.ldif.p7m", 500)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Run(ctx) }()
	expect := func(want time.Duration) {
		t.Helper()
		if got := <-waits; got != want {
			t.Errorf("waits for %s, want %s", got, want)
		}
	}
	expect(0)
	wake <- s.now
	expect(DefaultRetry)
	s.publish(provider("Alfa", "alfa.example"))
	wake <- s.now
	expect(DefaultInterval)
	if owner(k, "alfa.example") != "Alfa" {
		t.Error("not there")
	}
	s.forward(day)
	wake <- s.now
	expect(DefaultInterval - DefaultInterval/20) // the random source said so
	gone := errors.New("the end")
	cancel(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "last good one stays") || !strings.Contains(text, "directory taken") {
		t.Errorf("%s", text)
	}
}

// TestConcurrent: questions see one directory or the other, whole.
func TestConcurrent(t *testing.T) {
	s := newScene(t)
	k := s.keeper(func(o *Options) { o.Loss = 1 })
	one := s.signed(ldif(t, provider("Alfa", "alfa.example", "x.example")))
	two := s.signed(ldif(t, provider("Alfa", "alfa.example", "y.example")))
	s.web.Publish("/igpec.ldif.p7m", one)
	s.update(k)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				d := k.Directory()
				_, x := d.ProviderOf("x.example")
				_, y := d.ProviderOf("y.example")
				if x == y || k.Status().Domains != 2 {
					t.Errorf("x %t, y %t", x, y)
					return
				}
			}
		}()
	}
	for i := range 10 {
		s.web.Publish("/igpec.ldif.p7m", [][]byte{two, one}[i%2])
		s.update(k)
	}
	close(stop)
	readers.Wait()
}

func TestOptions(t *testing.T) {
	s := newScene(t)
	for name, change := range map[string]func(*Options){
		"nothing":   func(o *Options) { o.URL = "" },
		"both":      func(o *Options) { o.File = "x" },
		"http":      func(o *Options) { o.URL = "http://igpec.example/" },
		"client":    func(o *Options) { o.Client = nil },
		"verifier":  func(o *Options) { o.Verifier = nil },
		"clock":     func(o *Options) { o.Now = nil },
		"loss":      func(o *Options) { o.Loss = 1.5 },
		"less loss": func(o *Options) { o.Loss = -0.1 },
		"interval":  func(o *Options) { o.Interval = -1 },
		"retry":     func(o *Options) { o.Retry = -1 },
	} {
		if _, err := New(s.options(change)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestExport: what the authority gets, by OpenSSL's judgement.
func TestExport(t *testing.T) {
	s := newScene(t)
	alfa := s.ca.Identity(t, "Alfa", "posta-certificata@alfa.example")
	own := provider("Alfa", "alfa.example")
	own.Certificates = [][]byte{alfa.Certificate().Raw}
	p7m, err := Export(t.Context(), signer.NewSigner(alfa.Identity), s.now, own)
	if err != nil {
		t.Fatal(err)
	}
	content := openssl(t, p7m, "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", s.ca.File, "-purpose", "any")
	d, err := directory.Parse(content)
	if err != nil || d.Domains() != 1 {
		t.Errorf("%v\n%s", err, content)
	}
	if _, err := Export(t.Context(), signer.NewSigner(alfa.Identity), s.now, provider("Alfa", "alfa.example")); !errors.Is(err, signer.ErrRecords) {
		t.Errorf("a record without our certificate: %v", err)
	}
}
