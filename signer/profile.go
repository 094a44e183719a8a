package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Severity says whether a Finding stands in the way of signing.
type Severity string

const (
	SeverityError   Severity = "error"   // what is signed would be worthless: pecd does not start
	SeverityWarning Severity = "warning" // some receivers may object, or something is due
)

// A Finding is one way in which a certificate is not what the profile wants
// (RFC 6109, 5.5), in plain English.
type Finding struct {
	Severity Severity
	What     string // what is wrong
	Why      string // what comes of it, or which rule says so
	Fix      string // what to do
}

// String returns the finding in one line.
func (f Finding) String() string { return f.What + "; " + f.Fix }

// renewBefore is how long before its end a certificate is to be renewed.
const renewBefore = 30 * 24 * time.Hour

// CheckProfile holds a provider's certificate against RFC 6109, 5.5 and what
// providers' certificates have today, at the instant now. Errors come first.
func CheckProfile(cert *x509.Certificate, now time.Time) []Finding {
	var found []Finding
	for _, check := range []func(*x509.Certificate) []Finding{checkKey, checkMailAddress, checkUsage, checkAuthority, checkExtensions, checkSubject} {
		found = append(found, check(cert)...)
	}
	found = append(found, checkValidity(cert, now)...)
	slices.SortStableFunc(found, func(a, b Finding) int { return strings.Compare(string(a.Severity), string(b.Severity)) })
	return found
}

// profileError returns the first error of CheckProfile as an error.
func profileError(cert *x509.Certificate, now time.Time) error {
	if found := CheckProfile(cert, now); len(found) > 0 && found[0].Severity == SeverityError {
		return errors.New(found[0].String())
	}
	return nil
}

func checkKey(cert *x509.Certificate) []Finding {
	var found []Finding
	if err := checkKeyStrength(cert.PublicKey); err != nil {
		found = append(found, Finding{SeverityError, err.Error(), "receivers refuse signatures by such keys",
			"have the certificate issued for an RSA key of 2048 bits or more, or an ECDSA key on P-256"})
	}
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		found = append(found, Finding{SeverityError, fmt.Sprintf("the certificate itself is signed by %s", cert.SignatureAlgorithm),
			"receivers do not trust certificates that are signed so", "have it issued again with SHA-256"})
	}
	return found
}

// minRSABits is the shortest RSA key that signs: the one of the profile that
// providers use today.
const minRSABits = 2048

func checkKeyStrength(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits {
			return fmt.Errorf("the RSA key has %d bits, not %d or more", n, minRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("the key is on curve %s, not P-256", k.Curve.Params().Name)
		}
	default:
		return errors.New("the key is neither RSA nor ECDSA")
	}
	return nil
}

// checkMailAddress: RFC 6109, 5.5.1.
func checkMailAddress(cert *x509.Certificate) []Finding {
	var found []Finding
	if len(cert.EmailAddresses) == 0 {
		found = append(found, Finding{SeverityError, "the certificate names no e-mail address (subjectAltName rfc822Name)",
			"receivers compare it with the address that receipts come from", "have it issued with that address"})
	}
	for _, name := range cert.Subject.Names {
		if name.Type.Equal(oidEmailAddress) {
			found = append(found, Finding{SeverityWarning, "the subject holds an e-mail address",
				"RFC 6109, 5.5.1 wants it in subjectAltName alone", "have the next certificate issued without it"})
		}
	}
	return found
}

// checkUsage: RFC 6109, 5.5.2.
func checkUsage(cert *x509.Certificate) []Finding {
	var found []Finding
	critical, present := extension(cert, oidKeyUsage)
	switch {
	case !present:
		found = append(found, Finding{SeverityWarning, "the certificate has no key usage", "RFC 6109, 5.5.2 wants it, critical, with digitalSignature",
			"have the next certificate issued with it"})
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		found = append(found, Finding{SeverityError, "the certificate's key usage lacks digitalSignature", "receivers refuse its signatures",
			"have it issued for signing"})
	case !critical:
		found = append(found, Finding{SeverityWarning, "the certificate's key usage is not critical", "RFC 6109, 5.5.2 wants it so",
			"have the next certificate issued so"})
	}
	switch {
	case !forMail(cert):
		found = append(found, Finding{SeverityError, "the certificate's extended key usage lacks emailProtection", "receivers refuse its signatures",
			"have it issued for e-mail"})
	case len(cert.ExtKeyUsage) == 0:
		found = append(found, Finding{SeverityWarning, "the certificate has no extended key usage", "providers' certificates have emailProtection",
			"have the next certificate issued with it"})
	}
	return found
}

// checkAuthority: the certificate is no authority's; RFC 6109, 5.5.2.
func checkAuthority(cert *x509.Certificate) []Finding {
	switch _, present := extension(cert, oidBasicConstraints); {
	case cert.IsCA:
		return []Finding{{SeverityError, "the certificate is that of an authority", "a key that issues certificates must not lie on a mail server",
			"have one issued for the provider, and take this key away from here"}}
	case present:
		return []Finding{{SeverityWarning, "the certificate has basic constraints", "RFC 6109, 5.5.2 does not want them",
			"have the next certificate issued without them"}}
	}
	return nil
}

// checkExtensions looks at what must be there, what should be, and what must not
// be critical.
func checkExtensions(cert *x509.Certificate) []Finding {
	var found []Finding
	if len(cert.UnhandledCriticalExtensions) > 0 {
		found = append(found, Finding{SeverityError, fmt.Sprintf("the certificate has the critical extension %s", cert.UnhandledCriticalExtensions[0]),
			"receivers must refuse what they do not know", "have it issued without it"})
	}
	for _, e := range []struct {
		oid       asn1.ObjectIdentifier
		name, why string
	}{
		{oidAuthorityKeyID, "authority key identifier", "RFC 6109, 5.5.2 wants it"},
		{oidSubjectKeyID, "subject key identifier", "RFC 6109, 5.5.2 wants it"},
		{oidCRLDistributionPoints, "CRL distribution point", "receivers cannot find out whether it was revoked"},
		{oidCertificatePolicies, "certificate policy", "providers' certificates name the authority's"},
	} {
		critical, present := extension(cert, e.oid)
		switch {
		case !present:
			found = append(found, Finding{SeverityWarning, "the certificate has no " + e.name, e.why, "have the next certificate issued with it"})
		case critical:
			found = append(found, Finding{SeverityWarning, "the certificate's " + e.name + " is critical", "RFC 6109, 5.5.2 does not want it so",
				"have the next certificate issued otherwise"})
		}
	}
	if critical, _ := extension(cert, oidSubjectAltName); critical {
		found = append(found, Finding{SeverityWarning, "the certificate's subjectAltName is critical", "RFC 6109, 5.5.2 does not want it so",
			"have the next certificate issued otherwise"})
	}
	return found
}

// checkSubject: RFC 6109, 5.5.1. Whether the name is that of the directory is
// for whoever has the directory.
func checkSubject(cert *x509.Certificate) []Finding {
	if cert.Subject.CommonName == "" && len(cert.Subject.Organization) == 0 {
		return []Finding{{SeverityWarning, "the subject has neither common name nor organization", "one of them is the provider's name as in the directory",
			"have the next certificate issued with it"}}
	}
	return nil
}

func checkValidity(cert *x509.Certificate, now time.Time) []Finding {
	switch {
	case now.Before(cert.NotBefore):
		return []Finding{{SeverityError, "the certificate is valid only from " + cert.NotBefore.UTC().Format(time.RFC3339),
			"receivers refuse signatures from before", "check the clock of this machine or wait"}}
	case now.After(cert.NotAfter):
		return []Finding{{SeverityError, "the certificate expired on " + cert.NotAfter.UTC().Format(time.RFC3339),
			"receivers refuse signatures from after", "renew it before starting"}}
	case cert.NotAfter.Sub(now) < renewBefore:
		return []Finding{{SeverityWarning, "the certificate expires on " + cert.NotAfter.UTC().Format(time.RFC3339),
			"pecd does not start with an expired one", "have it renewed; both can be configured, with the date of the change"}}
	}
	return nil
}

// Object identifiers of extensions; RFC 5280, 4.2.1.
var (
	oidSubjectKeyID          = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage              = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName        = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints      = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints       = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCRLDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidCertificatePolicies   = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID        = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidEmailAddress          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier) (critical, present bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Critical, true
		}
	}
	return false, false
}
