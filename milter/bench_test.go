package milter_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"pecd/milter"
)

// noop is a backend that forgets everything.
type noop struct{ io.Writer }

func (n noop) Begin(context.Context, milter.Envelope) (milter.Message, error) { return n, nil }
func (noop) End(context.Context, milter.Envelope) milter.Verdict {
	return milter.Verdict{Action: milter.Discard}
}
func (noop) Abort() {}

// Messages per second over one connection on a Unix socket.
func BenchmarkMessages(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"4KB", 4 << 10}, {"100KB", 100 << 10}, {"5MB", 5 << 20}} {
		b.Run(size.name, func(b *testing.B) {
			c := start(b, milter.Options{Backend: noop{io.Discard}}).dial(b)
			m := plain
			m.Bytes = append(bytes.Repeat([]byte("Header-Field: some value\r\n"), 20), "\r\n"...)
			m.Bytes = append(m.Bytes, bytes.Repeat([]byte("x"), size.n)...)
			b.SetBytes(int64(len(m.Bytes)))
			b.ReportAllocs()
			for b.Loop() {
				mustSend(b, c, m, 'd')
			}
		})
	}
}
