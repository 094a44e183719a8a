package lmtp_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"pecd/lmtp"
)

// noop is a backend that forgets everything.
type noop struct{ io.Writer }

func (n noop) Begin(context.Context, lmtp.Envelope) (lmtp.Message, error) { return n, nil }
func (noop) End(_ context.Context, env lmtp.Envelope) []lmtp.Status {
	s := make([]lmtp.Status, len(env.Recipients))
	for i := range s {
		s[i].Code = 250
	}
	return s
}
func (noop) Abort() {}

// content returns n octets of lines, some of which begin with a dot.
func content(n int) []byte {
	line := strings.Repeat("x", 76) + "\r\n"
	return bytes.Repeat([]byte(line+line+"."+line[1:]), n/3/len(line))
}

var sizes = []struct {
	name string
	n    int
}{{"4KB", 4 << 10}, {"1MB", 1 << 20}, {"30MB", 30 << 20}}

// The server takes messages over one TCP connection.
func BenchmarkReceive(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			c := start(b, lmtp.Options{Backend: noop{io.Discard}}).dial(b)
			data := bytes.ReplaceAll(content(size.n), []byte("\r\n."), []byte("\r\n.."))
			data = append(data, ".\r\n"...)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				c.envelope("bob@x")
				if _, err := c.Write(data); err != nil {
					b.Fatal(err)
				}
				c.expect("250")
			}
		})
	}
}

// The client delivers to the server of this package over one TCP connection.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			srv := start(b, lmtp.Options{Backend: noop{io.Discard}})
			s := &lmtp.Store{Dial: func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", srv.addr)
			}}
			defer s.Close()
			data := content(size.n)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				got, err := s.Deliver(context.Background(), "a@b", []string{"bob@x"}, 0, true, func(w io.Writer) error {
					_, err := w.Write(data)
					return err
				})
				if err != nil || !got[0].OK() {
					b.Fatal(got, err)
				}
			}
		})
	}
}
