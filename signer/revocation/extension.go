package revocation

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// Extensions of lists and of their entries; RFC 5280, 5.2 and 5.3.
var (
	oidNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason    = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidDelta     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPoint     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthority = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExpired   = asn1.ObjectIdentifier{2, 5, 29, 60} // expiredCertsOnCRL; X.509, 9.5.2.8
)

// readExtensions reads what limits a list, and refuses what would make a list
// say less than a complete one says.
func (e *evidence) readExtensions(extensions []pkix.Extension) error {
	for _, x := range extensions {
		var err error
		switch {
		case x.Id.Equal(oidDelta):
			err = fmt.Errorf("%w: a delta list", ErrScope)
		case x.Id.Equal(oidPoint):
			e.scope, err = readPoint(x.Value)
		case x.Id.Equal(oidExpired):
			err = readTime(x.Value, &e.expired)
		case x.Critical && !x.Id.Equal(oidNumber) && !x.Id.Equal(oidAuthority):
			err = fmt.Errorf("%w: it has the critical extension %s", ErrScope, x.Id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// field returns the tag [n] of a primitive value.
func field(n uint8) tags.Tag { return tags.Tag(n).ContextSpecific() }

// readPoint reads an IssuingDistributionPoint.
func readPoint(der []byte) (s scope, err error) {
	malformed := fmt.Errorf("%w: issuing distribution point", ErrMalformed)
	in := cryptobyte.String(der)
	var seq, name cryptobyte.String
	var named bool
	if !in.ReadASN1(&seq, tags.SEQUENCE) || !in.Empty() ||
		!seq.ReadOptionalASN1(&name, &named, field(0).Constructed()) {
		return s, malformed
	}
	if named {
		if s.points, err = readNames(name); err != nil {
			return s, err
		}
	}
	var indirect, attributes bool
	var reasons cryptobyte.String
	var some bool
	if !readFlag(&seq, 1, &s.onlyUser) || !readFlag(&seq, 2, &s.onlyAuth) ||
		!seq.ReadOptionalASN1(&reasons, &some, field(3)) ||
		!readFlag(&seq, 4, &indirect) || !readFlag(&seq, 5, &attributes) || !seq.Empty() {
		return s, malformed
	}
	switch {
	case indirect:
		return s, fmt.Errorf("%w: an indirect list", ErrScope)
	case some:
		return s, fmt.Errorf("%w: a list for some reasons only", ErrScope)
	case attributes:
		return s, fmt.Errorf("%w: a list of attribute certificates", ErrScope)
	}
	return s, nil
}

// readFlag reads the BOOLEAN [n], false if it is absent.
func readFlag(in *cryptobyte.String, n uint8, to *bool) bool {
	var value cryptobyte.String
	var present bool
	if !in.ReadOptionalASN1(&value, &present, field(n)) {
		return false
	}
	if !present {
		return true
	}
	var b uint8
	*to = value.ReadUint8(&b) && b != 0
	return value.Empty()
}

// readNames reads the URLs of a DistributionPointName. One without any, or
// relative to the issuer, cannot be compared with what certificates name.
func readNames(name cryptobyte.String) ([]string, error) {
	var full cryptobyte.String
	if !name.ReadASN1(&full, field(0).Constructed()) || !name.Empty() {
		return nil, fmt.Errorf("%w: a list for a point without URL", ErrScope)
	}
	var urls []string
	for !full.Empty() {
		var value cryptobyte.String
		var tag tags.Tag
		if !full.ReadAnyASN1(&value, &tag) {
			return nil, fmt.Errorf("%w: name of the distribution point", ErrMalformed)
		}
		if tag == field(6) {
			urls = append(urls, string(value))
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("%w: a list for a point without URL", ErrScope)
	}
	return urls, nil
}

func readTime(der []byte, to *time.Time) error {
	in := cryptobyte.String(der)
	if !in.ReadASN1GeneralizedTime(to) || !in.Empty() {
		return fmt.Errorf("%w: expiredCertsOnCRL", ErrMalformed)
	}
	return nil
}

// nameOf returns a Name in DER as text, for logs.
func nameOf(der []byte) string {
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdn); err != nil {
		return "a name that cannot be read"
	}
	var n pkix.Name
	n.FillFromRDNSequence(&rdn)
	return n.String()
}
