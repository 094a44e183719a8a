package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"pecd/signer"
)

// A vectorMaker makes the messages of testdata/vectors with the keys and
// certificates there, NAME.key and NAME.pem. Those without a key of their own
// have alfa's. root.pem is the anchor.
type vectorMaker struct {
	testing.TB
	serial int64
}

func (m *vectorMaker) file(name string) string { return filepath.Join(vectorDir, name) }

// generateVectors makes keys, certificates and the list of revocations, where
// they are missing, and all messages.
func generateVectors(t *testing.T) {
	m := &vectorMaker{TB: t, serial: 1000}
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.file("root.pem")); err != nil {
		m.makeCertificates()
	}
	for _, v := range vectors {
		if !v.live {
			m.write(v.name+".eml", v.make(m))
		}
	}
	m.write("README.md", []byte(vectorTable()))
}

func (m *vectorMaker) write(name string, data []byte) {
	m.Helper()
	if err := os.WriteFile(m.file(name), data, 0o644); err != nil {
		m.Fatal(err)
	}
}

const testKeyNote = "This key is for tests. It is published and protects nothing.\n\n"

// newKey makes a key and writes it down.
func (m *vectorMaker) newKey(name, kind string) crypto.Signer {
	m.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "1024", "2048", "4096":
		key, err = rsa.GenerateKey(rand.Reader, map[string]int{"1024": 1024, "2048": 2048, "4096": 4096}[kind])
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	if err != nil {
		m.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.Fatal(err)
	}
	m.write(name+".key", append([]byte(testKeyNote), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...))
	return key
}

// An issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate for key by parent; nil: by itself.
func (m *vectorMaker) issue(name string, parent *issued, key crypto.Signer, change func(*x509.Certificate)) *issued {
	m.Helper()
	m.serial++
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		m.Fatal(err)
	}
	id := sha1.Sum(pub)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(m.serial),
		Subject:      pkix.Name{Country: []string{"IT"}, Organization: []string{alfaName}, CommonName: name},
		NotBefore:    vectorTime.AddDate(-1, 0, 0), NotAfter: vectorTime.AddDate(2, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		EmailAddresses: []string{alfaPost}, SubjectKeyId: id[:],
	}
	if change != nil {
		change(tmpl)
	}
	by := issued{tmpl, key}
	if parent != nil {
		by = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, key.Public(), by.key)
	if err != nil {
		m.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.Fatal(err)
	}
	m.write(name+".pem", pemOf("CERTIFICATE", der))
	return &issued{cert, key}
}

// authority is a change that makes an authority of a certificate.
func authority(more func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage, c.ExtKeyUsage, c.EmailAddresses = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil, nil
		if more != nil {
			more(c)
		}
	}
}

func (m *vectorMaker) makeCertificates() {
	rootKey, caKey := m.newKey("root", "P-256"), m.newKey("ca", "P-256")
	alfaKey := m.newKey("alfa", "2048")
	root := m.issue("root", nil, rootKey, authority(nil))
	alfa := m.issue("alfa", root, alfaKey, nil)
	m.issue("short", root, m.newKey("short", "1024"), nil)
	m.issue("long", root, m.newKey("long", "4096"), nil)
	m.issue("curve", root, m.newKey("curve", "P-256"), nil)
	m.issue("p384", root, m.newKey("p384", "P-384"), nil)
	of := func(name string, parent *issued, change func(*x509.Certificate)) *issued {
		return m.issue(name, parent, alfaKey, change)
	}
	of("second", root, nil)
	of("expired", root, func(c *x509.Certificate) { c.NotAfter = vectorTime.AddDate(0, -1, 0) })
	of("early", root, func(c *x509.Certificate) { c.NotBefore = vectorTime.AddDate(0, 1, 0) })
	revoked, later := of("revoked", root, nil), of("later", root, nil)
	of("web", root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	of("cipher", root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	of("content", root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment })
	of("critical", root, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
	})
	of("self-made", alfa, nil)
	foreign := m.issue("foreign-root", nil, caKey, authority(nil))
	of("foreign", foreign, nil)
	under := func(leaf, ca string, change func(*x509.Certificate)) {
		of(leaf, m.issue(ca, root, caKey, authority(change)), nil)
	}
	under("sub", "sub-ca", nil)
	under("mute", "mute-ca", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	under("webbed", "web-ca", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	under("mail-violates", "mail-ca", func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"beta.example"} })
	under("mail-keeps", "mail-ok-ca", func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"alfa.example"} })
	under("mail-excluded", "mail-not-ca", func(c *x509.Certificate) { c.ExcludedEmailAddresses = []string{"alfa.example"} })
	under("name-violates", "name-ca", func(c *x509.Certificate) { c.ExtraExtensions = m.onlyFor("Beta PEC S.p.A.", false) })
	under("name-keeps", "name-ok-ca", func(c *x509.Certificate) { c.ExtraExtensions = m.onlyFor(alfaName, true) })
	m.write("strangers.pem", append(pemOf("CERTIFICATE", foreign.cert.Raw), pemOf("CERTIFICATE", later.cert.Raw)...))
	m.makeSHA1Certificate(root, alfaKey)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1),
		ThisUpdate: vectorTime.AddDate(0, 0, -1), NextUpdate: vectorTime.AddDate(10, 0, 0),
		RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: revoked.cert.SerialNumber, RevocationTime: vectorTime.AddDate(0, 0, -10)},
			{SerialNumber: later.cert.SerialNumber, RevocationTime: vectorTime.AddDate(0, 0, 10)},
		}}, root.cert, rootKey)
	if err != nil {
		m.Fatal(err)
	}
	m.write("crl.pem", pemOf("X509 CRL", list))
	m.write("root-crl.pem", append(pemOf("CERTIFICATE", root.cert.Raw), pemOf("X509 CRL", list)...)) // for OpenSSL
}

// key returns the file of the key of a certificate: alfa's, if it has none of its
// own.
func (m *vectorMaker) key(name string) string {
	if _, err := os.Stat(m.file(name + ".key")); err != nil {
		return m.file("alfa.key")
	}
	return m.file(name + ".key")
}

// onlyFor returns name constraints for one organization, as AgID's authority has
// them.
func (m *vectorMaker) onlyFor(organization string, critical bool) []pkix.Extension {
	name, err := asn1.Marshal(pkix.Name{Country: []string{"IT"}, Organization: []string{organization}}.ToRDNSequence())
	if err != nil {
		m.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: critical,
		Value: der(0x30, der(0xa0, der(0x30, der(0xa4, name))))}}
}

// makeSHA1Certificate signs one by hand: crypto/x509 signs none by SHA-1.
func (m *vectorMaker) makeSHA1Certificate(root *issued, key crypto.Signer) {
	good := m.issue("sha1-cert", root, key, nil)
	ecdsaSHA1 := der(0x30, der(0x06, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01}))
	var fields []byte
	for i, v := range m.values(good.cert.RawTBSCertificate) {
		if i == 2 {
			v.FullBytes = ecdsaSHA1
		}
		fields = append(fields, v.FullBytes...)
	}
	tbs := der(0x30, fields)
	sum := sha1.Sum(tbs)
	signature, err := root.key.Sign(rand.Reader, sum[:], crypto.SHA1)
	if err != nil {
		m.Fatal(err)
	}
	m.write("sha1-cert.pem", pemOf("CERTIFICATE", der(0x30, tbs, ecdsaSHA1, der(0x03, []byte{0}, signature))))
}

// sign makes a signature over the entity with OpenSSL. Certificates to come along
// are given by name.
func (m *vectorMaker) sign(who string, args ...string) []byte {
	m.Helper()
	all := []string{"cms", "-sign", "-binary", "-outform", "DER", "-signer", m.file(who + ".pem"), "-inkey", m.key(who)}
	for i := range args {
		if i > 0 && args[i-1] == "-certfile" {
			args[i] = m.file(args[i] + ".pem")
		}
	}
	return openssl(m, []byte(entityText), append(all, args...)...)
}

func byOpenSSL(who string, args ...string) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		return wrap([]byte(entityText), m.sign(who, append([]string(nil), args...)...))
	}
}

// inBER writes a signature in BER, what is signed in it too or not.
func inBER(everywhere bool) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		p7s := m.sign("alfa")
		if everywhere {
			return wrap([]byte(entityText), toBER(m, p7s))
		}
		outer := m.values(p7s)
		var out []byte
		for _, v := range m.values(m.values(outer[1].FullBytes)[0].FullBytes) {
			if v.Tag == asn1.TagSequence {
				v.FullBytes = toBER(m, v.FullBytes)
			}
			out = append(out, v.FullBytes...)
		}
		end := []byte{0, 0, 0, 0, 0, 0}
		return wrap([]byte(entityText), bytes.Join([][]byte{{0x30, 0x80}, outer[0].FullBytes, {0xa0, 0x80, 0x30, 0x80}, out, end}, nil))
	}
}

// values returns what stands in a constructed value.
func (m *vectorMaker) values(of []byte) (values []asn1.RawValue) {
	m.Helper()
	var v asn1.RawValue
	if _, err := asn1.Unmarshal(of, &v); err != nil {
		m.Fatal(err)
	}
	for rest := v.Bytes; len(rest) > 0; values = append(values, v) {
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil {
			m.Fatal(err)
		}
	}
	return values
}

func opaque(args ...string) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		all := append([]string{"cms", "-sign", "-nodetach", "-signer", m.file("alfa.pem"), "-inkey", m.file("alfa.key")}, args...)
		return openssl(m, []byte(entityText), all...)
	}
}

func twoSigners(m *vectorMaker) []byte {
	return wrap([]byte(entityText), m.sign("alfa", "-nosmimecap", "-signer", m.file("curve.pem"), "-inkey", m.file("curve.key")))
}

func noSigner(m *vectorMaker) []byte {
	certs := openssl(m, nil, "crl2pkcs7", "-nocrl", "-outform", "DER", "-certfile", m.file("alfa.pem"))
	return wrap([]byte(entityText), certs)
}

func altered(make func(*vectorMaker) []byte) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte { return replaceOnce(m, make(m), "Prova", "prova") }
}

// damaged changes a bit so many octets before the end of the signature.
func damaged(make func(*vectorMaker) []byte, before int) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		p7s := p7sOf(m, make(m))
		p7s[len(p7s)-before] ^= 1
		return wrap([]byte(entityText), p7s)
	}
}

func withLF(make func(*vectorMaker) []byte) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte { return bytes.ReplaceAll(make(m), []byte("\r\n"), []byte("\n")) }
}

func lying(m *vectorMaker) []byte {
	return replaceOnce(m, byOpenSSL("alfa", "-md", "sha512")(m), "micalg=sha1", "micalg=sha-256")
}

func cut(part float64) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		p7s := m.sign("alfa")
		return wrap([]byte(entityText), p7s[:int(float64(len(p7s))*part)])
	}
}

func trailing(m *vectorMaker) []byte {
	return wrap([]byte(entityText), append(m.sign("alfa"), "trailing octets"...))
}

func notCMS(*vectorMaker) []byte { return wrap([]byte(entityText), []byte("this is no CMS structure")) }

func enveloping(m *vectorMaker) []byte {
	return openssl(m, []byte(entityText), "cms", "-encrypt", "-aes128", m.file("alfa.pem"))
}

func nested(*vectorMaker) []byte {
	return wrap([]byte(entityText), bytes.Repeat([]byte{0x30, 0x80}, 60_000))
}

// bigSignature carries 5 MB of certificates.
func bigSignature(m *vectorMaker) []byte {
	one := pemCertificates(m, m.file("long.pem"))[0].Raw
	var set []byte
	for len(set) < 5_000_000 {
		set = append(set, one...)
	}
	return wrap([]byte(entityText), m.craft(set, "type", "digest"))
}

func byPecd(m *vectorMaker) []byte      { return m.ours("alfa") }
func byPecdECDSA(m *vectorMaker) []byte { return m.ours("curve") }

func (m *vectorMaker) ours(who string) []byte {
	data, err := os.ReadFile(m.key(who))
	if err != nil {
		m.Fatal(err)
	}
	id, err := signer.LoadPEM(writeFile(m, "key", data), m.file(who+".pem"), vectorTime)
	if err != nil {
		m.Fatal(err)
	}
	return bytesOf(m, sign(m, id, receiptDraft(m)).Content())
}

// crafted makes a signature with these attributes, signed as they stand.
func crafted(attributes ...string) func(*vectorMaker) []byte {
	return func(m *vectorMaker) []byte {
		return wrap([]byte(entityText), m.craft(pemCertificates(m, m.file("alfa.pem"))[0].Raw, attributes...))
	}
}

func (m *vectorMaker) craft(certificates []byte, attributes ...string) []byte {
	leaf := pemCertificates(m, m.file("alfa.pem"))[0]
	if len(certificates) > 1_000_000 {
		certificates = append(bytes.Clone(leaf.Raw), certificates...)
	}
	data, err := os.ReadFile(m.file("alfa.key"))
	if err != nil {
		m.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		m.Fatal(err)
	}
	digest := sha256.Sum256([]byte(entityText))
	pkcs9 := func(n byte) []byte { return der(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, n}) }
	oidData := der(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01})
	values := map[string][]byte{
		"type":   der(0x30, pkcs9(3), der(0x31, oidData)),
		"digest": der(0x30, pkcs9(4), der(0x31, der(0x04, digest[:]))),
		"other":  der(0x30, der(0x06, []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0x86, 0x8d, 0x1f, 0x02}), der(0x31, der(0x0c, []byte("who knows")))),
	}
	var set []byte
	for _, a := range attributes {
		set = append(set, values[a]...)
	}
	sum := sha256.Sum256(der(0x31, set))
	signature, err := rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
	if err != nil {
		m.Fatal(err)
	}
	serial, err := asn1.Marshal(leaf.SerialNumber)
	if err != nil {
		m.Fatal(err)
	}
	sha256ID := der(0x30, der(0x06, []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}), []byte{5, 0})
	rsaID := der(0x30, der(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01}), []byte{5, 0})
	version := []byte{2, 1, 1}
	info := der(0x30, version, der(0x30, leaf.RawIssuer, serial), sha256ID, der(0xa0, set), rsaID, der(0x04, signature))
	signedData := der(0x30, version, der(0x31, sha256ID), der(0x30, oidData), der(0xa0, certificates), der(0x31, info))
	return der(0x30, der(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}), der(0xa0, signedData))
}

// der returns a value with this tag.
func der(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	switch n := len(content); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, content...)
	case n < 0x10000:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
	default:
		return append([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, content...)
	}
}
