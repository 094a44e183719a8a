package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// outline writes a tree on one line: type "header|body" (children).
func outline(t testing.TB, p *Part) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", p.MediaType, at(t, p.Source, p.Range()))
	if len(p.Children) == 0 {
		return b.String()
	}
	b.Reset()
	b.WriteString(p.MediaType + " (")
	for i, c := range p.Children {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(outline(t, c))
	}
	b.WriteString(")")
	return b.String()
}

const mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"

var structureTests = []struct{ name, in, want string }{
	{"two parts", mixed + "preamble\r\n--b\r\nA: 1\r\n\r\none\r\n--b\r\n\r\ntwo\r\n\r\n--b--\r\nepilogue\r\n--b\r\nx",
		`multipart/mixed (text/plain "A: 1\r\n\r\none", text/plain "\r\ntwo\r\n")`},
	{"bare LF", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\r\n--b--\n",
		`multipart/mixed (text/plain "\none", text/plain "\ntwo")`},
	{"white space after the boundary", mixed + "--b \t\r\n\r\none\r\n--b\t\n\r\ntwo\r\n--b-- \r\n",
		`multipart/mixed (text/plain "\r\none", text/plain "\r\ntwo")`},
	{"lines like delimiters", mixed + "--b\r\n\r\n --b\r\n--bb\r\n--b-\r\n--b --\r\nx--b\r\n--B\r\n--b-- x\r\n\r--b\r\n--\r\n--b--",
		`multipart/mixed (text/plain "\r\n --b\r\n--bb\r\n--b-\r\n--b --\r\nx--b\r\n--B\r\n--b-- x\r\n\r--b\r\n--")`},
	{"no closing line", mixed + "--b\r\n\r\none\r\n", `multipart/mixed (text/plain "\r\none\r\n")`},
	{"a delimiter at the end", mixed + "--b\r\n\r\none\r\n--b", `multipart/mixed (text/plain "\r\none", text/plain "")`},
	{"no delimiter", mixed + "text", `multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\ntext"`},
	{"no body", mixed, `multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n"`},
	{"empty parts", mixed + "--b\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b--", `multipart/mixed (text/plain "", text/plain "", text/plain "\r\n")`},
	{"a part that is a header", mixed + "--b\r\nA: 1\r\nB: 2\r\n--b\r\nA: 1\r\n\r\n--b--", `multipart/mixed (text/plain "A: 1\r\nB: 2", text/plain "A: 1\r\n")`},
	{"a part without a header", mixed + "--b\r\nno field\r\nA: 1\r\n--b--", `multipart/mixed (text/plain "no field\r\nA: 1")`},
	{"a delimiter like a field", "Content-Type: multipart/mixed; boundary=\"b:b\"\r\n\r\n--b:b\r\nA: 1\r\n--b:b\r\n\r\nx\r\n--b:b--",
		`multipart/mixed (text/plain "A: 1", text/plain "\r\nx")`},
	{"boundary in quotes with odd characters", "Content-Type: multipart/mixed; boundary=\"=_a ?b'()+,./\"\r\n\r\n--=_a ?b'()+,./\r\n\r\nx\r\n--=_a ?b'()+,./--",
		`multipart/mixed (text/plain "\r\nx")`},
	{"a delimiter over the look-ahead", mixed + "--b\r\n\r\n--b" + strings.Repeat(" ", 5000) + "\r\n--b--",
		`multipart/mixed (text/plain "\r\n--b` + strings.Repeat(" ", 5000) + `")`},
	{"boundary with a blank at its end", "Content-Type: multipart/mixed; boundary=\"b \"\r\n\r\n--b \r\n\r\nx\r\n--b--",
		`multipart/mixed (text/plain "\r\nx")`},
	{"boundary over 70", "Content-Type: multipart/mixed; boundary=" + long(200) + "\r\n\r\n--" + long(200) + "\r\n\r\nx\r\n--" + long(200) + "--",
		`multipart/mixed (text/plain "\r\nx")`},
	{"boundary far over 70", "Content-Type: multipart/mixed; boundary=" + long(1001) + "\r\n\r\n--" + long(1001) + "\r\n",
		`multipart/mixed "Content-Type: multipart/mixed; boundary=` + long(1001) + `\r\n\r\n--` + long(1001) + `\r\n"`},
	{"boundary empty", "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----",
		`multipart/mixed "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----"`},
	{"boundary missing", "Content-Type: multipart/mixed\r\n\r\n--\r\n\r\nx\r\n----",
		`multipart/mixed "Content-Type: multipart/mixed\r\n\r\n--\r\n\r\nx\r\n----"`},
	{"nested", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\none\r\n--c--\r\n\r\n--b\r\n\r\ntwo\r\n--b--",
		`multipart/mixed (multipart/alternative (text/plain "\r\none"), text/plain "\r\ntwo")`},
	{"the outer ends the inner", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--c\r\nx\r\n--b--",
		`multipart/mixed (multipart/alternative (text/plain "\r\none"), text/plain "\r\ntwo\r\n--c\r\nx")`},
	{"the outer closes the inner", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n--b--\r\n--c\r\n",
		`multipart/mixed (multipart/alternative (text/plain ""))`},
	{"one boundary is the prefix of the other", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\n\r\none\r\n--bb--\r\n--b\r\n\r\ntwo\r\n--b--",
		`multipart/mixed (multipart/alternative (text/plain "\r\none"), text/plain "\r\ntwo")`},
	{"one boundary closes the other", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=b--\r\n\r\n--b--\r\n\r\none\r\n----b----\r\n",
		`multipart/mixed (multipart/alternative "Content-Type: multipart/alternative; boundary=b--\r\n")`},
	{"the inner closes with what the outer opens", "Content-Type: multipart/mixed; boundary=b--\r\n\r\n--b--\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n\r\ntwo\r\n--b----",
		`multipart/mixed (multipart/alternative (text/plain "\r\none"), text/plain "\r\ntwo")`},
	{"the same boundary twice", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n--b\r\n",
		`multipart/mixed (multipart/alternative "Content-Type: multipart/alternative; boundary=b\r\n", text/plain "\r\none")`},
	{"a multipart of a header only", mixed + "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n--b--",
		`multipart/mixed (multipart/alternative "Content-Type: multipart/alternative; boundary=c")`},
	{"digest", "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nA: 1\r\n\r\nx\r\n--b\r\nContent-Type: text/html\r\n\r\n--b--",
		`multipart/digest (message/rfc822 "\r\nA: 1\r\n\r\nx", text/html "Content-Type: text/html\r\n")`},
	{"an embedded message is not entered", mixed + "--b\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--",
		`multipart/mixed (message/rfc822 "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--")`},
	{"not a multipart", "Content-Type: application/pdf\r\n\r\n--b\r\n", `application/pdf "Content-Type: application/pdf\r\n\r\n--b\r\n"`},
	{"bad type", "Content-Type: multipart\r\n\r\nx", `text/plain "Content-Type: multipart\r\n\r\nx"`},
}

func long(n int) string { return strings.Repeat("x", n) }

func TestStructure(t *testing.T) {
	for _, tt := range structureTests {
		t.Run(tt.name, func(t *testing.T) {
			p := structure(t, []byte(tt.in))
			if got := outline(t, p); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// structure reads a tree and checks what holds for every tree.
func structure(t testing.TB, in []byte) *Part {
	t.Helper()
	m, err := Read(Bytes(in))
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Structure()
	if err != nil {
		t.Fatal(err)
	}
	checkThroughWindow(t, in, p, err)
	if p.Range() != (Range{0, int64(len(in))}) || p.Body != m.Body {
		t.Errorf("root %+v of %d octets", p.Range(), len(in))
	}
	check(t, p)
	return p
}

// check checks that the ranges of p are what they say and its children are
// nested and in order.
func check(t testing.TB, p *Part) {
	t.Helper()
	var fields []byte
	for _, f := range p.Header.Fields {
		fields = append(fields, f.Raw...)
	}
	if !bytes.Equal(fields, at(t, p.Source, p.HeaderRange)) {
		t.Errorf("the fields are not the header: %q", fields)
	}
	gap := p.Body.Off - p.HeaderRange.End()
	if gap < 0 || gap > 2 || p.Body.Len < 0 {
		t.Fatalf("header %+v, body %+v", p.HeaderRange, p.Body)
	}
	free := p.Body.Off
	for _, c := range p.Children {
		r := c.Range()
		if r.Off < free || r.End() > p.Body.End() {
			t.Fatalf("part %+v in %+v, after %d", r, p.Body, free)
		}
		free = r.End()
		check(t, c)
	}
}

// A real tree, of the form that every provider sends; RFC 6109, 4.3.
const certified = "From: posta-certificata@alfa.example\r\n" +
	"Content-Type: multipart/signed; protocol=\"application/x-pkcs7-signature\"; micalg=sha-256;\r\n" +
	"\tboundary=\"----0A1B\"\r\n\r\nThis is an S/MIME signed message\r\n\r\n------0A1B\r\n" + signedEntity +
	"\r\n------0A1B\r\nContent-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\n" +
	"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"smime.p7s\"\r\n\r\nMIIB\r\n\r\n------0A1B--\r\n\r\n"

const signedEntity = "Content-Type: multipart/mixed; boundary=\"----------=_1-2-3\"\r\nContent-Transfer-Encoding: binary\r\n\r\n" +
	"This is a multi-part message in MIME format...\r\n\r\n------------=_1-2-3\r\n" +
	"Content-Type: multipart/alternative;\r\n boundary=\"----------=_1-2-4\"\r\n\r\n------------=_1-2-4\r\n" +
	"Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E8 stato\r\n" +
	"------------=_1-2-4\r\nContent-Type: text/html; charset=\"iso-8859-1\"\r\n\r\n<p>\r\n------------=_1-2-4--\r\n\r\n" +
	"------------=_1-2-3\r\nContent-Type: application/xml; name=\"daticert.xml\"\r\nContent-Transfer-Encoding: base64\r\n\r\nPHg+\r\n" +
	"------------=_1-2-3\r\nContent-Type: message/rfc822; name=postacert.eml\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" +
	"Subject: x\r\n\r\nhello\r\n\r\n------------=_1-2-3--\r\n"

func TestStructureOfCertifiedMail(t *testing.T) {
	p := structure(t, []byte(certified))
	var got []string
	p.Walk(func(p *Part) bool { got = append(got, p.MediaType+" "+p.FileName()); return true })
	want := "multipart/signed |multipart/mixed |multipart/alternative |text/plain |text/html |" +
		"application/xml daticert.xml|message/rfc822 postacert.eml|application/pkcs7-signature smime.p7s"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if s := string(at(t, p.Source, p.Children[0].Range())); s != signedEntity {
		t.Errorf("signed is %q", s)
	}
	m, err := p.Children[0].Children[2].Embedded()
	if err != nil || string(at(t, m.Source, m.Range())) != "Subject: x\r\n\r\nhello\r\n" {
		t.Errorf("embedded: %v", err)
	}
	n := 0
	p.Walk(func(p *Part) bool { n++; return p.MediaType != "multipart/mixed" })
	if n != 3 {
		t.Errorf("%d parts without those in multipart/mixed", n)
	}
}

// The delimiter is found wherever the window ends.
func TestStructureAcrossWindows(t *testing.T) {
	for _, edge := range []int{lookAhead, largeWindow, 2*largeWindow - 2, 2 * largeWindow} {
		for shift := -12; shift <= 12; shift++ {
			text := "\r\n" + strings.Repeat("x", edge+shift)
			in := mixed + "--b\r\n" + text + "\r\n--b\r\nA: 1\r\n\r\ny\r\n--b--\r\n"
			p := structure(t, []byte(in))
			if len(p.Children) != 2 || p.Children[0].Range().Len != int64(len(text)) ||
				string(at(t, p.Source, p.Children[1].Range())) != "A: 1\r\n\r\ny" {
				t.Errorf("edge %d%+d: %d parts", edge, shift, len(p.Children))
			}
		}
	}
}

func nested(depth int) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%[1]s\r\n", long(i+1))
	}
	return b.String()
}

func TestStructureLimits(t *testing.T) {
	header := "A: " + long(1<<20-5) + "\r\n"
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"32 levels":                {nested(31), nil},
		"33 levels":                {nested(32), ErrLimit},
		"1,000 parts":              {mixed + strings.Repeat("--b\r\n", 999), nil},
		"1,001 parts":              {mixed + strings.Repeat("--b\r\n", 1000), ErrLimit},
		"100,000 parts":            {mixed + strings.Repeat("--b\r\n", 100_000), ErrLimit},
		"4 MiB of part headers":    {mixed + strings.Repeat("--b\r\n"+header, 4), nil},
		"more":                     {mixed + strings.Repeat("--b\r\n"+header, 4) + "--b\r\nA: b\r\n", ErrLimit},
		"a part header over 1 MiB": {mixed + "--b\r\nB" + header, ErrLimit},
	} {
		p, err := mustRead(t, tt.in).Structure()
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if err == nil {
			check(t, p)
		}
	}
}

// A hostile message must not cost more than its size.
func TestStructureIsLinear(t *testing.T) {
	var deep strings.Builder
	deep.WriteString(nested(31))
	for deep.Len() < 2<<20 {
		for i := range 31 {
			deep.WriteString("--" + long(i+1) + "y\r\n--" + long(31-i) + " x\r\n")
		}
	}
	src := &countingSource{Bytes: Bytes(deep.String())}
	m, err := Read(src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Structure(); err != nil {
		t.Fatal(err)
	}
	if limit := src.Size() + src.Size()/4; src.read > limit {
		t.Errorf("%d octets were read of %d", src.read, src.Size())
	}
}

type countingSource struct {
	Bytes
	read int64
}

func (s *countingSource) ReadAt(p []byte, off int64) (int, error) {
	s.read += int64(len(p))
	return s.Bytes.ReadAt(p, off)
}

func FuzzStructure(f *testing.F) {
	for _, tt := range structureTests {
		f.Add([]byte(tt.in))
	}
	f.Add([]byte(certified))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Read(Bytes(in))
		if err != nil {
			return
		}
		p, err := m.Structure()
		checkThroughWindow(t, in, p, err)
		if err != nil {
			if !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		if p.Range() != (Range{0, int64(len(in))}) {
			t.Fatalf("root %+v of %d octets", p.Range(), len(in))
		}
		check(t, p)
		if len(p.Children) > 0 {
			if got, want := len(p.Children), delimiters(in[p.Body.Off:], p); got != want {
				t.Errorf("%q: %d parts, want %d", in, got, want)
			}
		}
		p.Walk(func(p *Part) bool {
			p.FileName()
			if _, err := io.Copy(io.Discard, p.Decoded()); err != nil {
				t.Error(err)
			}
			_, _ = p.Embedded()
			return true
		})
	})
}

// checkThroughWindow makes sure that in is read alike where it is not in memory.
func checkThroughWindow(t testing.TB, in []byte, want *Part, wantErr error) {
	t.Helper()
	var got *Part
	m, err := Read(&countingSource{Bytes: in})
	if err == nil {
		got, err = m.Structure()
	}
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("error %v through a window, %v in memory", err, wantErr)
	}
	if err != nil {
		return
	}
	if a, b := outline(t, got), outline(t, want); a != b {
		t.Errorf("%s\nthrough a window,\n%s\nin memory", a, b)
	}
}

// delimiters counts the lines that begin a part of p, the simple way.
func delimiters(body []byte, p *Part) int {
	boundary := "--" + strings.TrimRight(p.Params["boundary"], " \t")
	n := 0
	for line := range bytes.Lines(body) {
		if len(line) > lookAhead {
			continue
		}
		s := strings.TrimRight(strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), " \t")
		if s == boundary+"--" {
			break
		}
		if s == boundary {
			n++
		}
	}
	return n
}
