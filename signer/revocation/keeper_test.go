package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// TestPolicy: what happens when nothing can be had.
func TestPolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		policy Policy
		paths  []string
		after  time.Duration // since the list was made; it counts for a day
		want   error
	}{
		"fresh":                    {Policy{}, []string{"/crl"}, 23 * time.Hour, nil},
		"ended":                    {Policy{}, []string{"/crl"}, 25 * time.Hour, signer.ErrRevocationUnknown},
		"ended, defer":             {Policy{Missing: Defer}, []string{"/crl"}, 25 * time.Hour, signer.ErrRevocationUnknown},
		"ended, accept":            {Policy{Missing: Accept}, []string{"/crl"}, 25 * time.Hour, nil},
		"within the grace":         {Policy{Grace: 2 * time.Hour}, []string{"/crl"}, 25 * time.Hour, nil},
		"after the grace":          {Policy{Grace: 2 * time.Hour}, []string{"/crl"}, 27 * time.Hour, signer.ErrRevocationUnknown},
		"after the grace, accept":  {Policy{Missing: Accept, Grace: time.Hour}, []string{"/crl"}, 27 * time.Hour, nil},
		"never there":              {Policy{}, []string{"/none"}, 0, signer.ErrRevocationUnknown},
		"never there, accept":      {Policy{Missing: Accept}, []string{"/none"}, 0, nil},
		"first not there":          {Policy{}, []string{"/none", "/crl"}, 0, nil},
		"OCSP named, not wanted":   {Policy{}, []string{"/ocsp"}, 0, nil},
		"nobody names a source":    {Policy{}, nil, 0, nil},
		"revoked under any policy": {Policy{Missing: Accept}, []string{"/bad"}, 48 * time.Hour, signer.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			cert := s.certificate(tc.paths...)
			s.web.Publish("/crl", s.list())
			s.web.Publish("/bad", s.list(revoke(cert, start.Add(-day), 1)))
			k := s.keeper(func(o *Options) { o.Policy = tc.policy })
			_ = s.ask(k, cert)
			s.web.Fail("/crl", 500)
			s.web.Fail("/bad", 500)
			s.clock.forward(tc.after)
			s.want(k, cert, tc.want)
		})
	}
}

// TestNotHTTP: a source that is named but cannot be used is not "no source".
func TestNotHTTP(t *testing.T) {
	s := newScene(t)
	tmpl := s.ca.Template("Alfa", "a@alfa.example")
	tmpl.CRLDistributionPoints = []string{"ldap://ca.example/cn=list", "file:///etc/hostname"}
	cert := s.ca.Issue(t, tmpl, signertest.Key(t, "a@alfa.example").Public())
	k := s.keeper()
	s.want(k, cert, signer.ErrRevocationUnknown)
	if n := len(k.Status()); n != 0 {
		t.Errorf("%d sources", n)
	}
}

// TestOnce: many questions about what is not known yet are one fetch, and none
// once it is known.
func TestOnce(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	list := s.list()
	asked, release := make(chan struct{}, 100), make(chan struct{})
	s.web.Handle("/crl", func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-release
		w.Write(list)
	})
	k := s.keeper()
	var all sync.WaitGroup
	begun := make(chan struct{}, 50)
	for range cap(begun) {
		all.Add(1)
		go func() {
			defer all.Done()
			begun <- struct{}{}
			if err := s.ask(k, cert); err != nil {
				t.Error(err)
			}
		}()
	}
	for range cap(begun) {
		<-begun
	}
	<-asked
	close(release)
	all.Wait()
	if n := s.web.Requests("/crl"); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestSlow: a question waits no longer than it should, and those that follow do
// not wait at all until it is time to try again.
func TestSlow(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	s.web.Handle("/crl", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	k := s.keeper(func(o *Options) { o.Wait = 50 * time.Millisecond })
	begin := time.Now()
	s.want(k, cert, signer.ErrRevocationUnknown)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("waited for %s", took)
	}
	k.Close() // ends the fetch
	k = s.keeper()
	s.web.Fail("/crl", 503)
	s.want(k, cert, signer.ErrRevocationUnknown)
	n := s.web.Requests("/crl")
	for range 5 {
		s.want(k, cert, signer.ErrRevocationUnknown)
	}
	if now := s.web.Requests("/crl"); now != n {
		t.Errorf("%d requests during the pause", now-n)
	}
	s.web.Publish("/crl", s.list())
	s.clock.forward(time.Minute)
	s.want(k, cert, nil)
	if st := s.wantStatus(k, "/crl", nil); st.Failures != 0 || !st.Good.Equal(s.clock.Now()) {
		t.Errorf("%+v", st)
	}
}

// TestCancelled: who asks may go away.
func TestCancelled(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	ctx, cancel := context.WithCancel(t.Context())
	s.web.Handle("/crl", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	k := s.keeper(func(o *Options) { o.Wait = time.Hour })
	if err := k.Revoked(ctx, cert, s.ca.Certificate, start); !errors.Is(err, signer.ErrRevocationUnknown) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	k.Close()
	if err := s.ask(k, cert); !errors.Is(err, signer.ErrRevocationUnknown) {
		t.Errorf("after Close: %v", err)
	}
}

// TestUnchanged: a server that says so is a good answer, for as long as the list
// counts.
func TestUnchanged(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	s.web.Publish("/crl", s.list())
	k := s.keeper()
	s.want(k, cert, nil)
	s.clock.forward(time.Hour)
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.wantStatus(k, "/crl", nil); !st.Good.Equal(s.clock.Now()) || !st.NextUpdate.Equal(start.Add(day)) {
		t.Errorf("%+v", st)
	}
	s.clock.forward(day)
	s.want(k, cert, signer.ErrRevocationUnknown)
}

// TestRun: lists are renewed before they end, and those nobody asks for are
// forgotten.
func TestRun(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	s.web.Publish("/crl", s.list())
	waits, wake := make(chan time.Duration), make(chan time.Time)
	k := s.keeper(func(o *Options) {
		o.Max = 30 * time.Hour
		o.After = func(d time.Duration) <-chan time.Time {
			waits <- d
			return wake
		}
	})
	s.want(k, cert, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Run(ctx) }()
	<-waits // with the new source's wake-up still to come
	if d := <-waits; d != 18*time.Hour {
		t.Errorf("waits for %s, want three quarters of a day", d)
	}
	s.clock.forward(18 * time.Hour)
	s.web.Publish("/crl", s.list(revoke(cert, start, 1)))
	wake <- s.clock.Now()
	<-waits
	if st := s.wantStatus(k, "/crl", nil); st.Number != "2" {
		t.Errorf("%+v", st)
	}
	s.want(k, cert, signer.ErrRevoked)
	s.clock.forward(idle + time.Second)
	wake <- s.clock.Now()
	<-waits
	if st := k.Status(); len(st) != 0 {
		t.Errorf("not forgotten: %+v", st)
	}
	gone := errors.New("the end")
	cancel(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Error(err)
	}
}

// TestPauses: between the shortest and the longest, longer after each failure,
// and not the same for all.
func TestPauses(t *testing.T) {
	s := newScene(t)
	k := s.keeper()
	source := func(life time.Duration) *source {
		return &source{kind: KindList, evidence: &evidence{nextUpdate: start.Add(life)}}
	}
	for life, want := range map[time.Duration]time.Duration{
		time.Minute: DefaultMin, -day: DefaultMin, 4 * time.Hour: 3 * time.Hour, 365 * day: DefaultMax,
	} {
		if got := k.next(source(life), start).Sub(start); got != want {
			t.Errorf("a list of %s: %s, want %s", life, got, want)
		}
	}
	for n, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 9: DefaultMax, 1 << 30: DefaultMax} {
		if got := k.retry(n); got != want {
			t.Errorf("failure %d: %s, want %s", n, got, want)
		}
	}
	k.o.Random = strings.NewReader("\x00\x80\xff")
	for _, want := range []time.Duration{1000, 950, 901, 1000} { // the last without randomness
		if got := k.spread(1000); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	s := newScene(t)
	for name, change := range map[string]func(*Options){
		"policy":   func(o *Options) { o.Policy.Missing = "perhaps" },
		"OCSP":     func(o *Options) { o.OCSP = "sometimes" },
		"client":   func(o *Options) { o.Client = nil },
		"clock":    func(o *Options) { o.Now = nil },
		"wait":     func(o *Options) { o.Wait = -1 },
		"min, max": func(o *Options) { o.Min, o.Max = 2, 1 },
		"grace":    func(o *Options) { o.Policy.Grace = -1 },
		"URL":      func(o *Options) { o.URLs = []string{"file:///etc/crl"} },
	} {
		if _, err := New(s.options(change)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestManySources: certificates cannot make a keeper remember without end.
func TestManySources(t *testing.T) {
	s := newScene(t)
	k := s.keeper(func(o *Options) { o.Cache = nil })
	var points []string
	for i := range 2 * maxPoints {
		points = append(points, s.web.URL+"/"+strings.Repeat("x", i))
	}
	cert := &x509.Certificate{RawIssuer: s.ca.Certificate.RawSubject, CRLDistributionPoints: points}
	if groups, named := k.groups(cert, s.ca.Certificate); len(groups[0]) != maxPoints || !named {
		t.Errorf("%d sources", len(groups[0]))
	}
	for i := range maxSources {
		k.add(&source{name: s.web.URL + "/" + strings.Repeat("y", i%1000) + strings.Repeat("z", i/1000), kind: KindList}, nil)
	}
	if n := len(k.Status()); n != maxSources {
		t.Errorf("%d sources", n)
	}
	if k.add(&source{name: s.web.URL + "/more", kind: KindList}, nil) != nil {
		t.Error("one too many")
	}
}

// TestVerifier: the verifier asks the keeper.
func TestVerifier(t *testing.T) {
	s := newScene(t)
	tmpl := s.ca.Template("Alfa", "a@alfa.example")
	tmpl.CRLDistributionPoints = []string{s.web.URL + "/crl"}
	id := s.ca.IdentityOf(t, signertest.Key(t, "a@alfa.example"), tmpl)
	p7m := signed(t, id)
	k := s.keeper()
	v := signer.NewVerifier(s.ca.Pool()).WithRevoker(k)
	for _, step := range []struct {
		publish []byte
		want    error
	}{
		{nil, signer.ErrRevocationUnknown},
		{s.list(), nil},
		{s.list(revoke(id.Certificate(), start, 1)), signer.ErrRevoked},
	} {
		if step.publish != nil {
			s.web.Publish("/crl", step.publish)
			if err := k.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := v.OpenData(t.Context(), p7m, start); !errors.Is(err, step.want) || step.want == nil && err != nil {
			t.Errorf("%v, want %v", err, step.want)
		}
	}
}

// TestClockWasAhead: what was planned while the clock was hours ahead does not keep
// an ended list, or one that failed, from being fetched when the clock is right.
func TestClockWasAhead(t *testing.T) {
	for name, fails := range map[string]bool{"fetched": false, "failed": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			cert := s.certificate("/crl")
			s.web.Publish("/crl", s.list())
			k := s.keeper()
			s.want(k, cert, nil)
			s.clock.forward(23 * time.Hour)
			// The list has an hour left. Five hours ahead it has ended, and no new one is
			// there, or none that could be had.
			s.clock.forward(5 * time.Hour)
			if fails {
				s.web.Fail("/crl", 500)
			}
			_ = k.Refresh(context.Background())
			s.clock.forward(-5 * time.Hour)
			s.clock.forward(2 * time.Hour) // it has ended indeed
			s.web.Publish("/crl", s.list())
			if len(k.dueSources(false)) != 1 {
				t.Error("it is not due")
			}
			s.want(k, cert, nil)
			if len(k.dueSources(false)) != 0 {
				t.Error("it stays due")
			}
		})
	}
}
