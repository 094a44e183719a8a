package directory

import (
	"errors"
	"fmt"
	"strings"

	"pecd/pec"
)

func (rec *record) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d, record %d (%.100s): %w", ErrSchema, line, rec.number, rec.dn, fmt.Errorf(format, args...))
}

// isRoot reports whether dn is the base of the directory, o=postacert.
func isRoot(dn string) bool {
	return strings.EqualFold(strings.ReplaceAll(dn, " ", ""), "o=postacert")
}

// values returns the values of an attribute. The option ;binary does not make
// another attribute (RFC 6109, 4.5.2).
func (rec *record) values(name string) []attribute {
	name = strings.ToLower(name)
	var out []attribute
	for _, a := range rec.attrs {
		if strings.TrimSuffix(a.name, ";binary") == name {
			out = append(out, a)
		}
	}
	return out
}

// single returns the value of a SINGLE-VALUE attribute, "" if it is absent and
// need not be there.
func (rec *record) single(name string, must bool) (string, error) {
	v := rec.values(name)
	switch {
	case len(v) == 0 && must:
		return "", rec.errorf(rec.line, "attribute %s is missing", name)
	case len(v) == 0:
		return "", nil
	case len(v) > 1:
		return "", rec.errorf(v[1].line, "attribute %s stands twice", name)
	case must && strings.TrimSpace(v[0].value) == "":
		return "", rec.errorf(v[0].line, "attribute %s is empty", name)
	}
	if err := checkText(v[0].value); err != nil {
		return "", rec.errorf(v[0].line, "attribute %s: %w", name, err)
	}
	return v[0].value, nil
}

// checkText refuses control characters: names end up in receipts and logs.
func checkText(s string) error {
	for _, c := range s {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return errors.New("control character or bad UTF-8 in the value")
		}
	}
	return nil
}

// readProvider reads a record of the object class provider; RFC 6109, 4.5.9.
func readProvider(rec *record) (*Provider, error) {
	if !rec.isProvider() {
		return nil, rec.errorf(rec.line, "neither o=postacert nor of objectClass provider")
	}
	p := new(Provider)
	for _, f := range []struct {
		name string
		must bool
		to   *string
	}{
		{"providerName", true, &p.Name},
		{"providerUnit", false, &p.Unit},
		{"mailReceipt", true, (*string)(&p.ServiceMailbox)},
		{"LDIFLocationURL", false, &p.LDIFLocationURL},
	} {
		var err error
		if *f.to, err = rec.single(f.name, f.must); err != nil {
			return nil, err
		}
	}
	if d := rec.values("description"); len(d) > 0 {
		p.Description = d[0].value
	}
	if err := rec.readCertificates(p); err != nil {
		return nil, err
	}
	if err := rec.readDomains(p); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, rec.errorf(rec.line, "%w", err)
	}
	return p, nil
}

func (rec *record) isProvider() bool {
	for _, a := range rec.values("objectClass") {
		if strings.EqualFold(a.value, "provider") {
			return true
		}
	}
	return false
}

func (rec *record) readCertificates(p *Provider) error {
	for _, a := range rec.values("providerCertificate") {
		p.Certificates = append(p.Certificates, []byte(a.value))
	}
	for _, a := range rec.values("providerCertificateHash") {
		p.Hashes = append(p.Hashes, strings.ToLower(strings.TrimSpace(a.value)))
	}
	switch {
	case len(p.Certificates) == 0:
		return rec.errorf(rec.line, "attribute providerCertificate is missing")
	case len(p.Hashes) == 0:
		return rec.errorf(rec.line, "attribute providerCertificateHash is missing")
	}
	return nil
}

func (rec *record) readDomains(p *Provider) error {
	values := rec.values("managedDomains")
	if len(values) == 0 {
		return rec.errorf(rec.line, "attribute managedDomains is missing")
	}
	p.Domains = make([]string, len(values))
	for i, a := range values {
		d := foldDomain(strings.TrimSpace(a.value))
		if err := checkDomain(d); err != nil {
			return rec.errorf(a.line, "attribute managedDomains: %w", err)
		}
		p.Domains[i] = d
	}
	pack(p.Domains)
	return nil
}

// pack moves the texts of domains into one piece of memory. As they were read,
// each holds the whole line that it stood in.
func pack(domains []string) {
	rest := strings.Join(domains, "")
	for i, d := range domains {
		domains[i], rest = rest[:len(d)], rest[len(d):]
	}
}

// check holds for every provider that is read or written.
func (p *Provider) check() error {
	if strings.TrimSpace(p.Name) == "" {
		return errors.New("the provider has no name")
	}
	if err := checkMailbox(p.ServiceMailbox); err != nil {
		return err
	}
	if len(p.Domains) == 0 || len(p.Certificates) == 0 {
		return errors.New("the provider has no domain or no certificate")
	}
	for _, d := range p.Domains {
		if err := checkDomain(d); err != nil {
			return err
		}
	}
	return p.checkHashes()
}

// checkHashes makes sure that hashes and certificates belong together, one to
// one: the order of values in LDAP means nothing.
func (p *Provider) checkHashes() error {
	published := make(map[string]bool)
	for _, h := range p.Hashes {
		published[h] = true
	}
	for _, der := range p.Certificates {
		if len(der) == 0 {
			return errors.New("a certificate is empty")
		}
		h := hashOf(der)
		if !published[h] {
			return fmt.Errorf("no providerCertificateHash for the certificate whose SHA-1 is %s", h)
		}
		delete(published, h)
	}
	for h := range published {
		return fmt.Errorf("providerCertificateHash %.60q belongs to no certificate of the record", h)
	}
	return nil
}

// checkMailbox accepts the limited addr-spec of RFC 6109, 4.5.4.
func checkMailbox(a pec.Address) error {
	local, domain := a.Split()
	if len(local) > 64 || !dotAtom(local) {
		return fmt.Errorf("mailReceipt %.100q is not an address of the form local@domain", a)
	}
	if err := checkDomain(foldDomain(domain)); err != nil {
		return fmt.Errorf("mailReceipt %.100q: %w", a, err)
	}
	return nil
}

// checkDomain accepts a lower-case domain in dot-atom form (RFC 6109, 4.5.5)
// that DNS can hold. Internationalised domains must be given as A-labels.
func checkDomain(d string) error {
	if len(d) > 253 || !dotAtom(d) {
		return fmt.Errorf("%.100q is not a domain", d)
	}
	for _, label := range strings.Split(d, ".") {
		if len(label) > 63 {
			return fmt.Errorf("%.100q is not a domain: a label is longer than 63", d)
		}
	}
	return nil
}

// dotAtom reports whether s is a dot-atom-text of RFC 5322, 3.2.3.
func dotAtom(s string) bool {
	atom := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			if atom == 0 {
				return false
			}
			atom = 0
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
			atom++
		default:
			return false
		}
	}
	return atom > 0
}
