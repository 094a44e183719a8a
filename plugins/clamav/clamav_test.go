package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"pecd/plugins/clamav/clamdtest"
	"pecd/plugins/sdk"
	"pecd/plugins/sdk/sdktest"
	"pecd/points"
)

func startClamd(t testing.TB, settings ...string) *clamdtest.Clamd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := clamdtest.Start(ctx, t.TempDir(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// opened is the check with the given table, as pecd would open it.
func opened(t testing.TB, table string) *sdk.Checker { return sdktest.Open(t, plugin, table) }

func at(addr string) string { return fmt.Sprintf(`{"socket":%q}`, addr) }

func look(t testing.TB, c *sdk.Checker, content []byte) (points.Finding, error) {
	t.Helper()
	return c.Check(t.Context(), sdk.NewMessage(points.Submission, content))
}

// multi is a multipart entity of the given parts.
func multi(kind, boundary string, parts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Content-Type: multipart/%s; boundary=\"%s\"\r\n\r\n", kind, boundary)
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\n%s\r\n", boundary, p)
	}
	return b.String() + "--" + boundary + "--\r\n"
}

const head = "From: anna@alfa.example\r\nTo: bob@beta.example\r\nSubject: prova\r\nMIME-Version: 1.0\r\n"

const text = "Content-Type: text/plain\r\n\r\nBuongiorno\r\n"

// attached is a part with content in base64.
func attached(content []byte) string {
	return "Content-Type: application/octet-stream; name=documento.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		base64.StdEncoding.EncodeToString(content) + "\r\n"
}

// infected has the test string in an attachment, where only who decodes sees it.
func infected() string {
	return head + multi("mixed", "in", text, attached(append([]byte("abc"), clamdtest.EICAR()...)))
}

func clean() string { return head + multi("mixed", "in", text, attached([]byte("niente"))) }

// envelope is a message around original with the parts of a transport envelope.
func envelope(original string) string {
	alternative := multi("alternative", "alt", text, "Content-Type: text/html\r\n\r\n<p>Buongiorno</p>\r\n")
	return head + multi("mixed", "out", alternative, attached([]byte("<postacert/>")),
		"Content-Type: message/rfc822; name=postacert.eml\r\n\r\n"+original)
}

func signed(entity string) string {
	return head + multi("signed", "sig", strings.TrimPrefix(entity, head), attached([]byte("signature")))
}

// deep has the virus in many multiparts.
func deep() string {
	m := attached(clamdtest.EICAR())
	for i := range 25 {
		m = multi("mixed", fmt.Sprint("level", i), m)
	}
	return head + m
}

// encoded has it in an attached message that is encoded, which no rule allows and
// mail programs show.
func encoded() string {
	return head + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		base64.StdEncoding.EncodeToString([]byte(infected())) + "\r\n"
}

// as has an infected message that is nested too deep for clamd in a part whose
// header has the given lines.
func as(encode func(string) string, lines ...string) string {
	return head + multi("mixed", "as", text, strings.Join(lines, "\r\n")+"\r\n\r\n"+encode(deep()))
}

func inBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) + "\r\n" }

func asIs(s string) string { return s }

// uuencoded has it in the old way, which only clamd undoes, and no field by which
// clamd knows mail.
func uuencoded() string {
	b := append(clamdtest.EICAR(), 0) // 69 octets, 23 times 3
	var out strings.Builder
	out.WriteString("X-Prova: 1\r\n\r\nBuongiorno\r\n\r\nbegin 644 documento.bin\r\n")
	for ; len(b) > 0; b = b[min(45, len(b)):] {
		line := b[:min(45, len(b))]
		out.WriteByte(byte(' ' + len(line)))
		for i := 0; i < len(line); i += 3 {
			for _, six := range [4]byte{line[i] >> 2, line[i]<<4 | line[i+1]>>4, line[i+1]<<2 | line[i+2]>>6, line[i+2]} {
				out.WriteByte(' ' + six&63)
			}
		}
		out.WriteString("\r\n")
	}
	return out.String() + "`\r\nend\r\n"
}

// On TCP and on the unix socket, in all places where a virus can be.
func TestFinds(t *testing.T) {
	clamd := startClamd(t)
	for _, addr := range []string{clamd.Unix, clamd.TCP} {
		c := opened(t, at(addr))
		for name, m := range map[string]struct {
			content string
			virus   bool
		}{
			"clean":                     {clean(), false},
			"clean envelope":            {signed(envelope(clean())), false},
			"no octets":                 {"", false},
			"no message":                {"\x00\xff\r\n\r\n", false},
			"bare":                      {string(clamdtest.EICAR()), true},
			"attachment":                {infected(), true},
			"no known field":            {strings.TrimPrefix(infected(), head), true},
			"message in a message":      {envelope(infected()), true},
			"deep":                      {deep(), true},
			"uuencoded":                 {uuencoded(), true},
			"signed envelope":           {signed(envelope(infected())), true},
			"envelope in an anomaly":    {signed(envelope(signed(envelope(infected())))), true},
			"message encoded in base64": {encoded(), true},
			"deep in one in base64":     {as(inBase64, "Content-Type: message/rfc822", "Content-Transfer-Encoding: base64"), true},
			"deep, wrong encoding":      {as(asIs, "Content-Type: message/rfc822", "Content-Transfer-Encoding: 7-bit"), true},
			"deep, with UTF-8":          {as(asIs, "Content-Type: message/global", "Content-Transfer-Encoding: 8bit"), true},
			"deep in two in base64": {as(func(string) string {
				return inBase64(as(inBase64, "Content-Type: message/rfc822", "Content-Transfer-Encoding: base64"))
			}, "Content-Type: message/global", "Content-Transfer-Encoding: base64"), true},
			"a report":             {head + multi("report", "rep", text, "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; alfa.example\r\n\r\nStatus: 5.0.0\r\n"), false},
			"no message in base64": {head + multi("mixed", "no", "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nAP8NCg0K\r\n"), false},
		} {
			f, err := look(t, c, []byte(m.content))
			want := sdk.Clean()
			if m.virus {
				want = sdk.Infected(clamdtest.Virus)
			}
			if err != nil || f != want {
				t.Errorf("%s: %s: %v %v, want %v", addr[:4], name, f, err, want)
			}
		}
	}
}

// clamd alone misses these: they are why the plugin marks messages and walks
// through their parts. When it does not miss them any more, this test says so,
// and the plugin may become simpler.
func TestClamdAloneMisses(t *testing.T) {
	clamd := startClamd(t)
	for name, content := range map[string]string{
		"mail without a field that it knows": uuencoded(),
		"a virus in many multiparts":         mark + deep(),
		"an encoded message":                 mark + encoded(),
	} {
		s, err := dial(t.Context(), clamd.Unix)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.scan(strings.NewReader(content)); err != nil || r.virus != "" {
			t.Errorf("%s: %q %v", name, r.virus, err)
		}
		s.close()
	}
}

func TestDownAndRestarted(t *testing.T) {
	clamd := startClamd(t)
	for _, addr := range []string{clamd.Unix, clamd.TCP} {
		c := opened(t, at(addr))
		for _, end := range []func() error{clamd.Stop, clamd.Kill} {
			if _, err := look(t, c, []byte(clean())); err != nil {
				t.Fatal(err)
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if f, err := look(t, c, []byte(clean())); err == nil {
				t.Errorf("%s: with clamd down: %v", addr[:4], f)
			}
			if got := c.Engine(); !strings.HasPrefix(got, "no clamd answers") {
				t.Errorf("engine with clamd down: %s", got)
			}
			if err := clamd.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if f, err := look(t, c, []byte(infected())); err != nil || f.Says != points.Infected {
				t.Errorf("%s: after a restart: %v %v", addr[:4], f, err)
			}
		}
	}
}

// A clamd that stands still is doubt, after the plugin's timeout or when pecd no
// longer waits; and it works again afterwards.
func TestSlow(t *testing.T) {
	clamd := startClamd(t)
	if err := clamd.Pause(); err != nil {
		t.Fatal(err)
	}
	c := opened(t, fmt.Sprintf(`{"socket":%q,"timeout":"200ms","connections":2}`, clamd.Unix))
	if f, err := look(t, c, []byte(clean())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timeout: %v %v", f, err)
	}
	patient := opened(t, fmt.Sprintf(`{"socket":%q,"connections":1}`, clamd.TCP))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 3 { // one waits for clamd, the others for the one
		all.Add(1)
		go func() {
			defer all.Done()
			if f, err := patient.Check(ctx, sdk.NewMessage(points.Submission, []byte(clean()))); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v %v", f, err)
			}
		}()
	}
	cancel()
	all.Wait()
	if err := clamd.Resume(); err != nil {
		t.Fatal(err)
	}
	if f, err := look(t, patient, []byte(clean())); err != nil || f.Says != points.Clean {
		t.Errorf("when it goes on: %v %v", f, err)
	}
}

func TestConcurrent(t *testing.T) {
	clamd := startClamd(t, "MaxThreads 4")
	c := opened(t, fmt.Sprintf(`{"socket":%q,"connections":3}`, clamd.Unix))
	var all sync.WaitGroup
	for i := range 30 {
		all.Add(1)
		go func() {
			defer all.Done()
			content, want := clean(), points.Clean
			if i%2 == 0 {
				content, want = envelope(infected()), points.Infected
			}
			if f, err := look(t, c, []byte(content)); err != nil || f.Says != want {
				t.Errorf("message %d: %v %v, want %v", i, f, err, want)
			}
		}()
	}
	all.Wait()
}

// large is a message of n octets.
func large(n int) []byte {
	return append([]byte(head+"\r\n"), bytes.Repeat([]byte("Buongiorno, e di nuovo buongiorno a tutti voi, signori.\r\n"), n/57+1)...)[:n]
}

func TestTooLarge(t *testing.T) {
	clamd := startClamd(t, "StreamMaxLength 1M")
	for name, content := range map[string][]byte{
		"max_size":        large(3<<20 + 1),
		"StreamMaxLength": large(2 << 20),
		"one octet over":  large(1<<20 + 1 - len(mark)),
	} {
		for choice, want := range map[string]points.Says{"defer": points.Unavailable, "refuse": points.Refused, "clean": points.Clean} {
			for _, addr := range []string{clamd.Unix, clamd.TCP} {
				c := opened(t, fmt.Sprintf(`{"socket":%q,"max_size":3145728,"too_large":%q}`, addr, choice))
				f, err := look(t, c, content)
				if f.Says != want || (err != nil) != (want == points.Unavailable) {
					t.Errorf("%s: %s at %s: %v %v", name, choice, addr[:4], f, err)
				}
			}
		}
	}
	c := opened(t, at(clamd.Unix))
	if f, err := look(t, c, large(1<<20-len(mark))); err != nil || f.Says != points.Clean {
		t.Errorf("exactly the limit: %v %v", f, err)
	}
}

// A message that never can be looked at whole is never put off: it would come
// again for ever. A virus that was seen in it counts.
func TestTooComplex(t *testing.T) {
	clamd := startClamd(t, "MaxFileSize 100K", "AlertExceedsMax yes")
	nested, levels := clean(), text
	for range maxNested + 1 {
		nested = head + "Content-Type: message/rfc822\r\n\r\n" + nested
	}
	for i := range 200 {
		levels = multi("mixed", fmt.Sprint("level", i), levels)
	}
	messages := map[string]string{
		"messages in each other": nested,
		"levels":                 head + levels,
		"many parts":             head + multi("mixed", "m", strings.Split(strings.Repeat(text+"|", maxPieces)+text, "|")...),
		"what clamd leaves out":  string(large(300 << 10)),
	}
	for name, content := range messages {
		for choice, want := range map[string]points.Says{"refuse": points.Refused, "clean": points.Clean} {
			c := opened(t, fmt.Sprintf(`{"socket":%q,"too_complex":%q}`, clamd.Unix, choice))
			if f, err := look(t, c, []byte(content)); err != nil || f.Says != want {
				t.Errorf("%s: %s: %v %v", name, choice, f, err)
			}
		}
	}
	for name, content := range map[string]string{
		"left out": infected() + messages["what clamd leaves out"],
		"nested":   head + multi("mixed", "n", attached(clamdtest.EICAR()), "Content-Type: message/rfc822\r\n\r\n"+nested),
	} {
		if f, err := look(t, opened(t, at(clamd.Unix)), []byte(content)); err != nil || f.Says != points.Infected {
			t.Errorf("a virus besides: %s: %v %v", name, f, err)
		}
	}
}

func TestSuspicions(t *testing.T) {
	clamd := startClamd(t, "AlertEncrypted yes")
	zip := head + multi("mixed", "z", text, attached(encryptedZip))
	for choice, want := range map[string]points.Finding{
		"clean":    sdk.Clean(),
		"infected": sdk.Infected("Heuristics.Encrypted.Zip"),
		"refuse": sdk.Refuse("L'antivirus giudica sospetto il contenuto del messaggio (Heuristics.Encrypted.Zip).",
			"The virus scanner takes the content of the message for suspicious (Heuristics.Encrypted.Zip)."),
	} {
		c := opened(t, fmt.Sprintf(`{"socket":%q,"heuristics":%q}`, clamd.Unix, choice))
		if f, err := look(t, c, []byte(zip)); err != nil || f != want {
			t.Errorf("%s: %v %v", choice, f, err)
		}
		both := head + multi("mixed", "z", attached(encryptedZip), attached(clamdtest.EICAR()))
		if f, err := look(t, c, []byte(both)); err != nil || f != sdk.Infected(clamdtest.Virus) {
			t.Errorf("%s: a virus besides: %v %v", choice, f, err)
		}
	}
}

// encryptedZip is an archive of one stored entry "a" whose flags say that it is
// encrypted.
var encryptedZip = []byte("PK\x03\x04\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x11\x22\x33\x44\x10\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00a" +
	"0123456789abcdef" +
	"PK\x01\x02\x0a\x00\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x11\x22\x33\x44\x10\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a" +
	"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00\x2f\x00\x00\x00\x2f\x00\x00\x00\x00\x00")

func TestEngine(t *testing.T) {
	clamd := startClamd(t)
	for _, addr := range []string{clamd.Unix, clamd.TCP} {
		if got := opened(t, at(addr)).Engine(); !strings.HasPrefix(got, "ClamAV 1.") && !strings.HasPrefix(got, "ClamAV 0.") {
			t.Errorf("engine at %s: %q", addr[:4], got)
		}
	}
}

// A message that cannot be read to its end is doubt, whatever clamd would say of
// the rest.
func TestUnreadableMessage(t *testing.T) {
	clamd := startClamd(t)
	s, err := dial(t.Context(), clamd.Unix)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.scan(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(clean())))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a message that cannot be read: %v", err)
	}
	if f, err := opened(t, at(clamd.Unix)).Check(t.Context(), &sdk.Message{Size: 10}); err == nil {
		t.Errorf("a message without content: %v", f)
	}
}

func BenchmarkScan1MB(b *testing.B) {
	clamd := startClamd(b)
	random := make([]byte, 700<<10)
	for i := range random {
		random[i] = byte(i * i >> 3)
	}
	content := []byte(head + multi("mixed", "in", text, attached(random)))
	for name, addr := range map[string]string{"unix": clamd.Unix, "tcp": clamd.TCP} {
		c := opened(b, at(addr))
		for kind, m := range map[string][]byte{"message": content, "envelope": []byte(signed(envelope(string(content)))), "small": []byte(clean())} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(m)))
				b.ReportAllocs()
				for b.Loop() {
					if f, err := look(b, c, m); err != nil || f.Says != points.Clean {
						b.Fatal(f, err)
					}
				}
			})
		}
	}
}

// No file of this folder holds the test string.
func TestNoFileHoldsTheTestString(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, clamdtest.EICAR()) {
			t.Errorf("%s holds it", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
