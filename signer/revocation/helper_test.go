package revocation

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/signer/fetch"
	"pecd/signer/fetch/fetchtest"
	"pecd/signer/signertest"
)

// start is when the tests begin.
var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// A clock goes only when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A scene is an authority that publishes, a certificate, and a keeper.
type scene struct {
	t      testing.TB
	ca     *signertest.CA
	web    *fetchtest.Server
	clock  *clock
	cache  string
	number int64
	made   time.Time // of the lists; zero: now
}

func newScene(t testing.TB) *scene {
	return &scene{t: t, ca: signertest.NewCA(t), web: fetchtest.New(t), clock: &clock{now: start}, cache: t.TempDir()}
}

// keeper returns a keeper with the cache of the scene.
func (s *scene) keeper(change ...func(*Options)) *Keeper {
	s.t.Helper()
	k, err := New(s.options(change...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(k.Close)
	return k
}

func (s *scene) options(change ...func(*Options)) Options {
	s.t.Helper()
	cache, err := fetch.OpenCache(s.cache, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	o := Options{Client: fetch.New(fetch.Options{MaxSize: MaxList}), Cache: cache, Now: s.clock.Now, Wait: 10 * time.Second}
	for _, f := range change {
		f(&o)
	}
	return o
}

// certificate issues one that names the paths of the server.
func (s *scene) certificate(paths ...string) *x509.Certificate {
	s.t.Helper()
	tmpl := s.ca.Template("Alfa", "a@alfa.example")
	for _, p := range paths {
		if strings.HasPrefix(p, "/ocsp") {
			tmpl.OCSPServer = append(tmpl.OCSPServer, s.web.URL+p)
			continue
		}
		tmpl.CRLDistributionPoints = append(tmpl.CRLDistributionPoints, s.web.URL+p)
	}
	return s.ca.Issue(s.t, tmpl, signertest.Key(s.t, "a@alfa.example").Public())
}

// revoke returns the entry for c.
func revoke(c *x509.Certificate, since time.Time, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: since, ReasonCode: reason}
}

// template is a list made now for a day, with the next number.
func (s *scene) template(entries ...x509.RevocationListEntry) *x509.RevocationList {
	s.number++
	made := s.made
	if made.IsZero() {
		made = s.clock.Now()
	}
	return &x509.RevocationList{Number: big.NewInt(s.number), ThisUpdate: made, NextUpdate: made.Add(day),
		RevokedCertificateEntries: entries}
}

func (s *scene) list(entries ...x509.RevocationListEntry) []byte {
	s.t.Helper()
	return s.sign(s.template(entries...), s.ca)
}

func (s *scene) sign(tmpl *x509.RevocationList, ca *signertest.CA) []byte {
	s.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.Certificate, ca.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	return der
}

// ask is the question as of now.
func (s *scene) ask(k *Keeper, c *x509.Certificate) error {
	return k.Revoked(context.Background(), c, s.ca.Certificate, s.clock.Now())
}

// want ends the test unless the answer is that.
func (s *scene) want(k *Keeper, c *x509.Certificate, want error) {
	s.t.Helper()
	if err := s.ask(k, c); !errors.Is(err, want) || want == nil && err != nil {
		s.t.Fatalf("%v, want %v", err, want)
	}
}

func (s *scene) wantStatus(k *Keeper, source string, want error) Status {
	s.t.Helper()
	for _, st := range k.Status() {
		if strings.HasSuffix(st.Source, source) {
			if !errors.Is(st.Err, want) || want == nil && st.Err != nil {
				s.t.Fatalf("%s: %v, want %v", source, st.Err, want)
			}
			return st
		}
	}
	s.t.Fatalf("no source %s", source)
	return Status{}
}

func extension(t testing.TB, id asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		if der, err = asn1.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	return pkix.Extension{Id: id, Critical: critical, Value: der}
}

// openssl runs openssl in dir. A missing openssl is a failed test.
func openssl(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, complaint.Bytes())
	}
	return out.Bytes()
}

func writeFile(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
