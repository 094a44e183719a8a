package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/verify"
	"pecd/pec/issue"
	"pecd/points/pointstest"
	"pecd/signer"
	"pecd/signer/signertest"
)

// list writes a revocation list of ca; revoked has serial numbers and since when.
func (o office) list(ca *signertest.CA, number int64, from, to time.Time, revoked map[*big.Int]time.Time, more ...pkix.Extension) string {
	o.t.Helper()
	return write(o.t, filepath.Join(o.t.TempDir(), "list.crl"), o.listDER(ca, number, from, to, revoked, more...))
}

func (o office) listDER(ca *signertest.CA, number int64, from, to time.Time, revoked map[*big.Int]time.Time, more ...pkix.Extension) []byte {
	o.t.Helper()
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: from, NextUpdate: to, ExtraExtensions: more}
	for serial, since := range revoked {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: since})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.Certificate, ca.Key)
	if err != nil {
		o.t.Fatal(err)
	}
	return der
}

// bare runs without the CA of the office.
func (o office) bare(opts verify.Options) error {
	if opts.CA == "-" {
		opts.CA = ""
	}
	_, err := verify.Run(context.Background(), opts, nil, verify.Streams{In: strings.NewReader(""), Out: new(bytes.Buffer), Err: new(bytes.Buffer), Clock: clock})
	return err
}

// watch runs with a terminal.
func (o office) watch(clock func() time.Time, path string) (out, terminal string) {
	o.t.Helper()
	var b, term bytes.Buffer
	if _, err := verify.Run(context.Background(), verify.Options{CA: o.CA.File}, []string{path},
		verify.Streams{Out: &b, Err: new(bytes.Buffer), Progress: &term, Clock: clock}); err != nil {
		o.t.Fatal(err)
	}
	return b.String(), term.String()
}

// shortLived gives Alfa a certificate that ends a month after its receipts.
func (o office) shortLived() {
	o.t.Helper()
	tmpl := o.CA.Template("Alfa PEC S.p.A.", "posta-certificata@alfa.example")
	tmpl.NotAfter = pointstest.At.AddDate(0, 1, 0)
	identity := o.CA.IdentityOf(o.t, signertest.Key(o.t, "posta-certificata@alfa.example"), tmpl)
	o.Alfa.Identity, o.Alfa.Signer = identity, signer.NewSigner(identity.Identity)
	o.Alfa.Issuer = issue.Issuer{Name: "Alfa PEC S.p.A.", Address: identity.Address()}
}

func TestRevocation(t *testing.T) {
	o := newOffice(t)
	o.shortLived()
	file := write(t, filepath.Join(t.TempDir(), "receipt.eml"), o.acceptance())
	serial := o.Alfa.Identity.Certificate().SerialNumber
	at := pointstest.At
	day := 24 * time.Hour
	revoked := func(since time.Time) map[*big.Int]time.Time { return map[*big.Int]time.Time{serial: since} }
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	expired, err := asn1.MarshalWithParams(at.UTC().AddDate(-1, 0, 0), "generalized")
	if err != nil {
		t.Fatal(err)
	}
	keeps := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 60}, Value: expired}
	onlyCA := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x82, 1, 0xff}}
	elsewhere := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true,
		Value: []byte("\x30\x0e\xa0\x0c\xa0\x0a\x86\x08http://x")}
	other := signertest.NewCA(t)
	for name, tt := range map[string]struct {
		lists []string
		state string
		says  string
	}{
		"none given":         {nil, "unchecked", "not checked"},
		"not in it":          {[]string{o.list(o.CA, 1, at.Add(-day), at.Add(day), nil)}, "good", "not revoked at that instant"},
		"later list":         {[]string{o.list(o.CA, 1, at.Add(day), at.Add(2*day), nil)}, "good", ""},
		"revoked before":     {[]string{o.list(o.CA, 1, at.Add(day), at.Add(2*day), revoked(at.Add(-time.Minute)))}, "revoked", "REVOKED"},
		"revoked after":      {[]string{o.list(o.CA, 1, at.Add(day), at.Add(2*day), revoked(at.Add(time.Minute)))}, "good", "was revoked later"},
		"outdated":           {[]string{o.list(o.CA, 1, at.Add(-2*day), at.Add(-day), nil)}, "unknown", "ended on"},
		"after its end":      {[]string{o.list(o.CA, 1, at.AddDate(0, 2, 0), at.AddDate(0, 3, 0), nil)}, "unknown", "after the certificate had expired"},
		"keeps what expired": {[]string{o.list(o.CA, 1, at.AddDate(0, 2, 0), at.AddDate(0, 3, 0), nil, keeps)}, "good", ""},
		"of authorities":     {[]string{o.list(o.CA, 1, at.Add(-day), at.Add(day), nil, onlyCA)}, "unknown", "no list of"},
		"of another point":   {[]string{o.list(o.CA, 1, at.Add(-day), at.Add(day), nil, elsewhere)}, "unknown", "no list of"},
		"another's":          {[]string{o.list(other, 1, at.Add(-day), at.Add(day), revoked(at.Add(-day)))}, "unknown", "no list of"},
		"two":                {[]string{o.list(o.CA, 1, at.Add(-day), at.Add(day), nil), o.list(o.CA, 2, at, at.Add(day), revoked(at.Add(-day)))}, "revoked", ""},
	} {
		t.Run(name, func(t *testing.T) {
			opts := verify.Options{CRLs: tt.lists}
			a := o.ask(opts, "", file)
			r := a.verdicts[0].Signature.Revocation
			if r.State != tt.state || a.held != (tt.state == "good" || tt.state == "unchecked") {
				t.Errorf("held %v, %+v %v", a.held, r, a.verdicts[0].Problems)
			}
			if text := o.run(opts, "", file).out; !strings.Contains(text, tt.says) {
				t.Errorf("no %q in\n%s", tt.says, text)
			}
		})
	}
	if a := o.run(verify.Options{CRLs: []string{o.list(o.CA, 1, at.Add(-day), at.Add(day), nil, delta)}}, "", file); a.err == nil {
		t.Error("a delta list was taken")
	}
}

// TestAt judges one receipt at instants at which its certificate was valid and
// was not.
func TestAt(t *testing.T) {
	o := newOffice(t)
	o.shortLived()
	file := write(t, filepath.Join(t.TempDir(), "receipt.eml"), o.acceptance())
	for at, want := range map[string]struct {
		held bool
		by   string
	}{
		"":                          {true, "certified"},
		"2026-12-01":                {true, "option"},
		"2026-12-01T10:00:00+01:00": {true, "option"},
		"2027-06-01 10:00":          {false, "option"},
	} {
		a := o.ask(verify.Options{At: at}, "", file)
		if v := a.verdicts[0]; a.held != want.held || v.JudgedBy != want.by || v.JudgedAt == nil {
			t.Errorf("%q: held %v, judged by %s at %v: %v", at, a.held, v.JudgedBy, v.JudgedAt, v.Problems)
		}
	}
	if v := o.ask(verify.Options{}, "", file).verdicts[0]; !v.JudgedAt.Equal(pointstest.At) || len(v.Signature.Chain) != 2 {
		t.Errorf("judged at %v, chain %v", v.JudgedAt, v.Signature.Chain)
	}
	if v := o.ask(verify.Options{At: "2026-12-01"}, "", file).verdicts[0]; v.JudgedAt.Format(time.RFC3339) != "2026-12-01T00:00:00+01:00" {
		t.Errorf("judged at %v", v.JudgedAt)
	}
}

// TestCarriedList puts a revocation list into the signature of a receipt.
func TestCarriedList(t *testing.T) {
	o := newOffice(t)
	at := pointstest.At
	serial := o.Alfa.Identity.Certificate().SerialNumber
	for since, want := range map[time.Time]string{at.Add(-time.Hour): "revoked", at.Add(time.Hour): "good"} {
		crl := o.listDER(o.CA, 1, at.Add(2*time.Hour), at.Add(48*time.Hour), map[*big.Int]time.Time{serial: since})
		file := write(t, filepath.Join(t.TempDir(), "receipt.eml"), withList(t, o.acceptance(), crl))
		a := o.ask(verify.Options{}, "", file)
		if r := a.verdicts[0].Signature.Revocation; r.State != want || a.held != (want == "good") || !strings.Contains(r.Detail, "in the message") {
			t.Errorf("held %v, %+v %v", a.held, r, a.verdicts[0].Problems)
		}
	}
}

// withList adds crl to the SignedData of a message.
func withList(t *testing.T, raw, crl []byte) []byte {
	t.Helper()
	i := bytes.LastIndex(raw, []byte("\r\n\r\n"))
	head, rest := raw[:i+4], raw[i+4:]
	text, tail, found := bytes.Cut(rest, []byte("\r\n--"))
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\r\n", ""))
	if err != nil || !found {
		t.Fatalf("%v %v", err, found)
	}
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version            int
			Digests, Content   asn1.RawValue
			Certificates, CRLs asn1.RawValue `asn1:"optional"`
			Signers            asn1.RawValue `asn1:"optional"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	c := &outer.Content
	if len(c.Signers.FullBytes) != 0 {
		t.Fatal("there is a list already")
	}
	c.Signers = c.CRLs
	c.CRLs = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: crl}
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.Write(head)
	for s := base64.StdEncoding.EncodeToString(der); s != ""; {
		n := min(64, len(s))
		fmt.Fprintf(&b, "%s\r\n", s[:n])
		s = s[n:]
	}
	return append([]byte(strings.TrimSuffix(b.String(), "\r\n")+"\r\n--"), tail...)
}
