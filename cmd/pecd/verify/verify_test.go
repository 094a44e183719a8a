package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/verify"
	"pecd/pec"
)

// TestMailboxes reads the same four messages in every form of a mailbox.
func TestMailboxes(t *testing.T) {
	o := newOffice(t)
	story, dir := o.story(), t.TempDir()
	for i, m := range story {
		write(t, filepath.Join(dir, "folder", fmt.Sprintf("%d.EML", i)), m)
		write(t, filepath.Join(dir, "maildir", []string{"cur", "new", ".Sent/cur"}[i%3], fmt.Sprintf("17.%d.host:2,S", i)), m)
	}
	write(t, filepath.Join(dir, "folder", "notes.txt"), []byte("not a message"))
	write(t, filepath.Join(dir, "maildir", "tmp", "half"), []byte("not a message"))
	plain := func(line string) string { return line }
	all := mbox(quoteAll, story...)
	tests := map[string]struct{ path, in string }{
		"files":           {"", ""},
		"folder":          {filepath.Join(dir, "folder"), ""},
		"maildir":         {filepath.Join(dir, "maildir"), ""},
		"mboxrd":          {write(t, filepath.Join(dir, "rd"), all), ""},
		"folder of mbox":  {filepath.Dir(write(t, filepath.Join(dir, "thunderbird", "Inbox"), all)), ""},
		"mbox with CRLF":  {write(t, filepath.Join(dir, "crlf"), bytes.ReplaceAll(all, []byte("\n"), []byte("\r\n"))), ""},
		"standard input":  {"-", string(all)},
		"not quoted, bad": {write(t, filepath.Join(dir, "cl"), mbox(plain, story...)), ""},
	}
	directory := o.signedDirectory()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			paths := []string{tt.path}
			if tt.path == "" {
				paths = nil
				for i := range story {
					paths = append(paths, filepath.Join(dir, "folder", fmt.Sprintf("%d.EML", i)))
				}
			}
			a := o.ask(verify.Options{Directory: directory}, tt.in, paths...)
			if bad := strings.HasSuffix(name, "bad"); bad {
				if a.held {
					t.Error("a message that was cut in two holds")
				}
				return
			}
			if len(a.verdicts) != 4 || !a.held || len(a.cases) != 1 {
				t.Fatalf("held %v, %d verdicts, %d cases\n%s", a.held, len(a.verdicts), len(a.cases), a.out)
			}
			c := a.cases[0]
			if f := c.Recipients[0]; c.Accepted == nil || !c.Envelope || len(c.Missing)+len(c.Contradictions) > 0 ||
				f.State != "delivered" || f.Original != "same" || f.Provider != "Beta PEC S.p.A." || c.Recipients[1].State != "nothing" {
				t.Errorf("case %s", a.out)
			}
		})
	}
}

// TestOldMailbox has a mailbox that quotes only lines without a ">".
func TestOldMailbox(t *testing.T) {
	o := newOffice(t)
	for _, line := range []string{"From here", ">From here"} {
		raw := o.envelope(event(pec.Complete), strings.Replace(attachedOriginal, "Testo.", line, 1))
		if a := o.ask(verify.Options{}, string(mbox(quoteOnce, raw)), "-"); !a.held || len(a.verdicts) != 1 {
			t.Errorf("%s: %s", line, a.out)
		}
	}
}

// TestPeople looks at the text: the summary first, then cases, then messages.
func TestPeople(t *testing.T) {
	o := newOffice(t)
	file := write(t, filepath.Join(t.TempDir(), "box"), mbox(quoteAll, o.story()...))
	a := o.run(verify.Options{}, "", file)
	want := []string{"ALL HOLD\n", "4 hold, 0 do not", "the instant that each message certifies", "directory: not given",
		"CASE " + string(id), "accepted for sending on 2026-11-22 10:45:37 +0100, says Alfa",
		"delivered to bob@beta.example", "its original is that of the transport envelope", "mario@ordinary.example has an ordinary mailbox",
		file + ", message 1: VALID", "acceptance receipt", "judged as of 2026-11-22 10:45:37 +0100, the instant that the message certifies",
		"yes, chains to the given CAs", file + ", message 4: VALID"}
	rest := a.out
	for _, w := range want {
		i := strings.Index(rest, w)
		if i < 0 {
			t.Fatalf("no %q, or not in its place:\n%s", w, a.out)
		}
		rest = rest[i:]
	}
	if !a.held || a.err != nil || strings.Contains(a.out, "missing") {
		t.Errorf("held %v, %v", a.held, a.err)
	}
}

// TestDamagedMailbox goes on after a message that was cut off and one that never
// was one.
func TestDamagedMailbox(t *testing.T) {
	o := newOffice(t)
	story := o.story()
	box := mbox(quoteAll, story[0])
	box = append(box, mbox(quoteAll, story[3])[:2000]...) // ends in a line
	box = append(box, '\n')
	box = append(box, mbox(quoteAll, bytes.Repeat([]byte{0, 0xff, '\n'}, 500), nil, story[1])...)
	a := o.ask(verify.Options{}, string(box), "-")
	var valid []bool
	for _, v := range a.verdicts {
		valid = append(valid, v.Valid)
		if !v.Valid && len(v.Problems) == 0 {
			t.Errorf("message %d: no problem is named", v.Number)
		}
	}
	if want := []bool{true, false, false, false, true}; a.held || !slices.Equal(valid, want) {
		t.Errorf("valid %v, want %v", valid, want)
	}
	if n := a.verdicts[4].Number; n != 5 {
		t.Errorf("the last is number %d", n)
	}
}

func TestNamedFiles(t *testing.T) {
	o := newOffice(t)
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.eml"), o.acceptance())
	a := o.ask(verify.Options{}, "", filepath.Join(dir, "none.eml"), os.DevNull, good)
	if a.held || len(a.verdicts) != 1 || !a.verdicts[0].Valid || strings.Count(a.log, "cannot be read") != 2 {
		t.Errorf("held %v, log %q, out %s", a.held, a.log, a.out)
	}
	ordinary := write(t, filepath.Join(dir, "ordinary.eml"), []byte("From: a@b.example\n\nx\n"))
	if a := o.run(verify.Options{}, "", ordinary, good); a.held || !strings.Contains(a.out, "1 hold, 1 do not") {
		t.Errorf("an ordinary message holds: %s", a.out)
	}
	if a := o.run(verify.Options{CertifiedOnly: true}, "", ordinary, good); !a.held || !strings.Contains(a.out, "1 ordinary ones passed over") {
		t.Errorf("%s", a.out)
	}
	stripped := bytes.Replace(o.acceptance(), []byte("X-Ricevuta: accettazione\r\n"), nil, 1)
	if a := o.run(verify.Options{CertifiedOnly: true}, "", write(t, filepath.Join(dir, "stripped.eml"), stripped)); a.held {
		t.Errorf("without its header a receipt passes for ordinary mail: %s", a.out)
	}
}

func TestOptions(t *testing.T) {
	o := newOffice(t)
	for name, opts := range map[string]verify.Options{
		"at":             {At: "tomorrow"},
		"CRL without CA": {CA: "-", CRLs: []string{"x.crl"}},
	} {
		if name == "CRL without CA" {
			opts.CRLs = []string{o.list(o.CA, 1, clock(), clock().Add(time.Hour), nil)}
		}
		a := o.bare(opts)
		if !errors.Is(a, verify.ErrUsage) {
			t.Errorf("%s: %v", name, a)
		}
	}
	if a := o.run(verify.Options{Directory: "/nonexistent"}, "", "-"); a.err == nil || errors.Is(a.err, verify.ErrUsage) {
		t.Errorf("%v", a.err)
	}
}

// TestHostile has files that want to harm the reader: each gets a verdict.
func TestHostile(t *testing.T) {
	o := newOffice(t)
	nested := bytes.Repeat([]byte{0x30, 0x80}, 60_000)
	signed := "X-Ricevuta: accettazione\r\nContent-Type: multipart/signed; protocol=\"application/x-pkcs7-signature\"; boundary=b\r\n\r\n"
	parts := "--b\r\n\r\nx\r\n--b\r\nContent-Type: application/x-pkcs7-signature\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	deep := signed
	for i := range 100 {
		deep += fmt.Sprintf("--b\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i)
	}
	for name, raw := range map[string]string{
		"empty":          "",
		"one octet":      "F",
		"nested CMS":     signed + parts + string(nested) + "\r\n--b--\r\n",
		"deep":           deep,
		"many parts":     signed + strings.Repeat("--b\r\n\r\n", 5000),
		"many fields":    strings.Repeat("A: b\r\n", 20_000) + "\r\n",
		"long line":      "X: " + strings.Repeat("a", 3<<20),
		"many mailboxes": strings.Repeat("From \n\n", 2000),
		"terminal":       "X-Ricevuta: accettazione\r\nSubject: \x1b]0;x\a\r\n\r\n",
	} {
		a := o.run(verify.Options{}, raw, "-")
		if a.err != nil || a.held || !strings.Contains(a.out, "NOT VALID") || strings.ContainsRune(a.out, 0x1b) {
			t.Errorf("%s: held %v, %v\n%.500s", name, a.held, a.err, a.out)
		}
	}
}

// TestMemory judges a mailbox without holding it.
func TestMemory(t *testing.T) {
	o := newOffice(t)
	large := strings.Replace(plainOriginal, "Testo.", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 12<<20/72), 1)
	ev := event(pec.Complete)
	e := o.envelope(ev, large)
	file := write(t, filepath.Join(t.TempDir(), "box"), mbox(quoteAll, e, o.acceptance(), o.delivery(ev, carried(t, large))))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a := o.ask(verify.Options{}, "", file)
	runtime.ReadMemStats(&after)
	if !a.held || a.cases[0].Recipients[0].Original != "same" {
		t.Fatalf("%s", a.out)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 12<<20 {
		t.Errorf("%d octets were allocated for a mailbox of 24 MB", used)
	}
}

func TestProgress(t *testing.T) {
	o := newOffice(t)
	file := write(t, filepath.Join(t.TempDir(), "box"), mbox(quoteAll, o.story()...))
	now := clock()
	out, terminal := o.watch(func() time.Time { now = now.Add(time.Second); return now }, file)
	if !strings.Contains(terminal, "\r4 messages, 0 MB, ") || !strings.HasSuffix(terminal, "\r\x1b[K") || strings.Contains(out, "\r") {
		t.Errorf("%q", terminal)
	}
	if _, terminal = o.watch(clock, file); terminal != "" {
		t.Errorf("at once: %q", terminal)
	}
}
