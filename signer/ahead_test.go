package signer_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pecd/pec/message"
	"pecd/signer"
)

// TestLargeMessages: of a large message the digest is begun while its structure
// is read. Whatever was guessed wrongly, the verdict is that of a small one.
func TestLargeMessages(t *testing.T) {
	ca, alfa := newAlfa(t)
	v := signer.NewVerifier(ca.Pool())
	mail := bytesOf(t, sign(t, alfa.Identity, transportDraft(t, originalOf(3_000_000), false)).Content())
	with := func(old, new string) []byte {
		if !bytes.Contains(mail, []byte(old)) {
			t.Fatalf("no %q", old)
		}
		return bytes.Replace(mail, []byte(old), []byte(new), 1)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(mail)
		b[at] ^= 1
		return b
	}
	head := bytes.Index(mail, []byte("\r\n--outer\r\n"))
	long := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200)
	for name, tc := range map[string]struct {
		mail []byte
		want error
	}{
		"as it is":              {mail, nil},
		"micalg of another":     {with("micalg=\"sha-256\"", "micalg=sha-512"), nil},
		"micalg SHA-1":          {with("micalg=\"sha-256\"", "micalg=sha1"), nil},
		"no micalg":             {with("micalg=\"sha-256\";", ""), nil},
		"blank in delimiter":    {with("\r\n--outer\r\n", "\r\n--outer \t\r\n"), nil},
		"long preamble":         {with("\r\n--outer\r\n", "\r\n"+long+"\r\n--outer\r\n"), nil},
		"boundary in it":        {with("\r\n--outer\r\n", "\r\n--outer2\r\n x--outer\r\n--outer\r\n"), nil},
		"long epilogue":         {append(bytes.Clone(mail), bytes.Repeat([]byte(long), 200)...), nil},
		"saved with LF":         {bytes.ReplaceAll(mail, []byte("\r\n"), []byte("\n")), nil},
		"altered early":         {flip(head + 1000), signer.ErrAltered},
		"altered in the middle": {flip(1_500_000), signer.ErrAltered},
		"altered late":          {flip(len(mail) - 20_000), signer.ErrAltered},
		"three parts":           {with("\r\n--outer\r\n", "\r\n--outer\r\n\r\nx\r\n--outer\r\n"), signer.ErrMalformedSignature},
		"cut":                   {mail[:2_000_000], signer.ErrMalformedSignature},
	} {
		r, err := v.Verify(read(t, tc.mail), testTime)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if err != nil {
			continue
		}
		src, ok := r.Entity.Source.(message.Bytes)
		if !ok || len(src) != len(tc.mail) || r.Entity.Children[2].Source.Size() != int64(len(tc.mail)) {
			t.Errorf("%s: the entity is of %T", name, r.Entity.Source)
		}
	}
}

// TestReadsOnce: a large message is read once, but for its end.
func TestReadsOnce(t *testing.T) {
	ca, alfa := newAlfa(t)
	mail := bytesOf(t, sign(t, alfa.Identity, transportDraft(t, originalOf(10_000_000), false)).Content())
	src := &countingSource{Source: message.Bytes(mail)}
	m, err := message.Read(src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.NewVerifier(ca.Pool()).Verify(m, testTime); err != nil {
		t.Fatal(err)
	}
	if n := float64(src.read.Load()) / float64(len(mail)); n > 1.15 {
		t.Errorf("read %.2f times", n)
	}
}

// TestLargeWithLF: what was signed with bare LFs is not to be mended, so that a
// wrong guess shows.
func TestLargeWithLF(t *testing.T) {
	ca, alfa := newAlfa(t)
	v := signer.NewVerifier(ca.Pool())
	entity := []byte("Content-Type: text/plain\n\n" + strings.Repeat("a line that ends in LF alone\n", 100_000))
	mail := wrap(entity, cmsSign(t, alfa, entity))
	mail = bytes.Replace(mail, []byte("micalg=sha1"), []byte("micalg=sha-256"), 1)
	for name, mail := range map[string][]byte{
		"as it is":        mail,
		"long epilogue":   append(bytes.Clone(mail), strings.Repeat("epilogue\r\n", 300_000)...),
		"false delimiter": bytes.Replace(mail, []byte("\r\n--bb\r\n"), []byte("\r\n--bb\r\r\nx\r\n--bb\r\n"), 1),
		"micalg lies":     bytes.Replace(mail, []byte("micalg=sha-256"), []byte("micalg=sha-384"), 1),
	} {
		if _, err := verify(t, v, mail); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
