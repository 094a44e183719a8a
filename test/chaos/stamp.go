package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"pecd/packaging/demo/stage"
)

// A stamper is a time-stamping authority: OpenSSL, that shares no code with pecd.
// Its clock is the real one, also while pecd's has jumped.
type stamper struct {
	dir string

	mu   sync.Mutex // guards OpenSSL's serial file and last
	last []byte     // answer: genuine, and to any later query garbage
}

const stamperConf = `[tsa]
default_tsa = it
[it]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256
ess_cert_id_alg = sha256
`

// newStamper makes an authority with its own CA in dir.
func newStamper(dir string) (*stamper, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	ca, err := stage.NewAuthority("TSA Chaos CA")
	if err != nil {
		return nil, err
	}
	leaf, err := stampingLeaf(ca)
	if err != nil {
		return nil, err
	}
	s := &stamper{dir: dir}
	if err := leaf.Write(s.file("tsa.pem"), s.file("tsa.key"), ca); err != nil {
		return nil, err
	}
	if err := ca.Write(s.file("ca.pem"), s.file("ca.key")); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.file("serial"), []byte("01\n"), 0o600); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.file("tsa.cnf"), []byte(stamperConf), 0o600)
}

// stampingLeaf is good for time stamps and nothing else; RFC 3161, 2.3.
func stampingLeaf(ca stage.Authority) (leaf stage.Authority, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return leaf, err
	}
	purposes, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return leaf, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"IT"}, CommonName: "TSA Chaos"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purposes}},
	}, ca.Certificate, key.Public(), ca.Key)
	if err != nil {
		return leaf, err
	}
	cert, err := x509.ParseCertificate(der)
	return stage.Authority{Certificate: cert, Key: key}, err
}

func (s *stamper) file(name string) string { return filepath.Join(s.dir, name) }

// ServeHTTP answers a query; RFC 3161, 3.4.
func (s *stamper) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	reply, err := s.stamp(r.Context(), query)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = rw.Write(reply) // a client that has gone comes again
}

func (s *stamper) stamp(ctx context.Context, query []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.WriteFile(s.file("query"), query, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("openssl ts -reply: %w: %s", err, out)
	}
	reply, err := os.ReadFile(s.file("reply"))
	if err == nil {
		s.last = reply
	}
	return reply, err
}

// garbage is, in turn, an answer to an earlier query, half of one, and a web page.
func (s *stamper) garbage(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case n%3 == 0 && len(s.last) > 0:
		return s.last
	case n%3 == 1 && len(s.last) > 0:
		return s.last[:len(s.last)/2]
	}
	return []byte("<html><body><h1>It works!</h1></body></html>\n")
}

// startStamper starts the authority.
func (w *world) startStamper() error {
	s, err := newStamper(filepath.Join(w.dir, "tsa"))
	if err != nil {
		return err
	}
	if w.stamps, err = newPublisher(s, "", ""); err != nil {
		return err
	}
	w.stamps.garbage = s.garbage
	return nil
}

// sealBy has the register of a provider stamped by the authority: each day that
// ends, and its head at each start, whenever the configuration is read anew, and
// every minute.
func (w *world) sealBy(c *stage.PecdConfig) {
	c.Seal = stage.SealConfig{TSA: []string{"http://" + w.stamps.addr()}, TSAAnchors: filepath.Join(w.dir, "tsa", "ca.pem")}
	c.Witness = stage.WitnessConfig{Interval: "1m", Timestamp: true, Receipts: true}
}

// witnessed waits until the authority has stamped both registers to their ends:
// what was broken of it must not keep pecd from going on with it.
func (w *world) witnessed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.settle)
	defer cancel()
	if err := w.readAgain(); err != nil {
		return err
	}
	for _, p := range w.stage.Providers() {
		err := w.again(ctx, func() error {
			last, err := lastEntry(ctx, p)
			if err != nil {
				return err
			}
			page, err := figures(ctx, p)
			if err != nil {
				return err
			}
			heard, err := figure(page, "pecd_witness_entry")
			if err == nil && int64(heard) < last {
				err = fmt.Errorf("%s: the authority stamped up to entry %.0f of %d", p.Domain, heard, last)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lastEntry is the number of the last entry of a register.
func lastEntry(ctx context.Context, p *stage.Provider) (last int64, err error) {
	db, err := openRegister(p)
	if err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT max(seq) FROM entry").Scan(&last)
	return last, errors.Join(err, db.Close())
}
