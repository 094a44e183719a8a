package signer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// goodTemplate is a certificate as providers have them.
func goodTemplate(t testing.TB, ca *signertest.CA) *x509.Certificate {
	t.Helper()
	tmpl := ca.Template(alfaName, alfaPost)
	tmpl.AuthorityKeyId = []byte{1, 2, 3}
	tmpl.CRLDistributionPoints = []string{"http://ca.example/CRL"}
	policy, err := x509.OIDFromInts([]uint64{1, 3, 76, 16, 3, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	tmpl.Policies = []x509.OID{policy}
	return tmpl
}

// TestCheckProfile: each departure from the profile is one finding, and says
// what, why and what to do.
func TestCheckProfile(t *testing.T) {
	ca := signertest.NewCA(t)
	ca.Certificate.SubjectKeyId = []byte{1, 2, 3}
	key := signertest.Key(t, alfaPost)
	if found := signer.CheckProfile(ca.Issue(t, goodTemplate(t, ca), key.Public()), testTime); len(found) > 0 {
		t.Errorf("a good certificate: %v", found)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	extra := func(critical bool, oid ...int) pkix.Extension {
		return pkix.Extension{Id: oid, Critical: critical, Value: []byte{0x30, 0}}
	}
	for name, tc := range map[string]struct {
		change   func(*x509.Certificate)
		key      any
		severity signer.Severity
		what     string
	}{
		"expired":      {func(c *x509.Certificate) { c.NotAfter = testTime.Add(-time.Second) }, nil, signer.SeverityError, "expired"},
		"early":        {func(c *x509.Certificate) { c.NotBefore = testTime.Add(time.Hour) }, nil, signer.SeverityError, "valid only from"},
		"29 days left": {func(c *x509.Certificate) { c.NotAfter = testTime.AddDate(0, 0, 29) }, nil, signer.SeverityWarning, "expires on"},
		"no address":   {func(c *x509.Certificate) { c.EmailAddresses, c.DNSNames = nil, []string{"alfa.example"} }, nil, signer.SeverityError, "names no e-mail address"},
		"key usage":    {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, nil, signer.SeverityError, "digitalSignature"},
		"no key usage": {func(c *x509.Certificate) { c.KeyUsage = 0 }, nil, signer.SeverityWarning, "no key usage"},
		"soft key usage": {func(c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 0x80}}}
		}, nil, signer.SeverityWarning, "not critical"},
		"web server":      {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, nil, signer.SeverityError, "emailProtection"},
		"no extended use": {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, nil, signer.SeverityWarning, "no extended key usage"},
		"authority":       {func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, nil, signer.SeverityError, "authority"},
		"constraints":     {func(c *x509.Certificate) { c.BasicConstraintsValid = true }, nil, signer.SeverityWarning, "basic constraints"},
		"1024 bits":       {nil, small.Public(), signer.SeverityError, "1024 bits"},
		"P-384":           {nil, curve.Public(), signer.SeverityError, "P-384"},
		"no CRL":          {func(c *x509.Certificate) { c.CRLDistributionPoints = nil }, nil, signer.SeverityWarning, "CRL distribution point"},
		"no policy":       {func(c *x509.Certificate) { c.Policies = nil }, nil, signer.SeverityWarning, "certificate policy"},
		"critical policy": {func(c *x509.Certificate) {
			c.Policies = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Critical: true, Value: []byte{0x30, 6, 0x30, 4, 6, 2, 0x2a, 3}}}
		}, nil, signer.SeverityWarning, "policy is critical"},
		"unknown": {func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{extra(true, 1, 2, 3, 4)} }, nil, signer.SeverityError, "critical extension 1.2.3.4"},
		"no name": {func(c *x509.Certificate) { c.Subject = pkix.Name{Country: []string{"IT"}} }, nil, signer.SeverityWarning, "neither common name"},
		"address in name": {func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: alfaPost}}
		}, nil, signer.SeverityWarning, "subject holds an e-mail address"},
		"signed by SHA-1": {func(c *x509.Certificate) { c.URIs = []*url.URL{} }, nil, signer.SeverityError, "SHA1"},
	} {
		tmpl := goodTemplate(t, ca)
		if tc.change != nil {
			tc.change(tmpl)
		}
		if tc.key == nil {
			tc.key = key.Public()
		}
		cert := ca.Issue(t, tmpl, tc.key)
		if name == "signed by SHA-1" { // crypto/x509 signs none
			cert.SignatureAlgorithm = x509.ECDSAWithSHA1
		}
		found := signer.CheckProfile(cert, testTime)
		if len(found) != 1 || found[0].Severity != tc.severity || !strings.Contains(found[0].What, tc.what) || found[0].Why == "" || found[0].Fix == "" {
			t.Errorf("%s: %+v", name, found)
		}
	}
	bad := goodTemplate(t, ca)
	bad.KeyUsage, bad.CRLDistributionPoints, bad.NotAfter = x509.KeyUsageCRLSign, nil, testTime.AddDate(0, 0, 1)
	found := signer.CheckProfile(ca.Issue(t, bad, key.Public()), testTime)
	if len(found) != 3 || !slices.IsSortedFunc(found, func(a, b signer.Finding) int { return strings.Compare(string(a.Severity), string(b.Severity)) }) {
		t.Errorf("%v", found)
	}
}
