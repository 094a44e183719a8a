package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// memory is a Spool that fails the test when it is written to after it was read.
type memory struct {
	Bytes
	t    testing.TB
	read bool
}

func (s *memory) Write(p []byte) (int, error) {
	if s.read {
		s.t.Error("written after it was read")
	}
	s.Bytes = append(s.Bytes, p...)
	return len(p), nil
}

func (s *memory) ReadAt(p []byte, off int64) (int, error) {
	s.read = true
	return s.Bytes.ReadAt(p, off)
}

func inMemory(t testing.TB) func() (Spool, error) {
	return func() (Spool, error) { return &memory{t: t}, nil }
}

func text(t testing.TB, c Content) string {
	t.Helper()
	var b strings.Builder
	if _, err := c.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	mime8 = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
	mimeQ = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
	inner = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: "
)

var sevenBitTests = []struct{ name, in, want string }{
	{"7 bits", "Subject: x\r\n\r\nbody", "Subject: x\r\n\r\nbody"},
	{"7 bits declared 8bit", mime8 + "\r\nbody = \r\n", mime8 + "\r\nbody = \r\n"},
	{"nothing", "", ""},
	{"text", "A: 1\r\n" + mime8 + "B: 2\r\n\r\nè così\r\n", "A: 1\r\n" + mimeQ + "B: 2\r\n\r\n=C3=A8 cos=C3=AC\r\n"},
	{"text, declared 7bit", "mime-version: 1.0\r\ncontent-transfer-encoding : 7BIT (no)\r\n\r\nè",
		"mime-version: 1.0\r\ncontent-transfer-encoding: quoted-printable\r\n\r\n=C3=A8"},
	{"text, nothing declared", "Subject: x\r\n\r\nè\r\n",
		"Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n=C3=A8\r\n"},
	{"after the type", "Content-Type: text/html;\r\n charset=utf-8\r\nMIME-Version: 1.0\r\n\r\nè",
		"Content-Type: text/html;\r\n charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n=C3=A8"},
	{"no header", "\r\nè", "Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n=C3=A8"},
	{"no empty line", "A: 1\r\nMIME-Version: 1.0\r\nè x\r\n",
		"A: 1\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A8 x\r\n"},
	{"a body that would become a field", "MIME-Version: 1.0\r\nè: x\r\n",
		"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A8: x\r\n"},
	{"blanks, line ends, controls", mime8 + "\r\nè \r\n\t\r\n \t \r\na\n\rb\r\r\n\x00\x7f=\r\n ",
		mimeQ + "\r\n=C3=A8=20\r\n=09\r\n \t=20\r\na=0A=0Db=0D\r\n=00=7F=3D\r\n=20"},
	{"CR at the end", mime8 + "\r\nè \r", mimeQ + "\r\n=C3=A8 =0D"},
	{"long lines", mime8 + "\r\nè" + long(69) + "\r\nè" + long(70) + "\r\nè" + long(68) + "è\r\n" + long(74) + " y\r\n",
		mimeQ + "\r\n=C3=A8" + long(69) + "\r\n=C3=A8" + long(69) + "=\r\nx\r\n=C3=A8" + long(68) + "=\r\n=C3=A8\r\n" + long(74) + " =\r\ny\r\n"},
	{"signature line", mime8 + "\r\nè\r\n-- \r\n-\r\n- a -- b\r\n---\r\n",
		mimeQ + "\r\n=C3=A8\r\n-=2D=20\r\n-\r\n- a -- b\r\n-=2D-\r\n"},
	{"a delimiter after a soft line end", mixed + "--b\r\n\r\nè" + long(69) + "--b\r\n--b--",
		mixed2 + "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A8" + long(69) + "=\r\n-=2Db\r\n--b--"},
	{"other types", "MIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\x00\n" + long(60),
		"MIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			"/wAKeHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4\r\neHh4eHh4\r\n"},
	{"quoted-printable that is not", mimeQ + "\r\nè=3D=C3=A8 = x \r\n", mimeQ + "\r\n=C3=A8=3D=C3=A8 =3D x\r\n"},
	{"nested", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n" + mixed + "pre\r\n--b\r\n" +
		"Content-Type: multipart/alternative; boundary=c\r\ncontent-transfer-encoding: Binary\r\n\r\n--c\r\n\r\nè\r\n--c\r\n\r\n7 = \r\n--c--\r\nin\r\n" +
		"--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n= \r\n--b\r\nContent-Type: image/png\r\n\r\n\xff\r\n--b--\r\nepilogue",
		"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n" + mixed + "pre\r\n--b\r\n" +
			"Content-Type: multipart/alternative; boundary=c\r\ncontent-transfer-encoding: 7bit\r\n\r\n" +
			"--c\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A8\r\n--c\r\n\r\n7 = \r\n--c--\r\nin\r\n" +
			"--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n= \r\n" +
			"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n/w==\r\n\r\n--b--\r\nepilogue"},
	{"embedded", version + inner + "8bit\r\n\r\nSubject: è\r\n\r\nx", version + inner + "7bit\r\n\r\nSubject: =?UTF-8?B?w6g=?=\r\n\r\nx"},
	{"embedded twice", version + inner + "8bit\r\n\r\n" + inner + "7bit\r\n\r\n" + mime8 + "\r\nè",
		version + inner + "7bit\r\n\r\n" + inner + "7bit\r\nMIME-Version: 1.0\r\n\r\n" + mimeQ + "\r\n=C3=A8"},
	{"digest", "MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nMIME-Version: 1.0\r\n\r\nè\r\n--b--",
		"MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" +
			"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A8\r\n--b--"},
	{"an international message", version + "Content-Type: message/global\r\n\r\nTo: è@x", version + "Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\nVG86IMOoQHg=\r\n"},
	{"signed, 8-bit fields around", "Subject: è\r\n" + certified, "Subject: =?UTF-8?B?w6g=?=\r\n" + certified},
	{"LF", "MIME-Version: 1.0\nSubject: è\n\nè\nx\n", "MIME-Version: 1.0\nSubject: =?UTF-8?B?w6g=?=\nContent-Transfer-Encoding: quoted-printable\r\n\n=C3=A8=0Ax=0A"},
	{"a header that ends the message", "A: 1\r\nSubject: è", "A: 1\r\nSubject: =?UTF-8?B?w6g=?="},
	{"a body that is an encoding field", "X: è\r\n\r\nContent-Transfer-Encoding: 8bit\r\n", "X: =?UTF-8?B?w6g=?=\r\n\r\nContent-Transfer-Encoding: 8bit\r\n"},
}

const (
	version = "MIME-Version: 1.0\r\n"
	mixed2  = "Content-Type: multipart/mixed; boundary=b\r\nMIME-Version: 1.0\r\n\r\n"
)

func TestSevenBit(t *testing.T) {
	for _, tt := range sevenBitTests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := SevenBit(mustRead(t, tt.in), inMemory(t))
			if err != nil {
				t.Fatal(err)
			}
			got := text(t, c)
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			checkSevenBit(t, tt.in, got)
		})
	}
}

// checkSevenBit checks what holds for every message that was brought to 7 bits.
func checkSevenBit(t testing.TB, in, out string) {
	t.Helper()
	if hasEightBit([]byte(out)) {
		t.Fatalf("8-bit: %q", out)
	}
	if !hasEightBit([]byte(in)) && in != out {
		t.Fatalf("%q was in 7 bits and became %q", in, out)
	}
	checkAlike(t, structure(t, []byte(in)), structure(t, []byte(out)))
	again, err := SevenBit(mustRead(t, out), inMemory(t))
	if err != nil || text(t, again) != out {
		t.Errorf("%q twice: %v", out, err)
	}
}

func checkAlike(t testing.TB, p, q *Part) {
	t.Helper()
	if p.MediaType != q.MediaType || len(p.Children) != len(q.Children) || p.FileName() != q.FileName() {
		t.Fatalf("%s %q with %d parts became %s %q with %d", p.MediaType, p.FileName(), len(p.Children),
			q.MediaType, q.FileName(), len(q.Children))
	}
	checkFields(t, p.Header, q.Header)
	for i := range p.Children {
		checkAlike(t, p.Children[i], q.Children[i])
	}
	if len(p.Children) > 0 {
		if between(t, p) != between(t, q) {
			t.Errorf("between the parts: %q became %q", between(t, p), between(t, q))
		}
		return
	}
	m, err := p.Embedded()
	if n, nerr := q.Embedded(); err == nil && nerr == nil {
		before, err := m.Structure()
		after, nerr := n.Structure()
		if (err == nil) != (nerr == nil) {
			t.Fatalf("embedded: %v, %v", err, nerr)
		}
		if err == nil {
			checkAlike(t, before, after)
		}
		return
	}
	if before, after := decode(t, p), decode(t, q); before != after {
		t.Errorf("%q became %q", before, after)
	}
}

// between returns what stands around the parts of p.
func between(t testing.TB, p *Part) string {
	var b strings.Builder
	pos := p.Body.Off
	for _, c := range p.Children {
		r := c.Range()
		b.Write(at(t, p.Source, Range{pos, r.Off - pos}))
		pos = r.End()
	}
	b.Write(at(t, p.Source, Range{pos, p.Body.End() - pos}))
	return b.String()
}

func decode(t testing.TB, p *Part) string {
	t.Helper()
	b, err := io.ReadAll(p.Decoded())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkFields(t testing.TB, h, g Header) {
	t.Helper()
	for i, j := 0, 0; i < len(h.Fields); i, j = i+1, j+1 {
		f := h.Fields[i]
		for j < len(g.Fields) && f.Name() != g.Fields[j].Name() {
			if name := g.Fields[j].Name(); name != encodingField && name != "MIME-Version" {
				t.Fatalf("%q became %q", f.Raw, g.Fields[j].Raw)
			}
			j++
		}
		if j == len(g.Fields) {
			t.Fatalf("%q is gone", f.Raw)
		}
		checkField(t, f, g.Fields[j])
	}
}

func checkField(t testing.TB, f, g Field) {
	t.Helper()
	name := strings.ToLower(f.Name())
	before, after := Header{[]Field{f}}, Header{[]Field{g}}
	switch {
	case name == "content-type", name == "content-disposition":
	case !hasEightBit(f.Raw):
		if name != strings.ToLower(encodingField) && !bytes.Equal(f.Raw, g.Raw) {
			t.Errorf("%q became %q", f.Raw, g.Raw)
		}
	case addressLists[name]:
		a, err := before.Addresses(name)
		b, berr := after.Addresses(name)
		if err != nil || berr != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%q: %v, %v; %q: %v, %v", f.Raw, a, err, g.Raw, b, berr)
		}
		fallthrough
	case phraseLists[name], tokenFields[name] && name != strings.ToLower(encodingField):
		if a, b := bare(before.Text(name)), bare(after.Text(name)); a != b {
			t.Errorf("%q: %q; %q: %q", f.Raw, a, g.Raw, b)
		}
	case name != strings.ToLower(encodingField):
		if a, b := before.Text(name), after.Text(name); a != b {
			t.Errorf("%q: %q; %q: %q", f.Raw, a, g.Raw, b)
		}
	}
}

var sevenBitFields = []struct{ in, want string }{
	{"Subject: Re: caffè", "Subject: Re: =?UTF-8?B?Y2FmZsOo?="},
	{"Subject: caff\xe8 \x80", "Subject: =?UTF-8?B?Y2FmZsOoIOKCrA==?="},
	{"SUBJECT:è", "SUBJECT: =?UTF-8?B?w6g=?="},
	{"Subject: =?ISO-8859-1?Q?=E8?= è  ", "Subject: =?UTF-8?B?w6ggw6g=?="},
	{"X-Any: a\r\n\tè\r\n  b", "X-Any: a =?UTF-8?B?w6ggIGI=?="},
	{"Content-Description: è", "Content-Description: =?UTF-8?B?w6g=?="},
	{"From: Niccolò <n@x.it>", "From: =?UTF-8?Q?Niccol=C3=B2?= <n@x.it>"},
	{"From: \"Niccolò, \\\"N\\\"\"<n@x.it>", "From: =?UTF-8?B?TmljY29sw7IsICJOIg==?= <n@x.it>"},
	{"From: Dott. Niccol\xf2 Rossi <n@x.it>", "From: =?UTF-8?Q?Dott=2E_Niccol=C3=B2_Rossi?= <n@x.it>"},
	{"To: =?UTF-8?Q?=C3=A8?= è \"é\" <\"a, b\"@x.it>, c@x.it (perché (no\\))),\r\n Anna\t<a@x.it>",
		"To: =?UTF-8?B?w6ggw6ggw6k=?= <\"a, b\"@x.it>, c@x.it\r\n (=?UTF-8?B?cGVyY2jDqSAobm8pKQ==?=), Anna\t<a@x.it>"},
	{"Cc: Società: a@x.it, é <b@x.it>;", "Cc: =?UTF-8?Q?Societ=C3=A0?= : a@x.it, =?UTF-8?B?w6k=?= <b@x.it>;"},
	{"Cc:é<a@x.it>,é<b@x.it>,é<c@x.it>,é<d@x.it>",
		"Cc: =?UTF-8?B?w6k=?= <a@x.it>, =?UTF-8?B?w6k=?= <b@x.it>,\r\n =?UTF-8?B?w6k=?= <c@x.it>, =?UTF-8?B?w6k=?= <d@x.it>"},
	{"To: è@x.it", ""},
	{"To: a@è.it", ""},
	{"To: N <è@x.it>", ""},
	{"To: \"è\"@x.it", ""},
	{"To: è", ""},
	{"To: è <a@x.it", ""},
	{"Keywords: a, è é, b", "Keywords: a, =?UTF-8?B?w6ggw6k=?= , b"},
	{"List-Id: è <l.x.it>", "List-Id: =?UTF-8?B?w6g=?= <l.x.it>"},
	{"Received: from a (è [192.0.2.1]) by b for <c@x.it>; Mon, 1 Jan 2024 00:00:00 +0000",
		"Received: from a (=?UTF-8?B?w6ggWzE5Mi4wLjIuMV0=?=) by b for <c@x.it>; Mon,\r\n 1 Jan 2024 00:00:00 +0000"},
	{"Message-ID: <è@x.it>", ""},
	{"References: <a@x.it> è", ""},
	{"Date: è", ""},
	{"Content-Disposition: attachment; filename=\"caffè.pdf\"; size=1", "Content-Disposition: attachment; filename*=UTF-8''caff%C3%A8.pdf; size=1"},
	{"Content-Disposition: attachment;\r\n\tFileName=\"l'\xe8 \\\"x\\\"*.pdf\"", "Content-Disposition: attachment;\r\n filename*=UTF-8''l%27%C3%A8%20%22x%22%2A.pdf"},
	{"Content-Disposition: attachment; filename=" + strings.Repeat("è", 15),
		"Content-Disposition: attachment;\r\n filename*0*=UTF-8''" + strings.Repeat("%C3%A8", 9) + ";\r\n filename*1*=" + strings.Repeat("%C3%A8", 6)},
	{"Content-Disposition: attachment; filename=\"è.pdf\"; filename*=UTF-8''%C3%A8.pdf", "Content-Disposition: attachment; filename*=UTF-8''%C3%A8.pdf"},
	{"Content-Disposition: attachment; filename=\"è.pdf\"; filename*=UTF-8''x.pdf", ""},
	{"Content-Disposition: attachment; filename=è; filename=é", ""},
	{"Content-Disposition: attachment; filename*=è", ""},
	{"Content-Disposition: attachment; filename=x (è)", ""},
	{"Content-Disposition: attachment (è); filename=x", ""},
	{"Content-Disposition: attachment; è=x", ""},
	{"Content-Type: application/pdf; name=è.pdf", "Content-Type: application/pdf; name*=UTF-8''%C3%A8.pdf"},
	{"Content-Type: multipart/mixed; boundary=è", ""},
	{"Content-Type: text/è", ""},
	{"Content-Type: application/pdf; name=è" + long(maxMedia), ""},
}

func TestSevenBitFields(t *testing.T) {
	for _, tt := range sevenBitFields {
		in := tt.in + "\r\nX-After: 1\r\n\r\n"
		c, err := SevenBit(mustRead(t, in), inMemory(t))
		if tt.want == "" {
			if !errors.Is(err, ErrSevenBit) {
				t.Errorf("%.200q: %v", tt.in, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.200q: %v", tt.in, err)
			continue
		}
		got := text(t, c)
		if want := tt.want + "\r\nX-After: 1\r\n\r\n"; got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		checkSevenBit(t, in, got)
	}
}

// Lines and time stay within limits, whatever a field is.
func TestSevenBitHostileFields(t *testing.T) {
	const n = 40_000
	for _, value := range []string{
		strings.Repeat("è ", n), strings.Repeat("è", n), strings.Repeat("a ", n) + "è", strings.Repeat("\"è\"", n),
		strings.Repeat("è <a@x>, ", n/10) + "b@x", strings.Repeat("è<a@x>,", n/10) + "b@x", strings.Repeat("(", n) + "è",
		"a@x " + strings.Repeat("(", n) + "è" + strings.Repeat(")", n), "a\r\n" + strings.Repeat(strings.Repeat(" ", 900)+"\r\n", 200) + " è <a@x>",
		strings.Repeat("<", n) + "è", strings.Repeat(";è=è", n), strings.Repeat("@,", n) + "è", "è\r\x00\x00\xff\r",
	} {
		for _, name := range []string{"Subject", "To", "Keywords", "Received", "Content-Type", "Content-Disposition"} {
			in := name + ": " + value + "\r\n\r\nx"
			c, err := SevenBit(mustRead(t, in), inMemory(t))
			if errors.Is(err, ErrSevenBit) || errors.Is(err, ErrLimit) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got := text(t, c)
			if n := longestLine([]byte(got)); n > max(MaxLine, longestLine([]byte(in))) {
				t.Errorf("%s: %.50q: a line of %d octets", name, value, n)
			}
			if name != "To" {
				checkSevenBit(t, in, got)
			}
		}
	}
}

func deepMessage(depth int) string {
	return strings.Repeat(inner+"8bit\r\n\r\n", depth) + "Subject: è\r\n\r\n"
}

func TestSevenBitRefusals(t *testing.T) {
	signed := strings.Replace(certified, "<p>", "<p>è", 1)
	many := mixed + strings.Repeat("--b\r\n", 400)
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"signed":             {signed, ErrSevenBit},
		"signed, nested":     {mixed + "--b\r\n" + signed + "\r\n--b--", ErrSevenBit},
		"signed, embedded":   {inner + "8bit\r\n\r\n" + signed, ErrSevenBit},
		"base64":             {"Content-Transfer-Encoding: base64\r\n\r\nYWI=è", ErrSevenBit},
		"unknown encoding":   {"Content-Transfer-Encoding: x-uuencode\r\n\r\nè", ErrSevenBit},
		"two encodings":      {"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\nè", ErrSevenBit},
		"two types":          {"Content-Type: text/plain\r\nContent-Type: image/png\r\n\r\nè", ErrSevenBit},
		"encoded multipart":  {"Content-Transfer-Encoding: quoted-printable\r\n" + mixed + "--b\r\n\r\nè", ErrSevenBit},
		"encoded message":    {inner + "quoted-printable\r\n\r\nSubject: è", ErrSevenBit},
		"preamble":           {mixed + "è\r\n--b\r\n\r\nx\r\n--b--", ErrSevenBit},
		"epilogue":           {mixed + "--b\r\n\r\nx\r\n--b--\r\nè", ErrSevenBit},
		"no parts":           {mixed + "è", ErrSevenBit},
		"other message type": {"Content-Type: message/partial\r\n\r\nè", ErrSevenBit},
		"a field that becomes a delimiter": {"Content-Type: multipart/mixed; boundary=\"b: =?UTF-8?B?w6g=?=\"\r\n\r\n--b: =?UTF-8?B?w6g=?=\r\n" +
			"--b: è\r\n\r\nx\r\n--b: =?UTF-8?B?w6g=?=--", ErrSevenBit},
		"31 embedded":                 {deepMessage(31), nil},
		"32 embedded":                 {deepMessage(32), ErrLimit},
		"33 levels":                   {nested(32) + "è", ErrLimit},
		"1,000 parts in two messages": {mixed + "--b\r\n" + inner + "8bit\r\n\r\n" + strings.ReplaceAll(many, "b\r\n", "c\r\n") + "\r\n\r\nè\r\n--c--\r\n" + strings.Repeat("--b\r\n", 600), ErrLimit},
	} {
		c, err := SevenBit(mustRead(t, tt.in), inMemory(t))
		if !errors.Is(err, tt.want) || err != nil && c != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

var errFull = errors.New("disk full")

type badSpool struct{ memory }

func (*badSpool) Write([]byte) (int, error) { return 0, errFull }

type shortSpool struct{ memory }

func (*shortSpool) Write(p []byte) (int, error) { return len(p) - 1, nil }

func TestSevenBitErrors(t *testing.T) {
	for _, kind := range []string{"text/plain", "image/png"} {
		in := "Content-Type: " + kind + "\r\n\r\nè" + long(200_000)
		for want, spool := range map[error]func() (Spool, error){
			errFull:          func() (Spool, error) { return &badSpool{}, nil },
			errDisk:          func() (Spool, error) { return nil, errDisk },
			io.ErrShortWrite: func() (Spool, error) { return &shortSpool{}, nil },
			io.ErrNoProgress: func() (Spool, error) { return nil, io.ErrNoProgress },
		} {
			if _, err := SevenBit(mustRead(t, in), spool); !errors.Is(err, want) || errors.Is(err, ErrSevenBit) {
				t.Errorf("%s: %v, want %v", kind, err, want)
			}
		}
		for _, want := range []error{errDisk, io.EOF} {
			m, err := Read(badSource{Bytes(in), 100_000, want})
			if err != nil {
				t.Fatal(err)
			}
			if want == io.EOF {
				want = io.ErrUnexpectedEOF
			}
			if _, err := SevenBit(m, inMemory(t)); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", kind, err, want)
			}
		}
	}
}

// Every way to cut the text gives the same lines.
func TestQuotedWriterInPieces(t *testing.T) {
	in := []byte("è \t \r\n\r\r\n--x\r\n \r" + strings.Repeat("- à =\t", 40) + "\r\n-")
	var whole quotedWriter
	whole.octets(in)
	whole.close()
	for n := 1; n < len(in); n++ {
		var q quotedWriter
		for b := in; len(b) > 0; b = b[min(n, len(b)):] {
			q.octets(b[:min(n, len(b))])
		}
		q.close()
		if !bytes.Equal(q.out, whole.out) {
			t.Fatalf("pieces of %d: %q, want %q", n, q.out, whole.out)
		}
	}
	if n := longestLine(whole.out); n > maxColumns {
		t.Errorf("a line of %d octets", n)
	}
}

const readWithPython = `
import sys, json, hashlib, email, email.policy
out = []
def walk(m):
    body = None if m.is_multipart() else hashlib.sha256(m.get_payload(decode=True)).hexdigest()
    out.append([m.get_content_type(), m.get_filename() or "", body, [type(d).__name__ for d in m.defects],
        str(m["subject"] or ""), [[a.display_name, a.addr_spec] for a in m["from"].addresses] if m["from"] else []])
    if m.is_multipart():
        for p in m.get_payload():
            walk(p)
walk(email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP))
json.dump(out, sys.stdout)
`

// Python reads the message in 7 bits as the one in 8 bits.
func TestSevenBitReadByPython(t *testing.T) {
	pdf := make([]byte, 5000)
	for i := range pdf {
		pdf[i] = byte(i * 7)
	}
	name := "relazione è più lunga di una sola riga del campo.pdf"
	in := "From: \"Società, però\" <a@alfa.example>\r\nSubject: perché così " + strings.Repeat("è più facile ", 9) + "\r\nMIME-Version: 1.0\r\n" +
		"Content-Transfer-Encoding: 8bit\r\n" + mixed + "--b\r\n" + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		strings.Repeat("Così è, perché \t \r\n\r\n-- \r\n"+long(80)+"à = \r\n", 300) + "\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n filename=\"" + name + "\"\r\n" +
		"Content-Transfer-Encoding: binary\r\n\r\n" + string(pdf) + "\r\n--b\r\n" + inner + "8bit\r\n\r\nFrom: Anna è <b@x>\r\nSubject: è\r\n" + mime8 + "\r\nè\r\n--b--\r\n"
	c, err := SevenBit(mustRead(t, in), inMemory(t))
	if err != nil {
		t.Fatal(err)
	}
	out := text(t, c)
	checkSevenBit(t, in, out)
	before, after := python(t, in), python(t, out)
	if len(before) != 5 || len(after) != 5 {
		t.Fatalf("parts: %v, %v", before, after)
	}
	for i := range before {
		if fmt.Sprint(before[i][0], before[i][2]) != fmt.Sprint(after[i][0], after[i][2]) {
			t.Errorf("%v became %v", before[i], after[i])
		}
		if fmt.Sprint(after[i][3]) != "[]" {
			t.Errorf("defects: %v", after[i])
		}
	}
	if after[2][1] != name || after[0][4] != readable(mustRead(t, in).Header.Get("Subject")) ||
		fmt.Sprint(after[0][5]) != "[[Società, però a@alfa.example]]" || fmt.Sprint(after[4][4:]) != "[è [[Anna è b@x]]]" {
		t.Errorf("after: %v", after)
	}
}

func python(t *testing.T, in string) (parts [][]any) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-c", readWithPython)
	cmd.Stdin = strings.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		t.Fatal(err)
	}
	return parts
}

func FuzzSevenBit(f *testing.F) {
	for _, tt := range sevenBitTests {
		f.Add([]byte(tt.in))
	}
	for _, tt := range sevenBitFields {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in + "\r\n\r\nè"))
		}
	}
	for _, tt := range structureTests {
		f.Add([]byte(strings.ReplaceAll(tt.in, "one", "\xe8")))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Read(Bytes(in))
		if err != nil {
			return
		}
		c, err := SevenBit(m, inMemory(t))
		if err != nil {
			if !errors.Is(err, ErrSevenBit) && !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		out := text(t, c)
		if !hasEightBit(in) { // its structure may be over the limits
			if out != string(in) {
				t.Fatalf("%q became %q", in, out)
			}
			return
		}
		checkSevenBit(t, string(in), out)
	})
}

func BenchmarkSevenBit(b *testing.B) {
	for name, kind := range map[string]string{"text": "text/plain", "base64": "image/png", "7bit": ""} {
		line := "Così è, perché la linea è lunga come le altre, e ha qualche lettera in 8 bit.\r\n"
		if kind == "" {
			line = long(70) + "\r\n"
		}
		in := Bytes("Subject: è\r\nContent-Type: " + kind + "\r\n\r\n" + strings.Repeat(line, 10_000_000/len(line)))
		b.Run(name, func(b *testing.B) {
			m, err := Read(in)
			if err != nil {
				b.Fatal(err)
			}
			spooled := &memory{t: b, Bytes: make(Bytes, 0, 20_000_000)}
			b.SetBytes(in.Size())
			b.ReportAllocs()
			for b.Loop() {
				spooled.Bytes, spooled.read = spooled.Bytes[:0], false
				if _, err := SevenBit(m, func() (Spool, error) { return spooled, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
