package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mozilla.org/pkcs7"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
	"pecd/signer/signertest"
)

// checkWithOthers verifies a signed message with OpenSSL, with pkcs7 and with
// this package.
func checkWithOthers(t *testing.T, ca *signertest.CA, s *signer.Signed, entity []byte) {
	t.Helper()
	mail := bytesOf(t, s.Content())
	out := openssl(t, mail, "cms", "-verify", "-CAfile", ca.File)
	if !bytes.Equal(out, entity) {
		t.Errorf("OpenSSL verified other octets:\n%q\n%q", out, entity)
	}
	r, err := signer.NewVerifier(ca.Pool()).Verify(read(t, mail), testTime)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if !r.SignatureHolds || !r.ContentIntact || !r.ChainChecked || r.ChainErr != nil || r.Digest != "SHA-256" {
		t.Errorf("report %+v", r)
	}
	if !r.SigningTime.Equal(testTime.Truncate(time.Second)) {
		t.Errorf("signing time %s, event at %s", r.SigningTime, testTime)
	}
	if s.Digest() != sha256.Sum256(entity) {
		t.Error("Digest is not that of the entity")
	}
	p7, err := pkcs7.Parse(p7sOf(t, mail))
	if err != nil {
		t.Fatalf("pkcs7: %v", err)
	}
	p7.Content = entity
	if err := p7.VerifyWithChainAtTime(ca.Pool(), testTime); err != nil {
		t.Errorf("pkcs7: %v", err)
	}
	if len(p7.Certificates) != 2 {
		t.Errorf("%d certificates, leaf and issuer expected", len(p7.Certificates))
	}
}

func p7sOf(t testing.TB, mail []byte) []byte {
	t.Helper()
	root, err := read(t, mail).Structure()
	if err != nil {
		t.Fatal(err)
	}
	der, err := io.ReadAll(root.Children[1].Decoded())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSignedVerifies(t *testing.T) {
	ca, alfa := newAlfa(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ca.IdentityOf(t, key, ca.Template(alfaName, alfaPost))
	eight := message.Text([]byte("Subject: perch\xe9\r\n\r\n\xc3\xa8 cos\xc3\xac\r\n.\r\nFrom here\r\n"))
	for name, tc := range map[string]struct {
		id *signertest.Identity
		d  issue.Draft
	}{
		"receipt":             {alfa, receiptDraft(t)},
		"transport":           {alfa, transportDraft(t, originalOf(10_000), false)},
		"8-bit transport":     {alfa, transportDraft(t, eight, true)},
		"original without NL": {alfa, transportDraft(t, message.Text([]byte("Subject: x\r\n\r\nend")), false)},
		"header only":         {alfa, transportDraft(t, message.Text([]byte("Subject: x\r\n")), false)},
		"ECDSA":               {ec, receiptDraft(t)},
	} {
		t.Run(name, func(t *testing.T) {
			s := sign(t, tc.id.Identity, tc.d)
			checkWithOthers(t, ca, s, bytesOf(t, tc.d.Entity))
			if s.EightBit() != tc.d.EightBit || s.MessageID() != tc.d.MessageID || s.From() != tc.d.From {
				t.Errorf("signed %+v", s)
			}
		})
	}
}

func TestSignedLayout(t *testing.T) {
	_, alfa := newAlfa(t)
	d := transportDraft(t, message.Text([]byte("Subject: x\r\n\r\n\xe8\r\n")), true)
	mail := string(bytesOf(t, sign(t, alfa.Identity, d).Content()))
	want := string(d.Header) + "MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n" +
		"\tmicalg=\"sha-256\";\r\n\tboundary=\"outer\"\r\n" +
		"Content-Transfer-Encoding: 8bit\r\n\r\n"
	if !strings.HasPrefix(mail, want) {
		t.Errorf("message begins\n%s\nwant\n%s", mail[:len(want)], want)
	}
	if !strings.HasSuffix(mail, "\r\n--outer--\r\n") {
		t.Errorf("message ends %q", mail[len(mail)-80:])
	}
	facts, err := message.ScanContent(message.Text([]byte(mail)))
	if err != nil || facts.BareLF || facts.BareCR || facts.LongestLine > 998 {
		t.Errorf("facts %+v, %v", facts, err)
	}
	if got := string(bytesOf(t, d.Entity)); strings.Count(mail, got) != 1 {
		t.Error("the entity does not stand in the message as it was")
	}
	if d.EightBit = false; !strings.Contains(mail, "name=\"smime.p7s\"") {
		t.Error("no smime.p7s")
	}
}

// TestStructureInOpenSSL looks at what others look at: algorithm identifiers,
// attributes, DER.
func TestStructureInOpenSSL(t *testing.T) {
	ca, alfa := newAlfa(t)
	p7s := p7sOf(t, bytesOf(t, sign(t, alfa.Identity, receiptDraft(t)).Content()))
	text := string(openssl(t, p7s, "cms", "-cmsout", "-print", "-inform", "DER", "-noout"))
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"signatureAlgorithm: algorithm: rsaEncryption (1.2.840.113549.1.1.1) parameter: NULL",
		"UTCTIME:Sep 19 11:41:20 2026 GMT",
		"eContentType: pkcs7-data", "eContent: <ABSENT>",
		"digestAlgorithm: algorithm: sha256 (2.16.840.1.101.3.4.2.1) parameter: <ABSENT>",
		ca.Certificate.Subject.CommonName,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !bytes.Contains(p7s, []byte("\x17\x0d260919114120Z")) {
		t.Error("the signing time is not a UTCTime in UTC")
	}
	if again := openssl(t, p7s, "cms", "-cmsout", "-inform", "DER", "-outform", "DER"); !bytes.Equal(again, p7s) {
		t.Error("OpenSSL encodes the structure otherwise: it is not DER")
	}
}

// TestSignedStaysAsItIs: what was signed does not change with the draft.
func TestSignedStaysAsItIs(t *testing.T) {
	_, alfa := newAlfa(t)
	d := receiptDraft(t)
	d.Header = append(d.Header, "X-Nome: perch\xc3\xa9\r\n"...)
	s := sign(t, alfa.Identity, d)
	d.To[0], d.Header[0] = "eve@beta.example", 'Y'
	if s.To()[0] != "alice@alfa.example" || bytesOf(t, s.Content())[0] != 'X' {
		t.Error("a signed message changed with its draft")
	}
	if !s.EightBit() {
		t.Error("octets over 127 in the header went unnoticed")
	}
	if _, err := signer.NewIdentity(signertest.Key(t, "other"), alfa.Certificate(), nil, testTime); !errors.Is(err, signer.ErrIdentity) {
		t.Errorf("certificate of another key: %v", err)
	}
}

func TestSignIsDeterministic(t *testing.T) {
	ca, alfa := newAlfa(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ca.IdentityOf(t, key, ca.Template(alfaName, alfaPost))
	for _, id := range []*signertest.Identity{alfa, ec} {
		d := receiptDraft(t)
		first := bytesOf(t, sign(t, id.Identity, d).Content())
		if again := bytesOf(t, sign(t, id.Identity, d).Content()); !bytes.Equal(first, again) {
			t.Error("two signatures over the same differ")
		}
	}
}

// hardware is a key of which only Sign is known, as of a PKCS#11 module.
type hardware struct {
	key   crypto.Signer
	used  atomic.Int32
	wrong bool
	err   error
}

func (h *hardware) Public() crypto.PublicKey { return h.key.Public() }

func (h *hardware) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	h.used.Add(1)
	if h.err != nil {
		return nil, h.err
	}
	sig, err := h.key.Sign(r, digest, opts)
	if h.wrong && err == nil {
		sig[10] ^= 1
	}
	return sig, err
}

func hardwareIdentity(t testing.TB, h *hardware) (*signertest.CA, *signer.Identity) {
	t.Helper()
	ca := signertest.NewCA(t)
	h.key = signertest.Key(t, alfaPost)
	leaf := ca.Issue(t, ca.Template(alfaName, alfaPost), h.Public())
	id, err := signer.NewIdentity(h, leaf, nil, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return ca, id
}

func TestSignWithForeignKeys(t *testing.T) {
	away := errors.New("module is away")
	for name, h := range map[string]*hardware{"good": {}, "wrong": {wrong: true}, "away": {err: away}} {
		_, id := hardwareIdentity(t, h)
		_, err := signer.NewSigner(id).Sign(receiptDraft(t))
		switch name {
		case "good":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case "away":
			if !errors.Is(err, away) || errors.Is(err, signer.ErrDraft) {
				t.Errorf("%s: %v", name, err)
			}
		case "wrong":
			if err == nil {
				t.Error("a signature that does not hold left the house")
			}
		}
	}
}

func replace(d *issue.Draft, old, new string) {
	d.Header = []byte(strings.Replace(string(d.Header), old, new, 1))
}

func inEntity(d *issue.Draft, old, new string) {
	b, _ := io.ReadAll(d.Entity.Reader())
	d.Entity = message.Text([]byte(strings.Replace(string(b), old, new, 1)))
}

func TestSignRefuses(t *testing.T) {
	h := new(hardware)
	_, id := hardwareIdentity(t, h)
	s := signer.NewSigner(id)
	eight := message.Text([]byte("Subject: x\r\n\r\n\xe8\r\n"))
	other := func(t *testing.T, change func(*pec.Event)) func(*issue.Draft) {
		return func(d *issue.Draft) {
			ev := d.Event
			ev.Recipients = append([]pec.Recipient(nil), ev.Recipients...)
			change(&ev)
			d.Entity = mixed("7bit", nil, textPart(), xmlPart(t, ev))
		}
	}
	for name, tc := range map[string]struct {
		transport bool
		change    func(d *issue.Draft)
		want      string
	}{
		"no recipients":          {change: func(d *issue.Draft) { d.To = nil }, want: "without recipients"},
		"empty sender":           {change: func(d *issue.Draft) { d.From = "" }, want: "envelope address"},
		"null sender":            {change: func(d *issue.Draft) { d.From = "<>" }, want: "envelope address"},
		"line end in recipient":  {change: func(d *issue.Draft) { d.To = []pec.Address{"a@b\r\nDATA"} }, want: "envelope address"},
		"brackets in recipient":  {change: func(d *issue.Draft) { d.To = []pec.Address{"a@b> X"} }, want: "envelope address"},
		"recipient no domain":    {change: func(d *issue.Draft) { d.To = []pec.Address{"bob"} }, want: "envelope address"},
		"no boundary":            {change: func(d *issue.Draft) { d.Boundary = "" }, want: "boundary"},
		"quote in boundary":      {change: func(d *issue.Draft) { d.Boundary = `a"b` }, want: "boundary"},
		"long boundary":          {change: func(d *issue.Draft) { d.Boundary = strings.Repeat("b", 71) }, want: "boundary"},
		"boundary in entity":     {change: func(d *issue.Draft) { inEntity(d, "Ricevuta\r\n", "\r\n--outer\r\n") }, want: "parts"},
		"boundary end in entity": {change: func(d *issue.Draft) { inEntity(d, "Ricevuta\r\n", "\r\n--outer--\r\n") }, want: "message"},

		"empty header":        {change: func(d *issue.Draft) { d.Header = nil }, want: "header"},
		"not a field":         {change: func(d *issue.Draft) { d.Header = append(d.Header, "no field\r\n"...) }, want: "not a field"},
		"empty line":          {change: func(d *issue.Draft) { d.Header = append(d.Header, "\r\n"...) }, want: "header"},
		"body in header":      {change: func(d *issue.Draft) { d.Header = append(d.Header, "\r\nX: y\r\n"...) }, want: "not a field"},
		"unended header":      {change: func(d *issue.Draft) { d.Header = append(d.Header, "X: y"...) }, want: "line end"},
		"bare LF":             {change: func(d *issue.Draft) { d.Header = append(d.Header, "X: y\n"...) }, want: "CRLF"},
		"bare CR":             {change: func(d *issue.Draft) { d.Header = append(d.Header, "X: \ry\r\n"...) }, want: "CRLF"},
		"NUL":                 {change: func(d *issue.Draft) { d.Header = append(d.Header, "X: \x00y\r\n"...) }, want: "NUL"},
		"long line":           {change: func(d *issue.Draft) { d.Header = append(d.Header, "X: "+strings.Repeat("y", 996)+"\r\n"...) }, want: "999 octets"},
		"MIME-Version":        {change: func(d *issue.Draft) { d.Header = append(d.Header, "Mime-Version: 1.0\r\n"...) }, want: "MIME field"},
		"content type":        {change: func(d *issue.Draft) { d.Header = append(d.Header, "content-type: text/plain\r\n"...) }, want: "MIME field"},
		"no date":             {change: func(d *issue.Draft) { replace(d, "Date:", "X-Date:") }, want: "0 fields Date"},
		"two subjects":        {change: func(d *issue.Draft) { d.Header = append(d.Header, "subject: y\r\n"...) }, want: "2 fields Subject"},
		"two To":              {change: func(d *issue.Draft) { d.Header = append(d.Header, "To: y@z\r\n"...) }, want: "2 fields To"},
		"two Message-ID":      {change: func(d *issue.Draft) { d.Header = append(d.Header, "message-id: <y@z>\r\n"...) }, want: "2 fields Message-ID"},
		"foreign From":        {change: func(d *issue.Draft) { replace(d, "<posta", "<altra") }, want: "From is not"},
		"second From address": {change: func(d *issue.Draft) { replace(d, "example>\r\nTo", "example>, x@y.example\r\nTo") }, want: "From is not"},
		"other Message-ID":    {change: func(d *issue.Draft) { d.MessageID = "x@alfa.example" }, want: "Message-ID"},
		"no Message-ID":       {change: func(d *issue.Draft) { d.MessageID = ""; replace(d, "<receipt@alfa.example>", "<>") }, want: "Message-ID"},
		"other second":        {change: func(d *issue.Draft) { replace(d, "13:41:20", "13:41:21") }, want: "Date"},
		"no date at all":      {change: func(d *issue.Draft) { replace(d, "Sat, 19 Sep", "soon") }, want: "Date"},

		"other kind":         {change: func(d *issue.Draft) { replace(d, "accettazione", "non-accettazione") }, want: "where the event wants"},
		"no kind":            {change: func(d *issue.Draft) { replace(d, "X-Ricevuta", "X-Altro") }, want: "where the event wants"},
		"both kinds":         {change: func(d *issue.Draft) { d.Header = append(d.Header, "X-Trasporto: errore\r\n"...) }, want: "where the event wants"},
		"kind twice":         {change: func(d *issue.Draft) { d.Header = append(d.Header, "X-Ricevuta: accettazione\r\n"...) }, want: "where the event wants"},
		"two blanks":         {change: func(d *issue.Draft) { replace(d, "X-Ricevuta: ", "X-Ricevuta:  ") }, want: "where the event wants"},
		"other case":         {change: func(d *issue.Draft) { replace(d, "X-Ricevuta", "x-ricevuta") }, want: "where the event wants"},
		"unknown kind":       {change: func(d *issue.Draft) { d.Event.Kind = "altro"; replace(d, "accettazione", "altro") }, want: "event of kind"},
		"anomaly":            {transport: true, change: func(d *issue.Draft) { replace(d, "X-Trasporto: posta-certificata", "X-Trasporto: errore") }, want: "where the event wants"},
		"receipt as its id":  {change: func(d *issue.Draft) { d.Event.Identifier = pec.Identifier(d.MessageID) }, want: "with identifier"},
		"transport other id": {transport: true, change: func(d *issue.Draft) { d.Event.Identifier = "x@y" }, want: "with identifier"},

		"not mixed":           {change: func(d *issue.Draft) { inEntity(d, "multipart/mixed", "multipart/related") }, want: "multipart/related"},
		"no text":             {change: func(d *issue.Draft) { inEntity(d, "multipart/alternative", "multipart/other") }, want: "part 1"},
		"xml by other name":   {change: func(d *issue.Draft) { inEntity(d, "filename=\"daticert.xml", "filename=\"certdata.xml") }, want: "part 2"},
		"xml of other type":   {change: func(d *issue.Draft) { inEntity(d, "application/xml", "text/xml") }, want: "part 2"},
		"xml not base64":      {change: func(d *issue.Draft) { inEntity(d, "Encoding: base64", "Encoding: 7bit") }, want: "transfer encoding"},
		"original missing":    {change: func(d *issue.Draft) { d.Original = true }, want: "3 expected"},
		"original undeclared": {transport: true, change: func(d *issue.Draft) { d.Original = false }, want: "2 expected"},
		"original's name":     {transport: true, change: func(d *issue.Draft) { inEntity(d, "filename=\"postacert", "filename=\"original") }, want: "part 3"},

		"bare LF in entity":   {transport: true, change: func(d *issue.Draft) { inEntity(d, "work\r\n", "work\n"); inEntity(d, "boy, sooner", "boy\n, sooner") }, want: "CRLF"},
		"bare CR in entity":   {transport: true, change: func(d *issue.Draft) { inEntity(d, "boy, sooner", "boy\r, sooner") }, want: "CRLF"},
		"NUL in entity":       {transport: true, change: func(d *issue.Draft) { inEntity(d, "boy, sooner", "boy\x00, sooner") }, want: "NUL"},
		"long line in entity": {transport: true, change: func(d *issue.Draft) { inEntity(d, "boy, sooner", strings.Repeat("boy", 400)) }, want: "octets"},
		"CR at the end":       {transport: true, change: func(d *issue.Draft) { d.Entity = append(d.Entity, message.Piece{Text: []byte("\r")}) }, want: "CRLF"},

		"8-bit undeclared":      {transport: true, change: func(d *issue.Draft) { inEntity(d, "boy, sooner", "boy\xe8, sooner") }, want: "over 127"},
		"8-bit in draft only":   {transport: true, change: func(d *issue.Draft) { d.EightBit = true }, want: "declared"},
		"8-bit in headers only": {transport: true, change: func(d *issue.Draft) { *d = transportDraft(t, eight, true); d.EightBit = false }, want: "declared"},
		"8-bit not in original": {transport: true, change: func(d *issue.Draft) {
			*d = transportDraft(t, eight, true)
			inEntity(d, "8bit\r\nContent-Disposition", "7bit\r\nContent-Disposition")
		}, want: "declared"},
		"binary": {transport: true, change: func(d *issue.Draft) { inEntity(d, "7bit", "binary") }, want: "declared"},

		"virus in header only": {change: func(d *issue.Draft) { d.Header = append([]byte("X-VerificaSicurezza: errore\r\n"), d.Header...) }, want: "X-VerificaSicurezza"},
		"virus in event only":  {change: func(d *issue.Draft) { d.Event.Error = pec.ErrorVirus }, want: "X-VerificaSicurezza"},
		"sender without virus": {change: func(d *issue.Draft) { d.Header = append([]byte("X-Mittente: alice@alfa.example\r\n"), d.Header...) }, want: "X-Mittente"},
		"no certification data": {change: func(d *issue.Draft) {
			d.Entity = mixed("7bit", nil, textPart(), part{xmlPart(t, d.Event).header, "bm8="})
		}, want: "certification data"},
		"other recipient":  {change: other(t, func(ev *pec.Event) { ev.Recipients[0].Address = "eve@beta.example" }), want: "Recipients"},
		"other type":       {change: other(t, func(ev *pec.Event) { ev.Recipients[0].Type = pec.External }), want: "Recipients"},
		"other subject":    {change: other(t, func(ev *pec.Event) { ev.Subject = "x" }), want: "Subject"},
		"other identifier": {change: other(t, func(ev *pec.Event) { ev.Identifier = "x@y" }), want: "Identifier"},
		"other msgid":      {change: other(t, func(ev *pec.Event) { ev.MsgID = "<x@y>" }), want: "MsgID"},
		"other provider":   {change: other(t, func(ev *pec.Event) { ev.Provider = "Beta" }), want: "Provider"},
		"other instant":    {change: other(t, func(ev *pec.Event) { ev.At = ev.At.Add(time.Second) }), want: "instant"},
		"other zone":       {change: other(t, func(ev *pec.Event) { ev.At = ev.At.UTC() }), want: "instant"},
		"other event kind": {change: other(t, func(ev *pec.Event) { ev.Kind = pec.KindTakeCharge }), want: "Kind"},
	} {
		t.Run(name, func(t *testing.T) {
			d := receiptDraft(t)
			if tc.transport {
				d = transportDraft(t, originalOf(200), false)
			}
			tc.change(&d)
			_, err := s.Sign(d)
			if !errors.Is(err, signer.ErrDraft) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a refusal with %q", err, tc.want)
			}
		})
	}
	if n := h.used.Load(); n != 0 {
		t.Errorf("the key was used %d times for drafts that were refused", n)
	}
	if _, err := s.Sign(receiptDraft(t)); err != nil || h.used.Load() != 1 {
		t.Errorf("the unchanged draft: %v", err)
	}
	// The only octets over 127 may have stood in the Message-ID that was replaced.
	if _, err := s.Sign(transportDraft(t, originalOf(10), true)); err != nil {
		t.Errorf("declared 8-bit without need: %v", err)
	}
}

// A source that counts what is read from it, and can fail.
type countingSource struct {
	message.Source
	read atomic.Int64
	err  error
	from int64 // err comes from this offset on
}

func (c *countingSource) ReadAt(p []byte, off int64) (int, error) {
	if c.err != nil && off >= c.from {
		return 0, c.err
	}
	c.read.Add(int64(len(p)))
	return c.Source.ReadAt(p, off)
}

func TestSignReadsTheOriginalTwice(t *testing.T) {
	_, alfa := newAlfa(t)
	original := bytesOf(t, originalOf(3_000_000))
	src := &countingSource{Source: message.Bytes(original)}
	d := transportDraft(t, message.Section(src, message.Range{Len: src.Size()}), false)
	sign(t, alfa.Identity, d)
	if n := src.read.Load(); n > 2*src.Size()+src.Size()/10 {
		t.Errorf("%d octets read of an original of %d", n, src.Size())
	}
	src.err = errors.New("disk on fire")
	for _, src.from = range []int64{0, 1_000_000} {
		if _, err := signer.NewSigner(alfa.Identity).Sign(d); !errors.Is(err, src.err) || errors.Is(err, signer.ErrDraft) {
			t.Errorf("a read error from %d on became %v", src.from, err)
		}
	}
}

// TestSignRefusesEveryOtherField: a draft whose certification data differ from
// its event in any one field is refused before the key is used.
func TestSignRefusesEveryOtherField(t *testing.T) {
	h := new(hardware)
	_, id := hardwareIdentity(t, h)
	s := signer.NewSigner(id)
	for i, fields := 0, reflect.TypeFor[pec.Event](); i < fields.NumField(); i++ {
		name := fields.Field(i).Name
		for _, ev := range othersIn(t, name) {
			d := receiptDraft(t)
			data, err := daticert.Marshal(ev)
			if name != "Kind" && err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			d.Entity = mixed("7bit", nil, textPart(), xmlPart(t, ev))
			if _, err := s.Sign(d); !errors.Is(err, signer.ErrDraft) || !strings.Contains(err.Error(), "certification data") {
				t.Errorf("another %s: %v\n%s", name, err, data)
			}
			// And as others write it, which is read in another way.
			spaced := strings.Replace(string(data), "<dati>", "<dati><!-- -->", 1)
			xml := base64.StdEncoding.EncodeToString([]byte(spaced))
			d.Entity = mixed("7bit", nil, textPart(), part{xmlPart(t, ev).header, xml + "\r\n"})
			if len(xml) > 998 {
				d.Entity = mixed("7bit", nil, textPart(), part{xmlPart(t, ev).header, xml[:996] + "\r\n" + xml[996:] + "\r\n"})
			}
			if _, err := s.Sign(d); !errors.Is(err, signer.ErrDraft) || !strings.Contains(err.Error(), "certification data") {
				t.Errorf("another %s, spaced: %v\n%s", name, err, data)
			}
		}
	}
	if h.used.Load() != 0 {
		t.Error("the key was used")
	}
}

// othersIn returns events that are acceptance() but for the field name.
func othersIn(t *testing.T, name string) (others []pec.Event) {
	add := func(change func(*pec.Event)) {
		ev := acceptance()
		ev.Recipients = slices.Clone(ev.Recipients)
		change(&ev)
		others = append(others, ev)
	}
	switch name {
	case "Kind":
		add(func(ev *pec.Event) { ev.Kind = pec.KindNonAcceptance })
	case "At":
		add(func(ev *pec.Event) { ev.At = ev.At.Add(time.Second) })
		add(func(ev *pec.Event) { ev.At = ev.At.In(time.FixedZone("", 3600)) })
		add(func(ev *pec.Event) { ev.At = ev.At.Add(time.Hour).In(time.FixedZone("", 3*3600)) })
	case "Recipients":
		add(func(ev *pec.Event) { ev.Recipients[0].Address = "eve@beta.example" })
		add(func(ev *pec.Event) { ev.Recipients[0].Type = pec.External })
		add(func(ev *pec.Event) { ev.Recipients = append(ev.Recipients, ev.Recipients[0]) })
	case "Receipt":
		add(func(ev *pec.Event) { ev.Receipt = pec.Brief })
	case "Taken":
		add(func(ev *pec.Event) { ev.Taken = []pec.Address{"bob@beta.example"} })
	case "Error":
		add(func(ev *pec.Event) { ev.Error = pec.ErrorOther })
	default: // the others are texts
		add(func(ev *pec.Event) {
			f := reflect.ValueOf(ev).Elem().FieldByName(name)
			f.SetString(f.String() + "x")
		})
		if slices.Contains([]string{"MsgID", "Subject"}, name) {
			add(func(ev *pec.Event) { reflect.ValueOf(ev).Elem().FieldByName(name).SetString("") })
		}
	}
	return others
}

// TestSignReadsASmallOriginalOnce: what is checked and what is signed are the same
// octets, also if the source says something else when it is read again.
func TestSignReadsASmallOriginalOnce(t *testing.T) {
	ca, alfa := newAlfa(t)
	for _, size := range []int{0, 10_000, 60_000} {
		original := bytesOf(t, originalOf(size))
		src := &countingSource{Source: message.Bytes(original)}
		d := transportDraft(t, message.Section(src, message.Range{Len: src.Size()}), false)
		s := sign(t, alfa.Identity, d)
		if n := src.read.Load(); n != src.Size() {
			t.Errorf("%d octets read of an original of %d", n, src.Size())
		}
		checkWithOthers(t, ca, s, bytesOf(t, d.Entity))
		src.err = errors.New("disk on fire")
		if _, err := signer.NewSigner(alfa.Identity).Sign(d); !errors.Is(err, src.err) || errors.Is(err, signer.ErrDraft) {
			t.Errorf("a read error became %v", err)
		}
	}
	short := transportDraft(t, message.Section(message.Bytes("Subject: x\r\n\r\n"), message.Range{Len: 1000}), false)
	if _, err := signer.NewSigner(alfa.Identity).Sign(short); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, signer.ErrDraft) {
		t.Errorf("a source that ends early: %v", err)
	}
}

// TestSignAroundABlock: messages that just fit, and just do not.
func TestSignAroundABlock(t *testing.T) {
	ca, alfa := newAlfa(t)
	empty := transportDraft(t, nil, false)
	around := sign(t, alfa.Identity, empty).Content().Size() - empty.Entity.Size()
	for size := 64<<10 - int(around) - 3000; size < 64<<10; size += 700 {
		body := strings.Repeat("0123456789abc\r\n", size/15)
		d := transportDraft(t, message.Text([]byte("Subject: x\r\n\r\n"+body)), false)
		r, err := signer.NewVerifier(ca.Pool()).Verify(read(t, bytesOf(t, sign(t, alfa.Identity, d).Content())), testTime)
		if err != nil || !r.ContentIntact {
			t.Errorf("%d octets: %v", size, err)
		}
	}
}

// TestOutsideValidity: what nobody could verify is not signed: before the
// certificate begins, which a clock set back does, and after it has ended.
func TestOutsideValidity(t *testing.T) {
	ca := signertest.NewCA(t)
	at := testTime.Truncate(time.Second)
	for name, tc := range map[string]struct {
		from, to time.Time
		good     bool
	}{
		"now":       {at.Add(-time.Hour), at.Add(time.Hour), true},
		"not yet":   {at.Add(time.Minute), at.Add(time.Hour), false},
		"not again": {at.Add(-time.Hour), at.Add(-time.Minute), false},
	} {
		tmpl := ca.Template(alfaName, alfaPost)
		tmpl.NotBefore, tmpl.NotAfter = tc.from, tc.to
		id := ca.IdentityOf(t, signertest.Key(t, alfaPost), tmpl)
		_, err := signer.NewSigner(id.Identity).Sign(receiptDraft(t))
		if tc.good && err != nil || !tc.good && !errors.Is(err, signer.ErrIdentity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
