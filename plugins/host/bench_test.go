package host

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
)

// BenchmarkNoopCheck is what a check costs that does nothing: of a message of
// 1 MB in a file, of one in memory, which is copied, and of a small one.
func BenchmarkNoopCheck(b *testing.B) {
	o, _ := options(b)
	h := start(b, o, spec("noop"))
	mega := strings.Repeat("Subject: prova\r\n", 1<<16)
	for name, q := range map[string]Question{"file": question(inFile(b, filepath.Dir(o.Messages), mega)), "memory": question(message.Bytes(mega)), "small": small("noop")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if f := h.Check(context.Background(), points.Submission, q)[0]; f.Says != points.Clean {
					b.Fatalf("%+v", f)
				}
			}
		})
	}
}

// BenchmarkAccess is what the access point costs inside and outside of the
// process.
func BenchmarkAccess(b *testing.B) {
	o, _ := options(b)
	h := start(b, o, pointSpec("access", ""))
	s := submission(b, good)
	for name, p := range map[string]access.Point{"builtin": access.Builtin{}, "plugin": h.Access()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, err := p.Decide(context.Background(), s); err != nil || d.Verdict != points.Accept {
					b.Fatalf("%+v, %v", d, err)
				}
			}
		})
	}
}
