package message

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// at returns the bytes of r.
func at(t testing.TB, src Source, r Range) []byte {
	t.Helper()
	b, err := io.ReadAll(Section(src, r).Reader())
	if err != nil {
		t.Fatalf("range %+v of %d: %v", r, src.Size(), err)
	}
	return b
}

func mustRead(t testing.TB, s string) *Message {
	t.Helper()
	m, err := Read(Bytes(s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var readTests = []struct {
	name   string
	in     string
	fields []string // as they stand
	gap    string
	body   string
}{
	{"plain", "A: b\r\nC: d\r\n\r\nbody\r\n", []string{"A: b\r\n", "C: d\r\n"}, "\r\n", "body\r\n"},
	{"odd spacing", "From:x\r\nCc:\tx\r\nX : y\r\nY\t :z\r\n\r\n", []string{"From:x\r\n", "Cc:\tx\r\n", "X : y\r\n", "Y\t :z\r\n"}, "\r\n", ""},
	{"empty values", "A:\r\nB: \r\nC:\r\n D\r\n\r\n", []string{"A:\r\n", "B: \r\n", "C:\r\n D\r\n"}, "\r\n", ""},
	{"odd folds", "A: b\r\n\tc\r\n  \r\n \t d\r\nE: f\r\n\r\n", []string{"A: b\r\n\tc\r\n  \r\n \t d\r\n", "E: f\r\n"}, "\r\n", ""},
	{"bare LF", "A: b\nC: d\n e\n\nbody\n", []string{"A: b\n", "C: d\n e\n"}, "\n", "body\n"},
	{"mixed line ends", "A: b\nC: d\r\n\nbody", []string{"A: b\n", "C: d\r\n"}, "\n", "body"},
	{"lone CR", "A: b\rC: d\r\n\r\nx\ry", []string{"A: b\rC: d\r\n"}, "\r\n", "x\ry"},
	{"CR CR LF ends the header", "A: b\r\n\r\r\nx", []string{"A: b\r\n"}, "", "\r\r\nx"},
	{"NUL", "A: b\x00c\r\n\r\n\x00", []string{"A: b\x00c\r\n"}, "\r\n", "\x00"},
	{"8-bit values", "A: caff\xc3\xa8\r\nB: caff\xe8\r\n\r\n\xe8", []string{"A: caff\xc3\xa8\r\n", "B: caff\xe8\r\n"}, "\r\n", "\xe8"},
	{"8-bit name", "A: b\r\nCaff\xe8: x\r\n", []string{"A: b\r\n"}, "", "Caff\xe8: x\r\n"},
	{"no final line end", "A: b\r\nC: d", []string{"A: b\r\n", "C: d"}, "", ""},
	{"no body", "A: b\r\n", []string{"A: b\r\n"}, "", ""},
	{"no body but the empty line", "A: b\r\n\r\n", []string{"A: b\r\n"}, "\r\n", ""},
	{"no empty line", "A: b\r\nnot a field\r\nC: d\r\n", []string{"A: b\r\n"}, "", "not a field\r\nC: d\r\n"},
	{"a blank in the name", "A: b\r\nnot afield: x\r\n", []string{"A: b\r\n"}, "", "not afield: x\r\n"},
	{"no name", "A: b\r\n: x\r\n", []string{"A: b\r\n"}, "", ": x\r\n"},
	{"no header", "\r\nbody", nil, "\r\n", "body"},
	{"begins with white space", " x\r\nA: b\r\n", nil, "", " x\r\nA: b\r\n"},
	{"mbox line", "From a@b Mon\r\nA: b\r\n", nil, "", "From a@b Mon\r\nA: b\r\n"},
	{"nothing", "", nil, "", ""},
	{"a CR", "\r", nil, "", "\r"},
	{"an LF", "\n", nil, "\n", ""},
	{"name over the look-ahead", strings.Repeat("a", 5000) + ": x\r\n", nil, "", strings.Repeat("a", 5000) + ": x\r\n"},
	{"line over the window", "A: " + strings.Repeat("b", 200_000) + "\r\nC: d\r\n\r\n", []string{"A: " + strings.Repeat("b", 200_000) + "\r\n", "C: d\r\n"}, "\r\n", ""},
}

func TestRead(t *testing.T) {
	for _, tt := range readTests {
		t.Run(tt.name, func(t *testing.T) {
			src := Bytes("before" + tt.in + "after")
			m, err := ReadRange(src, Range{6, int64(len(tt.in))})
			if err != nil {
				t.Fatal(err)
			}
			var fields []string
			for _, f := range m.Header.Fields {
				fields = append(fields, string(f.Raw))
			}
			if got, want := strings.Join(fields, "|"), strings.Join(tt.fields, "|"); got != want {
				t.Errorf("fields %q, want %q", got, want)
			}
			gap := Range{m.HeaderRange.End(), m.Body.Off - m.HeaderRange.End()}
			if got := string(at(t, src, gap)); got != tt.gap {
				t.Errorf("between %q, want %q", got, tt.gap)
			}
			if got := string(at(t, src, m.Body)); got != tt.body {
				t.Errorf("body %q, want %q", got, tt.body)
			}
			if got := string(at(t, src, m.Range())); got != tt.in {
				t.Errorf("range %q, want %q", got, tt.in)
			}
		})
	}
}

func TestReadLimits(t *testing.T) {
	field := "A: " + strings.Repeat("x", 1019) + "\r\n" // 1 KiB
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"1 MiB":                  {strings.Repeat(field, 1024) + "\r\n", nil},
		"over 1 MiB":             {strings.Repeat(field, 1024) + "B:\n\r\n", ErrLimit},
		"over 1 MiB in one line": {"A: " + strings.Repeat("x", 2<<20), ErrLimit},
		"10,000 fields":          {strings.Repeat("A:\n", 10_000) + "\nb", nil},
		"10,001 fields":          {strings.Repeat("A:\n", 10_001) + "\nb", ErrLimit},
		"a long body":            {strings.Repeat("x", 2<<20), nil},
	} {
		if _, err := Read(Bytes(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestReadRangeOutside(t *testing.T) {
	for _, r := range []Range{{-1, 2}, {0, 5}, {5, 0}, {2, -1}, {4, 1}, {1 << 62, 1 << 62}} {
		if _, err := ReadRange(Bytes("A: b"), r); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", r, err)
		}
	}
}

var errDisk = errors.New("disk")

// A badSource has only its first good bytes.
type badSource struct {
	Bytes
	good int64
	err  error
}

func (s badSource) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.good {
		n, _ := s.Bytes[:s.good].ReadAt(p, min(off, s.good))
		return n, s.err
	}
	return s.Bytes.ReadAt(p, off)
}

func TestSourceErrors(t *testing.T) {
	in := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" +
		strings.Repeat("line\r\n", 100_000) + "--b--\r\n"
	for _, want := range []error{errDisk, io.ErrUnexpectedEOF} {
		given := want
		if want == io.ErrUnexpectedEOF {
			given = io.EOF // a source that is shorter than its size
		}
		if _, err := Read(badSource{Bytes(in), 10, given}); !errors.Is(err, want) {
			t.Errorf("Read: %v, want %v", err, want)
		}
		m, err := Read(badSource{Bytes(in), 100_000, given})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Structure(); !errors.Is(err, want) {
			t.Errorf("Structure: %v, want %v", err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, tt := range readTests {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Read(Bytes(in))
		if err != nil {
			if !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		var out []byte
		for _, field := range m.Header.Fields {
			if field.Name() == "" {
				t.Errorf("a field without name: %q", field.Raw)
			}
			out = append(out, field.Raw...)
		}
		if !bytes.Equal(out, at(t, m.Source, m.HeaderRange)) {
			t.Errorf("the fields are not the header: %q", out)
		}
		gap := in[m.HeaderRange.End():m.Body.Off]
		if s := string(gap); s != "" && s != "\n" && s != "\r\n" {
			t.Errorf("between header and body: %q", s)
		}
		out = append(append(out, gap...), at(t, m.Source, m.Body)...)
		if !bytes.Equal(out, in) {
			t.Errorf("got %q back from %q", out, in)
		}
		for _, name := range []string{"From", "To", "Subject"} {
			m.Header.Text(name)
			_, _ = m.Header.Addresses(name)
		}
	})
}
