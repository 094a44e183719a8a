package directory

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pecd/pec"
)

// The certificates of these tests are just octets: the directory compares them
// and does not read them.
var (
	alfaCert = []byte("certificate of Alfa")
	alfaNext = []byte("certificate of Alfa, next year")
	betaCert = []byte("certificate of Beta")
)

func entry(dn string, lines ...string) string {
	return "dn: " + dn + "\nobjectclass: top\nobjectclass: provider\n" + strings.Join(lines, "\n") + "\n\n"
}

func certificate(der []byte) string {
	return "providerCertificateHash: " + strings.ToUpper(hashOf(der)) +
		"\nproviderCertificate;binary:: " + base64.StdEncoding.EncodeToString(der)
}

const root = "dn: o=postacert\nobjectclass: top\nobjectclass: organization\nobjectClass: LDIFLocationURLObject\n" +
	"o: postacert\nLDIFLocationURL: https://igpec.example/igpec.ldif.p7m\ndescription: the directory\n\n"

func alfa(more ...string) string {
	return entry("providerName=Alfa,o=postacert", append([]string{
		"providerName: Alfa", certificate(alfaCert), "mailReceipt: ricevute@alfa.example",
		"managedDomains: Alfa.Example", "managedDomains: xn--perch-fsa.example"}, more...)...)
}

func beta(more ...string) string {
	return entry("providerName=Beta,o=postacert", append([]string{
		"providerName: Beta", certificate(betaCert), "mailReceipt: ricevute@beta.example",
		"managedDomains: beta.example"}, more...)...)
}

func parse(t testing.TB, ldif string) *Directory {
	t.Helper()
	d, err := Parse([]byte(ldif))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParse(t *testing.T) {
	d := parse(t, "version: 1\n# comment\n#  that is\n  folded\n\n"+root+
		alfa(certificate(alfaNext), "LDIFLocationURL: https://alfa.example/pec.ldif.p7m", "description:: cGVyY2jDqA==", "later: x")+beta())
	if n := len(d.Providers()); n != 2 {
		t.Fatalf("%d providers", n)
	}
	p := *d.Providers()[0]
	p.in = nil
	want := Provider{
		Name: "Alfa", Certificates: [][]byte{alfaCert, alfaNext}, Hashes: []string{hashOf(alfaCert), hashOf(alfaNext)},
		ServiceMailbox: "ricevute@alfa.example", Domains: []string{"alfa.example", "xn--perch-fsa.example"},
		LDIFLocationURL: "https://alfa.example/pec.ldif.p7m", Description: "perchè",
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	if d.Location() != "https://igpec.example/igpec.ldif.p7m" {
		t.Errorf("location %q", d.Location())
	}
}

// TestForms: the same directory in the ways that LDIF allows.
func TestForms(t *testing.T) {
	ldif := root + alfa() + beta()
	var folded strings.Builder
	for _, line := range strings.Split(ldif, "\n") {
		for ; len(line) > 3; line = line[3:] {
			folded.WriteString(line[:3] + "\n ")
		}
		folded.WriteString(line + "\n")
	}
	for name, form := range map[string]string{
		"LF":           ldif,
		"CRLF":         strings.ReplaceAll(ldif, "\n", "\r\n"),
		"version":      "version: 1\n" + ldif,
		"no last line": strings.TrimRight(ldif, "\n"),
		"empty lines":  "\n\n" + strings.ReplaceAll(ldif, "\n\n", "\n\n\n\r\n"),
		"folded":       folded.String(),
		"comments":     "# x\n" + strings.ReplaceAll(ldif, "objectclass: top", "# y\n z\nobjectclass: top"),
		"no blanks":    strings.ReplaceAll(strings.ReplaceAll(ldif, ":: ", "::"), ": ", ":"),
		"many blanks":  strings.ReplaceAll(strings.ReplaceAll(ldif, ":: ", "::   "), ": ", ":   "),
		"lower case":   strings.ReplaceAll(strings.ReplaceAll(ldif, "managedDomains", "manageddomains"), "mailReceipt", "MAILRECEIPT"),
		"no option":    strings.ReplaceAll(ldif, ";binary", ""),
	} {
		d, err := Parse([]byte(form))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p, ok := d.ByCertificate(betaCert); len(d.Providers()) != 2 || !ok || p.ServiceMailbox != "ricevute@beta.example" {
			t.Errorf("%s: %d providers, Beta %+v", name, len(d.Providers()), p)
		}
	}
}

func TestQuestions(t *testing.T) {
	d := parse(t, alfa(certificate(alfaNext))+beta())
	for domain, want := range map[string]string{
		"alfa.example": "Alfa", "ALFA.example": "Alfa", "beta.example": "Beta", "XN--perch-FSA.example": "Alfa",
		"": "", "example": "", "www.alfa.example": "", "alfa.example.": "", "perchè.example": "",
		"alfa.example\x00": "", "ALFA.EXAMPL\u0130": "", "bet\u00c1.example": "",
	} {
		p, ok := d.ProviderOf(domain)
		if ok != (want != "") || ok && p.Name != want {
			t.Errorf("ProviderOf(%q) = %v, want %q", domain, p, want)
		}
		kind := d.Classify(pec.Address("a@b@" + domain))
		if (kind == pec.Certified) != ok || !ok && kind != pec.External {
			t.Errorf("Classify(%q) = %s", domain, kind)
		}
		if p := d.Providers()[0]; p.Manages(domain) != (want == "Alfa") {
			t.Errorf("Alfa.Manages(%q) = %t", domain, p.Manages(domain))
		}
		if loose := (&Provider{Domains: []string{"alfa.example", "xn--perch-fsa.example"}}); loose.Manages(domain) != (want == "Alfa") {
			t.Errorf("Manages(%q) of a loose provider", domain)
		}
	}
	if d.Classify("alfa.example") != pec.External {
		t.Error("an address without a domain is certified")
	}
	for _, der := range [][]byte{alfaCert, alfaNext} {
		if p, ok := d.ByCertificate(der); !ok || p.Name != "Alfa" {
			t.Errorf("ByCertificate(%q) = %v", der, p)
		}
		if _, ok := d.Signer(der, "Alfa.example"); !ok {
			t.Errorf("%q does not sign for alfa.example", der)
		}
		if _, ok := d.Signer(der, "beta.example"); ok {
			t.Errorf("%q signs for beta.example", der)
		}
	}
	for _, der := range [][]byte{nil, []byte("another"), alfaCert[1:]} {
		if p, ok := d.ByCertificate(der); ok {
			t.Errorf("ByCertificate(%q) = %v", der, p)
		}
	}
}

// TestKelvin: case folding beyond ASCII must not make a domain a certified one.
func TestKelvin(t *testing.T) {
	d := parse(t, strings.ReplaceAll(beta(), "managedDomains: beta.example", "managedDomains: kelvin.example"))
	if _, ok := d.ProviderOf("\u212Aelvin.example"); ok {
		t.Error("the Kelvin sign is a k")
	}
}

// TestHashIsNotEnough: a certificate with the right SHA-1 must also be the one
// in the record.
func TestHashIsNotEnough(t *testing.T) {
	d := parse(t, alfa())
	d.Providers()[0].Certificates[0] = []byte("as if SHA-1 were broken")
	if _, ok := d.ByCertificate(alfaCert); ok {
		t.Error("found by its hash alone")
	}
}

// TestNamed: a provider's records by his name.
func TestNamed(t *testing.T) {
	unit := entry("providerUnit=due,providerName=Alfa,o=postacert", "providerName: ALFA", "providerUnit: due",
		certificate(alfaNext), "mailReceipt: due@alfa.example", "managedDomains: due.example")
	d := parse(t, alfa()+beta()+unit)
	if d.Domains() != 4 {
		t.Errorf("%d domains", d.Domains())
	}
	for name, want := range map[string]int{"Alfa": 2, "alfa": 2, "BETA": 1, "": 0, "due": 0, "Gamma": 0} {
		if got := d.Named(name); len(got) != want {
			t.Errorf("%q has %d records, want %d", name, len(got), want)
		}
	}
	if p := d.Named("Alfa"); p[0].Unit != "" || p[1].Unit != "due" {
		t.Error("not in the order of the file")
	}
}

func TestSecondaryEnvironments(t *testing.T) {
	unit := func(cert []byte, domain, name string) string {
		return entry("providerUnit="+domain+",providerName=Alfa,o=postacert", "providerName: "+name, "providerUnit: "+domain,
			certificate(cert), "mailReceipt: due@alfa.example", "managedDomains: "+domain)
	}
	d := parse(t, unit(alfaCert, "due.example", "Alfa")+alfa()+unit(alfaNext, "tre.example", "ALFA"))
	if p, ok := d.ByCertificate(alfaCert); !ok || p.Unit != "" {
		t.Errorf("a shared certificate belongs to %+v, want the main environment", p)
	}
	if p, ok := d.Signer(alfaCert, "due.example"); !ok || p.Unit != "due.example" || p.ServiceMailbox != "due@alfa.example" {
		t.Errorf("Signer = %+v", p)
	}
	if p, ok := d.ByCertificate(alfaNext); !ok || p.Unit != "tre.example" || p.Manages("alfa.example") {
		t.Errorf("the certificate of an environment belongs to %+v", p)
	}
	for name, tc := range map[string]struct{ ldif, want string }{
		"no main":         {unit(alfaCert, "due.example", "Alfa"), "without a main"},
		"two mains":       {alfa() + strings.ReplaceAll(beta(), ": Beta", ": ALFA"), "two records"},
		"foreign shared":  {alfa() + beta() + unit(betaCert, "due.example", "Alfa"), "is used by"},
		"domain of main":  {alfa() + unit(alfaCert, "alfa.example", "Alfa"), "is managed by"},
		"same unit twice": {alfa() + unit(alfaCert, "x.example", "Alfa") + strings.Replace(unit(alfaCert, "x.example", "Alfa"), ",o=", ", o=", 1), "is managed by"},
	} {
		if _, err := Parse([]byte(tc.ldif)); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func without(ldif, name string) string {
	var out []string
	for _, line := range strings.Split(ldif, "\n") {
		if !strings.HasPrefix(line, name+":") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func TestParseRefuses(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x@y.example"), 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		s := alfa() + beta()
		if !strings.Contains(s, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	const mail = "mailReceipt: ricevute@beta.example"
	for name, tc := range map[string]struct {
		ldif string
		is   error
		want string
	}{
		"version 2":        {"version: 2\n" + alfa(), ErrSyntax, "line 1, record 0: LDIF version"},
		"version inside":   {alfa() + "version: 1\n", ErrSyntax, "line 11, record 2: record begins with"},
		"no dn":            {"providerName: x\n", ErrSyntax, "line 1, record 1: record begins with \"providername\""},
		"no empty line":    {strings.TrimRight(alfa(), "\n") + "\n" + beta(), ErrSyntax, "line 10, record 1: dn within"},
		"no colon":         {change("managedDomains: beta", "managedDomains beta"), ErrSyntax, "record 2: no colon"},
		"bad name":         {change("managedDomains: beta", "managed domains: beta"), ErrSyntax, "bad attribute name"},
		"empty name":       {change("managedDomains: beta", ": beta"), ErrSyntax, "bad attribute name"},
		"file":             {change(mail, "mailReceipt:< file://"+secret), ErrSyntax, "record 2: mailreceipt: values given by URL"},
		"file, folded":     {change(mail, "mailReceipt:\n < file://"+secret), ErrSyntax, "values given by URL"},
		"file, folded 2":   {change(mail, "mailReceipt\n :\n <\n  file://"+secret), ErrSyntax, "values given by URL"},
		"file, blank":      {change(mail, "mailReceipt: < file://"+secret), ErrSyntax, "must be in base64"},
		"base64":           {change("binary:: ", "binary:: !"), ErrSyntax, "bad base64"},
		"base64 blank":     {change(mail, "mailReceipt: : eA=="), ErrSyntax, "must be in base64"},
		"change":           {change("objectclass: top", "changetype: delete"), ErrSyntax, "change records"},
		"fold first":       {" x\n" + alfa(), ErrSyntax, "line 1"},
		"fold after empty": {alfa() + " x\n", ErrSyntax, "continuation"},
		"NUL":              {change("Beta", "Be\x00ta"), ErrSyntax, "NUL"},
		"bare CR":          {change("Beta", "Be\rta"), ErrSyntax, "carriage return"},
		"Latin-1":          {change("Beta", "Be\xe8ta"), ErrSyntax, "not UTF-8"},
		"long line":        {change("Beta", strings.Repeat("a", MaxLine)), ErrSyntax, "line longer than"},
		"long fold":        {change("Beta", strings.Repeat("a\n ", MaxLine)), ErrSyntax, "line longer than"},
		"large":            {strings.Repeat("#", MaxSize+1), ErrSyntax, "larger than"},
		"many records":     {strings.Repeat("dn: o=postacert\n\n", 2), ErrSchema, "stands twice"},

		"other record":      {alfa() + "dn: cn=x,o=postacert\nobjectclass: person\n", ErrSchema, "line 11, record 2 (cn=x,o=postacert): neither"},
		"no name":           {alfa() + without(beta(), "providerName"), ErrSchema, "line 11, record 2 (providerName=Beta,o=postacert): attribute providerName is missing"},
		"no hash":           {without(beta(), "providerCertificateHash"), ErrSchema, "attribute providerCertificateHash is missing"},
		"no certificate":    {without(beta(), "providerCertificate;binary"), ErrSchema, "attribute providerCertificate is missing"},
		"no mailbox":        {without(beta(), "mailReceipt"), ErrSchema, "attribute mailReceipt is missing"},
		"no domain":         {without(beta(), "managedDomains"), ErrSchema, "attribute managedDomains is missing"},
		"blank name":        {change("providerName: Beta", "providerName:"), ErrSchema, "attribute providerName is empty"},
		"two names":         {alfa("providerName: Alfa 2"), ErrSchema, "line 10, record 1 (providerName=Alfa,o=postacert): attribute providerName stands twice"},
		"two mailboxes":     {alfa("mailReceipt: x@y.example"), ErrSchema, "stands twice"},
		"two locations":     {"dn: o=postacert\nLDIFLocationURL: a\nLDIFLocationURL: b\n", ErrSchema, "stands twice"},
		"control character": {change("providerName: Beta", "providerName:: QmUKdGE="), ErrSchema, "control character"},
		"invalid UTF-8":     {change("providerName: Beta", "providerName:: QujpCg=="), ErrSchema, "control character"},
		"hash of another":   {change(strings.ToUpper(hashOf(betaCert)), hashOf(alfaNext)), ErrSchema, "no providerCertificateHash for"},
		"hash too many":     {beta("providerCertificateHash: " + hashOf(alfaNext)), ErrSchema, "belongs to no certificate"},
		"empty certificate": {beta("providerCertificate;binary::"), ErrSchema, "is empty"},
		"domain twice":      {alfa() + beta("managedDomains: ALFA.example"), ErrSchema, `domain alfa.example is managed by "Alfa" and by "Beta"`},
		"certificate twice": {alfa() + beta(certificate(alfaCert)), ErrSchema, "is used by"},
		"dn twice":          {beta() + "DN: PROVIDERNAME=Beta,o=postacert\nobjectclass: provider\n", ErrSchema, "the same dn"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tc.ldif))
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestManyRecords(t *testing.T) {
	var b strings.Builder
	for i := range MaxRecords + 1 {
		fmt.Fprintf(&b, "dn: o=postacert%d\n\n", i)
	}
	r := newLDIFReader([]byte(b.String()))
	for {
		rec, err := r.next()
		if err != nil {
			if !strings.Contains(err.Error(), "more than 100000 records") {
				t.Error(err)
			}
			return
		}
		if rec == nil {
			t.Fatal("no limit")
		}
	}
}

func TestAddresses(t *testing.T) {
	label := strings.Repeat("a", 63)
	for address, ok := range map[pec.Address]bool{
		"a@b": true, "ricevute+x.y@alfa.example": true, "A@B.Example": true,
		"": false, "a": false, "@b": false, "a@": false, "a b@c": false, "<a@b>": false, "\"a\"@b": false,
		".a@b": false, "a.@b": false, "a..b@c": false, "a@b.": false, "a@.b": false, "a@b..c": false,
		"a@[1.2.3.4]": false, "perchè@b": false, "a@perchè.example": false, "a@b\n": false, "a@b,c@d": false, "a@b (c)": false,
		pec.Address(strings.Repeat("a", 65) + "@b"):            false,
		pec.Address("a@" + label + ".x"):                       true,
		pec.Address("a@a" + label + ".x"):                      false,
		pec.Address("a@" + strings.Repeat(label+".", 4) + "x"): false,
	} {
		if err := checkMailbox(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
	for _, d := range []string{"*.example", "a_b.example"} { // dot-atoms, if odd ones
		if err := checkDomain(d); err != nil {
			t.Error(err)
		}
	}
}

func TestMarshal(t *testing.T) {
	ps := []Provider{
		{Name: "Alfa, S.p.A. = \"#1\"", Certificates: [][]byte{alfaCert, bytes.Repeat(alfaNext, 100)}, ServiceMailbox: "r@alfa.example",
			Domains: []string{"alfa.example", strings.Repeat("long.", 30) + "example"}, LDIFLocationURL: "https://alfa.example/x",
			Description: " blank, \n line and perchè "},
		{Name: "Alfa, S.p.A. = \"#1\"", Unit: "Città", Certificates: [][]byte{alfaCert}, Hashes: []string{hashOf(alfaCert)},
			ServiceMailbox: "r@due.example", Domains: []string{"due.example"}},
		{Name: ":Beta", Certificates: [][]byte{betaCert}, ServiceMailbox: "r@beta.example", Domains: []string{"beta.example"}, Description: "blank at the end "},
	}
	var out bytes.Buffer
	if err := Marshal(&out, ps); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if len(line) > column+1 {
			t.Errorf("line of %d", len(line))
		}
		if strings.HasSuffix(line, " ") {
			t.Errorf("a blank at the end of %q", line)
		}
	}
	d, err := Parse(out.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	for i, p := range d.Providers() {
		want := ps[i]
		if want.Hashes == nil {
			for _, c := range want.Certificates {
				want.Hashes = append(want.Hashes, hashOf(c))
			}
		}
		got := *p
		got.in = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if ps[0].Hashes != nil || ps[0].in != nil {
		t.Error("Marshal changed its input")
	}
	if err := Marshal(failing{}, ps); err == nil {
		t.Error("a failing writer went unnoticed")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestMarshalRefuses(t *testing.T) {
	good := Provider{Name: "Alfa", Certificates: [][]byte{alfaCert}, ServiceMailbox: "r@alfa.example", Domains: []string{"alfa.example"}}
	for name, change := range map[string]func(*Provider){
		"name":        func(p *Provider) { p.Name = " " },
		"line end":    func(p *Provider) { p.Name = "Al\nfa" },
		"mailbox":     func(p *Provider) { p.ServiceMailbox = "Alfa <r@alfa.example>" },
		"upper case":  func(p *Provider) { p.Domains = []string{"perchè.example"} },
		"no domain":   func(p *Provider) { p.Domains = nil },
		"certificate": func(p *Provider) { p.Certificates = nil },
		"hash":        func(p *Provider) { p.Hashes = []string{hashOf(betaCert)} },
		"unit":        func(p *Provider) { p.Unit = "alone" },
	} {
		p := good
		change(&p)
		if err := Marshal(new(bytes.Buffer), []Provider{p}); !errors.Is(err, ErrSchema) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := good
	other.Name = "Beta"
	if err := Marshal(new(bytes.Buffer), []Provider{good, other}); !errors.Is(err, ErrSchema) {
		t.Errorf("a domain of two providers: %v", err)
	}
}
