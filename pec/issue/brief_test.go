package issue

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"testing"

	"pecd/pec/message"
)

func sha(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// file is what a part becomes, from the first of the fields that are exchanged.
func file(name string) string {
	return "Content-Type: text/plain; charset=\"us-ascii\";\r\n\tname=\"" + name + ".hash\"\r\n" +
		"Content-Transfer-Encoding: 7bit\r\nContent-Disposition: attachment;\r\n\tfilename=\"" + name + ".hash\"\r\n"
}

func brief(t testing.TB, raw string, newHash func() hash.Hash) string {
	t.Helper()
	c, err := Brief(read(t, raw), newHash)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytesOf(t, c))
}

const (
	mixed = "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n"
	pdf   = "Content-Type: application/pdf; name=a.pdf\r\n"
)

func TestBrief(t *testing.T) {
	cases := map[string]struct{ in, want string }{
		"text alone":    {"Subject: x\r\n\r\nText.\r\n", ""},
		"no attachment": {mixed + "\r\nText.\r\n--b--\r\n", ""},
		"nothing":       {"", ""},
		"Content-Type name": {
			mixed + pdf + "\r\nabc\r\n--b--\r\nepilogue\r\n",
			mixed + file("a.pdf") + "\r\n" + sha("abc") + "\r\n--b--\r\nepilogue\r\n"},
		"last line end is the delimiter's, those before are the part's": {
			mixed + pdf + "\r\nabc\r\n\r\n\r\n--b--\r\n",
			mixed + file("a.pdf") + "\r\n" + sha("abc\r\n\r\n") + "\r\n--b--\r\n"},
		"filename": {
			mixed + "content-disposition: ATTACHMENT; FileName=\"a b.pdf\"\r\n\r\nabc\r\n--b--",
			mixed + file("a b.pdf") + "\r\n" + sha("abc") + "\r\n--b--"},
		"filename counts more than name; fields are exchanged once, where the first stands": {
			mixed + "X-1: y\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <1>\r\n" + pdf +
				"Content-Disposition: attachment; filename=b.pdf\r\nContent-Type: x/y\r\nX-2:  z\r\n\r\nQUJD\r\n--b--\r\n",
			mixed + "X-1: y\r\n" + file("b.pdf") + "Content-ID: <1>\r\nX-2:  z\r\n\r\n" + sha("QUJD") + "\r\n--b--\r\n"},
		"disposition without a name": {
			mixed + "Content-Type: text/x\r\nContent-Disposition: attachment\r\n\r\nabc\r\n--b--\r\n", ""},
		"empty name": {
			mixed + "Content-Type: text/x; name=\"\"\r\n\r\nabc\r\n--b--\r\n",
			mixed + file("allegato") + "\r\n" + sha("abc") + "\r\n--b--\r\n"},
		"empty filename": {
			mixed + "Content-Disposition: attachment; filename=\r\n\r\nabc\r\n--b--\r\n",
			mixed + file("allegato") + "\r\n" + sha("abc") + "\r\n--b--\r\n"},
		"attached message": {
			mixed + "Content-Type: Message/RFC822\r\nContent-Disposition: inline\r\n\r\nSubject: y\r\n\r\nText.\r\n\r\n--b--\r\n",
			mixed + file("messaggio.eml") + "\r\n" + sha("Subject: y\r\n\r\nText.\r\n") + "\r\n--b--\r\n"},
		"attached message with a name, encoded, with attachments of its own": {
			mixed + "Content-Type: message/rfc822; name=m.eml\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeQ==\r\n--b--\r\n",
			mixed + file("m.eml") + "\r\n" + sha("U3ViamVjdDogeQ==") + "\r\n--b--\r\n"},
		"attached message in UTF-8": {
			mixed + "Content-Type: message/global\r\n\r\nSubject: \u00e8\r\n\r\n\r\n--b--\r\n",
			mixed + file("messaggio.eml") + "\r\n" + sha("Subject: \u00e8\r\n\r\n") + "\r\n--b--\r\n"},
		"digest": {
			"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: y\r\n\r\nText.\r\n--b\r\n--b\r\n\r\n--b--\r\n",
			"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n" + file("messaggio.eml") + "\r\n" +
				sha("Subject: y\r\n\r\nText.") + "\r\n--b\r\n--b\r\n\r\n--b--\r\n"},
		"nested": {
			mixed + "Content-Type: multipart/related; boundary=c; name=ignored\r\n\r\n--c\r\n" + pdf + "\r\n1\r\n--c\r\n\r\n2\r\n--c\r\n" + pdf +
				"\r\n3\r\n--c--\r\nx\r\n--b\r\n" + pdf + "\r\n4\r\n--b--\r\n",
			mixed + "Content-Type: multipart/related; boundary=c; name=ignored\r\n\r\n--c\r\n" + file("a.pdf") + "\r\n" + sha("1") +
				"\r\n--c\r\n\r\n2\r\n--c\r\n" + file("a.pdf") + "\r\n" + sha("3") + "\r\n--c--\r\nx\r\n--b\r\n" + file("a.pdf") + "\r\n" + sha("4") +
				"\r\n--b--\r\n"},
		"the message is the attachment": {
			"Received: x\r\n" + pdf + "Subject: y\r\n to\r\nContent-Transfer-Encoding: base64\r\nMessage-ID: <a@b>\r\n\r\nQUJD\r\n",
			"Received: x\r\n" + file("a.pdf") + "Subject: y\r\n to\r\nMessage-ID: <a@b>\r\n\r\n" + sha("QUJD\r\n")},
		"multipart without parts": {
			"Content-Type: multipart/mixed; name=x.bin\r\n\r\nabc\r\n", file("x.bin") + "\r\n" + sha("abc\r\n")},
		"signed": {
			"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=s\r\n\r\n--s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
				"--b\r\n\r\nText.\r\n--b\r\n" + pdf + "\r\nabc\r\n--b--\r\n\r\n--s\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMII=\r\n--s--\r\n",
			"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=s\r\n\r\n--s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
				"--b\r\n\r\nText.\r\n--b\r\n" + file("a.pdf") + "\r\n" + sha("abc") +
				"\r\n--b--\r\n\r\n--s\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMII=\r\n--s--\r\n"},
		"signed within": { // only the top level makes a message S/MIME
			mixed + "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nText.\r\n--s\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMII=\r\n--s--\r\n--b--\r\n",
			mixed + "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nText.\r\n--s\r\n" + file("smime.p7s") + "\r\n" + sha("MII=") + "\r\n--s--\r\n--b--\r\n"},
		"signed without parts": {"Content-Type: multipart/signed; boundary=s\r\n\r\nText.\r\n", ""},
		"enveloped":            {"Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nMII=\r\n", ""},
		"enveloped, x":         {"Content-Type: application/X-PKCS7-mime; name=smime.p7m\r\n\r\nMII=\r\n", ""},
		"p7m attached": {
			mixed + "Content-Type: application/pkcs7-mime; name=a.p7m\r\n\r\nMII=\r\n--b--\r\n",
			mixed + file("a.p7m") + "\r\n" + sha("MII=") + "\r\n--b--\r\n"},
		"no closing line": {
			mixed + pdf + "\r\nabc\r\n", mixed + file("a.pdf") + "\r\n" + sha("abc\r\n")},
		"no empty line": {
			mixed + pdf + "--b--\r\n", mixed + file("a.pdf") + "\r\n" + sha("") + "\r\n--b--\r\n"},
		"no empty line, other field last": {
			mixed + pdf + "X: y\r\n--b--\r\n", mixed + file("a.pdf") + "X: y\r\n\r\n" + sha("") + "\r\n--b--\r\n"},
		"no body": {
			mixed + pdf + "\r\n--b--\r\n", mixed + file("a.pdf") + "\r\n" + sha("") + "\r\n--b--\r\n"},
		"header ends in what is no field": {
			mixed + pdf + "abc def\r\n--b--\r\n", mixed + file("a.pdf") + "\r\n" + sha("abc def") + "\r\n--b--\r\n"},
		"bare LF": {
			"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: x/y; name=z\nX: y\n\nabc\n--b--\n",
			"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + file("z") + "X: y\n\r\n" + sha("abc") + "\n--b--\n"},
		"8-bit, NUL and CR": {
			mixed + pdf + "\r\n\xff\x00\r\r\n--b--\r\n", mixed + file("a.pdf") + "\r\n" + sha("\xff\x00\r") + "\r\n--b--\r\n"},
	}
	for name, c := range cases {
		if c.want == "" {
			c.want = c.in
		}
		if got := brief(t, c.in, nil); got != c.want {
			t.Errorf("%s:\n%q\nwant\n%q", name, got, c.want)
		}
	}
}

func TestBriefHash(t *testing.T) {
	sum := sha256.Sum256([]byte("abc"))
	want := mixed + file("a.pdf") + "\r\n" + hex.EncodeToString(sum[:]) + "\r\n--b--\r\n"
	if got := brief(t, mixed+pdf+"\r\nabc\r\n--b--\r\n", sha256.New); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestBriefNames: whatever the file is called, the hash file is called so, with
// the suffix, for who reads by the standards.
func TestBriefNames(t *testing.T) {
	long := strings.Repeat("a", 240) + ".pdf"
	cases := map[string]string{
		`name=a.pdf`:                           "a.pdf",
		`name="a b;c.pdf"`:                     "a b;c.pdf",
		`name="a\"b\\c.pdf"`:                   `a"b\c.pdf`,
		`name="=?UTF-8?Q?perch=C3=A9?= 1.pdf"`: "perché 1.pdf",
		`name="=?iso-8859-1?B?cGVyY2jp?="`:     "perché",
		`name*=utf-8''perch%C3%A9.pdf`:         "perché.pdf",
		`name*=iso-8859-1'it'perch%E9.pdf`:     "perché.pdf",
		`name*0*=utf-8''per; name*1*=ch%C3; name*2*=%A9; name*3=".pdf"`: "perché.pdf",
		`name="../../etc/passwd"`:                     "../../etc/passwd",
		`name="日本語.pdf"`:                              "日本語.pdf",
		"name=\"perch\xe9.pdf\"":                      "perché.pdf",
		`name*=utf-8''%3D%3FUTF-8%3FQ%3Fa%3F%3D`:      "a", // as people read it
		`name="a%20b'c.pdf"`:                          "a%20b'c.pdf",
		`name="` + long + `"`:                         long,
		`name*=utf-8''a%0D%0AX-Ricevuta:%20no%00.pdf`: "a  X-Ricevuta: no .pdf",
		`name="=?UTF-8?Q?a=22=0D=0A=0D=0Ab?="`:        `a"    b`,
		`name="` + strings.Repeat("é", 700) + `"`:     strings.Repeat("é", 500),
	}
	for written, want := range cases {
		raw := mixed + "Content-Type: application/pdf; " + written + "\r\n\r\nabc\r\n--b--\r\n"
		got := brief(t, raw, nil)
		root, err := read(t, got).Structure()
		if err != nil || len(root.Children) != 1 {
			t.Fatalf("%s: %v\n%s", written, err, got)
		}
		p := root.Children[0]
		if p.MediaType != "text/plain" || p.FileName() != want+".hash" || p.Params["name"] != want+".hash" {
			t.Errorf("%s became %q, %q", written, p.FileName(), p.Params["name"])
		}
		if body := string(readAll(t, p.Decoded())); body != sha("abc") || len(p.Header.Fields) != 3 {
			t.Errorf("%s: %d fields, content %q", written, len(p.Header.Fields), body)
		}
		f := facts(t, got)
		if f.EightBit || f.LongestLine > 260 {
			t.Errorf("%s: longest line %d, 8-bit %v", written, f.LongestLine, f.EightBit)
		}
	}
}

// TestBriefOverLimit: what cannot be taken apart stays whole.
func TestBriefOverLimit(t *testing.T) {
	for name, raw := range map[string]string{
		"1,000 parts": parts(1000), "100 levels": levels(100),
	} {
		if got := brief(t, raw, nil); got != raw {
			t.Errorf("%s: changed", name)
		}
	}
	// Those that can be are all replaced.
	if n := strings.Count(brief(t, parts(999), nil), sha("abc")); n != 999 {
		t.Errorf("%d parts replaced", n)
	}
	if n := strings.Count(brief(t, levels(30), nil), sha("abc\r\n")); n != 1 {
		t.Errorf("%d parts replaced at level 30", n)
	}
}

// parts returns a message of n attachments.
func parts(n int) string {
	return mixed + strings.Repeat(pdf+"\r\nabc\r\n--b\r\n", n-1) + pdf + "\r\nabc\r\n--b--\r\n"
}

// levels returns a message with an attachment below n multiparts.
func levels(n int) string {
	var b strings.Builder
	b.WriteString("Subject: levels\r\n")
	for i := range n {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	return b.String() + pdf + "\r\nabc\r\n"
}

// A torn source fails from an offset on.
type torn struct {
	message.Bytes
	from int64
}

var errTorn = errors.New("torn")

func (s torn) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.from {
		return 0, errTorn
	}
	return s.Bytes.ReadAt(p, off)
}

func TestBriefBrokenSource(t *testing.T) {
	raw := parts(3)
	m := read(t, raw)
	for from := range int64(len(raw)) {
		m.Source = torn{message.Bytes(raw), from}
		if c, err := Brief(m, nil); !errors.Is(err, errTorn) || c != nil {
			t.Fatalf("torn at %d: %v", from, err)
		}
	}
}

// TestBriefIsRanges: what stays is not copied, and a large attachment is hashed
// through a small buffer.
func TestBriefIsRanges(t *testing.T) {
	text := strings.Repeat("Testo.\r\n", 1<<17)
	m := read(t, mixed+"\r\n"+text+"\r\n--b\r\n"+pdf+"\r\n"+text+"\r\n--b--\r\n")
	c, err := Brief(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	var written int64
	for _, p := range c {
		if p.Source == nil {
			written += p.Size()
		}
	}
	if written > 1000 || c.Size() > int64(len(text))+2000 {
		t.Errorf("%d octets written, %d in all", written, c.Size())
	}
	allocated := testing.AllocsPerRun(5, func() {
		if _, err := Brief(m, nil); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 500 {
		t.Errorf("%v allocations", allocated)
	}
}

func BenchmarkBrief30MB(b *testing.B) {
	m := read(b, mixed+pdf+"\r\n"+strings.Repeat(strings.Repeat("A", 76)+"\r\n", 30<<20/78)+"--b--\r\n")
	b.SetBytes(m.Source.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Brief(m, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzBrief: the brief form reads as the original does, but for what was replaced.
func FuzzBrief(f *testing.F) {
	f.Add(parcel(original))
	f.Add(levels(5))
	f.Add("Content-Type: multipart/digest; boundary=b\n\n--b\n--b\nX: y\n--b--")
	for _, o := range odds(f) {
		if len(o.raw) < 16<<10 {
			f.Add(o.raw)
		}
	}
	f.Fuzz(checkBrief)
}

// checkBrief holds the brief form of raw against raw.
func checkBrief(t *testing.T, raw string) {
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		return
	}
	c, err := Brief(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.Structure()
	if errors.Is(err, message.ErrLimit) {
		if string(bytesOf(t, c)) != raw {
			t.Error("changed, though over the limit")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if isEnveloped(before) {
		if string(bytesOf(t, c)) != raw {
			t.Error("changed, though enveloped")
		}
		return
	}
	again, err := message.Read(c)
	if err != nil {
		t.Fatal(err)
	}
	after, err := again.Structure()
	if err != nil {
		t.Fatal(err)
	}
	sameShape(t, before, after, true)
}

// sameShape holds the tree of a brief form against that of its original.
func sameShape(t *testing.T, before, after *message.Part, top bool) {
	t.Helper()
	if len(before.Children) != len(after.Children) {
		t.Fatalf("%s of %d parts became one of %d", before.MediaType, len(before.Children), len(after.Children))
	}
	for i := range before.Children {
		if i > 0 && top && before.MediaType == "multipart/signed" {
			if b, a := section(t, before.Children[i]), section(t, after.Children[i]); b != a {
				t.Errorf("signature %q became %q", b, a)
			}
			continue
		}
		sameShape(t, before.Children[i], after.Children[i], false)
	}
	name, attached := attachment(before)
	if !attached {
		if len(before.Children) == 0 && section(t, before) != section(t, after) {
			t.Errorf("%q became %q", section(t, before), section(t, after))
		}
		return
	}
	content := readAll(t, message.Section(before.Source, before.Body).Reader())
	if got := string(readAll(t, after.Decoded())); got != sha(string(content)) || after.MediaType != "text/plain" {
		t.Errorf("%q became %s %q, want %s", name, after.MediaType, got, sha(string(content)))
	}
	if got := after.FileName(); got != name+hashSuffix && !strings.Contains(name, "=?") {
		t.Errorf("%q became %q", name, got)
	}
}

// section returns all of p.
func section(t *testing.T, p *message.Part) string {
	t.Helper()
	return string(readAll(t, message.Section(p.Source, p.Range()).Reader()))
}
