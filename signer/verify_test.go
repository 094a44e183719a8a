package signer_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.mozilla.org/pkcs7"

	"pecd/pec/message"
	"pecd/signer"
	"pecd/signer/signertest"
)

const entityText = "Content-Type: text/plain\r\n\r\nProva di firma\r\nseconda riga\r\n"

// cmsSign makes a detached signature over entity with OpenSSL.
func cmsSign(t testing.TB, id *signertest.Identity, entity []byte, args ...string) []byte {
	t.Helper()
	all := append([]string{"cms", "-sign", "-binary", "-outform", "DER",
		"-signer", id.CertFile, "-inkey", id.KeyFile}, args...)
	return openssl(t, entity, all...)
}

func verify(t testing.TB, v *signer.Verifier, mail []byte) (*signer.Report, error) {
	t.Helper()
	r, err := v.Verify(read(t, mail), testTime)
	if err == nil && (r == nil || !r.SignatureHolds || !r.ContentIntact || r.ChainErr != nil || r.Signer == nil) {
		t.Fatalf("verified, with report %+v", r)
	}
	return r, err
}

// TestVerifyOpenSSL holds the verifier against what OpenSSL can make.
func TestVerifyOpenSSL(t *testing.T) {
	ca, alfa := newAlfa(t)
	beta := ca.Identity(t, "Beta", "posta-certificata@beta.example")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ca.IdentityOf(t, key, ca.Template(alfaName, alfaPost))
	for name, tc := range map[string]struct {
		id     *signertest.Identity
		args   []string
		digest string
		want   error
	}{
		"SHA-1":          {alfa, []string{"-md", "sha1"}, "SHA-1", nil},
		"SHA-256":        {alfa, []string{"-md", "sha256"}, "SHA-256", nil},
		"SHA-384":        {alfa, []string{"-md", "sha384"}, "SHA-384", nil},
		"SHA-512":        {alfa, []string{"-md", "sha512"}, "SHA-512", nil},
		"MD5":            {alfa, []string{"-md", "md5"}, "MD5", signer.ErrWeak},
		"key id":         {alfa, []string{"-keyid"}, "SHA-256", nil},
		"ECDSA":          {ec, []string{"-md", "sha256"}, "SHA-256", nil},
		"ECDSA SHA-512":  {ec, []string{"-md", "sha512"}, "SHA-512", nil},
		"ECDSA SHA-1":    {ec, []string{"-md", "sha1"}, "SHA-1", nil},
		"no attributes":  {alfa, []string{"-noattr", "-md", "sha256"}, "SHA-256", nil},
		"no attrs ECDSA": {ec, []string{"-noattr", "-md", "sha256"}, "SHA-256", nil},
		"issuer too":     {alfa, []string{"-certfile", ca.File}, "SHA-256", nil},
		"no caps":        {alfa, []string{"-nosmimecap"}, "SHA-256", nil},
		"no certs":       {alfa, []string{"-nocerts"}, "", signer.ErrMalformedSignature},
		"attached":       {alfa, []string{"-nodetach"}, "", signer.ErrMalformedSignature},
		"two signers":    {alfa, []string{"-signer", beta.CertFile, "-inkey", beta.KeyFile}, "", signer.ErrMalformedSignature},
		"PSS":            {alfa, []string{"-keyopt", "rsa_padding_mode:pss"}, "SHA-256", nil},
		"PSS SHA-1":      {alfa, []string{"-md", "sha1", "-keyopt", "rsa_padding_mode:pss"}, "SHA-1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p7s := cmsSign(t, tc.id, []byte(entityText), tc.args...)
			mail := wrap([]byte(entityText), p7s)
			r, err := verify(t, signer.NewVerifier(ca.Pool()), mail)
			if _, err2 := verify(t, signer.NewVerifier(ca.Pool()), wrap([]byte(entityText), toBER(t, p7s))); fmt.Sprint(err) != fmt.Sprint(err2) {
				t.Errorf("in DER %v, in BER %v", err, err2)
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("Verify: %v, want %v", err, tc.want)
			}
			if tc.digest != "" && (r.Digest != tc.digest || !r.Signer.Equal(tc.id.Certificate())) {
				t.Errorf("digest %s, signer %v", r.Digest, r.Signer.Subject)
			}
			if noAttr := strings.HasPrefix(name, "no attr"); tc.want == nil && noAttr != r.SigningTime.IsZero() {
				t.Errorf("signing time %v", r.SigningTime)
			}
			if tc.want != nil {
				return
			}
			altered := bytes.Replace(mail, []byte("Prova"), []byte("prova"), 1)
			if r, err = verify(t, signer.NewVerifier(ca.Pool()), altered); !errors.Is(err, signer.ErrAltered) || r.ContentIntact {
				t.Errorf("altered: %v, %+v", err, r)
			}
		})
	}
}

// toBER writes a DER value as freely as BER allows: indefinite lengths and
// OCTET STRINGs in chunks of 7.
func toBER(t testing.TB, der []byte) []byte {
	t.Helper()
	var out []byte
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			t.Fatal(err)
		}
		switch tag := der[0]; {
		case tag == 0x04:
			out = append(out, 0x24, 0x80)
			for c := v.Bytes; len(c) > 0; c = c[min(7, len(c)):] {
				n := min(7, len(c))
				out = append(append(out, 0x04, byte(n)), c[:n]...)
			}
			out = append(out, 0, 0)
		case v.IsCompound:
			out = append(append(append(out, tag, 0x80), toBER(t, v.Bytes)...), 0, 0)
		default:
			out = append(out, v.FullBytes...)
		}
		der = rest
	}
	return out
}

// TestVerifySMIMEOfOpenSSL reads whole messages as OpenSSL writes them, with LF
// and with CRLF.
func TestVerifySMIMEOfOpenSSL(t *testing.T) {
	ca, alfa := newAlfa(t)
	entity := []byte(strings.ReplaceAll(entityText, "\r", ""))
	for _, args := range [][]string{{}, {"-crlfeol"}, {"-stream"}} {
		mail := openssl(t, entity, append([]string{"cms", "-sign", "-signer", alfa.CertFile, "-inkey", alfa.KeyFile}, args...)...)
		if _, err := verify(t, signer.NewVerifier(ca.Pool()), mail); err != nil {
			t.Errorf("%v: %v\n%s", args, err, mail)
		}
	}
}

func TestVerifySavedWithLF(t *testing.T) {
	ca, alfa := newAlfa(t)
	mail := bytesOf(t, sign(t, alfa.Identity, transportDraft(t, originalOf(200_000), false)).Content())
	saved := bytes.ReplaceAll(mail, []byte("\r\n"), []byte("\n"))
	v := signer.NewVerifier(ca.Pool())
	if _, err := verify(t, v, saved); err != nil {
		t.Errorf("saved with LF: %v", err)
	}
	half := append(bytes.ReplaceAll(mail[:len(mail)/2], []byte("\r\n"), []byte("\n")), mail[len(mail)/2:]...)
	if _, err := verify(t, v, half); err != nil {
		t.Errorf("half saved with LF: %v", err)
	}
	altered := bytes.Replace(saved, []byte("dull"), []byte("bull"), 1)
	if _, err := verify(t, v, altered); !errors.Is(err, signer.ErrAltered) {
		t.Errorf("saved with LF and altered: %v", err)
	}
	doubled := bytes.ReplaceAll(mail, []byte("\r\n"), []byte("\r\r\n"))
	if _, err := verify(t, v, doubled); err == nil {
		t.Error("CR CR LF verified")
	}
}

// TestOneChangedByte changes the signed part at many places: each must be seen.
func TestOneChangedByte(t *testing.T) {
	ca, alfa := newAlfa(t)
	d := transportDraft(t, originalOf(3000), false)
	mail := bytesOf(t, sign(t, alfa.Identity, d).Content())
	v := signer.NewVerifier(ca.Pool())
	entity := bytesOf(t, d.Entity)
	start := bytes.Index(mail, entity)
	for i := 0; i < len(entity); i += 2 {
		if c := entity[i]; c == '\r' || c == '\n' {
			continue // see below
		}
		changed := bytes.Clone(mail)
		changed[start+i] ^= 1
		r, err := v.Verify(read(t, changed), testTime)
		if !errors.Is(err, signer.ErrAltered) || r.ContentIntact || !r.SignatureHolds {
			t.Fatalf("octet %d (%q) changed: %v", i, entity[i], err)
		}
	}
	for i := 0; i < len(entity); i += 7 {
		c := "\r\n\x00\xff"[i%4]
		if entity[i] == c {
			continue
		}
		changed := bytes.Clone(mail)
		changed[start+i] = c
		if _, err := v.Verify(read(t, changed), testTime); !errors.Is(err, signer.ErrAltered) {
			t.Fatalf("octet %d (%q) became %q: %v", i, entity[i], c, err)
		}
	}
}

// TestChangedSignature changes each octet of the signature: none of them may
// end in a panic, and none that matters in success.
func TestChangedSignature(t *testing.T) {
	ca, alfa := newAlfa(t)
	p7s := cmsSign(t, alfa, []byte(entityText))
	v := signer.NewVerifier(ca.Pool())
	held := 0
	for i := range p7s {
		changed := bytes.Clone(p7s)
		changed[i] ^= 0x11
		if r, err := v.Verify(read(t, wrap([]byte(entityText), changed)), testTime); err == nil {
			if !r.Signer.Equal(alfa.Certificate()) {
				t.Fatalf("octet %d: another signer", i)
			}
			held++
		}
	}
	// What is neither signed nor needed: versions, the list of digests, the
	// certificate of the anchor itself.
	if held > len(ca.Certificate.Raw)+100 {
		t.Errorf("%d changes of %d made no difference", held, len(p7s))
	}
}

func TestVerifyStructure(t *testing.T) {
	ca, alfa := newAlfa(t)
	p7s := cmsSign(t, alfa, []byte(entityText))
	good := string(wrap([]byte(entityText), p7s))
	const b64 = "Content-Transfer-Encoding: base64\r\n"
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	body := good[strings.LastIndex(good, "\r\n\r\n")+4 : strings.LastIndex(good, "\r\n--bb--")]
	for name, tc := range map[string]struct {
		mail string
		want error
	}{
		"good":                 {good, nil},
		"protocol new name":    {strings.ReplaceAll(good, "x-pkcs7-signature", "pkcs7-signature"), nil},
		"names differ":         {replace("protocol=\"application/x-pkcs7", "protocol=\"application/pkcs7"), nil},
		"protocol unquoted":    {replace("\"application/x-pkcs7-signature\"", "application/x-pkcs7-signature"), nil},
		"no protocol":          {replace("protocol=\"application/x-pkcs7-signature\"; ", ""), nil},
		"no micalg":            {replace(" micalg=sha1;", ""), nil},
		"micalg lies":          {replace("micalg=sha1", "micalg=\"sha-512\""), nil},
		"preamble":             {replace("\r\n\r\n--bb", "\r\n\r\nThis is signed\r\n\r\n--bb"), nil},
		"epilogue":             {good + "list footer\r\n", nil},
		"base64 with rubbish":  {replace(body, strings.ReplaceAll(body, "\r\n", " !\r\n\t")), nil},
		"base64 on one line":   {replace(body, strings.ReplaceAll(body, "\r\n", "")), nil},
		"base64 unpadded":      {replace(body, strings.TrimRight(body, "=")), nil},
		"binary":               {strings.Replace(replace(b64, ""), body, string(p7s), 1), nil},
		"plain":                {"Subject: x\r\n\r\nhello\r\n", signer.ErrNoSignature},
		"no header":            {"\r\nhello\r\n", signer.ErrNoSignature},
		"empty":                {"", signer.ErrNoSignature},
		"multipart/mixed":      {replace("multipart/signed", "multipart/mixed"), signer.ErrNoSignature},
		"OpenPGP":              {replace("application/x-pkcs7-signature", "application/pgp-signature"), signer.ErrNoSignature},
		"opaque":               {"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\n" + b64 + "\r\n" + body, signer.ErrNoSignature},
		"no boundary":          {replace("boundary=\"bb\"", "x=y"), signer.ErrMalformedSignature},
		"other second part":    {replace("Content-Type: application/x-pkcs7-signature; name", "Content-Type: text/plain; name"), signer.ErrMalformedSignature},
		"third part":           {replace("--bb--", "--bb\r\n\r\nfooter\r\n--bb--"), signer.ErrMalformedSignature},
		"one part":             {good[:strings.Index(good, "\r\n--bb\r\nContent-Type: application")] + "\r\n--bb--\r\n", signer.ErrMalformedSignature},
		"bad base64":           {replace(body, "A"), signer.ErrMalformedSignature},
		"no signature":         {replace(body, ""), signer.ErrMalformedSignature},
		"truncated":            {replace(body, body[:len(body)/2]), signer.ErrMalformedSignature},
		"quoted-printable":     {replace(b64, "Content-Transfer-Encoding: quoted-printable\r\n"), signer.ErrMalformedSignature},
		"trailing garbage":     {string(wrap([]byte(entityText), append(bytes.Clone(p7s), 0, 0))), signer.ErrMalformedSignature},
		"not signed data":      {string(wrap([]byte(entityText), enveloped(t, alfa))), signer.ErrMalformedSignature},
		"large":                {string(wrap([]byte(entityText), make([]byte, signer.MaxSignature+1))), signer.ErrMalformedSignature},
		"deep":                 {string(wrap([]byte(entityText), bytes.Repeat([]byte{0x30, 0x80}, signer.MaxSignature/2))), signer.ErrMalformedSignature},
		"wide":                 {string(wrap([]byte(entityText), bytes.Repeat([]byte{0x05, 0x00}, signer.MaxSignature/2))), signer.ErrMalformedSignature},
		"huge":                 {string(wrap([]byte(entityText), bytes.Repeat([]byte{0x30, 0x80}, 1_000_000))), signer.ErrMalformedSignature},
		"parts without number": {good[:strings.Index(good, "--bb--")] + strings.Repeat("--bb\r\n\r\nx\r\n", 5000), signer.ErrMalformedSignature},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := verify(t, signer.NewVerifier(ca.Pool()), []byte(tc.mail))
			if !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if err == nil && r.Entity.Range().Len != int64(len(entityText)) {
				t.Errorf("entity of %d octets", r.Entity.Range().Len)
			}
		})
	}
}

func enveloped(t testing.TB, id *signertest.Identity) []byte {
	t.Helper()
	return openssl(t, []byte("x"), "cms", "-encrypt", "-outform", "DER", id.CertFile)
}

// TestLimits: size alone is a reason, whatever is in it.
func TestLimits(t *testing.T) {
	ca, _ := newAlfa(t)
	large := wrap([]byte(entityText), make([]byte, signer.MaxSignature+1))
	padded := bytes.Replace(wrap([]byte(entityText), nil), []byte("--bb--"), append(bytes.Repeat([]byte("!\r\n"), signer.MaxSignature+1), "--bb--"...), 1)
	for want, mail := range map[string][]byte{"more than 262144 octets": large, "part of 786": padded} {
		if _, err := verify(t, signer.NewVerifier(ca.Pool()), mail); !errors.Is(err, signer.ErrMalformedSignature) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, _, err := signer.OpenSignedData(make([]byte, signer.MaxSignedFile+1), ca.Pool(), testTime)
	if !errors.Is(err, signer.ErrMalformedSignature) || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: %v", err)
	}
}

// TestVerifyReadError: a message that cannot be read says nothing about its
// signature.
func TestVerifyReadError(t *testing.T) {
	ca, alfa := newAlfa(t)
	src := &countingSource{Source: message.Bytes(bytesOf(t, sign(t, alfa.Identity, receiptDraft(t)).Content()))}
	m, err := message.Read(src)
	if err != nil {
		t.Fatal(err)
	}
	src.err = errors.New("disk on fire")
	_, err = signer.NewVerifier(ca.Pool()).Verify(m, testTime)
	if !errors.Is(err, src.err) {
		t.Errorf("a read error became %v", err)
	}
	for _, sentinel := range []error{signer.ErrNoSignature, signer.ErrMalformedSignature, signer.ErrAltered, signer.ErrSignature} {
		if errors.Is(err, sentinel) {
			t.Errorf("a read error became %v", err)
		}
	}
}

// TestCertificateSwap: a second certificate with the same issuer and serial
// number must not lend its name to the signature.
func TestCertificateSwap(t *testing.T) {
	ca, alfa := newAlfa(t)
	twin := *alfa.Certificate()
	tmpl := ca.Template("Eve", "posta-certificata@eve.example")
	tmpl.SerialNumber = twin.SerialNumber
	eve := ca.Issue(t, tmpl, signertest.Key(t, "eve").Public())
	sd, err := pkcs7.NewSignedData([]byte(entityText))
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	sd.AddCertificate(eve)
	if err := sd.AddSigner(alfa.Certificate(), signertest.Key(t, alfaPost), pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	sd.Detach()
	p7s, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify(t, signer.NewVerifier(ca.Pool()), wrap([]byte(entityText), p7s))
	if !errors.Is(err, signer.ErrSignature) || r.SignatureHolds {
		t.Errorf("signed by Alfa, first certificate Eve's: %v, %+v", err, r)
	}
}

func ExampleVerifier_Verify() {
	m, err := message.Read(message.Bytes("Subject: ciao\r\n\r\nordinary mail\r\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = signer.NewVerifier(nil).Verify(m, testTime)
	fmt.Println(errors.Is(err, signer.ErrNoSignature))
	// Output: true
}
