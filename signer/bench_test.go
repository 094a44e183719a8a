package signer_test

import (
	"os"
	"path/filepath"
	"testing"

	"pecd/pec/message"
	"pecd/signer"
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
