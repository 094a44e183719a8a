package timestamp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/timestamp"
	"pecd/signer/timestamp/timestamptest"
)

var then = time.Date(2026, 3, 30, 0, 10, 0, 0, time.UTC)

func makeToken(t testing.TB, a *timestamptest.Authority, at time.Time) []byte {
	t.Helper()
	token, err := a.Token(timestamptest.Info{Digest: digest[:], Time: at})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestVerifyAuthorities: what a certificate must be for its tokens to count.
func TestVerifyAuthorities(t *testing.T) {
	usage := func(critical bool, purposes ...int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{timestamptest.Usage(critical, purposes...)}
		}
	}
	for name, tc := range map[string]struct {
		change func(*x509.Certificate)
		at     time.Time
		want   error
	}{
		"good":              {nil, then, nil},
		"good then":         {func(c *x509.Certificate) { c.NotAfter = then.Add(time.Hour) }, then, nil},
		"expired":           {func(c *x509.Certificate) { c.NotAfter = then.Add(-time.Hour) }, then, timestamp.ErrExpired},
		"not yet":           {func(c *x509.Certificate) { c.NotBefore = then.Add(time.Hour) }, then, timestamp.ErrExpired},
		"usage not for it":  {usage(true, 4), then, timestamp.ErrUntrusted},
		"usage two":         {usage(true, 8, 4), then, timestamp.ErrUntrusted},
		"usage uncritical":  {usage(false, 8), then, timestamp.ErrUntrusted},
		"usage none":        {func(c *x509.Certificate) { c.ExtraExtensions = nil }, then, timestamp.ErrUntrusted},
		"no signatures":     {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, then, timestamp.ErrUntrusted},
		"content committed": {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }, then, nil},
	} {
		a := timestamptest.New(t, tc.change)
		token, err := a.Verifier().Verify(t.Context(), makeToken(t, a, tc.at), digest)
		if !errors.Is(err, tc.want) || (token == nil) != (tc.want != nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	a := timestamptest.New(t, nil)
	if _, err := timestamp.NewVerifier(nil).Verify(t.Context(), makeToken(t, a, then), digest); !errors.Is(err, timestamp.ErrUntrusted) {
		t.Errorf("no anchors: %v", err)
	}
	if _, err := a.Verifier().Verify(t.Context(), makeToken(t, a, then), sha256.Sum256(nil)); !errors.Is(err, timestamp.ErrImprint) {
		t.Errorf("another document: %v", err)
	}
}

type revoker struct {
	err  error
	cert *x509.Certificate
	at   time.Time
}

func (r *revoker) Revoked(_ context.Context, cert, _ *x509.Certificate, at time.Time) error {
	r.cert, r.at = cert, at
	return r.err
}

func TestVerifyRevoked(t *testing.T) {
	a := timestamptest.New(t, nil)
	r := &revoker{err: signer.ErrRevoked}
	_, err := a.Verifier().WithRevoker(r).Verify(t.Context(), makeToken(t, a, then), digest)
	if !errors.Is(err, signer.ErrRevoked) || !errors.Is(err, timestamp.ErrUntrusted) || !r.cert.Equal(a.Certificate) || !r.at.Equal(then) {
		t.Errorf("%v, asked about %v at %v", err, r.cert, r.at)
	}
	r.err = nil
	if _, err := a.Verifier().WithRevoker(r).Verify(t.Context(), makeToken(t, a, then), digest); err != nil {
		t.Error(err)
	}
}

// TestVerifyAltered: whatever octet of a token is altered or cut off, it says no
// other time.
func TestVerifyAltered(t *testing.T) {
	a := timestamptest.New(t, nil)
	token := makeToken(t, a, then)
	for i := range token {
		altered := bytes.Clone(token)
		altered[i] ^= 0x15
		got, err := a.Verifier().Verify(t.Context(), altered, digest)
		if err == nil && (!got.Time.Equal(then) || !got.Authority.Equal(a.Certificate)) {
			t.Errorf("octet %d: %+v", i, got)
		}
		if got, err := a.Verifier().Verify(t.Context(), token[:i], digest); err == nil {
			t.Errorf("first %d octets: %+v", i, got)
		}
	}
	if _, err := a.Verifier().Verify(t.Context(), append(bytes.Clone(token), 0), digest); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("an octet more: %v", err)
	}
}

// stored are tokens made by OpenSSL for the digest of document: RSA, RSA with
// ESSCertID of SHA-1, ECDSA, SHA-512, and such as do not count.
func stored(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.tst")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d stored tokens, %v", len(files), err)
	}
	tokens := map[string][]byte{}
	for _, f := range files {
		if tokens[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return tokens
}

func storedVerifier(t testing.TB) *timestamp.Verifier {
	t.Helper()
	anchors, _, err := signer.LoadAnchors("testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	return timestamp.NewVerifier(anchors)
}

// TestVerifyStored: the kinds of tokens that authorities make.
func TestVerifyStored(t *testing.T) {
	v := storedVerifier(t)
	for name, token := range stored(t) {
		want := map[string]error{"sha1.tst": timestamp.ErrWeak, "short.tst": timestamp.ErrWeak}[name]
		got, err := v.Verify(t.Context(), token, digest)
		if !errors.Is(err, want) || (got == nil) != (want != nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	v := storedVerifier(f)
	for _, token := range stored(f) {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		got, err := v.Verify(t.Context(), token, digest)
		if (got == nil) != (err != nil) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestVerifyForged: another time, another digest to go with it, another
// certificate of the same key.
func TestVerifyForged(t *testing.T) {
	a := timestamptest.New(t, nil)
	token := makeToken(t, a, then)
	replace := func(token, from, to []byte) []byte {
		t.Helper()
		if len(from) != len(to) || bytes.Count(token, from) != 1 {
			t.Fatalf("%x cannot be replaced", from)
		}
		return bytes.Replace(token, from, to, 1)
	}
	earlier := replace(token, []byte("20260330001000Z"), []byte("20250330001000Z"))
	content := func(token []byte) []byte {
		// The TSTInfo, from its SEQUENCE to the time at its end.
		end := bytes.Index(token, []byte("0330001000Z")) + len("0330001000Z")
		begin := bytes.LastIndex(token[:end], []byte{0x30, byte(end - bytes.LastIndex(token[:end], []byte{2, 1, 1, 6}))})
		return token[begin:end]
	}
	was, is := sha256.Sum256(content(token)), sha256.Sum256(content(earlier))
	twin := a.Certificate
	for i := 1; twin == a.Certificate || len(twin.Raw) != len(a.Certificate.Raw); i++ {
		tmpl := *a.Certificate
		tmpl.NotAfter = tmpl.NotAfter.Add(-time.Duration(i) * time.Hour)
		tmpl.ExtraExtensions = []pkix.Extension{timestamptest.Usage(true, 8)}
		twin = a.CA.Issue(t, &tmpl, a.Certificate.PublicKey)
	}
	for name, forged := range map[string][]byte{
		"time":            earlier,
		"time and digest": replace(earlier, was[:], is[:]),
		"certificate":     replace(token, a.Certificate.Raw, twin.Raw),
	} {
		if got, err := a.Verifier().Verify(t.Context(), forged, digest); !errors.Is(err, timestamp.ErrSignature) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
