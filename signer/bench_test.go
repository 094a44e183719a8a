package signer_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pecd/pec/message"
	"pecd/signer"
	"pecd/signer/signertest"
)

var benchSizes = []struct {
	name string
	size int
}{{"10KB", 10_000}, {"1MB", 1_000_000}, {"30MB", 30_000_000}}

// A fileSource is a spooled message.
type fileSource struct {
	*os.File
	size int64
}

func (f fileSource) Size() int64 { return f.size }

func spool(b *testing.B, data []byte) message.Source {
	b.Helper()
	name := filepath.Join(b.TempDir(), "spool")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return fileSource{f, int64(len(data))}
}

func BenchmarkSign(b *testing.B) {
	_, alfa := newAlfa(b)
	s := signer.NewSigner(alfa.Identity)
	for _, c := range benchSizes {
		b.Run(c.name, func(b *testing.B) {
			src := spool(b, bytesOf(b, originalOf(c.size)))
			d := transportDraft(b, message.Section(src, message.Range{Len: src.Size()}), false)
			b.SetBytes(d.Entity.Size())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sign(d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	ca, alfa := newAlfa(b)
	v := signer.NewVerifier(ca.Pool())
	for _, c := range benchSizes {
		b.Run(c.name, func(b *testing.B) {
			d := transportDraft(b, originalOf(c.size), false)
			src := spool(b, bytesOf(b, sign(b, alfa.Identity, d).Content()))
			b.SetBytes(src.Size())
			b.ReportAllocs()
			for b.Loop() {
				m, err := message.Read(src)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := v.Verify(m, testTime); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A stopwatch collects processor time, by turns with another, so that the ratio
// of the two is right on a machine that others use too. What it measures must
// stay in its goroutine.
type stopwatch struct{ turns []time.Duration }

func (w *stopwatch) time(b *testing.B, f func() error) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := processorTime(b)
	if err := f(); err != nil {
		b.Fatal(err)
	}
	w.turns = append(w.turns, processorTime(b)-begin)
}

func (w *stopwatch) total() (sum time.Duration) {
	for _, d := range w.turns {
		sum += d
	}
	return sum
}

// report writes down what w took: all its turns in terms of those of bare, and
// the median of its turns in terms of that of bare. The first bears all that
// befalls the machine, so that on a busy one, whose caches are cold after each
// turn, it is the larger.
func (w *stopwatch) report(b *testing.B, name string, bare *stopwatch, bareName string) {
	b.Helper()
	b.ReportMetric(float64(w.total())/float64(bare.total()), "x-"+bareName)
	b.ReportMetric(float64(w.median())/float64(bare.median()), "x-"+bareName+"-median")
	b.ReportMetric(float64(bare.total().Microseconds())/float64(b.N), bareName+"-µs")
	b.ReportMetric(float64(w.total().Microseconds())/float64(b.N), name+"-µs")
}

func (w *stopwatch) median() time.Duration {
	sorted := slices.Sorted(slices.Values(w.turns))
	return sorted[len(sorted)/2]
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

var benchBits = []int{2048, 3072, 4096}

func benchKey(b *testing.B, bits int) *rsa.PrivateKey {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

// BenchmarkBareRSA is what BenchmarkSign10KB is to be held against, in one run.
func BenchmarkBareRSA(b *testing.B) {
	digest := sha256.Sum256([]byte("x"))
	for _, bits := range benchBits {
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			key := benchKey(b, bits)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSign10KB signs a transport envelope of 10 KB and does the bare RSA
// operation of the same key, by turns; x-rsa is the one in terms of the other.
// Collecting garbage in the background is no part of it, allocating is.
func BenchmarkSign10KB(b *testing.B) {
	ca := signertest.NewCA(b)
	digest := sha256.Sum256([]byte("x"))
	for _, bits := range benchBits {
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			key := benchKey(b, bits)
			s := signer.NewSigner(ca.IdentityOf(b, key, ca.Template(alfaName, alfaPost)).Identity)
			src := spool(b, bytesOf(b, originalOf(10_000)))
			d := transportDraft(b, message.Section(src, message.Range{Len: src.Size()}), false)
			b.ReportAllocs()
			var sign, bare stopwatch
			signs := func() error { _, err := s.Sign(d); return err }
			bares := func() error { _, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:]); return err }
			for turn := 0; b.Loop(); turn++ {
				if turn%2 == 0 { // neither always comes second
					sign.time(b, signs)
					bare.time(b, bares)
				} else {
					bare.time(b, bares)
					sign.time(b, signs)
				}
			}
			sign.report(b, "sign", &bare, "rsa")
		})
	}
}

// BenchmarkVerify30MB verifies an envelope of 30 MB and computes the SHA-256 of
// the same octets, by turns; x-sha256 is the one in terms of the other.
func BenchmarkVerify30MB(b *testing.B) {
	ca, alfa := newAlfa(b)
	v := signer.NewVerifier(ca.Pool())
	mail := bytesOf(b, sign(b, alfa.Identity, transportDraft(b, originalOf(30_000_000), false)).Content())
	for name, src := range map[string]message.Source{"file": spool(b, mail), "memory": message.Bytes(mail)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(src.Size())
			b.ReportAllocs()
			buf := make([]byte, 64<<10)
			var verify, bare stopwatch
			for b.Loop() {
				verify.time(b, func() error {
					m, err := message.Read(src)
					if err == nil {
						_, err = v.Verify(m, testTime)
					}
					return err
				})
				bare.time(b, func() error {
					h := sha256.New()
					_, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.NewSectionReader(src, 0, src.Size())}, buf)
					h.Sum(nil)
					return err
				})
			}
			verify.report(b, "verify", &bare, "sha256")
		})
	}
}
