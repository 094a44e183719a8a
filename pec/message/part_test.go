package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"testing/iotest"
)

func part(t testing.TB, s string) *Part {
	t.Helper()
	p, err := mustRead(t, s).Structure()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileName(t *testing.T) {
	for _, tt := range []struct{ header, want string }{
		{"Content-Disposition: attachment; filename=\"a.pdf\"\r\nContent-Type: application/pdf; name=b.pdf\r\n", "a.pdf"},
		{"Content-Disposition: inline\r\nContent-Type: application/pdf; name=b.pdf\r\n", "b.pdf"},
		{"Content-Type: message/rfc822; name=postacert.eml\r\n", "postacert.eml"},
		{"Content-Disposition: attachment; filename=\"=?UTF-8?Q?caff=C3=A8.pdf?=\"\r\n", "caffè.pdf"},
		{"Content-Disposition: attachment; filename*=ISO-8859-1''caff%E8.pdf\r\n", "caffè.pdf"},
		{"Content-Disposition: attachment; filename=\"caff\xe8.pdf\"\r\n", "caffè.pdf"},
		{"Content-Disposition: attachment; filename=a b.pdf;\r\n", "a b.pdf"},
		{"Content-Disposition: attachment; filename*=utf-8''a%0D%0Ab\r\n", "a  b"},
		{"Content-Disposition: attachment; filename\r\n", ""},
		{"A: b\r\n", ""},
	} {
		if got := part(t, tt.header+"\r\n").FileName(); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.header, got, tt.want)
		}
	}
}

func TestDecoded(t *testing.T) {
	blanks := strings.Repeat(" ", 3000)
	for _, tt := range []struct{ encoding, body, want string }{
		{"", "a=\r\n b=20", "a=\r\n b=20"},
		{"8bit", "\xe8\r\n", "\xe8\r\n"},
		{"x-other", "YWJj", "YWJj"},
		{"base64", "YWJj\r\nZGVm\r\n", "abcdef"},
		{"BASE64 (comment)", " YW Jj\n!\x00ZG\xe8Vm", "abcdef"},
		{"\"base64\"", "YWI=", "ab"},
		{"base64", "YWI", "ab"},
		{"base64", "YWJjZ", "abc"},
		{"base64", "YWJj=ZGVm", "abc"},
		{"base64", "", ""},
		{"base64", "YWI=" + strings.Repeat("YWJj", 20_000), "ab"},
		{"quoted-printable", "=E8 stato\r\nfa=\r\ntto =3D =3d\r\n", "\xe8 stato\r\nfatto = =\r\n"},
		{"Quoted-Printable;", "a \t\r\nb\n  \nc= \t\r\nd ", "a\r\nb\n\ncd"},
		{"quoted-printable", "=\r\n=\n=", ""},
		{"quoted-printable", "=X1 =1 == =1X a=", "=X1 =1 == =1X a"},
		{"quoted-printable", "x=3", "x=3"},
		{"quoted-printable", "\x00\xe8\r \r\n", "\x00\xe8\r\r\n"},
		{"quoted-printable", strings.Repeat("=C3=A8", 5000), strings.Repeat("è", 5000)},
		{"quoted-printable", "x" + strings.Repeat("=C3=A8", 5000), "x" + strings.Repeat("è", 5000)},
		{"quoted-printable", "xx" + strings.Repeat("=C3=A8", 5000), "xx" + strings.Repeat("è", 5000)},
		{"quoted-printable", long(3000) + blanks + "\r\ny", long(3000) + "\r\ny"},
		{"quoted-printable", long(3000) + blanks + "y", long(3000) + blanks + "y"},
	} {
		p := part(t, "Content-Transfer-Encoding: "+tt.encoding+"\r\n\r\n"+tt.body)
		for _, r := range []io.Reader{p.Decoded(), iotest.OneByteReader(p.Decoded())} {
			got, err := io.ReadAll(r)
			if err != nil || string(got) != tt.want {
				t.Errorf("%s %.100q: %.200q, %v, want %.200q", tt.encoding, tt.body, got, err, tt.want)
			}
		}
	}
}

func TestDecodedSourceError(t *testing.T) {
	for _, encoding := range []string{"base64", "quoted-printable", "8bit"} {
		in := "Content-Transfer-Encoding: " + encoding + "\r\n\r\n" + strings.Repeat("YWJj\r\n", 50_000)
		m, err := Read(badSource{Bytes(in), 100_000, errDisk})
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Structure()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, p.Decoded()); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", encoding, err)
		}
	}
}

func TestEmbedded(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   error
	}{
		{"Content-Type: message/rfc822\r\n", nil},
		{"Content-Type: Message/RFC822; name=x\r\nContent-Transfer-Encoding: Binary\r\n", nil},
		{"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit (yes)\r\n", nil},
		{"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n", nil},
		{"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", ErrMalformed},
		{"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n", ErrMalformed},
		{"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: x-other\r\n", ErrMalformed},
		{"Content-Type: text/plain\r\n", ErrMalformed},
	} {
		m, err := part(t, tt.header+"\r\nSubject:x\r\n\r\nbody").Embedded()
		if !errors.Is(err, tt.want) {
			t.Errorf("%q: %v", tt.header, err)
		}
		if err == nil && (m.Header.Get("Subject") != "x" || string(at(t, m.Source, m.Body)) != "body") {
			t.Errorf("%q: %+v", tt.header, m)
		}
	}
}

// What the strict readers of the standard library take is read as they read it.
func FuzzDecoded(f *testing.F) {
	f.Add([]byte("YWJj\r\nZGVm\r\n"))
	f.Add([]byte("=E8 stato =\r\n \t\r\n=3D"))
	f.Fuzz(func(t *testing.T, in []byte) {
		src := Bytes(append([]byte("Content-Transfer-Encoding: base64\n\n"), in...))
		m, err := Read(src)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll((&Part{Message: *m}).Decoded())
		if err != nil {
			t.Fatal(err)
		}
		want, err := base64.StdEncoding.DecodeString(string(in))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("base64 %q: %q, want %q", in, got, want)
		}
		q := newQuotedReader(bytes.NewReader(in))
		got, err = io.ReadAll(q)
		if err != nil {
			t.Fatal(err)
		}
		if slowFacts(in).BareCR || bytes.ContainsAny(in, "\v\f") {
			return // to the standard library these are white space
		}
		want, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(in)))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("quoted-printable %q: %q, want %q", in, got, want)
		}
	})
}
