package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"pecd/pec/message"
	"pecd/plugins/protocol"
	"pecd/plugins/sdk"
	"pecd/plugins/sdk/sdktest"
	"pecd/plugins/spool"
	"pecd/points"
)

func opened(t testing.TB, table string) *sdk.Checker { return sdktest.Open(t, plugin, table) }

const head = "From: anna@alfa.example\r\nMIME-Version: 1.0\r\n"

func multi(parts ...string) string {
	boundary := fmt.Sprintf("b%d", len(strings.Join(parts, "")))
	var b strings.Builder
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%s\r\n\r\n", boundary)
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\n%s\r\n", boundary, p)
	}
	return b.String() + "--" + boundary + "--\r\n"
}

// part is an attachment with the given fields and content.
func part(fields string, content []byte) string {
	return fields + "\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString(content)
}

// named is an attachment of that name.
func named(name string, content []byte) string {
	return part("Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\""+name+"\"", content)
}

// archive is a zip archive of files by name, in their order.
func archive(t testing.TB, files ...any) []byte { return packed(t, zip.Deflate, files) }

// stored is the same without compression.
func stored(t testing.TB, files ...any) []byte { return packed(t, zip.Store, files) }

func packed(t testing.TB, method uint16, files []any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: files[i].(string), Method: method})
		if err == nil {
			_, err = f.Write(files[i+1].([]byte))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// encrypted sets the flag of encryption of all files of an archive.
func encrypted(b []byte) []byte {
	b = bytes.Clone(b)
	for sig, flags := range map[string]int{"PK\x03\x04": 6, "PK\x01\x02": 8} {
		for i := 0; ; i++ {
			at := bytes.Index(b[i:], []byte(sig))
			if at < 0 {
				break
			}
			i += at
			b[i+flags] |= 1
		}
	}
	return b
}

var x = []byte("x")

func TestFinds(t *testing.T) {
	exe := archive(t, "leggimi.txt", x, "dir/Fattura.EXE", x)
	big := archive(t, "grande.bin", bytes.Repeat(x, 3<<20), "due.zip", exe)
	onDisk := stored(t, "grande.bin", make([]byte, 3<<20), "fine.exe", x)
	nested := stored(t, "dentro.zip", onDisk)
	original := head + multi(named("a.exe", x))
	c := opened(t, `{"encrypted":"refuse"}`)
	for name, m := range map[string]struct {
		content string
		why     string // in the English reason; empty if clean
	}{
		"empty":                  {"", ""},
		"text":                   {head + "\r\nBuongiorno", ""},
		"document":               {head + multi(named("contratto.pdf", x), named("exe.txt", x), named("a.exe.pdf", x)), ""},
		"executable":             {head + multi(named("ok.txt", x), named("a.exe", x)), `"a.exe" (*.exe)`},
		"the message itself":     {head + named("a.exe", x), `"a.exe"`},
		"upper case":             {head + multi(named("A.EXE", x)), `"A.EXE"`},
		"blank and dot":          {head + multi(named("a.exe. .", x)), "*.exe"},
		"directory":              {head + multi(named(`c:\\dir\\a.exe`, x)), "*.exe"},
		"stream":                 {head + multi(named("a.exe::$DATA", x)), "*.exe"},
		"hidden":                 {head + multi(part("Content-Disposition: attachment; filename*=utf-8''a.%E2%80%AEe%00xe", x)), ""},
		"bidi":                   {head + multi(part("Content-Disposition: attachment; filename*=utf-8''a.%E2%80%AEexe", x)), "*.exe"},
		"RFC 2047":               {head + multi(named("=?utf-8?B?YS5leGU=?=", x)), `"a.exe"`},
		"RFC 2047, charset":      {head + multi(part("Content-Type: x/y; name=\"=?x-mac?Q?=E0.exe?=\"\r\nContent-Disposition: attachment; filename=a.txt", x)), "*.exe"},
		"RFC 2231":               {head + multi(part("Content-Disposition: attachment; filename*0*=iso-8859-1'it'a.; filename*1=exe", x)), `"a.exe"`},
		"name of Content-Type":   {head + multi(part("Content-Type: text/plain; name=a.exe", x)), `"a.exe"`},
		"two names":              {head + multi(part("Content-Type: text/plain; name=a.exe\r\nContent-Disposition: inline; filename=a.txt", x)), `"a.exe"`},
		"media type":             {head + multi(part("Content-Type: Application/X-MSDownload", x)), "application/x-msdownload"},
		"media type with a name": {head + multi(part("Content-Type: application/x-dosexec; name=ok", x)), `"ok"`},
		"postacert.eml":          {head + multi("Content-Type: message/rfc822; name=postacert.eml\r\n\r\n"+original), `"a.exe"`},
		"digest":                 {head + strings.Replace(multi("\r\n"+original), "mixed", "digest", 1), `"a.exe"`},
		"encoded message":        {head + multi(part("Content-Type: message/rfc822", []byte(original))), `"a.exe"`},
		"long encoded message":   {head + multi(part("Content-Type: message/rfc822", []byte(head+multi("\r\n"+strings.Repeat("x\r\n", 1<<20), named("a.exe", x))))), `"a.exe"`},
		"zip":                    {head + multi(named("a.zip", exe)), `"dir/Fattura.EXE"`},
		"zip by its beginning":   {head + multi(named("a.dat", exe)), `"dir/Fattura.EXE"`},
		"zip by its type":        {head + multi(part("Content-Type: application/zip", append([]byte("before"), exe...))), `"dir/Fattura.EXE"`},
		"zip in a zip":           {head + multi(named("a.zip", archive(t, "b.ZIP", archive(t, "c.zip", exe)[:0], "d.txt", x, "e.zip", exe))), "cannot be examined"},
		"zip in a zip, whole":    {head + multi(named("a.zip", archive(t, "d.txt", x, "e.zip", exe))), `"dir/Fattura.EXE"`},
		"zip on disk":            {head + multi(named("a.zip", onDisk)), `"fine.exe"`},
		"large zip in a zip":     {head + multi(named("a.zip", nested)), `"fine.exe"`},
		"zip with a bomb":        {head + multi(named("a.zip", big)), `"dir/Fattura.EXE"`},
		"clean zip":              {head + multi(named("a.zip", archive(t, "d.txt", x, "e.zip", archive(t, "f.txt", x), "dir/", []byte{}))), ""},
		"empty zip":              {head + multi(named("a.zip", archive(t))), ""},
		"encrypted":              {head + multi(named("a.zip", encrypted(archive(t, "d.txt", x)))), "encrypted archive"},
		"encrypted, but named":   {head + multi(named("a.zip", encrypted(exe))), "encrypted archive"},
		"no zip":                 {head + multi(named("a.zip", x)), "cannot be examined"},
	} {
		f, err := c.Check(t.Context(), sdk.NewMessage(points.Submission, []byte(m.content)))
		want := points.Clean
		if m.why != "" {
			want = points.Refused
		}
		if err != nil || f.Says != want || !strings.Contains(f.Reason.English, m.why) {
			t.Errorf("%s: %v %v, want %s", name, f, err, m.why)
		}
		checkReason(t, f)
	}
}

// checkReason: the protocol's limits of a reason.
func checkReason(t *testing.T, f points.Finding) {
	t.Helper()
	for _, s := range []string{f.Reason.Italian, f.Reason.English} {
		if f.Says == points.Refused && s == "" || len(s) > protocol.MaxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("the reason %q", s)
		}
	}
}

func TestLimits(t *testing.T) {
	deep, nested := head+"\r\nx", archive(t, "a.txt", x)
	for range maxNested + 1 {
		deep = head + "Content-Type: message/rfc822\r\n\r\n" + deep
	}
	for range maxArchives {
		nested = archive(t, "a.zip", nested)
	}
	var many, long []any
	for i := range maxEntries/2 + 1 {
		many = append(many, fmt.Sprint(i), []byte{})
	}
	for i := range 300 {
		long = append(long, fmt.Sprintf("%d%s", i, strings.Repeat("x", 4000)), []byte{})
	}
	directory := archive(t, long...)
	for name, content := range map[string]string{
		"messages":  deep,
		"parts":     head + multi(strings.Split(strings.Repeat("\r\nx|", maxParts), "|")...),
		"archives":  head + multi(named("a.zip", nested)),
		"entries":   head + multi(named("a.zip", archive(t, many...)), named("b.zip", archive(t, many...))),
		"directory": head + multi(named("a.zip", directory)),
		"broken":    head + multi(named("a.zip", directory[:1000])),
	} {
		for choice, want := range map[string]points.Says{"refuse": points.Refused, "allow": points.Clean} {
			f, err := opened(t, fmt.Sprintf(`{"unreadable":%q}`, choice)).Check(t.Context(), sdk.NewMessage(points.Submission, []byte(content)))
			if err != nil || f.Says != want || want == points.Refused && !strings.Contains(f.Reason.English, "cannot be examined") {
				t.Errorf("%s: %s: %v %v", name, choice, f, err)
			}
		}
	}
}

// Archives in archives are unpacked up to so many octets together.
func TestUnpacked(t *testing.T) {
	const most = 2 << 20
	// A zip archive may have anything before it.
	inner := append(make([]byte, most/2), archive(t, "a.exe", x)...)
	innocent := append(make([]byte, most/2), archive(t, "a.txt", x)...)
	for name, m := range map[string]struct {
		content []byte
		want    string
	}{
		"within": {archive(t, "a.zip", inner), "(*.exe)"},
		"over":   {archive(t, "a.zip", innocent, "b.zip", inner), "cannot be examined"},
	} {
		f := &filter{settings: defaults(), unpack: most}
		got, err := f.check(t.Context(), sdk.NewMessage(points.Submission, []byte(head+multi(named("a.zip", m.content)))))
		if err != nil || !strings.Contains(got.Reason.English, m.want) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

func TestChoices(t *testing.T) {
	exe := head + multi(named("a.zip", archive(t, "a.exe", x)))
	for table, m := range map[string]struct {
		content string
		want    points.Says
	}{
		`{"zip":false}`:             {exe, points.Clean},
		`{"names":["*.txt"]}`:       {exe, points.Clean},
		`{"names":["A.[A-F]XE"]}`:   {exe, points.Refused},
		`{"names":[]}`:              {exe, points.Clean},
		`{"types":["multipart/*"]}`: {exe, points.Refused},
		`{}`:                        {head + multi(named("a.zip", encrypted(archive(t, "d.txt", x, "e.zip", x)))), points.Clean},
	} {
		f, err := opened(t, table).Check(t.Context(), sdk.NewMessage(points.Submission, []byte(m.content)))
		if err != nil || f.Says != m.want {
			t.Errorf("%s: %v %v", table, f, err)
		}
	}
}

// A message with more header fields than are read is one that cannot be read whole,
// as an attachment too: put off, it would come for ever.
func TestManyFields(t *testing.T) {
	many := strings.Repeat("X: y\r\n", 10_001) + "\r\n"
	for name, content := range map[string]string{
		"itself":   many,
		"attached": head + multi("Content-Type: message/rfc822\r\n\r\n"+many),
		"encoded":  head + multi(part("Content-Type: message/rfc822", []byte(many))),
	} {
		for table, want := range map[string]points.Says{`{}`: points.Refused, `{"unreadable":"allow"}`: points.Clean} {
			f, err := opened(t, table).Check(t.Context(), sdk.NewMessage(points.Submission, []byte(content)))
			if err != nil || f.Says != want {
				t.Errorf("%s: %s: %v %v, want %v", name, table, f, err, want)
			}
		}
	}
}

// What was unpacked counts though the file turns out broken or too large: else a
// message could have work done without end.
func TestUnpackedOfBroken(t *testing.T) {
	const size = 100_000
	broken := stored(t, "b.zip", make([]byte, size))
	broken[len(broken)/2] = 1 // the checksum tells, at the end
	for name, limit := range map[string]int64{"broken": size, "too large": size - 1} {
		settings := defaults()
		settings.Unreadable = allow
		w := walk{filter: &filter{settings: settings, unpack: limit}, ctx: t.Context()}
		if err := w.zip(message.Bytes(broken), "a.zip", 1); err != nil || w.unpacked != size {
			t.Errorf("%s: %d octets count, %v", name, w.unpacked, err)
		}
	}
}

func TestSettings(t *testing.T) {
	sdktest.Settings(t, plugin, true, map[string]string{
		`{}`:                      "",
		`{"stages":["incoming"]}`: "",
		`{"names":["[a"]}`:        "names",
		`{"types":[""]}`:          "types",
		`{"names":"*.exe"}`:       "names",
		`{"encrypted":"maybe"}`:   "encrypted",
		`{"unreadable":""}`:       "unreadable",
		`{"stages":[]}`:           "stages",
		`{"stages":["never"]}`:    "stages",
		`{"nam":[]}`:              "nam",
	})
}

// The defaults that people read are those that count, and fit the protocol.
func TestKeysSayTheDefaults(t *testing.T) {
	sdktest.Defaults(t, plugin, new(settings), defaults())
}

// What is no fault of the message is doubt, and no refusal.
func TestDoubt(t *testing.T) {
	t.Setenv(protocol.EnvState, "/nowhere")
	content := []byte(head + multi(named("a.zip", stored(t, "a", make([]byte, 2<<20)))))
	if f, err := opened(t, `{}`).Check(t.Context(), sdk.NewMessage(points.Submission, content)); !errors.Is(err, spool.ErrRoom) {
		t.Errorf("no directory: %v %v", f, err)
	}
	dir := t.TempDir()
	t.Setenv(protocol.EnvState, dir)
	if f, err := opened(t, `{}`).Check(t.Context(), sdk.NewMessage(points.Submission, content)); err != nil || f.Says != points.Clean {
		t.Errorf("with a directory: %v %v", f, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v %v", left, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := opened(t, `{}`).Check(ctx, sdk.NewMessage(points.Submission, content)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v %v", f, err)
	}
	broken := &filter{settings: defaults(), unpack: maxUnpacked}
	wk := walk{filter: broken, ctx: t.Context()}
	if err := wk.message(failing{message.Bytes(content)}, message.Range{Len: int64(len(content))}, 0); !errors.Is(err, errDisk) {
		t.Errorf("a message that cannot be read: %v", err)
	}
}

var errDisk = errors.New("broken disk")

// failing is a source whose end cannot be read.
type failing struct{ message.Bytes }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.Size()/2 {
		return 0, errDisk
	}
	return f.Bytes.ReadAt(p, off)
}

// FuzzCheck: whatever the message, the check ends with a finding, and a reason
// that the protocol takes.
func FuzzCheck(f *testing.F) {
	exe := archive(f, "a.txt", x, "dir/a.exe", x, "b.zip", archive(f, "c", x))
	for _, m := range []string{"", "\r\n", head + multi(named("a.zip", exe)), head + multi(named("a.exe", x)),
		head + multi("Content-Type: message/rfc822\r\n\r\n"+head+multi(named("a", exe))), head + part("Content-Type: message/rfc822", []byte(head+named("a.zip", encrypted(exe))))} {
		f.Add([]byte(m))
	}
	w := &filter{settings: defaults(), unpack: maxUnpacked}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := w.check(t.Context(), sdk.NewMessage(points.Submission, b))
		if err != nil || got.Says != points.Clean && got.Says != points.Refused {
			t.Errorf("%v %v", got, err)
		}
		checkReason(t, got)
	})
}

// FuzzZip: the same of the octets of an archive.
func FuzzZip(f *testing.F) {
	exe := archive(f, "a.txt", x, "dir/a.exe", x)
	for _, b := range [][]byte{exe, archive(f), archive(f, "b.zip", exe, "c.zip", archive(f, "d.zip", exe)), encrypted(exe)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := walk{filter: &filter{settings: defaults(), unpack: maxUnpacked}, ctx: t.Context()}
		err := w.zip(message.Bytes(b), "a.zip", 1)
		var r *refusal
		if err != nil && !errors.As(err, &r) {
			t.Error(err)
		}
	})
}

func BenchmarkCheck1MB(b *testing.B) {
	content := make([]byte, 700<<10)
	for i := range content {
		content[i] = byte(i * i >> 3)
	}
	c := opened(b, `{}`)
	for name, p := range map[string]string{"file": named("a.pdf", content), "zip": named("a.zip", archive(b, "a.bin", content))} {
		m := sdk.NewMessage(points.Submission, []byte(head+multi(p)))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(m.Size)
			b.ReportAllocs()
			for b.Loop() {
				if f, err := c.Check(b.Context(), m); err != nil || f.Says != points.Clean {
					b.Fatal(f, err)
				}
			}
		})
	}
}
