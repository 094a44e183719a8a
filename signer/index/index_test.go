package index

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/fetch"
	"pecd/signer/fetch/fetchtest"
	"pecd/signer/signertest"
)

const day = 24 * time.Hour

// A scene is a maker of directories, his server, and a keeper's surroundings.
type scene struct {
	t     testing.TB
	ca    *signertest.CA
	maker *signertest.Identity
	web   *fetchtest.Server
	webCA *fetchtest.Authority
	cache string
	heard []int // domains of each directory that OnChange heard of

	mu  sync.Mutex
	now time.Time
}

// OpenSSL, which signs most directories here, knows only the real time, so the
// tests begin then.
func newScene(t testing.TB) *scene {
	ca, webCA := signertest.NewCA(t), fetchtest.NewAuthority(t)
	return &scene{t: t, ca: ca, maker: ca.Identity(t, "Maker", "maker@igpec.example"), webCA: webCA,
		web: fetchtest.NewTLS(t, webCA), cache: t.TempDir(), now: time.Now().Add(time.Minute)}
}

func (s *scene) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *scene) forward(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *scene) options(change ...func(*Options)) Options {
	s.t.Helper()
	cache, err := fetch.OpenCache(s.cache, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	certFile, keyFile := s.webCA.Files(s.t, "alfa")
	o := Options{
		URL:         s.web.URL + "/igpec.ldif.p7m",
		Client:      fetch.New(fetch.Options{Roots: s.webCA.Pool(), OnlyHTTPS: true, Certificate: fetch.Files(certFile, keyFile)}),
		Cache:       cache,
		Verifier:    signer.NewVerifier(s.ca.Pool()),
		Name:        "Alfa",
		Certificate: func(time.Time) []byte { return []byte("certificate of Alfa") },
		Now:         s.Now,
		OnChange:    func(d *directory.Directory) { s.heard = append(s.heard, d.Domains()) },
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func (s *scene) keeper(change ...func(*Options)) *Keeper {
	s.t.Helper()
	k, err := New(s.options(change...))
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

// publish signs a directory of these providers and puts it on the server.
func (s *scene) publish(ps ...directory.Provider) []byte {
	s.t.Helper()
	p7m := s.signed(ldif(s.t, ps...))
	s.web.Publish("/igpec.ldif.p7m", p7m)
	return p7m
}

func (s *scene) signed(content []byte) []byte { return sign(s.t, s.maker, content) }

func (s *scene) update(k *Keeper) *Change {
	s.t.Helper()
	c, err := k.Update(context.Background(), false)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func sign(t testing.TB, id *signertest.Identity, content []byte) []byte {
	t.Helper()
	return openssl(t, content, "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-md", "sha256",
		"-signer", id.CertFile, "-inkey", id.KeyFile)
}

// openssl runs openssl. A missing one is a failed test.
func openssl(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, complaint.Bytes())
	}
	return out.Bytes()
}

func provider(name string, domains ...string) directory.Provider {
	return directory.Provider{Name: name, Certificates: [][]byte{[]byte("certificate of " + name)},
		ServiceMailbox: "ricevute@example.it", Domains: domains}
}

func ldif(t testing.TB, ps ...directory.Provider) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := directory.Marshal(&b, ps); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// owner returns who manages domain.
func owner(k *Keeper, domain string) string {
	p, ok := k.Directory().ProviderOf(domain)
	if !ok {
		return ""
	}
	return p.Name
}

// TestUpdate: domains come, move and go; what did not change is not taken again.
func TestUpdate(t *testing.T) {
	s := newScene(t)
	s.publish(provider("Alfa", "alfa.example", "moves.example"), provider("Beta", "beta.example", "goes.example"))
	k := s.keeper()
	if k.Directory() != nil {
		t.Error("a directory from nowhere")
	}
	if c := s.update(k); !c.Taken || owner(k, "moves.example") != "Alfa" {
		t.Errorf("%+v", c)
	}
	first := k.Status()
	if first.Providers != 2 || first.Domains != 4 || first.Failures != 0 || first.Err != nil ||
		!first.Changed.Equal(s.now) || first.Signed.IsZero() || !strings.Contains(first.Signer, "Maker") {
		t.Errorf("%+v", first)
	}
	s.forward(day)
	if c := s.update(k); c.Taken {
		t.Errorf("the same: %+v", c)
	}
	if st := k.Status(); !st.Checked.Equal(s.now) || !st.Changed.Equal(first.Changed) {
		t.Errorf("%+v", st)
	}
	s.publish(provider("Alfa", "alfa.example"), provider("Beta", "beta.example", "moves.example", "comes.example"))
	c := s.update(k)
	want := &Change{Taken: true, Added: []string{"comes.example"}, Removed: []string{"goes.example"}, Moved: []string{"moves.example"}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
	for domain, name := range map[string]string{"moves.example": "Beta", "comes.example": "Beta", "goes.example": "", "alfa.example": "Alfa"} {
		if got := owner(k, domain); got != name {
			t.Errorf("%s: %q, want %q", domain, got, name)
		}
	}
	if !reflect.DeepEqual(s.heard, []int{4, 4}) {
		t.Errorf("heard of %v", s.heard)
	}
}

// TestKept: whatever comes, the last good directory stays, also over a restart.
func TestKept(t *testing.T) {
	s := newScene(t)
	good := s.publish(provider("Alfa", "alfa.example"), provider("Beta", "beta.example"))
	k := s.keeper()
	s.update(k)
	foreign := signertest.NewCA(t).Identity(t, "Maker", "maker@igpec.example")
	content := ldif(t, provider("Alfa", "alfa.example"), provider("Beta", "beta.example", "more.example"))
	serve := func(p7m []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write(p7m) }
	}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"altered":     {serve(bytes.Replace(good, []byte("beta.example"), []byte("evil.example"), 1)), signer.ErrAltered},
		"truncated":   {serve(good[:len(good)/2]), signer.ErrMalformedSignature},
		"cut short":   {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "9000"); w.Write(good) }, nil},
		"foreign":     {serve(sign(t, foreign, content)), signer.ErrUntrusted},
		"not signed":  {serve(content), signer.ErrMalformedSignature},
		"not LDIF":    {serve(s.signed([]byte("<html>"))), directory.ErrSyntax},
		"from a file": {serve(s.signed([]byte(strings.Replace(string(content), "mailReceipt: ", "mailReceipt:< file:///etc/", 1)))), directory.ErrSyntax},
		"contradicts": {serve(s.signed([]byte(strings.Replace(string(content), "beta.example", "alfa.example", 1)))), directory.ErrSchema},
		"no provider": {serve(s.signed([]byte("dn: o=postacert\nobjectclass: top\n"))), directory.ErrSchema},
		"500":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, fetch.ErrStatus},
		"loop":        {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, fetch.ErrRedirect},
		"large": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(signer.MaxSignedFile+1))
			w.WriteHeader(200)
		}, fetch.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s.web.Handle("/igpec.ldif.p7m", tc.handler)
			for _, force := range []bool{false, true} {
				before := k.Status()
				if c, err := k.Update(t.Context(), force); err == nil || tc.want != nil && !errors.Is(err, tc.want) || c != nil {
					t.Errorf("%+v, %v; want %v", c, err, tc.want)
				}
				if st := k.Status(); st.Failures != before.Failures+1 || st.Err == nil || !st.Checked.Equal(before.Checked) || st.Domains != 2 {
					t.Errorf("%+v", st)
				}
			}
			if owner(k, "beta.example") != "Beta" || owner(k, "evil.example")+owner(k, "more.example") != "" {
				t.Error("it was taken")
			}
			again := s.keeper()
			if err := again.Load(t.Context()); err != nil || owner(again, "beta.example") != "Beta" {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
	s.publish(provider("Alfa", "alfa.example"), provider("Beta", "beta.example", "more.example"))
	s.update(k)
	if st := k.Status(); st.Failures != 0 || st.Err != nil || st.Domains != 3 {
		t.Errorf("%+v", st)
	}
}

// TestDoubted: what is genuine and yet wrong is taken only by force.
func TestDoubted(t *testing.T) {
	s := newScene(t)
	many := func(name string, n int) directory.Provider {
		p := provider(name)
		for i := range n {
			p.Domains = append(p.Domains, fmt.Sprintf("%s-%d.example", strings.ToLower(name), i))
		}
		return p
	}
	renamed := func(p directory.Provider, name string) directory.Provider { p.Name = name; return p }
	other := many("Alfa", 2)
	other.Certificates = [][]byte{[]byte("another certificate")}
	was := []directory.Provider{many("Alfa", 2), many("Beta", 4), many("Gamma", 4), provider("Delta", "delta.example"), provider("Epsilon", "epsilon.example")}
	for name, tc := range map[string]struct {
		now  []directory.Provider
		want error // nil: taken
	}{
		"a provider goes":         {[]directory.Provider{was[0], was[1], was[3], was[4]}, nil},
		"half of the domains go":  {[]directory.Provider{was[0], many("Beta", 2), many("Gamma", 1), was[3], was[4]}, nil},
		"more than half go":       {[]directory.Provider{was[0], many("Beta", 1), many("Gamma", 1), was[3], provider("Epsilon", "new.example")}, ErrShrunk},
		"domains are exchanged":   {[]directory.Provider{was[0], many("Omega", 40), renamed(many("Psi", 40), "Gamma")}, ErrShrunk},
		"most providers go":       {[]directory.Provider{was[0], renamed(was[1], "B"), renamed(was[2], "C"), renamed(was[3], "D")}, ErrShrunk},
		"we are gone":             {[]directory.Provider{renamed(other, "Other"), was[1], was[2], was[3], was[4]}, ErrOwn},
		"our certificate is gone": {[]directory.Provider{other, was[1], was[2], was[3], was[4]}, ErrOwn},
		"our certificate moves":   {[]directory.Provider{other, renamed(provider("Alfa", "x.example"), "Omega"), was[1], was[2], was[3], was[4]}, ErrOwn},
		"our name in small":       {[]directory.Provider{renamed(was[0], "ALFA"), was[1], was[2], was[3], was[4]}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := s.keeper(func(o *Options) { o.Cache = nil })
			s.publish(was...)
			s.update(k)
			s.publish(tc.now...)
			_, err := k.Update(t.Context(), false)
			if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if tc.want == nil {
				return
			}
			if k.Directory().Domains() != 12 {
				t.Error("taken all the same")
			}
			c, err := k.Update(t.Context(), true)
			if err != nil || !c.Taken || k.Directory().Domains() == 12 && len(k.Directory().Providers()) == 5 && tc.want != ErrOwn {
				t.Errorf("by force: %+v, %v", c, err)
			}
			if c := s.update(k); c.Taken {
				t.Error("taken twice")
			}
		})
	}
}

// TestRenamed: a directory that calls us by the name that we go by now follows one that
// knows us by the former name, and no other does.
func TestRenamed(t *testing.T) {
	s := newScene(t)
	called := func(name string) func(*Options) {
		return func(o *Options) {
			o.Name = name
			o.Usable = func(d *directory.Directory) error {
				if p, ok := d.ByCertificate([]byte("certificate of Alfa")); !ok || p.Name != name {
					return fmt.Errorf("we are not %s there", name)
				}
				return nil
			}
		}
	}
	was, other := provider("Alfa", "alfa.example"), provider("Beta", "beta.example")
	s.publish(was, other)
	s.update(s.keeper(called("Alfa")))
	now := was
	now.Name = "Alfa Nuova"
	s.publish(now, other)
	for _, name := range []string{"Alfa", "Another"} {
		k := s.keeper(called(name))
		if err := k.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Update(t.Context(), false); !errors.Is(err, ErrOwn) {
			t.Errorf("as %s: %v", name, err)
		}
		if _, err := k.Update(t.Context(), true); !errors.Is(err, ErrUnfit) {
			t.Errorf("as %s, by force: %v", name, err)
		}
	}
	k := s.keeper(called("Alfa Nuova"))
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := k.Update(t.Context(), false); err != nil || !c.Taken || owner(k, "alfa.example") != "Alfa Nuova" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestUnfit: what whoever uses the directory cannot work with does not take the place of
// the good one, in memory or on disk, whatever is forced.
func TestUnfit(t *testing.T) {
	s := newScene(t)
	unfit := func(o *Options) {
		o.Usable = func(d *directory.Directory) error {
			if d.Domains() > 1 {
				return errors.New("not for us")
			}
			return nil
		}
	}
	k := s.keeper(unfit)
	s.publish(provider("Alfa", "alfa.example"))
	s.update(k)
	checked := k.Status().Checked
	s.forward(day)
	s.publish(provider("Alfa", "alfa.example", "more.example"))
	for _, force := range []bool{false, true} {
		if _, err := k.Update(t.Context(), force); !errors.Is(err, ErrUnfit) {
			t.Errorf("force %v: %v", force, err)
		}
	}
	if st := k.Status(); st.Domains != 1 || !st.Checked.Equal(checked) || st.Failures != 2 {
		t.Errorf("%+v", st)
	}
	again := s.keeper(unfit)
	if err := again.Load(t.Context()); err != nil || again.Directory().Domains() != 1 {
		t.Errorf("after a restart: %v", err)
	}
}

// TestLoss: how much may vanish is the operator's.
func TestLoss(t *testing.T) {
	s := newScene(t)
	for loss, want := range map[float64]error{0.1: ErrShrunk, 0: nil, 1: nil} {
		k := s.keeper(func(o *Options) { o.Cache, o.Loss = nil, loss })
		s.publish(provider("Alfa", "a.example", "b.example", "c.example", "d.example"))
		s.update(k)
		s.publish(provider("Alfa", "a.example", "b.example", "c.example"))
		if _, err := k.Update(t.Context(), false); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%v: %v, want %v", loss, err, want)
		}
	}
}

// TestOlder: a directory that was signed before ours does not come back, not
// after a restart either.
func TestOlder(t *testing.T) {
	s := newScene(t)
	alfa := provider("Alfa", "alfa.example", "revoked.example")
	alfa.Certificates = [][]byte{s.maker.Certificate().Raw}
	at := func(when time.Time, domains ...string) []byte {
		alfa.Domains = domains
		p7m, err := signer.NewSigner(s.maker.Identity).SignRecords(t.Context(), []directory.Provider{alfa}, when)
		if err != nil {
			t.Fatal(err)
		}
		return p7m
	}
	old, recent := at(s.now.Add(-2*day), "alfa.example", "gone.example"), at(s.now.Add(-day), "alfa.example")
	k := s.keeper()
	s.web.Publish("/igpec.ldif.p7m", recent)
	s.update(k)
	s.web.Publish("/igpec.ldif.p7m", old)
	for range 2 {
		if _, err := k.Update(t.Context(), false); !errors.Is(err, ErrOlder) {
			t.Errorf("%v", err)
		}
		k = s.keeper()
		if err := k.Load(t.Context()); err != nil || owner(k, "gone.example") != "" {
			t.Errorf("%v", err)
		}
	}
	if c, err := k.Update(t.Context(), true); err != nil || !c.Taken || owner(k, "gone.example") != "Alfa" {
		t.Errorf("by force: %v", err)
	}
}

// TestMakerEnds: that the maker's certificate ends does not take the directory
// away, and is noticed although the server has nothing new.
func TestMakerEnds(t *testing.T) {
	s := newScene(t)
	tmpl := s.ca.Template("Maker", "maker@igpec.example")
	tmpl.NotAfter = s.now.Add(day)
	s.maker = s.ca.IdentityOf(t, signertest.Key(t, "maker@igpec.example"), tmpl)
	s.publish(provider("Alfa", "alfa.example"))
	k := s.keeper()
	s.update(k)
	s.forward(2 * day)
	for range 2 {
		if _, err := k.Update(t.Context(), false); !errors.Is(err, signer.ErrExpired) {
			t.Errorf("%v", err)
		}
		if owner(k, "alfa.example") != "Alfa" {
			t.Error("gone")
		}
		k = s.keeper()
		if err := k.Load(t.Context()); err != nil {
			t.Error(err)
		}
		if st := k.Status(); !st.Checked.Equal(s.now.Add(-2*day)) || st.Domains != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// TestCacheLost: a cache that is damaged while the daemon runs is written anew,
// and at a start it is as good as none.
func TestCacheLost(t *testing.T) {
	s := newScene(t)
	if err := s.keeper().Load(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("no cache: %v", err)
	}
	s.publish(provider("Alfa", "alfa.example"))
	k := s.keeper()
	s.update(k)
	files, err := filepath.Glob(filepath.Join(s.cache, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	if err := os.Truncate(files[0], 100); err != nil {
		t.Fatal(err)
	}
	if err := s.keeper().Load(t.Context()); !errors.Is(err, ErrNone) || !errors.Is(err, fetch.ErrTorn) {
		t.Errorf("torn: %v", err)
	}
	if _, err := k.Update(t.Context(), false); !errors.Is(err, fetch.ErrTorn) {
		t.Errorf("nothing new and a torn cache: %v", err)
	}
	if c := s.update(k); c.Taken {
		t.Error("the same directory is another")
	}
	if err := s.keeper().Load(t.Context()); err != nil {
		t.Errorf("mended: %v", err)
	}
	heard := len(s.heard)
	if err := k.Load(t.Context()); err != nil || len(s.heard) != heard {
		t.Errorf("loaded what is in use: %v", err)
	}
	other := s.keeper()
	s.publish(provider("Alfa", "alfa.example", "more.example"))
	s.update(other)
	if err := k.Load(t.Context()); err != nil || owner(k, "more.example") != "Alfa" {
		t.Errorf("what another process put there: %v", err)
	}
	untrusting := s.keeper(func(o *Options) { o.Verifier = signer.NewVerifier(signertest.NewCA(t).Pool()) })
	if err := untrusting.Load(t.Context()); !errors.Is(err, ErrNone) || !errors.Is(err, signer.ErrUntrusted) {
		t.Errorf("other anchors: %v", err)
	}
}

// A revoker answers as it is told.
type revoker struct{ answer error }

func (r *revoker) Revoked(context.Context, *x509.Certificate, *x509.Certificate, time.Time) error {
	return r.answer
}

// TestMakerRevoked: a directory whose maker was revoked is not taken, nor kept
// over a restart; one that was good stays good while that cannot be told.
func TestMakerRevoked(t *testing.T) {
	s := newScene(t)
	r := new(revoker)
	ask := func(o *Options) { o.Verifier = o.Verifier.WithRevoker(r) }
	s.publish(provider("Alfa", "alfa.example"))
	k := s.keeper(ask)
	s.update(k)
	for _, want := range []error{signer.ErrRevocationUnknown, signer.ErrRevoked} {
		r.answer = want
		for _, force := range []bool{false, true} { // 304, and the file
			if _, err := k.Update(t.Context(), force); !errors.Is(err, want) || owner(k, "alfa.example") != "Alfa" {
				t.Errorf("%v, want %v", err, want)
			}
		}
		err := s.keeper(ask).Load(t.Context())
		if unknown := want == signer.ErrRevocationUnknown; unknown != (err == nil) {
			t.Errorf("after a restart: %v", err)
		}
	}
}

// TestNotSaved: what cannot be kept is not used, so that a restart does not know
// less.
func TestNotSaved(t *testing.T) {
	s := newScene(t)
	s.publish(provider("Alfa", "alfa.example"))
	k := s.keeper()
	if err := os.RemoveAll(s.cache); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Update(t.Context(), false); err == nil || k.Directory() != nil {
		t.Errorf("%v", err)
	}
}
