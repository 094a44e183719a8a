package message

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var scanTests = []struct {
	in   string
	want Facts
}{
	{"", Facts{}},
	{"a", Facts{Size: 1, LongestLine: 1}},
	{"abc\r\nde\r\n", Facts{Size: 9, LongestLine: 3, EndsInNewline: true}},
	{"ab\r\ncde", Facts{Size: 7, LongestLine: 3}},
	{"ab\ncde\r\n", Facts{Size: 8, LongestLine: 3, BareLF: true, EndsInNewline: true}},
	{"\n", Facts{Size: 1, BareLF: true, EndsInNewline: true}},
	{"\r\n", Facts{Size: 2, EndsInNewline: true}},
	{"\r", Facts{Size: 1, LongestLine: 1, BareCR: true}},
	{"a\rb\r\n", Facts{Size: 5, LongestLine: 3, BareCR: true, EndsInNewline: true}},
	{"a\r\r\n", Facts{Size: 4, LongestLine: 2, BareCR: true, EndsInNewline: true}},
	{"a\r\n\r", Facts{Size: 4, LongestLine: 1, BareCR: true}},
	{"a\n\r", Facts{Size: 3, LongestLine: 1, BareCR: true, BareLF: true}},
	{"a\x00\r\n", Facts{Size: 4, LongestLine: 2, NUL: true, EndsInNewline: true}},
	{"caff\xe8\r\n", Facts{Size: 7, LongestLine: 5, EightBit: true, EndsInNewline: true}},
	{strings.Repeat("x", 100) + "\x80", Facts{Size: 101, LongestLine: 101, EightBit: true}},
	{strings.Repeat("x", 998) + "\r\n" + strings.Repeat("y", 999) + "\r\n", Facts{Size: 2001, LongestLine: 999, EndsInNewline: true}},
}

func TestScanner(t *testing.T) {
	for _, tt := range scanTests {
		if got, err := ScanContent(Text([]byte(tt.in))); err != nil || got != tt.want {
			t.Errorf("%.50q: %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		var s Scanner
		for i := range tt.in {
			if n, err := s.Write([]byte(tt.in[i : i+1])); n != 1 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			s.Facts() // changes nothing
		}
		if got := s.Facts(); got != tt.want {
			t.Errorf("%.50q by octets: %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

// Every octet of a block is looked at.
func TestScannerEightBit(t *testing.T) {
	for n := 1; n < 100; n++ {
		for i := range n {
			b := bytes.Repeat([]byte("x"), n)
			if hasEightBit(b) {
				t.Fatalf("%d octets of ASCII", n)
			}
			if b[i] = 0x80; !hasEightBit(b) {
				t.Fatalf("octet %d of %d", i, n)
			}
		}
	}
}

func TestScanContentError(t *testing.T) {
	c := Section(badSource{Bytes("abc\r\n"), 2, errDisk}, Range{0, 5})
	if _, err := ScanContent(c); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
}

// FuzzScanner holds the block-wise scanner, however the input is cut, against
// one that looks at one octet after the other.
func FuzzScanner(f *testing.F) {
	for _, tt := range scanTests {
		f.Add([]byte(tt.in), uint16(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		var s Scanner
		for rest := in; len(rest) > 0; {
			n := min(len(rest), int(cut)%40+1)
			s.Write(rest[:n])
			rest, cut = rest[n:], cut*31+7
		}
		if got, want := s.Facts(), slowFacts(in); got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	})
}

func slowFacts(in []byte) Facts {
	f := Facts{Size: int64(len(in)), EndsInNewline: bytes.HasSuffix(in, []byte("\n"))}
	for i, c := range in {
		f.EightBit = f.EightBit || c > 127
		f.NUL = f.NUL || c == 0
		f.BareCR = f.BareCR || c == '\r' && (i+1 == len(in) || in[i+1] != '\n')
		f.BareLF = f.BareLF || c == '\n' && (i == 0 || in[i-1] != '\r')
	}
	for line := range bytes.Lines(in) {
		if l, ok := bytes.CutSuffix(line, []byte("\n")); ok {
			line = bytes.TrimSuffix(l, []byte("\r"))
		}
		f.LongestLine = max(f.LongestLine, len(line))
	}
	return f
}
