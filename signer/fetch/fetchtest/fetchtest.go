// Package fetchtest runs HTTP and HTTPS servers that publish files, for tests of
// what fetches them.
package fetchtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The certificates of this package are valid between these instants.
var (
	NotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	NotAfter  = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// A Server publishes files until the test ends.
type Server struct {
	URL  string
	Host string // host and port

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests map[string]int
}

// New starts a server of HTTP.
func New(t testing.TB) *Server {
	s, web := prepare(t)
	web.Start()
	return s.started(web)
}

// NewTLS starts a server of HTTPS whose certificate a made. It demands a client
// certificate of a.
func NewTLS(t testing.TB, a *Authority) *Server {
	s, web := prepare(t)
	web.TLS = &tls.Config{
		Certificates: []tls.Certificate{a.Issue(t, "server")},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    a.Pool(),
	}
	web.StartTLS()
	return s.started(web)
}

func prepare(t testing.TB) (*Server, *httptest.Server) {
	s := &Server{handlers: make(map[string]http.HandlerFunc), requests: make(map[string]int)}
	web := httptest.NewUnstartedServer(s)
	web.Config.ErrorLog = log.New(testWriter{t}, "", 0)
	t.Cleanup(web.Close)
	return s, web
}

// testWriter gives what the server complains of to the test: refused
// certificates are what some tests are about.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("server: %s", bytes.TrimSpace(p))
	return len(p), nil
}

func (s *Server) started(web *httptest.Server) *Server {
	s.URL, s.Host = web.URL, web.Listener.Addr().String()
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.handlers[r.URL.Path]
	s.requests[r.URL.Path]++
	s.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

// Handle answers requests for path with h from now on.
func (s *Server) Handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
}

// Publish answers requests for path with body from now on, with an entity tag
// and the answer 304 to who has it.
func (s *Server) Publish(path string, body []byte) {
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	s.Handle(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}

// Fail answers requests for path with a status from now on.
func (s *Server) Fail(path string, status int) {
	s.Handle(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// Requests returns how often path was asked for.
func (s *Server) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// An Authority makes certificates of servers and clients.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key := newKey(t)
	a := &Authority{key: key, serial: 1}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Web CA"}, NotBefore: NotBefore, NotAfter: NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.Certificate = parse(t, tmpl, tmpl, key, key)
	return a
}

// Pool returns the pool that holds only a.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

// Issue makes a certificate for the loopback address, good for servers and
// clients.
func (a *Authority) Issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	a.serial++
	key := newKey(t)
	c := parse(t, &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name}, NotBefore: NotBefore, NotAfter: NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}, a.Certificate, key, a.key)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// Files writes a certificate made by Issue into PEM files, the key with mode
// 0600.
func (a *Authority) Files(t testing.TB, name string) (certFile, keyFile string) {
	t.Helper()
	c := a.Issue(t, name)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{certFile, "CERTIFICATE", c.Certificate[0]}, {keyFile, "PRIVATE KEY", key}} {
		if err := os.WriteFile(f.name, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t testing.TB, tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
