package signer_test

import (
	"bytes"
	"errors"
	"testing"

	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/signertest"
)

// records are those of id's provider: a main and a secondary environment.
func records(id *signertest.Identity) []directory.Provider {
	return []directory.Provider{
		{Name: alfaName, Certificates: [][]byte{id.Certificate().Raw}, ServiceMailbox: "ricevute@alfa.example",
			Domains: []string{"alfa.example"}, LDIFLocationURL: "https://alfa.example/pec.ldif.p7m"},
		{Name: alfaName, Unit: "due", Certificates: [][]byte{id.Certificate().Raw}, ServiceMailbox: "ricevute@due.example",
			Domains: []string{"due.example"}},
	}
}

// TestSignRecords: OpenSSL and we read the same out of it.
func TestSignRecords(t *testing.T) {
	ca, alfa := newAlfa(t)
	p7m, err := signer.NewSigner(alfa.Identity).SignRecords(t.Context(), records(alfa), testTime)
	if err != nil {
		t.Fatal(err)
	}
	content := openssl(t, p7m, "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", ca.File, "-purpose", "any")
	d, err := directory.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := d.Signer(alfa.Certificate().Raw, "due.example"); !ok || p.Unit != "due" || len(d.Named(alfaName)) != 2 {
		t.Errorf("%+v", p)
	}
	got, report, err := signer.NewVerifier(ca.Pool()).OpenData(t.Context(), p7m, testTime)
	if err != nil || !bytes.Equal(got, content) || !report.Signer.Equal(alfa.Certificate()) {
		t.Errorf("%q, %v", got, err)
	}
	if want := testTime.UTC().Truncate(1e9); !report.SigningTime.Equal(want) {
		t.Errorf("signed at %s, want %s", report.SigningTime, want)
	}
	again, err := signer.NewSigner(alfa.Identity).SignRecords(t.Context(), records(alfa), testTime)
	if err != nil || !bytes.Equal(again, p7m) {
		t.Errorf("not the same twice: %v", err)
	}
	altered := bytes.Replace(p7m, []byte("due.example"), []byte("tre.example"), 1)
	if _, err := tryOpenSSL(altered, "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", ca.File, "-purpose", "any"); err == nil {
		t.Error("OpenSSL takes an altered one")
	}
}

// TestSignRecordsRefuses: the key signs records of its own provider and nothing
// else.
func TestSignRecordsRefuses(t *testing.T) {
	ca, alfa := newAlfa(t)
	beta := ca.Identity(t, "Beta", "posta-certificata@beta.example")
	for name, change := range map[string]func([]directory.Provider) []directory.Provider{
		"none":                func([]directory.Provider) []directory.Provider { return nil },
		"of two providers":    func(r []directory.Provider) []directory.Provider { r[1].Name, r[1].Unit = "Beta", ""; return r },
		"certificate":         func([]directory.Provider) []directory.Provider { return records(beta) },
		"not a record":        func(r []directory.Provider) []directory.Provider { r[0].ServiceMailbox = "nobody"; return r },
		"hash of another":     func(r []directory.Provider) []directory.Provider { r[0].Hashes = []string{"00"}; return r },
		"domain stands twice": func(r []directory.Provider) []directory.Provider { r[1].Domains = r[0].Domains; return r },
	} {
		p7m, err := signer.NewSigner(alfa.Identity).SignRecords(t.Context(), change(records(alfa)), testTime)
		if !errors.Is(err, signer.ErrRecords) || p7m != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenDataRefuses(t *testing.T) {
	ca, alfa := newAlfa(t)
	v := signer.NewVerifier(ca.Pool())
	for name, tc := range map[string]struct {
		p7m  []byte
		v    *signer.Verifier
		want error
	}{
		"not CMS":    {[]byte("dn: o=postacert\n"), v, signer.ErrMalformedSignature},
		"broken PEM": {[]byte("-----BEGIN PKCS7-----\nAAAA\n"), v, signer.ErrMalformedSignature},
		"detached":   {cmsSign(t, alfa, []byte("x")), v, signer.ErrMalformedSignature},
		"large":      {make([]byte, signer.MaxSignedFile+1), v, signer.ErrMalformedSignature},
		"other CA":   {cmsSign(t, alfa, []byte("x"), "-nodetach"), signer.NewVerifier(signertest.NewCA(t).Pool()), signer.ErrUntrusted},
		"policy":     {cmsSign(t, alfa, []byte("x"), "-nodetach"), v.WithPolicy(signer.Policy{}), signer.ErrWeak},
	} {
		if content, _, err := tc.v.OpenData(t.Context(), tc.p7m, testTime); !errors.Is(err, tc.want) || content != nil {
			t.Errorf("%s: %q, %v, want %v", name, content, err, tc.want)
		}
	}
}
