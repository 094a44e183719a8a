package revocation

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// TestInstant: a revocation counts from its instant on.
func TestInstant(t *testing.T) {
	s := newScene(t)
	cert, other := s.certificate("/crl"), s.certificate("/crl")
	for name, tc := range map[string]struct {
		since  time.Time
		reason int
		at     time.Time
		want   error
	}{
		"long ago":       {start.Add(-day), 0, start, signer.ErrRevoked},
		"at the instant": {start.Add(-day), 1, start.Add(-day), signer.ErrRevoked},
		"a second later": {start.Add(-day), 1, start.Add(-day - time.Second), nil},
		"to come":        {start.Add(time.Hour), 4, start, nil},
		"hold":           {start.Add(-day), reasonHold, start, signer.ErrRevoked},
		"hold, before":   {start.Add(-day), reasonHold, start.Add(-2 * day), nil},
		"taken back":     {start.Add(-day), reasonRemove, start, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scene{t: t, ca: s.ca, web: s.web, clock: s.clock, cache: t.TempDir(), number: s.number}
			s.web.Publish("/crl", s.list(revoke(cert, tc.since, tc.reason)))
			k := s.keeper()
			for range 2 { // fetched, then known
				if err := k.Revoked(t.Context(), cert, s.ca.Certificate, tc.at); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
					t.Errorf("%v, want %v", err, tc.want)
				}
			}
			s.want(k, other, nil)
		})
	}
}

// TestHold: a hold ends when a newer list has it no longer; what is final counts
// wherever it stands, in an older list too.
func TestHold(t *testing.T) {
	s := newScene(t)
	held, gone := s.certificate("/crl"), s.certificate("/crl")
	file := writeFile(t, t.TempDir(), "old.crl", s.list(revoke(held, start.Add(-day), reasonHold), revoke(gone, start.Add(-day), 1)))
	k := s.keeper(func(o *Options) { o.Files = []string{file} })
	s.want(k, held, signer.ErrRevoked)
	s.want(k, gone, signer.ErrRevoked)
	s.clock.forward(time.Hour)
	s.web.Publish("/crl", s.list())
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(k, held, nil)
	s.want(k, gone, signer.ErrRevoked)
}

// TestTwice: an authority that lists a certificate more than once.
func TestTwice(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl")
	early, late := start.Add(-2*day), start.Add(-day)
	for name, list := range map[string][]byte{
		"hold, then final": s.list(revoke(cert, early, reasonHold), revoke(cert, late, 1)),
		"final, then hold": s.list(revoke(cert, late, 1), revoke(cert, early, reasonHold)),
		"late, then early": s.list(revoke(cert, start, 1), revoke(cert, late, 1)),
		"early, then late": s.list(revoke(cert, late, 1), revoke(cert, start, 1)),
	} {
		e, err := parseList(list)
		if err != nil {
			t.Fatal(err)
		}
		if since, revoked := judge([]*evidence{e}, cert, start); !revoked || !since.Equal(late) {
			t.Errorf("%s: %t since %s", name, revoked, since)
		}
	}
}

// TestSerial: a negative number is not that of its absolute value.
func TestSerial(t *testing.T) {
	seen := make(map[string]int64)
	for _, n := range []int64{0, 1, -1, 45, -45, 256, -256, 1 << 40} {
		key := serialKey(big.NewInt(n))
		if old, ok := seen[key]; ok {
			t.Errorf("%d and %d are the same", old, n)
		}
		seen[key] = n
	}
}

// TestUnusable: lists that say less than they should, or are not the
// authority's, are no answer.
func TestUnusable(t *testing.T) {
	s := newScene(t)
	other := signertest.NewCA(t)
	cert := s.certificate("/crl")
	good := s.list()
	with := func(x pkix.Extension) []byte {
		l := s.template()
		l.ExtraExtensions = append(l.ExtraExtensions, x)
		return s.sign(l, s.ca)
	}
	point := func(flags ...byte) []byte {
		return with(extension(t, oidPoint, true, append([]byte{0x30, byte(len(flags))}, flags...)))
	}
	names := func(url string) []byte {
		inner := append([]byte{0xa0, byte(len(url) + 4), 0xa0, byte(len(url) + 2), 0x86, byte(len(url))}, url...)
		return with(extension(t, oidPoint, true, append([]byte{0x30, byte(len(inner))}, inner...)))
	}
	entry := func(x pkix.Extension) []byte {
		e := revoke(cert, start.Add(-day), 0)
		e.SerialNumber = big.NewInt(77)
		e.ExtraExtensions = []pkix.Extension{x}
		return s.sign(s.template(e), s.ca)
	}
	altered := append([]byte(nil), good...)
	altered[len(altered)-1] ^= 1
	renamed := *s.ca.Certificate
	renamed.RawSubject, renamed.Subject = nil, pkix.Name{CommonName: "Other CA"}
	ended := s.template()
	ended.ThisUpdate, ended.NextUpdate = start.Add(-2*day), start.Add(-day)
	future := s.template()
	future.ThisUpdate, future.NextUpdate = start.Add(day), start.Add(2*day)
	soon := s.template()
	soon.ThisUpdate = start.Add(skew - time.Second)
	for name, tc := range map[string]struct {
		list []byte
		want error // nil: it is used
	}{
		"good":                {good, nil},
		"PEM":                 {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), nil},
		"clock before ours":   {s.sign(soon, s.ca), nil},
		"this point":          {names(s.web.URL + "/crl"), nil},
		"user certificates":   {point(0x81, 1, 0xff), nil},
		"other point":         {names(s.web.URL + "/crl2"), nil},
		"of another":          {s.sign(s.template(), other), ErrSigner},
		"of another name":     {s.sign(s.template(), &signertest.CA{Certificate: &renamed, Key: s.ca.Key}), ErrSigner},
		"altered":             {altered, ErrSigner},
		"truncated":           {good[:len(good)-10], ErrMalformed},
		"not a list":          {[]byte("<html>The site is under construction</html>"), ErrMalformed},
		"PEM certificate":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), ErrMalformed},
		"ended":               {s.sign(ended, s.ca), nil},
		"to come":             {s.sign(future, s.ca), ErrOutdated},
		"delta":               {with(extension(t, oidDelta, true, big.NewInt(1))), ErrScope},
		"delta, not critical": {with(extension(t, oidDelta, false, big.NewInt(1))), ErrScope},
		"indirect":            {point(0x84, 1, 0xff), ErrScope},
		"some reasons":        {point(0x83, 2, 6, 0x40), ErrScope},
		"attributes":          {point(0x85, 1, 0xff), ErrScope},
		"authorities only":    {point(0x82, 1, 0xff), nil},
		"broken point":        {point(0x81, 2, 0xff), ErrMalformed},
		"order of flags":      {point(0x84, 1, 0, 0x81, 1, 0), ErrMalformed},
		"relative point":      {point(0xa0, 2, 0xa1, 0), ErrScope},
		"point without URL":   {point(0xa0, 2, 0xa0, 0), ErrScope},
		"unknown critical":    {with(extension(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1)), ErrScope},
		"unknown":             {with(extension(t, asn1.ObjectIdentifier{1, 2, 3}, false, 1)), nil},
		"entry of another":    {entry(extension(t, asn1.ObjectIdentifier{2, 5, 29, 29}, true, 1)), ErrScope},
		"entry":               {entry(extension(t, asn1.ObjectIdentifier{2, 5, 29, 24}, false, 1)), nil},
		"large":               {make([]byte, MaxList+1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scene{t: t, ca: s.ca, web: s.web, clock: s.clock, cache: t.TempDir()}
			s.web.Publish("/crl", tc.list)
			k := s.keeper()
			err := s.ask(k, cert)
			useless := name == "other point" || name == "authorities only" || name == "ended" || name == "large"
			if !useless && tc.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, signer.ErrRevocationUnknown) {
				t.Errorf("%v", err)
			}
			if tc.want != nil {
				s.wantStatus(k, "/crl", tc.want)
			}
		})
	}
}

// TestNoEnd: a list that does not say when the next one comes could be played
// back for ever.
func TestNoEnd(t *testing.T) {
	dir := t.TempDir()
	s := newScene(t)
	l, err := x509.ParseRevocationList(s.list())
	if err != nil {
		t.Fatal(err)
	}
	// The same list without its nextUpdate; the signature does not matter here.
	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(l.RawTBSRevocationList, &fields); err != nil {
		t.Fatal(err)
	}
	cut := append(fields[:4:4], fields[5:]...)
	tbs, err := asn1.Marshal(cut)
	if err != nil {
		t.Fatal(err)
	}
	var outer []asn1.RawValue
	if _, err := asn1.Unmarshal(l.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal([]asn1.RawValue{{FullBytes: tbs}, outer[1], outer[2]})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(openssl(t, dir, "crl", "-inform", "DER", "-in", writeFile(t, dir, "x", der), "-noout", "-nextupdate")); !strings.Contains(text, "NONE") {
		t.Fatalf("OpenSSL sees %s", text)
	}
	if _, err := parseList(der); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "next one") {
		t.Error(err)
	}
}

// TestAuthoritiesList: a list for authorities answers about an authority, and
// not about a provider.
func TestAuthoritiesList(t *testing.T) {
	s := newScene(t)
	l := s.template()
	l.ExtraExtensions = []pkix.Extension{extension(t, oidPoint, true, []byte{0x30, 3, 0x82, 1, 0xff})}
	e, err := parseList(s.sign(l, s.ca))
	if err != nil {
		t.Fatal(err)
	}
	if !e.covers(s.ca.Certificate) || e.covers(s.certificate("/crl")) {
		t.Error("not by what the list is limited to")
	}
}

// TestMaySign: an authority whose certificate does not allow it signs no lists.
func TestMaySign(t *testing.T) {
	s := newScene(t)
	list := s.list()
	for range 2 { // before and after the signature was found good
		e, err := parseList(list)
		if err != nil {
			t.Fatal(err)
		}
		without := *s.ca.Certificate
		without.KeyUsage = x509.KeyUsageCertSign
		if err := e.signedBy(&without); !errors.Is(err, ErrSigner) {
			t.Error(err)
		}
		if err := e.signedBy(s.ca.Certificate); err != nil {
			t.Error(err)
		}
		if err := e.signedBy(&without); !errors.Is(err, ErrSigner) {
			t.Error(err)
		}
	}
}

// TestPast: a list that ended still answers about instants before it was made,
// and no list answers about what had expired by then.
func TestPast(t *testing.T) {
	s := newScene(t)
	tmpl := s.ca.Template("Alfa", "a@alfa.example")
	tmpl.NotAfter = start.Add(3 * day)
	tmpl.CRLDistributionPoints = []string{s.web.URL + "/crl"}
	cert := s.ca.Issue(t, tmpl, signertest.Key(t, "a@alfa.example").Public())
	s.web.Publish("/crl", s.list())
	k := s.keeper()
	s.want(k, cert, nil)
	s.web.Fail("/crl", 500)
	s.clock.forward(2 * day)
	s.want(k, cert, signer.ErrRevocationUnknown)
	if err := k.Revoked(context.Background(), cert, s.ca.Certificate, start.Add(-time.Hour)); err != nil {
		t.Errorf("before the list was made: %v", err)
	}
	s.clock.forward(2 * day)
	s.web.Publish("/crl", s.list())
	past := func() error {
		return k.Revoked(context.Background(), cert, s.ca.Certificate, start)
	}
	if err := past(); err != nil {
		t.Errorf("by the list of then: %v", err)
	}
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := past(); !errors.Is(err, signer.ErrRevocationUnknown) {
		t.Errorf("expired when the list was made: %v", err)
	}
	for kept, want := range map[time.Time]error{start: nil, start.Add(4 * day): signer.ErrRevocationUnknown} {
		l := s.template()
		l.ExtraExtensions = []pkix.Extension{extension(t, oidExpired, false, mustTime(t, kept))}
		s.web.Publish("/crl", s.sign(l, s.ca))
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := past(); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("with what expired since %s: %v, want %v", kept, err, want)
		}
	}
}

func mustTime(t testing.TB, at time.Time) []byte {
	t.Helper()
	der, err := asn1.MarshalWithParams(at, "generalized")
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestOpenSSL: the lists that openssl ca makes.
func TestOpenSSL(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(s.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	writeFile(t, dir, "ca.cnf", []byte(`[ca]
default_ca = c
[c]
database = index.txt
crlnumber = number
default_md = sha256
default_crl_days = 5000
crl_extensions = x
[x]
authorityKeyIdentifier = keyid
`))
	writeFile(t, dir, "index.txt", nil)
	writeFile(t, dir, "number", []byte("01\n"))
	s.clock.now = time.Now() // OpenSSL has its own
	lost, held, good := s.certificate("/crl"), s.certificate("/crl"), s.certificate("/crl")
	ca := []string{"ca", "-config", "ca.cnf", "-keyfile", "key.pem", "-cert", s.ca.File}
	for cert, reason := range map[*x509.Certificate][]string{
		lost: {"-crl_reason", "keyCompromise"}, held: {"-crl_hold", "holdInstructionReject"},
	} {
		file := writeFile(t, dir, "revoke.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
		openssl(t, dir, append(append([]string(nil), ca...), append([]string{"-revoke", file}, reason...)...)...)
	}
	openssl(t, dir, append(ca, "-gencrl", "-out", "list.pem")...)
	s.web.Publish("/crl", openssl(t, dir, "crl", "-in", "list.pem", "-outform", "DER"))
	k := s.keeper()
	s.clock.forward(time.Minute)
	s.want(k, good, nil)
	s.want(k, lost, signer.ErrRevoked)
	s.want(k, held, signer.ErrRevoked)
	if st := s.wantStatus(k, "/crl", nil); st.Entries != 2 || st.Number != "1" || !st.Proved || !strings.Contains(st.Authority, "Test CA") {
		t.Errorf("%+v", st)
	}
	if err := k.Revoked(t.Context(), lost, s.ca.Certificate, start.Add(-day)); err != nil {
		t.Errorf("before: %v", err)
	}
}
