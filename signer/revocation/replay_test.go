package revocation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// TestReplay: a list from before a revocation, genuine and not ended, does not
// come back, not after a restart either, and not by a URL of the configuration.
func TestReplay(t *testing.T) {
	for _, configured := range []bool{false, true} {
		s := newScene(t)
		cert := s.certificate("/crl")
		configure := func(*Options) {}
		if configured {
			cert = s.certificate()
			configure = func(o *Options) { o.URLs = []string{s.web.URL + "/crl"} }
		}
		old := s.list()
		s.clock.forward(time.Hour)
		s.made = s.clock.Now()
		s.web.Publish("/crl", s.list(revoke(cert, start, 1)))
		k := s.keeper(configure)
		s.want(k, cert, signer.ErrRevoked)
		s.web.Publish("/crl", old)
		if err := k.Refresh(t.Context()); !errors.Is(err, ErrOlder) {
			t.Errorf("configured %t: %v", configured, err)
		}
		s.want(k, cert, signer.ErrRevoked)
		if st := s.wantStatus(k, "/crl", ErrOlder); st.Number != "2" || st.Failures != 1 {
			t.Errorf("%+v", st)
		}
		k.Close()

		k = s.keeper(configure)
		s.clock.forward(5 * time.Hour) // the one in the cache is due
		if configured {
			if err := k.Refresh(t.Context()); err != nil {
				t.Errorf("nobody is known to check it with: %v", err)
			}
		}
		s.want(k, cert, signer.ErrRevoked)
		if err := k.Refresh(t.Context()); !errors.Is(err, ErrOlder) {
			t.Errorf("after a restart, configured %t: %v", configured, err)
		}
		s.want(k, cert, signer.ErrRevoked)
	}
}

// TestReplaces: by number and by time.
func TestReplaces(t *testing.T) {
	s := newScene(t)
	list := func(number int64, made time.Duration) *evidence {
		s.number, s.made = number-1, start.Add(made)
		e, err := parseList(s.list())
		if err != nil {
			t.Fatal(err)
		}
		if number == 0 {
			e.number = nil
		}
		return e
	}
	for name, tc := range map[string]struct {
		old, new *evidence
		good     bool
	}{
		"next":                   {list(5, 0), list(6, 1), true},
		"the same":               {list(5, 0), list(5, 0), true},
		"same number, later":     {list(5, 0), list(5, time.Hour), true},
		"number back":            {list(5, 0), list(4, time.Hour), false},
		"time back":              {list(5, 0), list(6, -time.Hour), false},
		"numbers began, later":   {list(0, 0), list(1, time.Hour), true},
		"numbers ended, earlier": {list(5, 0), list(0, -time.Hour), false},
	} {
		if err := tc.new.replaces(tc.old); (err == nil) != tc.good || err != nil && !errors.Is(err, ErrOlder) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForgedFirst: a forgery that came when nobody was known to check it with
// does not hold up the genuine list.
func TestForgedFirst(t *testing.T) {
	for _, refresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("refresh %t", refresh), func(t *testing.T) { forgedFirst(t, refresh) })
	}
}

func forgedFirst(t *testing.T, refresh bool) {
	s := newScene(t)
	cert := s.certificate()
	forger := signertest.NewCA(t) // of the same name
	forged := s.template()
	forged.Number.SetInt64(1 << 60)
	forged.ThisUpdate = start.Add(time.Minute)
	s.web.Publish("/crl", s.sign(forged, forger))
	k := s.keeper(func(o *Options) { o.URLs = []string{s.web.URL + "/crl"} })
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.wantStatus(k, "/crl", nil); st.Proved {
		t.Error("proved by nobody")
	}
	if files, _ := filepath.Glob(filepath.Join(s.cache, "*")); len(files) > 0 {
		t.Errorf("a forgery is kept: %v", files)
	}
	s.web.Publish("/crl", s.list(revoke(cert, start.Add(-day), 1)))
	if refresh { // before anybody asks
		if err := k.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s.want(k, cert, signer.ErrRevoked)
	if st := s.wantStatus(k, "/crl", nil); !st.Proved {
		t.Error("not proved")
	}
	s.web.Publish("/crl", s.sign(forged, forger))
	if err := k.Refresh(t.Context()); !errors.Is(err, ErrSigner) {
		t.Errorf("a forgery later: %v", err)
	}
	s.want(k, cert, signer.ErrRevoked)
}

// TestConfiguredAway: a configured list that was never had is a reason to wait,
// whoever it may be of.
func TestConfiguredAway(t *testing.T) {
	s := newScene(t)
	s.web.Fail("/crl", 500)
	k := s.keeper(func(o *Options) { o.URLs = []string{s.web.URL + "/crl"} })
	s.want(k, s.certificate(), signer.ErrRevocationUnknown)
}

// TestRestart: what was known is known again, without the network.
func TestRestart(t *testing.T) {
	s := newScene(t)
	bad, good, listed := s.certificate("/crl"), s.certificate("/crl"), s.certificate()
	s.web.Publish("/crl", s.list(revoke(bad, start.Add(-day), 1), revoke(listed, start.Add(-day), 1)))
	configure := func(o *Options) { o.URLs = []string{s.web.URL + "/crl"} }
	k := s.keeper(configure)
	s.want(k, bad, signer.ErrRevoked)
	k.Close()
	s.web.Fail("/crl", 500)
	for _, c := range []func(*Options){configure, func(*Options) {}} {
		k = s.keeper(c)
		s.want(k, bad, signer.ErrRevoked)
		s.want(k, good, nil)
		k.Close()
	}
	if n := s.web.Requests("/crl"); n != 1 {
		t.Errorf("%d requests", n)
	}
	files, err := filepath.Glob(filepath.Join(s.cache, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	if err := os.Truncate(files[0], 200); err != nil {
		t.Fatal(err)
	}
	k = s.keeper()
	s.want(k, bad, signer.ErrRevocationUnknown)
}

// TestFiles: read at start, again when they change, and kept when they break.
func TestFiles(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	cert := s.certificate()
	o := s.options(func(o *Options) { o.Files = []string{filepath.Join(dir, "list")} })
	if _, err := New(o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	writeFile(t, dir, "list", []byte("not a list"))
	if _, err := New(o); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a broken file: %v", err)
	}
	writeFile(t, dir, "list", s.list())
	k := s.keeper(func(x *Options) { *x = o })
	s.want(k, cert, nil)
	s.clock.forward(time.Hour)
	writeFile(t, dir, "list", s.list(revoke(cert, start.Add(-day), 1)))
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(k, cert, signer.ErrRevoked)
	writeFile(t, dir, "list", []byte("not a list"))
	if err := k.Refresh(t.Context()); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	s.want(k, cert, signer.ErrRevoked)
	if left, _ := filepath.Glob(filepath.Join(s.cache, "*")); len(left) > 0 {
		t.Errorf("files are cached: %v", left)
	}
}
