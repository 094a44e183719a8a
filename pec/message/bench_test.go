package message

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// large is a message of 30 MB with one attachment in base64.
func large() Bytes {
	var b bytes.Buffer
	b.WriteString("From: anna@alfa.example\r\n" + mixed + "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n" +
		"--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	line := strings.Repeat("QUJD", 19) + "\r\n"
	for b.Len() < 30_000_000 {
		b.WriteString(line)
	}
	b.WriteString("\r\n--b--\r\n")
	return b.Bytes()
}

func BenchmarkRead(b *testing.B) {
	src := Bytes(certified)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStructure(b *testing.B) {
	dashes := append(large()[:200], bytes.Repeat([]byte("--\r\n"), 7_500_000)...)
	for name, src := range map[string]Bytes{"certified": Bytes(certified), "30MB": large(), "30MB-dashes": dashes} {
		b.Run(name, func(b *testing.B) {
			m, err := Read(src)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(src.Size())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Structure(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkScanner(b *testing.B) {
	c := Section(large(), Range{0, 30_000_000})
	b.SetBytes(c.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ScanContent(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkContentWriteTo(b *testing.B) {
	m, err := Read(large())
	if err != nil {
		b.Fatal(err)
	}
	c := Relabel(m, "id@alfa.example", "<client@alfa.example>")
	b.SetBytes(c.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecoded(b *testing.B) {
	attachment := part(b, string(large())).Children[1]
	for _, encoding := range []string{"base64", "quoted-printable"} {
		b.Run(encoding, func(b *testing.B) {
			p := &Part{Message: attachment.Message}
			p.Header = Header{[]Field{{[]byte("Content-Transfer-Encoding: " + encoding)}}}
			b.SetBytes(p.Body.Len)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.Copy(io.Discard, p.Decoded()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRelabel(b *testing.B) {
	m, err := Read(Bytes(certified))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Relabel(m, "id@alfa.example", "<client@alfa.example>")
	}
}

func BenchmarkEncodeHeader(b *testing.B) {
	text := strings.Repeat("perché così è più facile ", 6)
	b.ReportAllocs()
	for b.Loop() {
		EncodeHeader("Subject", "POSTA CERTIFICATA: ", text)
	}
}
