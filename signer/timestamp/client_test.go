package timestamp_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/signer/timestamp"
	"pecd/signer/timestamp/timestamptest"
)

var (
	document = []byte("what was there\n")
	digest   = sha256.Sum256(document)
)

func newClient(t *testing.T, v *timestamp.Verifier, change func(*timestamp.Options), urls ...string) *timestamp.Client {
	t.Helper()
	o := timestamp.Options{Verifier: v, HTTP: http.DefaultClient, Now: time.Now, Random: rand.Reader}
	for _, u := range urls {
		o.Authorities = append(o.Authorities, timestamp.Authority{URL: u})
	}
	if change != nil {
		change(&o)
	}
	c, err := timestamp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestStamp: a token of OpenSSL's authority counts, and OpenSSL finds it good as
// it is stored.
func TestStamp(t *testing.T) {
	a := timestamptest.New(t, nil)
	url := a.Server(t).URL
	begun := time.Now()
	token, err := newClient(t, a.Verifier(), nil, url).Stamp(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if d := token.Time.Sub(begun); d < -2*time.Second || d > time.Minute {
		t.Errorf("time %s", token.Time)
	}
	if token.Policy != timestamptest.Policy || token.Accuracy != time.Second || !token.Authority.Equal(a.Certificate) || token.From != url {
		t.Errorf("%+v", token)
	}
	dir := t.TempDir()
	store(t, dir, "document", document)
	store(t, dir, "token", token.Raw)
	cmd := exec.Command("openssl", "ts", "-verify", "-data", "document", "-token_in", "-in", "token", "-CAfile", a.CA.File)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verification: OK") {
		t.Errorf("%v\n%s", err, out)
	}
	if again, err := a.Verifier().Verify(t.Context(), token.Raw, digest); err != nil || !again.Time.Equal(token.Time) {
		t.Errorf("%+v, %v", again, err)
	}
}

func store(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPolicy: the policy that was asked for is in the token, or it does not
// count.
func TestPolicy(t *testing.T) {
	a := timestamptest.New(t, nil)
	url := a.Server(t).URL
	with := func(policy string) func(*timestamp.Options) {
		return func(o *timestamp.Options) { o.Authorities[0].Policy = policy }
	}
	token, err := newClient(t, a.Verifier(), with("1.3.6.1.4.1.99999.2"), url).Stamp(t.Context(), digest)
	if err != nil || token.Policy != "1.3.6.1.4.1.99999.2" {
		t.Errorf("%+v, %v", token, err)
	}
	if _, err := newClient(t, a.Verifier(), with("1.2.3.4"), url).Stamp(t.Context(), digest); !errors.Is(err, timestamp.ErrRejected) {
		t.Errorf("a policy it does not have: %v", err)
	}
	other := serve(t, func(query []byte) []byte {
		return reply(t, a, alter(t, query, func(q *request) { q.Policy = nil }))
	})
	if _, err := newClient(t, a.Verifier(), with("1.3.6.1.4.1.99999.2"), other).Stamp(t.Context(), digest); !errors.Is(err, timestamp.ErrPolicy) {
		t.Errorf("another policy: %v", err)
	}
}

// A request is a TimeStampReq.
type request struct {
	Version int
	Imprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	Policy  asn1.ObjectIdentifier `asn1:"optional"`
	Nonce   *big.Int
	CertReq bool `asn1:"optional"`
}

func alter(t *testing.T, query []byte, change func(*request)) []byte {
	t.Helper()
	var r request
	if rest, err := asn1.Unmarshal(query, &r); err != nil || len(rest) > 0 {
		t.Errorf("query: %v", err)
		return nil
	}
	change(&r)
	der, err := asn1.Marshal(r)
	if err != nil {
		t.Error(err)
	}
	return der
}

func reply(t *testing.T, a *timestamptest.Authority, query []byte) []byte {
	t.Helper()
	der, err := a.Reply(t.Context(), query)
	if err != nil {
		t.Error(err)
	}
	return der
}

// serve runs an authority that answers as answer says.
func serve(t *testing.T, answer func(query []byte) []byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Write(answer(query))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestFallback: each authority that is of no use is passed over, with its reason,
// and the next one is asked.
func TestFallback(t *testing.T) {
	good := timestamptest.New(t, nil)
	goodURL := good.Server(t).URL
	expired := timestamptest.New(t, func(c *x509.Certificate) { c.NotAfter = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) })
	anchors := good.CA.Pool()
	anchors.AddCert(expired.CA.Certificate)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	redirect := httptest.NewServer(http.RedirectHandler(goodURL, http.StatusTemporaryRedirect))
	t.Cleanup(redirect.Close)
	atTime := func(at time.Time) string {
		return serve(t, func(query []byte) []byte {
			var r request
			asn1.Unmarshal(query, &r)
			return wrap(t, good, timestamptest.Info{Digest: r.Imprint.Digest, Time: at, Nonce: r.Nonce})
		})
	}
	for name, tc := range map[string]struct {
		url  string
		want error
	}{
		"down":     {down.URL, nil},
		"redirect": {redirect.URL, nil},
		"no nonce": {serve(t, func(query []byte) []byte {
			return wrap(t, good, timestamptest.Info{Digest: digest[:], Time: time.Now()})
		}), timestamp.ErrNonce},
		"wrong nonce": {serve(t, func(query []byte) []byte {
			return reply(t, good, alter(t, query, func(r *request) { r.Nonce.Add(r.Nonce, big.NewInt(1)) }))
		}), timestamp.ErrNonce},
		"wrong imprint": {serve(t, func(query []byte) []byte {
			return reply(t, good, alter(t, query, func(r *request) { r.Imprint.Digest[0]++ }))
		}), timestamp.ErrImprint},
		"no certificate": {serve(t, func(query []byte) []byte {
			return reply(t, good, alter(t, query, func(r *request) { r.CertReq = false }))
		}), timestamp.ErrMalformed},
		"expired":  {expired.Server(t).URL, timestamp.ErrExpired},
		"stranger": {timestamptest.New(t, nil).Server(t).URL, timestamp.ErrUntrusted},
		"garbage":  {serve(t, func([]byte) []byte { return []byte("<html>") }), timestamp.ErrMalformed},
		"nothing":  {serve(t, func([]byte) []byte { return nil }), timestamp.ErrMalformed},
		"huge":     {serve(t, func([]byte) []byte { return make([]byte, timestamp.MaxToken+100) }), timestamp.ErrMalformed},
		"refused":  {serve(t, func([]byte) []byte { return []byte{0x30, 5, 0x30, 3, 2, 1, 2} }), timestamp.ErrRejected},
		"no token": {serve(t, func([]byte) []byte { return []byte{0x30, 5, 0x30, 3, 2, 1, 0} }), timestamp.ErrMalformed},
		"past":     {atTime(time.Now().Add(-time.Hour)), timestamp.ErrTime},
		"future":   {atTime(time.Now().Add(time.Hour)), timestamp.ErrTime},
	} {
		t.Run(name, func(t *testing.T) {
			v := timestamp.NewVerifier(anchors)
			_, err := newClient(t, v, nil, tc.url).Stamp(t.Context(), digest)
			if !errors.Is(err, timestamp.ErrUnavailable) || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("alone: %v, want %v", err, tc.want)
			}
			token, err := newClient(t, v, nil, tc.url, goodURL).Stamp(t.Context(), digest)
			if err != nil || token.From != goodURL {
				t.Errorf("with a second one: %+v, %v", token, err)
			}
		})
	}
}

func wrap(t *testing.T, a *timestamptest.Authority, i timestamptest.Info) []byte {
	t.Helper()
	token, err := a.Token(i)
	if err != nil {
		t.Error(err)
	}
	der, err := timestamptest.Response(token)
	if err != nil {
		t.Error(err)
	}
	return der
}

// TestSlow: an authority that does not answer is given up after the timeout, and
// the caller's end ends all.
func TestSlow(t *testing.T) {
	good := timestamptest.New(t, nil)
	asked := make(chan struct{}, 2)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(slow.Close)
	short := func(o *timestamp.Options) { o.Timeout = 300 * time.Millisecond }
	if _, err := newClient(t, good.Verifier(), short, slow.URL).Stamp(t.Context(), digest); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, timestamp.ErrUnavailable) {
		t.Errorf("slow: %v", err)
	}
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := newClient(t, good.Verifier(), nil, slow.URL, good.Server(t).URL).Stamp(ctx, digest)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// TestPassword: it goes with https and nowhere else, and into no error.
func TestPassword(t *testing.T) {
	a := timestamptest.New(t, nil)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "alfa" || password != "segreto" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		a.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	with := func(user, password string) func(*timestamp.Options) {
		return func(o *timestamp.Options) {
			o.HTTP = s.Client()
			o.Authorities[0].User, o.Authorities[0].Password = user, password
		}
	}
	if _, err := newClient(t, a.Verifier(), with("alfa", "segreto"), s.URL).Stamp(t.Context(), digest); err != nil {
		t.Error(err)
	}
	_, err := newClient(t, a.Verifier(), with("alfa", "sbagliato"), s.URL+"?k=chiave").Stamp(t.Context(), digest)
	if !errors.Is(err, timestamp.ErrUnavailable) || strings.Contains(err.Error(), "sbagliato") || strings.Contains(err.Error(), "chiave") {
		t.Error(err)
	}
	s.Close()
	_, err = newClient(t, a.Verifier(), nil, s.URL+"?k=chiave").Stamp(t.Context(), digest)
	if !errors.Is(err, timestamp.ErrUnavailable) || strings.Contains(err.Error(), "chiave") {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, a := range map[string]timestamp.Authority{
		"scheme":   {URL: "ftp://tsa.example/"},
		"no host":  {URL: "https:///tsa"},
		"garbage":  {URL: "https://tsa.example/%zz"},
		"user":     {URL: "https://alfa:segreto@tsa.example/"},
		"password": {URL: "http://tsa.example/", User: "alfa"},
		"policy":   {URL: "https://tsa.example/", Policy: "1.2.x"},
		"policy 9": {URL: "https://tsa.example/", Policy: "9.9"},
	} {
		_, err := timestamp.New(timestamp.Options{Authorities: []timestamp.Authority{a}, HTTP: http.DefaultClient})
		if err == nil || strings.Contains(err.Error(), "segreto") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := timestamp.New(timestamp.Options{HTTP: http.DefaultClient}); err == nil {
		t.Error("no authority at all")
	}
}
