package directory

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// fiftyThousand is a directory of 25 providers with 2,000 domains each.
func fiftyThousand(b *testing.B) []byte {
	b.Helper()
	var ps []Provider
	for i := range 25 {
		p := Provider{
			Name:           fmt.Sprintf("Provider %d S.p.A.", i),
			Certificates:   [][]byte{bytes.Repeat([]byte{byte(i)}, 2000)},
			ServiceMailbox: "ricevute@example.it",
		}
		for j := range 2000 {
			p.Domains = append(p.Domains, fmt.Sprintf("pec.comune-%d-%d.example.it", i, j))
		}
		ps = append(ps, p)
	}
	var out bytes.Buffer
	if err := Marshal(&out, ps); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkParse50000Domains(b *testing.B) {
	ldif := fiftyThousand(b)
	b.SetBytes(int64(len(ldif)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(ldif); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeap50000Domains reports what a directory holds in memory after it was
// read, and what of that is each domain's part.
func BenchmarkHeap50000Domains(b *testing.B) {
	ldif := fiftyThousand(b)
	for b.Loop() {
		before := heap()
		d, err := Parse(ldif)
		if err != nil {
			b.Fatal(err)
		}
		held := heap() - before
		b.ReportMetric(float64(held)/(1<<20), "heap-MB")
		b.ReportMetric(float64(held)/float64(d.Domains()), "heap-B/domain")
		runtime.KeepAlive(d)
	}
	runtime.KeepAlive(ldif)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkProviderOf50000Domains(b *testing.B) {
	d, err := Parse(fiftyThousand(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := d.ProviderOf("pec.Comune-24-1999.example.it"); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkManages50000Domains(b *testing.B) {
	d, err := Parse(fiftyThousand(b))
	if err != nil {
		b.Fatal(err)
	}
	p := d.Providers()[24]
	b.ReportAllocs()
	for b.Loop() {
		if !p.Manages("pec.comune-24-1999.example.it") {
			b.Fatal("not found")
		}
	}
}
