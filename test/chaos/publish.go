package main

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"pecd/packaging/demo/stage"
)

// A manner is how a publisher treats its clients.
type manner int

const (
	well    manner = iota
	failing        // says 503
	gone           // drops the connection
	silent         // answers when it is mended, if the client still waits
	garbled        // answers with what is none
)

// A publisher is a web server of others that pecd asks, and that can be broken.
type publisher struct {
	l      net.Listener
	server *http.Server
	answer http.Handler // while all is well
	// garbage is the nth of what is sent in place of genuine answers.
	garbage func(n int) []byte
	ended   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	manner  manner
	changed chan struct{} // closed at the next set
	met     int           // requests that were not answered well, in all
	told    int           // of these requests has told
}

// newPublisher starts a server; with a certificate it speaks TLS.
func newPublisher(answer http.Handler, certificate, key string) (*publisher, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &publisher{l: l, answer: answer, changed: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	p.ended.Add(1)
	go func() {
		defer p.ended.Done()
		if certificate == "" {
			_ = p.server.Serve(l) // ends with close
			return
		}
		_ = p.server.ServeTLS(l, certificate, key)
	}()
	return p, nil
}

func (p *publisher) addr() string { return p.l.Addr().String() }

func (p *publisher) close() error {
	p.set(well)
	err := p.server.Close()
	p.ended.Wait()
	return err
}

func (p *publisher) set(m manner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.manner = m
	close(p.changed)
	p.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (p *publisher) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	m, changed, n := p.manner, p.changed, p.met
	if m != well {
		p.met++
	}
	p.mu.Unlock()
	switch m {
	case failing:
		http.Error(rw, "away", http.StatusServiceUnavailable)
		return
	case gone:
		panic(http.ErrAbortHandler) // so net/http drops a connection without a word
	case silent:
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	case garbled:
		_, _ = rw.Write(p.garbage(n)) // a client that has gone comes again
		return
	}
	p.answer.ServeHTTP(rw, r)
}

// requests is how many requests met a fault since it was asked last.
func (p *publisher) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.met - p.told
	p.told = p.met
	return n
}

// published answers with what content returns.
func published(content func() ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		b, err := content()
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = rw.Write(b) // a client that has gone comes again
	})
}

// startPublishers starts the servers of revocation lists and of the directory. The
// one of the directory speaks TLS and takes a client certificate, but demands none.
func (w *world) startPublishers() (err error) {
	crl, err := w.revoked()
	if err != nil {
		return err
	}
	if w.lists, err = newPublisher(published(func() ([]byte, error) { return crl, nil }), "", ""); err != nil {
		return err
	}
	dir := w.stage.Alfa.Dir
	w.index, err = newPublisher(published(func() ([]byte, error) { return os.ReadFile(w.stage.Directory) }),
		filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls-key.pem"))
	return err
}

// relyOn has p fetch both.
func (w *world) relyOn(p *stage.Provider) error {
	p.Pecd.Config.Trust.CRLURLs = []string{"http://" + w.lists.addr() + "/ca.crl"}
	p.Pecd.Config.Directory = stage.DirectoryConfig{URL: "https://" + w.index.addr() + "/igpec.ldif.p7m", TLSAnchors: w.stage.TLSCA,
		Anchors: w.stage.CA, ClientCertificate: filepath.Join(p.Dir, "tls.pem"), ClientKey: filepath.Join(p.Dir, "tls-key.pem")}
	return p.Pecd.WriteConfig()
}

// revoked makes the list of revoked certificates: there are none.
func (w *world) revoked() ([]byte, error) {
	ca, err := w.stage.Authority()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-24 * time.Hour),
		NextUpdate: now.Add(10 * 24 * time.Hour)}, ca.Certificate, ca.Key)
}

// readAgain has both pecd read their configuration anew. They then ask all others
// at once, whom they would ask in hours: without it no fault of those is met. One
// that is being started asks anyway, and would end at a hangup.
func (w *world) readAgain() error {
	for _, p := range w.stage.Providers() {
		pid := p.Pecd.PID()
		if _, down := w.down.Load(p); down || pid == 0 {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("pecd %s: %w", p.Label, err)
		}
	}
	return nil
}
