package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"
)

// A crafted is a SignedData put together by hand, so that each of its values
// can be wrong while the signature over it is genuine.
type crafted struct {
	outer, inner asn1.ObjectIdentifier
	certificate  *x509.Certificate
	signerID     []byte
	digest       asn1.ObjectIdentifier
	algorithm    asn1.ObjectIdentifier
	parameters   []byte
	attributes   [][]byte
	signed       [][]byte // in the order in which they are signed
	key          crypto.Signer
	trailer      []byte // in the SignerInfo
}

var (
	craftedContent = []byte("content")
	craftedTime    = time.Date(2026, 9, 19, 0, 0, 0, 0, time.UTC)
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attributeOf(t *testing.T, oid asn1.ObjectIdentifier, values ...any) []byte {
	t.Helper()
	var set [][]byte
	for _, v := range values {
		set = append(set, marshal(t, v))
	}
	return tlv(tagSequence, marshal(t, oid), tlv(tagSet, set...))
}

func selfSigned(t *testing.T, key crypto.Signer, serial int64) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: craftedTime.AddDate(-1, 0, 0), NotAfter: craftedTime.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newCrafted(t *testing.T, key crypto.Signer, cert *x509.Certificate) *crafted {
	t.Helper()
	sum := sha256.Sum256(craftedContent)
	c := &crafted{
		outer: oidSignedData, inner: oidData,
		certificate: cert, key: key,
		signerID: tlv(tagSequence, cert.RawIssuer, marshal(t, cert.SerialNumber)),
		digest:   oidSHA256, algorithm: oidRSAEncryption, parameters: tlv(tagNull),
		attributes: [][]byte{
			attributeOf(t, oidContentType, oidData),
			attributeOf(t, oidSigningTime, craftedTime),
			attributeOf(t, oidMessageDigest, sum[:]),
		},
	}
	if _, ok := key.(*ecdsa.PrivateKey); ok {
		c.algorithm, c.parameters = oidECDSAWithSHA256, nil
	}
	c.signed = c.attributes
	return c
}

func (c *crafted) encode(t *testing.T) []byte {
	t.Helper()
	sum := sha256.Sum256(tlv(tagSet, c.signed...))
	signature, err := c.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	version := tlv(tagInteger, []byte{1})
	digest := tlv(tagSequence, marshal(t, c.digest))
	info := tlv(tagSequence, version, c.signerID, digest, tlv(tagContext0, c.attributes...),
		tlv(tagSequence, marshal(t, c.algorithm), c.parameters), tlv(tagOctetString, signature), c.trailer)
	sd := tlv(tagSequence, version, tlv(tagSet, digest), tlv(tagSequence, marshal(t, c.inner)),
		tlv(tagContext0, c.certificate.Raw), tlv(tagSet, info))
	return tlv(tagSequence, marshal(t, c.outer), tlv(tagContext0, sd))
}

func (c *crafted) verify(t *testing.T) (*Report, error) {
	t.Helper()
	sd, err := readSignedData(c.encode(t))
	if err != nil {
		return nil, err
	}
	r := new(Report)
	return r, NewVerifier(nil).verify(t.Context(), r, sd, memoryDigest{craftedContent, sd.signer.hash}, craftedTime)
}

// TestCrafted: values that no decent program writes, under genuine signatures.
func TestCrafted(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaCert, ecCert := selfSigned(t, rsaKey, 5), selfSigned(t, ecKey, 5)
	foreign := asn1.ObjectIdentifier{1, 2, 3}
	sha256RSA := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	sha512RSA := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
	sum := sha256.Sum256(craftedContent)
	without := func(i int) func(c *crafted) {
		return func(c *crafted) {
			c.attributes = slices.Delete(slices.Clone(c.attributes), i, i+1)
			c.signed = c.attributes
		}
	}
	with := func(a []byte) func(c *crafted) {
		return func(c *crafted) {
			c.attributes = append(slices.Clone(c.attributes), a)
			c.signed = slices.Clone(c.attributes)
			slices.SortFunc(c.signed, bytes.Compare)
		}
	}
	instead := func(i int, a []byte) func(c *crafted) {
		return func(c *crafted) {
			c.attributes = slices.Clone(c.attributes)
			c.attributes[i] = a
			c.signed = c.attributes
		}
	}
	for name, tc := range map[string]struct {
		change func(c *crafted)
		want   error
	}{
		"good":                   {func(*crafted) {}, nil},
		"no parameters":          {func(c *crafted) { c.parameters = nil }, nil},
		"sha256WithRSA":          {func(c *crafted) { c.algorithm = sha256RSA }, nil},
		"sha256WithRSA, no NULL": {func(c *crafted) { c.algorithm, c.parameters = sha256RSA, nil }, nil},
		"no signing time":        {without(1), nil},
		"unknown attribute":      {with(attributeOf(t, foreign, 1, 2)), nil},
		"unsigned attributes":    {func(c *crafted) { c.trailer = tlv(0xa1, attributeOf(t, foreign, 1)) }, nil},
		"sent in another order":  {func(c *crafted) { c.attributes = [][]byte{c.signed[2], c.signed[0], c.signed[1]} }, nil},
		"signed in another order": {func(c *crafted) {
			c.attributes = [][]byte{c.signed[2], c.signed[0], c.signed[1]}
			c.signed = c.attributes
		}, nil},
		"in two other orders": {func(c *crafted) {
			c.attributes = [][]byte{c.signed[2], c.signed[0], c.signed[1]}
			c.signed = [][]byte{c.signed[1], c.signed[0], c.signed[2]}
		}, ErrSignature},
		"other attributes signed":  {func(c *crafted) { c.signed = c.signed[:2] }, ErrSignature},
		"other key":                {func(c *crafted) { c.key = otherKey }, ErrSignature},
		"other digest":             {instead(2, attributeOf(t, oidMessageDigest, make([]byte, 32))), ErrAltered},
		"short digest":             {instead(2, attributeOf(t, oidMessageDigest, sum[:31])), ErrAltered},
		"empty digest":             {instead(2, attributeOf(t, oidMessageDigest, []byte{})), ErrAltered},
		"outer type":               {func(c *crafted) { c.outer = foreign }, ErrMalformedSignature},
		"inner type":               {func(c *crafted) { c.inner = foreign }, ErrMalformedSignature},
		"content type attribute":   {instead(0, attributeOf(t, oidContentType, foreign)), ErrMalformedSignature},
		"no content type":          {without(0), ErrMalformedSignature},
		"no message digest":        {without(2), ErrMalformedSignature},
		"no attributes in the set": {func(c *crafted) { c.attributes, c.signed = nil, nil }, ErrMalformedSignature},
		"digest twice":             {with(attributeOf(t, oidMessageDigest, sum[:])), ErrMalformedSignature},
		"two digests":              {instead(2, attributeOf(t, oidMessageDigest, make([]byte, 32), sum[:])), ErrMalformedSignature},
		"two times":                {with(attributeOf(t, oidSigningTime, craftedTime)), ErrMalformedSignature},
		"no digest in the set":     {instead(2, attributeOf(t, oidMessageDigest)), ErrMalformedSignature},
		"digest of another type":   {instead(2, attributeOf(t, oidMessageDigest, 5)), ErrMalformedSignature},
		"time of another type":     {instead(1, attributeOf(t, oidSigningTime, 5)), ErrMalformedSignature},
		"attribute is rubbish":     {with([]byte{0x30, 0x01, 0x05}), ErrMalformedSignature},
		"unknown digest":           {func(c *crafted) { c.digest = foreign }, ErrMalformedSignature},
		"unknown algorithm":        {func(c *crafted) { c.algorithm = foreign }, ErrMalformedSignature},
		"algorithms at odds":       {func(c *crafted) { c.algorithm = sha512RSA }, ErrMalformedSignature},
		"RSA said, ECDSA done":     {func(c *crafted) { *c = *newCrafted(t, ecKey, ecCert); c.algorithm = oidRSAEncryption }, ErrMalformedSignature},
		"ECDSA":                    {func(c *crafted) { *c = *newCrafted(t, ecKey, ecCert) }, nil},
		"ECDSA by its key type":    {func(c *crafted) { *c = *newCrafted(t, ecKey, ecCert); c.algorithm = oidECPublicKey }, nil},
		"other serial":             {func(c *crafted) { c.signerID = tlv(tagSequence, c.certificate.RawIssuer, []byte{2, 1, 6}) }, ErrMalformedSignature},
		"other issuer":             {func(c *crafted) { c.signerID = tlv(tagSequence, tlv(tagSequence, tlv(tagSet)), []byte{2, 1, 5}) }, ErrMalformedSignature},
		"unknown key id":           {func(c *crafted) { c.signerID = []byte{0x80, 2, 1, 2} }, ErrMalformedSignature},
		"empty key id":             {func(c *crafted) { c.signerID = []byte{0x80, 0} }, ErrMalformedSignature},
		"signer is rubbish":        {func(c *crafted) { c.signerID = []byte{2, 1, 5} }, ErrMalformedSignature},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrafted(t, rsaKey, rsaCert)
			tc.change(c)
			r, err := c.verify(t)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if err == nil && !(r.SignatureHolds && r.ContentIntact) {
				t.Errorf("report %+v", r)
			}
			if errors.Is(err, ErrSignature) && (r.SignatureHolds || !r.ContentIntact) {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// TestHugeKey: a certificate with a key that would take minutes to compute with
// is refused before that, be it the signer's or an issuer's.
func TestHugeKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	huge := new(big.Int).Lsh(big.NewInt(1), 1_000_000)
	huge.SetBit(huge, 0, 1)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: craftedTime.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &rsa.PublicKey{N: huge, E: 65537}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, signer := range []*x509.Certificate{cert, selfSigned(t, key, 5)} {
		c := newCrafted(t, key, signer)
		if signer != cert {
			c.certificate = &x509.Certificate{Raw: append(bytes.Clone(signer.Raw), der...)}
		}
		begin := time.Now()
		if _, err := c.verify(t); !errors.Is(err, ErrMalformedSignature) {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	}
}

// TestSigningTime: UTCTime until 2049, GeneralizedTime afterwards (RFC 5652,
// 11.3), in a DER SET OF.
func TestSigningTime(t *testing.T) {
	for year, ok := range map[int]bool{1949: false, 1950: true, 2026: true, 2049: true, 2050: true, 9999: true, 10000: false} {
		at := time.Date(year, 2, 3, 4, 5, 6, 789, time.FixedZone("", 3600))
		der, err := signedAttributes([32]byte{1}, at)
		if (err == nil) != ok {
			t.Errorf("%d: %v", year, err)
		}
		if !ok {
			continue
		}
		var si signerInfo
		if err := si.readAttributes(der); err != nil || !si.signingTime.Equal(at.Truncate(time.Second)) || si.messageDigest[0] != 1 {
			t.Errorf("%d: %v, %v", year, si.signingTime, err)
		}
		if !slices.IsSortedFunc(si.attributes, bytes.Compare) {
			t.Errorf("%d: not in the order of DER", year)
		}
		if want := map[bool]byte{true: 0x17, false: 0x18}[year < 2050]; si.attributes[1][15] != want {
			t.Errorf("%d: %x", year, si.attributes[1])
		}
	}
}
