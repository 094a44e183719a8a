package revocation

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"pecd/signer"
	"pecd/signer/signertest"
)

// answerOf is an answer about c, made now, that the CA signs.
func (s *scene) answerOf(c *x509.Certificate, status int, change ...func(*ocsp.Response)) []byte {
	return s.answerBy(s.ca.Certificate, s.ca.Key, c, status, change...)
}

func (s *scene) answerBy(responder *x509.Certificate, key crypto.Signer, c *x509.Certificate, status int, change ...func(*ocsp.Response)) []byte {
	s.t.Helper()
	r := ocsp.Response{Status: status, SerialNumber: c.SerialNumber, ThisUpdate: s.clock.Now(), NextUpdate: s.clock.Now().Add(day)}
	if status == ocsp.Revoked {
		r.RevokedAt, r.RevocationReason = start.Add(-day), ocsp.KeyCompromise
	}
	for _, f := range change {
		f(&r)
	}
	der, err := ocsp.CreateResponse(s.ca.Certificate, responder, r, key)
	if err != nil {
		s.t.Fatal(err)
	}
	return der
}

// delegate makes the certificate of a responder.
func (s *scene) delegate(ca *signertest.CA, change ...func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
	s.t.Helper()
	tmpl := ca.Template("Responder", "ocsp@ca.example")
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	for _, f := range change {
		f(tmpl)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	return ca.Issue(s.t, tmpl, key.Public()), key
}

func useOCSP(mode OCSP) func(*Options) { return func(o *Options) { o.OCSP = mode } }

// TestAnswers: what is believed of a responder.
func TestAnswers(t *testing.T) {
	s := newScene(t)
	cert, other := s.certificate("/ocsp"), s.certificate("/ocsp")
	foreign := signertest.NewCA(t)
	good := s.answerOf(cert, ocsp.Good)
	altered := bytes.Clone(good)
	altered[len(altered)-1] ^= 1
	named := func(r *ocsp.Response) { r.Certificate = s.ca.Certificate }
	by := func(ca *signertest.CA, change ...func(*x509.Certificate)) []byte {
		c, key := s.delegate(ca, change...)
		return s.answerBy(c, key, cert, ocsp.Good, func(r *ocsp.Response) { r.Certificate = c })
	}
	for name, tc := range map[string]struct {
		answer []byte
		want   error // nil: believed
	}{
		"good":          {good, nil},
		"SHA-256":       {s.answerOf(cert, ocsp.Good, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }), nil},
		"with the CA":   {s.answerOf(cert, ocsp.Good, named), nil},
		"delegate":      {by(s.ca), nil},
		"no purpose":    {by(s.ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), ErrSigner},
		"any purpose":   {by(s.ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), ErrSigner},
		"no signatures": {by(s.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), ErrSigner},
		"expired":       {by(s.ca, func(c *x509.Certificate) { c.NotAfter = start.Add(-day) }), ErrSigner},
		"foreign":       {by(foreign), ErrSigner},
		"foreign CA":    {s.answerBy(foreign.Certificate, foreign.Key, cert, ocsp.Good), ErrSigner},
		"about another": {s.answerOf(other, ocsp.Good), ErrMalformed},
		"altered":       {altered, ErrSigner},
		"truncated":     {good[:len(good)-5], ErrMalformed},
		"more":          {append(bytes.Clone(good), 0), ErrMalformed},
		"large":         {make([]byte, MaxAnswer+1), ErrMalformed},
		"empty":         {nil, ErrMalformed},
		"try later":     {ocsp.TryLaterErrorResponse, ErrScope},
		"unauthorized":  {ocsp.UnauthorizedErrorResponse, ErrScope},
		"unknown":       {s.answerOf(cert, ocsp.Unknown), ErrScope},
		"backwards":     {s.answerOf(cert, ocsp.Good, func(r *ocsp.Response) { r.NextUpdate = start.Add(-day) }), ErrMalformed},
		"taken back":    {s.answerOf(cert, ocsp.Revoked, func(r *ocsp.Response) { r.RevocationReason = ocsp.RemoveFromCRL }), ErrScope},
		"critical":      {s.answerOf(cert, ocsp.Good, critical(t)), ErrMalformed},
	} {
		e, err := parseAnswer(tc.answer, cert, s.ca.Certificate, time.Hour)
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil || (e == nil) != (err != nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	long := s.answerOf(cert, ocsp.Good, func(r *ocsp.Response) { r.Certificate = hugeKey(t, s.ca) })
	if _, err := parseAnswer(long, cert, s.ca.Certificate, time.Hour); !strings.Contains(err.Error(), "RSA key of 16001 bits") {
		t.Errorf("not refused before it was computed with: %v", err)
	}
	// A CA that answers for another CA of its name: the number is the same, the
	// key in the identifier is not.
	if _, err := parseAnswer(good, cert, foreign.Certificate, time.Hour); !errors.Is(err, ErrMalformed) {
		t.Errorf("the issuer's key: %v", err)
	}
}

func critical(t testing.TB) func(*ocsp.Response) {
	return func(r *ocsp.Response) {
		r.ExtraExtensions = []pkix.Extension{extension(t, []int{1, 2, 3}, true, 1)}
	}
}

// hugeKey is a certificate whose key nobody should compute with.
func hugeKey(t testing.TB, ca *signertest.CA) *x509.Certificate {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), 16_000)
	return ca.Issue(t, ca.Template("Responder", "ocsp@ca.example"), rsaKey(n.Add(n, big.NewInt(1))))
}

// TestResponder: the keeper asks, remembers, and knows what to do if it cannot.
func TestResponder(t *testing.T) {
	s := newScene(t)
	good, bad, held := s.certificate("/ocsp"), s.certificate("/ocsp"), s.certificate("/ocsp")
	s.web.Handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			w.Write(ocsp.MalformedRequestErrorResponse)
			return
		}
		switch {
		case q.SerialNumber.Cmp(bad.SerialNumber) == 0:
			w.Write(s.answerOf(bad, ocsp.Revoked))
		case q.SerialNumber.Cmp(held.SerialNumber) == 0:
			w.Write(s.answerOf(held, ocsp.Revoked, func(r *ocsp.Response) { r.RevocationReason = ocsp.CertificateHold }))
		default:
			w.Write(s.answerOf(good, ocsp.Good))
		}
	})
	k := s.keeper(useOCSP(OCSPFallback))
	for range 3 {
		s.want(k, good, nil)
		s.want(k, bad, signer.ErrRevoked)
		s.want(k, held, signer.ErrRevoked)
	}
	if n := s.web.Requests("/ocsp"); n != 3 {
		t.Errorf("%d requests", n)
	}
	if err := k.Revoked(t.Context(), bad, s.ca.Certificate, start.Add(-2*day)); err != nil {
		t.Errorf("before: %v", err)
	}
	k.Close()
	s.web.Fail("/ocsp", 500)
	k = s.keeper(useOCSP(OCSPFallback))
	s.want(k, bad, signer.ErrRevoked)
	s.want(k, good, nil)
	s.clock.forward(25 * time.Hour)
	s.want(k, good, signer.ErrRevocationUnknown)
	k.o.Policy.Grace = 2 * time.Hour
	s.want(k, good, nil)
}

// TestResponderReplay: an answer from before the revocation does not come back,
// and one that names no end does not count for ever.
func TestResponderReplay(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/ocsp")
	endless := func(r *ocsp.Response) { r.NextUpdate = time.Time{} }
	old := s.answerOf(cert, ocsp.Good, endless)
	s.web.Publish("/ocsp", old)
	k := s.keeper(useOCSP(OCSPFirst))
	s.want(k, cert, nil)
	s.clock.forward(DefaultMax + time.Second)
	s.want(k, cert, signer.ErrRevocationUnknown)
	s.web.Publish("/ocsp", s.answerOf(cert, ocsp.Revoked, endless))
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(k, cert, signer.ErrRevoked)
	s.web.Publish("/ocsp", old)
	if err := k.Refresh(t.Context()); !errors.Is(err, ErrOlder) {
		t.Error(err)
	}
	s.want(k, cert, signer.ErrRevoked)
}

// TestOrder: who is asked first, and who if that one does not answer.
func TestOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		mode         OCSP
		list, answer bool // whether it is there
		lists, ocsps int  // how often it is asked
		want         error
	}{
		"off":                     {OCSPOff, true, true, 1, 0, nil},
		"off, no list":            {OCSPOff, false, true, 1, 0, signer.ErrRevocationUnknown},
		"fallback":                {OCSPFallback, true, true, 1, 0, nil},
		"fallback, no list":       {OCSPFallback, false, true, 1, 1, nil},
		"fallback, nobody":        {OCSPFallback, false, false, 1, 1, signer.ErrRevocationUnknown},
		"first":                   {OCSPFirst, true, true, 0, 1, nil},
		"first, no responder":     {OCSPFirst, true, false, 1, 1, nil},
		"first, neither is there": {OCSPFirst, false, false, 1, 1, signer.ErrRevocationUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			cert := s.certificate("/crl", "/ocsp")
			s.web.Fail("/crl", 500)
			s.web.Fail("/ocsp", 500)
			if tc.list {
				s.web.Publish("/crl", s.list())
			}
			if tc.answer {
				s.web.Publish("/ocsp", s.answerOf(cert, ocsp.Good))
			}
			s.want(s.keeper(useOCSP(tc.mode)), cert, tc.want)
			if l, o := s.web.Requests("/crl"), s.web.Requests("/ocsp"); l != tc.lists || o != tc.ocsps {
				t.Errorf("the list %d times, the responder %d times", l, o)
			}
		})
	}
}

// TestListBeatsAnswer: what any of the two says is revoked is revoked.
func TestListBeatsAnswer(t *testing.T) {
	s := newScene(t)
	cert := s.certificate("/crl", "/ocsp")
	file := writeFile(t, t.TempDir(), "list", s.list(revoke(cert, start.Add(-day), 1)))
	s.web.Publish("/ocsp", s.answerOf(cert, ocsp.Good))
	s.want(s.keeper(useOCSP(OCSPFirst), func(o *Options) { o.Files = []string{file} }), cert, signer.ErrRevoked)
}

// TestOpenSSLResponder: openssl ocsp answers, with a delegated certificate.
func TestOpenSSLResponder(t *testing.T) {
	s := newScene(t)
	s.clock.now = time.Now() // OpenSSL has its own
	dir := t.TempDir()
	responder, key := s.delegate(s.ca)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "responder.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	writeFile(t, dir, "responder.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: responder.Raw}))
	good, bad, unknown := s.ca.Template("Alfa", "a@alfa.example"), s.ca.Template("Alfa", "a@alfa.example"), s.ca.Template("Alfa", "a@alfa.example")
	const ends = "491231235959Z"
	writeFile(t, dir, "index.txt", fmt.Appendf(nil, "V\t%s\t\t%02X\tunknown\t/CN=Alfa\nR\t%s\t260101000000Z,keyCompromise\t%02X\tunknown\t/CN=Alfa\n",
		ends, good.SerialNumber.Int64(), ends, bad.SerialNumber.Int64()))
	address := serveOCSP(t, dir, "-index", "index.txt", "-CA", s.ca.File, "-rsigner", "responder.pem", "-rkey", "responder.key", "-ndays", "2")
	k := s.keeper(useOCSP(OCSPFallback))
	for _, tc := range []struct {
		tmpl *x509.Certificate
		want error
	}{{good, nil}, {bad, signer.ErrRevoked}, {unknown, signer.ErrRevocationUnknown}} {
		tc.tmpl.OCSPServer = []string{"http://" + address}
		cert := s.ca.Issue(t, tc.tmpl, signertest.Key(t, "a@alfa.example").Public())
		s.clock.now = time.Now()
		s.want(k, cert, tc.want)
	}
	wanted := 0
	for _, st := range k.Status() {
		if st.Kind == KindOCSP && st.Err == nil && st.NextUpdate.Sub(st.ThisUpdate) == 2*day {
			wanted++
		}
	}
	if wanted != 2 {
		t.Errorf("%+v", k.Status())
	}
}

// serveOCSP runs openssl ocsp as a responder until the test ends, and returns
// where it listens.
func serveOCSP(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"ocsp", "-port", "0"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	accept := regexp.MustCompile(`^ACCEPT \S*:(\d+)`)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := accept.FindStringSubmatch(lines.Text()); m != nil {
			return "127.0.0.1:" + m[1]
		}
	}
	t.Fatal("openssl ocsp does not listen")
	return ""
}
