package signer

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// checkChain returns the chains from cert to an anchor at the instant at.
// crypto/x509 builds them and checks signatures, validity, that authorities may
// sign certificates, usage for e-mail and the constraints of mail addresses. What
// it leaves out is checked here: the constraints of directory names.
func (v *Verifier) checkChain(cert *x509.Certificate, others []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range others {
		intermediates.AddCert(withNameConstraints(c))
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots:         v.anchors,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return nil, fmt.Errorf("%w: %w", ErrExpired, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	var good [][]*x509.Certificate
	for _, chain := range chains {
		if bad := checkDirectoryNames(chain); bad != nil {
			err = fmt.Errorf("%w: %w", ErrUntrusted, bad)
			continue
		}
		good = append(good, chain)
	}
	if len(good) == 0 {
		return nil, err
	}
	return good, nil
}

// checkDirectoryNames holds every subject in chain against the issuers above it.
func checkDirectoryNames(chain []*x509.Certificate) error {
	for i, ca := range chain[1:] {
		names, present, err := directoryConstraints(ca)
		if err != nil {
			return err
		}
		if !present {
			continue
		}
		for j, c := range chain[:i+1] {
			selfIssued := j > 0 && slices.Equal(c.RawSubject, c.RawIssuer)
			if !selfIssued && !names.allow(c.RawSubject) {
				return fmt.Errorf("%.100q may not vouch for the name %.200q", ca.Subject.String(), c.Subject.String())
			}
		}
	}
	return nil
}

// nameConstraints are those of directory names; RFC 5280, 4.2.1.10.
type nameConstraints struct{ permitted, excluded []pkix.RDNSequence }

// allow reports whether a subject, in DER, is in a permitted subtree, if there
// are any, and in no excluded one. No subject at all is not constrained.
func (n nameConstraints) allow(subject []byte) bool {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(subject, &name); err != nil || len(rest) > 0 {
		return false
	}
	if len(name) == 0 {
		return true
	}
	under := func(base pkix.RDNSequence) bool { return isUnder(name, base) }
	return !slices.ContainsFunc(n.excluded, under) && (len(n.permitted) == 0 || slices.ContainsFunc(n.permitted, under))
}

// isUnder reports whether name begins with all of base.
func isUnder(name, base pkix.RDNSequence) bool {
	if len(base) > len(name) {
		return false
	}
	for i, set := range base {
		if len(set) != len(name[i]) {
			return false
		}
		for _, a := range set {
			if !slices.ContainsFunc(name[i], func(b pkix.AttributeTypeAndValue) bool { return sameAttribute(a, b) }) {
				return false
			}
		}
	}
	return true
}

// sameAttribute compares as RFC 5280, 7.1 does, whatever the type of string: case
// and the number of blanks do not count.
func sameAttribute(a, b pkix.AttributeTypeAndValue) bool {
	x, text := a.Value.(string)
	y, also := b.Value.(string)
	return text && also && a.Type.Equal(b.Type) && strings.EqualFold(strings.Join(strings.Fields(x), " "), strings.Join(strings.Fields(y), " "))
}

// Tags of GeneralName; RFC 5280, 4.2.1.6.
const (
	tagMail      = 1
	tagDNS       = 2
	tagDirectory = 4
	tagURI       = 6
	tagIP        = 7
)

// directoryConstraints returns the constraints of directory names in cert, and
// whether there are name constraints at all.
func directoryConstraints(cert *x509.Certificate) (n nameConstraints, present bool, err error) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidNameConstraints) {
			n, _, err = readNameConstraints(e.Value)
			return n, true, err
		}
	}
	return n, false, nil
}

// readNameConstraints also says whether all constraints are of kinds that are
// checked, here or in crypto/x509.
func readNameConstraints(der []byte) (n nameConstraints, all bool, err error) {
	type subtree struct {
		Base    asn1.RawValue
		Minimum int `asn1:"optional,tag:0"`
		Maximum int `asn1:"optional,tag:1"`
	}
	var raw struct {
		Permitted []subtree `asn1:"optional,tag:0"`
		Excluded  []subtree `asn1:"optional,tag:1"`
	}
	if rest, err := asn1.Unmarshal(der, &raw); err != nil || len(rest) > 0 {
		return n, false, fmt.Errorf("name constraints: %w", orTrailing(err))
	}
	all = true
	read := func(trees []subtree) (names []pkix.RDNSequence, err error) {
		for _, t := range trees {
			switch t.Base.Tag {
			case tagDirectory:
				var name pkix.RDNSequence
				if rest, err := asn1.Unmarshal(t.Base.Bytes, &name); err != nil || len(rest) > 0 {
					return nil, fmt.Errorf("name constraints: %w", orTrailing(err))
				}
				names = append(names, name)
			case tagMail, tagDNS, tagURI, tagIP:
			default:
				all = false
			}
		}
		return names, nil
	}
	if n.permitted, err = read(raw.Permitted); err == nil {
		n.excluded, err = read(raw.Excluded)
	}
	return n, all, err
}

// withNameConstraints returns cert such that crypto/x509 does not refuse critical
// name constraints of directory names, which it does not know and checkChain
// checks.
func withNameConstraints(cert *x509.Certificate) *x509.Certificate {
	i := slices.IndexFunc(cert.UnhandledCriticalExtensions, oidNameConstraints.Equal)
	if i < 0 {
		return cert
	}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidNameConstraints) {
			continue
		}
		if _, all, err := readNameConstraints(e.Value); err != nil || !all {
			return cert
		}
	}
	known := *cert
	known.UnhandledCriticalExtensions = slices.Delete(slices.Clone(cert.UnhandledCriticalExtensions), i, i+1)
	return &known
}
