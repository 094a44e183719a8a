package verify

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func entries(t *testing.T, raw []byte) []entry {
	t.Helper()
	var out []entry
	if err := split(bytes.NewReader(raw), func(e entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSplit(t *testing.T) {
	const sep = "From a@b.example Sun Nov 22 10:45:37 2026\n"
	long := strings.Repeat("x", 200_000)
	for name, tt := range map[string]struct {
		raw  string
		want []string
	}{
		"empty":                {"", nil},
		"no separator":         {"A: b\n\nx\n", []string{"A: b\n\nx\n"}},
		"two":                  {sep + "A: b\n\nx\n\n" + sep + "C: d\n", []string{"A: b\n\nx\n", "C: d\n"}},
		"CRLF":                 {"From -\r\n", []string{"From -\r\n"}},
		"bare, CRLF":           {"From \r\nA: b\r\n\r\nFrom \r\nC: d\r\n", []string{"A: b\r\n", "C: d\r\n"}},
		"Thunderbird":          {"From - Sun Nov 22 10:45:37 2026\nA: b\n", []string{"A: b\n"}},
		"Gmail":                {"From 17@xxx Sun Nov 22 10:45:37 +0000 2026\nA: b\n", []string{"A: b\n"}},
		"cut off before":       {sep + "A: b\n\nx\n" + sep + "C: d\n", []string{"A: b\n\nx\n", "C: d\n"}},
		"prose":                {sep + "A: b\n\nFrom here on it is prose.\n", []string{"A: b\n\nFrom here on it is prose.\n"}},
		"prose, no blank":      {sep + "A: b\n\nx\nFrom 10:45 on\n", []string{"A: b\n\nx\nFrom 10:45 on\n"}},
		"no message":           {sep + "\n" + sep, []string{"", ""}},
		"long line":            {sep + long + "\n\n" + sep + "C: d\n", []string{long + "\n", "C: d\n"}},
		"separator in a line":  {sep + strings.Repeat("x", lineBuffer) + sep, []string{strings.Repeat("x", lineBuffer) + sep}},
		"separator after nul":  {sep + "\x00\n\n" + sep, []string{"\x00\n", ""}},
		"no line end":          {sep + "A: b\n\nx", []string{"A: b\n\nx"}},
		"separator at the end": {sep + "A: b\n\n" + strings.TrimSpace(sep), []string{"A: b\n", ""}},
	} {
		var got []string
		for _, e := range entries(t, []byte(tt.raw)) {
			got = append(got, tt.raw[e.rng.Off:e.rng.End()])
		}
		if strings.Join(got, "|") != strings.Join(tt.want, "|") || len(got) != len(tt.want) {
			t.Errorf("%s: %.200q, want %.200q", name, got, tt.want)
		}
	}
	if e := entries(t, []byte(sep+"A: b\n\n>From x\n\n"+sep+"A: >From\n")); !e[0].quoted || e[1].quoted {
		t.Errorf("quoted: %+v", e)
	}
	broken := errors.New("broken")
	if err := split(iotest.ErrReader(broken), func(entry) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestUnquote(t *testing.T) {
	const in = ">From a\n>>From b\nFrom c\n> From d\n x >From e\n>From f"
	const want = "From a\n>From b\nFrom c\n> From d\n x >From e\nFrom f"
	var b bytes.Buffer
	if err := unquote(&b, strings.NewReader(in)); err != nil || b.String() != want {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestCopyCRLF(t *testing.T) {
	edge := strings.Repeat("x", lineBuffer-1)
	for in, want := range map[string]string{
		"":                   "",
		"a":                  "a",
		"a\nb\r\n\n\r\r\nc":  "a\r\nb\r\n\r\n\r\r\nc",
		edge + "\r\n" + "a":  edge + "\r\n" + "a",
		edge + "x\n" + "\n":  edge + "x\r\n\r\n",
		edge + "x\r\n\r\n\n": edge + "x\r\n\r\n\r\n",
	} {
		var b bytes.Buffer
		if err := copyCRLF(&b, iotest.HalfReader(strings.NewReader(in))); err != nil || b.String() != want {
			t.Errorf("%.20q: %d octets, want %d, %v", in, b.Len(), len(want), err)
		}
	}
}

func TestSpool(t *testing.T) {
	var s spool
	defer s.Close()
	var want []byte
	for i := range 5 {
		piece := bytes.Repeat([]byte{byte('a' + i)}, 300_000)
		want = append(want, piece...)
		if n, err := s.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
		got, err := io.ReadAll(io.NewSectionReader(&s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("after %d octets: %d, %v", len(want), len(got), err)
		}
	}
	if s.file == nil || s.mem != nil {
		t.Error("it is still in memory")
	}
}

// FuzzMailbox holds split against its own account: messages do not overlap, and
// what is between them are separators and the empty lines before them.
func FuzzMailbox(f *testing.F) {
	f.Add([]byte("From a@b Sun Nov 22 10:45:37 2026\nA: b\n\n>From x\n\nFrom \nC: d\n"))
	f.Add([]byte("From \r\n\r\nFrom \r\n\r\n\r\nFrom 10:45\r\n"))
	f.Add([]byte("x\nFrom a Sun Nov 22 10:45\n\n\nFrom a Sun Nov 22 10:45"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var at int64
		for _, e := range entries(t, raw) {
			if e.rng.Off < at || e.rng.Len < 0 || e.rng.End() > int64(len(raw)) {
				t.Fatalf("%+v after %d of %d", e, at, len(raw))
			}
			between(t, raw[at:e.rng.Off])
			at = e.rng.End()
			part := raw[e.rng.Off:at]
			var b bytes.Buffer
			if err := unquote(&b, bytes.NewReader(part)); err != nil || (b.Len() != len(part)) != e.quoted {
				t.Fatalf("quoted %v, %d octets become %d, %v", e.quoted, len(part), b.Len(), err)
			}
		}
		between(t, raw[at:])
	})
}

// between wants at most an empty line and a separator.
func between(t *testing.T, gap []byte) {
	t.Helper()
	gap = bytes.TrimPrefix(bytes.TrimPrefix(gap, []byte("\r\n")), []byte("\n"))
	if len(gap) > 0 && (!isSeparator(gap, true) || bytes.IndexByte(gap, '\n') >= 0 && bytes.IndexByte(gap, '\n') != len(gap)-1) {
		t.Fatalf("lost: %q", gap)
	}
}
