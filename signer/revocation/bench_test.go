package revocation

import (
	"crypto/x509"
	"math/big"
	"runtime"
	"testing"
	"time"

	"pecd/signer"
)

// hundredThousand is a list with 100,000 entries beside those given.
func hundredThousand(s *scene, entries ...x509.RevocationListEntry) []byte {
	for i := range 100_000 {
		n := new(big.Int).SetUint64(uint64(i)*0x9e3779b97f4a7c15 + 1)
		entries = append(entries, x509.RevocationListEntry{SerialNumber: n.Lsh(n, 56), RevocationTime: start.Add(-day), ReasonCode: i % 5})
	}
	return s.list(entries...)
}

// TestLarge: a list of 100,000 is read once and then asked.
func TestLarge(t *testing.T) {
	s := newScene(t)
	bad, good := s.certificate("/crl"), s.certificate("/crl")
	s.web.Publish("/crl", hundredThousand(s, revoke(bad, start.Add(-day), 1)))
	k := s.keeper(func(o *Options) { o.Wait = time.Minute }) // signing and reading 100,000 takes its time on a busy machine
	for range 100 {
		s.want(k, bad, signer.ErrRevoked)
		s.want(k, good, nil)
	}
	if st := s.wantStatus(k, "/crl", nil); st.Entries != 100_001 {
		t.Errorf("%d entries", st.Entries)
	}
	if n := s.web.Requests("/crl"); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func BenchmarkParse100000(b *testing.B) {
	s := newScene(b)
	list := hundredThousand(s)
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseList(list); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeap100000 reports what a list holds in memory once its signature was
// found good.
func BenchmarkHeap100000(b *testing.B) {
	s := newScene(b)
	list := hundredThousand(s)
	for b.Loop() {
		before := heap()
		e, err := parseList(append([]byte(nil), list...))
		if err != nil {
			b.Fatal(err)
		}
		if err := e.signedBy(s.ca.Certificate); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "heap-MB")
		runtime.KeepAlive(e)
	}
	runtime.KeepAlive(list)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkRevoked is the question of every message, answered from memory.
func BenchmarkRevoked(b *testing.B) {
	s := newScene(b)
	cert := s.certificate("/crl")
	s.web.Publish("/crl", hundredThousand(s))
	k := s.keeper()
	s.want(k, cert, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := k.Revoked(b.Context(), cert, s.ca.Certificate, start); err != nil {
			b.Fatal(err)
		}
	}
}
