// Package directory reads and writes the index of certified mail providers
// (indice dei gestori, IGPEC): the LDIF file of RFC 6109, 4.5. It answers which
// provider manages a domain and whose certificate a signature was made with. It
// checks no signature of the file and opens no file; it refuses a directory in
// which one record contradicts the rules or another record, because a wrong
// answer would certify something untrue.
package directory

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"pecd/pec"
)

// Errors of Parse. The text names line, record and reason.
var (
	ErrSyntax = errors.New("directory: not LDIF")
	ErrSchema = errors.New("directory: bad record")
)

// A Provider is one record of the directory: a provider's main environment, or
// one of its secondary environments if Unit is set; RFC 6109, 4.5. It is not
// changed once it is in a Directory.
type Provider struct {
	Name            string      // providerName
	Unit            string      // providerUnit, empty for the main environment
	Certificates    [][]byte    // providerCertificate, DER
	Hashes          []string    // providerCertificateHash, SHA-1 in lower-case hex
	ServiceMailbox  pec.Address // mailReceipt: gets take-charge receipts and virus notices
	Domains         []string    // managedDomains, lower case; internationalised ones as A-labels
	LDIFLocationURL string
	Description     string

	in *Directory // set by Parse: makes Manages a look-up
}

// Manages reports whether domain is one of p's, without regard to case.
func (p *Provider) Manages(domain string) bool {
	domain = foldDomain(domain)
	if p.in != nil {
		return p.in.byDomain[domain] == p
	}
	for _, d := range p.Domains {
		if d == domain {
			return true
		}
	}
	return false
}

// A Directory answers questions about providers. It does not change and may be
// used concurrently.
type Directory struct {
	providers []*Provider
	location  string
	byDomain  map[string]*Provider
	byHash    map[[sha1.Size]byte][]*Provider
	byName    map[string][]*Provider // lower case
}

func newDirectory() *Directory {
	return &Directory{
		byDomain: make(map[string]*Provider),
		byHash:   make(map[[sha1.Size]byte][]*Provider),
		byName:   make(map[string][]*Provider),
	}
}

// Parse reads a whole directory file in LDIF. It takes all of it or nothing.
func Parse(ldif []byte) (*Directory, error) {
	if len(ldif) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d octets", ErrSyntax, MaxSize)
	}
	d := newDirectory()
	seen := make(map[string]bool)
	r := newLDIFReader(ldif)
	for {
		rec, err := r.next()
		if err != nil {
			return nil, err
		}
		if rec == nil {
			break
		}
		dn := strings.ToLower(rec.dn)
		if seen[dn] {
			return nil, rec.errorf(rec.line, "the same dn stands twice")
		}
		seen[dn] = true
		if err := d.addRecord(rec); err != nil {
			return nil, err
		}
	}
	if err := d.checkUnits(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Directory) addRecord(rec *record) error {
	if isRoot(rec.dn) {
		url, err := rec.single("LDIFLocationURL", false)
		d.location = url
		return err
	}
	p, err := readProvider(rec)
	if err != nil {
		return err
	}
	if err := d.addProvider(p); err != nil {
		return rec.errorf(rec.line, "%w", err)
	}
	return nil
}

// addProvider enters p, unless it claims what is another's.
func (d *Directory) addProvider(p *Provider) error {
	for _, domain := range p.Domains {
		if other := d.byDomain[domain]; other != nil && other != p {
			return fmt.Errorf("domain %s is managed by %q and by %q", domain, other.title(), p.title())
		}
		d.byDomain[domain] = p
	}
	for _, der := range p.Certificates {
		sum := sha1.Sum(der)
		for _, other := range d.byHash[sum] {
			if !strings.EqualFold(other.Name, p.Name) {
				return fmt.Errorf("certificate %x is used by %q and by %q", sum, other.Name, p.Name)
			}
		}
		d.byHash[sum] = append(d.byHash[sum], p)
	}
	p.in = d
	name := strings.ToLower(p.Name)
	d.byName[name] = append(d.byName[name], p)
	d.providers = append(d.providers, p)
	return nil
}

// checkUnits makes sure that an environment stands once and that a secondary
// one has a main one; RFC 6109, 4.5.7.
func (d *Directory) checkUnits() error {
	type environment struct{ name, unit string }
	known := make(map[environment]bool)
	for _, p := range d.providers {
		e := environment{strings.ToLower(p.Name), strings.ToLower(p.Unit)}
		if known[e] {
			return fmt.Errorf("%w: %q has two records", ErrSchema, p.title())
		}
		known[e] = true
	}
	for _, p := range d.providers {
		if !known[environment{name: strings.ToLower(p.Name)}] {
			return fmt.Errorf("%w: %q is a secondary environment without a main one", ErrSchema, p.title())
		}
	}
	return nil
}

// ProviderOf returns the provider that manages domain, in constant time and
// without regard to case.
func (d *Directory) ProviderOf(domain string) (*Provider, bool) {
	p, ok := d.byDomain[foldDomain(domain)]
	return p, ok
}

// ByCertificate returns the provider that signs with the certificate der. It is
// looked up by its SHA-1 hash, as RFC 6109, 2.2.2 says, and must then be equal
// to the one in the record. Where environments of one provider share a
// certificate it returns the main one; see Signer.
func (d *Directory) ByCertificate(der []byte) (*Provider, bool) {
	var found *Provider
	for _, p := range d.byHash[sha1.Sum(der)] {
		if p.has(der) && (found == nil || p.Unit == "") {
			found = p
		}
	}
	return found, found != nil
}

// Signer returns the provider that signs with the certificate der for domain:
// the record that holds both.
func (d *Directory) Signer(der []byte, domain string) (*Provider, bool) {
	p, ok := d.ProviderOf(domain)
	if !ok || !p.has(der) {
		return nil, false
	}
	return p, true
}

// Classify says whether a is certified mail: whether its domain is in the
// directory; RFC 6109, 2.2.1.
func (d *Directory) Classify(a pec.Address) pec.RecipientType {
	_, domain := a.Split()
	if _, ok := d.ProviderOf(domain); ok {
		return pec.Certified
	}
	return pec.External
}

// Named returns the records of the provider name, without regard to case: its
// main environment and its secondary ones, in the order of the file. The caller
// does not change them.
func (d *Directory) Named(name string) []*Provider { return d.byName[strings.ToLower(name)] }

// Domains returns how many domains are certified.
func (d *Directory) Domains() int { return len(d.byDomain) }

// Providers returns all records in the order of the file. The caller does not
// change them.
func (d *Directory) Providers() []*Provider { return d.providers }

// Location returns the URL of the whole directory (LDIFLocationURL of the
// record o=postacert), or "".
func (d *Directory) Location() string { return d.location }

func (p *Provider) has(der []byte) bool {
	for _, c := range p.Certificates {
		if string(c) == string(der) {
			return true
		}
	}
	return false
}

func (p *Provider) title() string {
	if p.Unit == "" {
		return p.Name
	}
	return p.Name + " / " + p.Unit
}

func hashOf(der []byte) string {
	sum := sha1.Sum(der)
	return hex.EncodeToString(sum[:])
}

// foldDomain folds only ASCII: the lower case of the Kelvin sign is a k, and
// must not make another domain a certified one.
func foldDomain(domain string) string {
	for i := 0; i < len(domain); i++ {
		if c := domain[i]; 'A' <= c && c <= 'Z' {
			b := []byte(domain)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return domain
}
