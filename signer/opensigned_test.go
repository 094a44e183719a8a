package signer_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"testing"

	"pecd/signer"
	"pecd/signer/signertest"
)

func TestOpenSignedData(t *testing.T) {
	ca, alfa := newAlfa(t)
	other := signertest.NewCA(t)
	content := bytes.Repeat([]byte("dn: o=postacert\nobjectclass: top\n\n"), 5000)
	p7m := cmsSign(t, alfa, content, "-nodetach")
	chunked := cmsSign(t, alfa, content, "-nodetach", "-stream", "-indef")
	if !bytes.Contains(chunked, []byte{0x24, 0x80}) {
		t.Fatal("OpenSSL did not make chunks")
	}
	pem := openssl(t, chunked, "cms", "-cmsout", "-inform", "DER", "-outform", "PEM")
	altered := bytes.Replace(p7m, []byte("postacert"), []byte("postacerd"), 1)
	encoded := []byte(base64.StdEncoding.EncodeToString(p7m))
	for name, tc := range map[string]struct {
		p7m     []byte
		anchors *x509.CertPool
		want    error
	}{
		"DER":          {p7m, ca.Pool(), nil},
		"BER":          {chunked, ca.Pool(), nil},
		"PEM":          {pem, ca.Pool(), nil},
		"key id":       {cmsSign(t, alfa, content, "-nodetach", "-keyid"), ca.Pool(), nil},
		"no anchors":   {p7m, nil, nil},
		"other CA":     {p7m, other.Pool(), signer.ErrUntrusted},
		"altered":      {altered, ca.Pool(), signer.ErrAltered},
		"detached":     {cmsSign(t, alfa, content), ca.Pool(), signer.ErrMalformedSignature},
		"certificate":  {pemOf("CERTIFICATE", ca.Certificate.Raw), ca.Pool(), signer.ErrMalformedSignature},
		"broken PEM":   {[]byte("-----BEGIN PKCS7-----\nAAAA\n"), ca.Pool(), signer.ErrMalformedSignature},
		"base64":       {encoded, ca.Pool(), signer.ErrMalformedSignature},
		"plain LDIF":   {content, ca.Pool(), signer.ErrMalformedSignature},
		"empty":        {nil, ca.Pool(), signer.ErrMalformedSignature},
		"too large":    {make([]byte, signer.MaxSignedFile+1), ca.Pool(), signer.ErrMalformedSignature},
		"deep":         {bytes.Repeat([]byte{0x30, 0x80}, 4_000_000), ca.Pool(), signer.ErrMalformedSignature},
		"many values":  {manyValues(), ca.Pool(), signer.ErrMalformedSignature},
		"deep chunks":  {bytes.Repeat([]byte{0x24, 0x80}, 1_000_000), ca.Pool(), signer.ErrMalformedSignature},
		"broken chunk": {bytes.Replace(chunked, []byte{0x24, 0x80, 0x04}, []byte{0x24, 0x80, 0x05}, 1), ca.Pool(), signer.ErrMalformedSignature},
	} {
		t.Run(name, func(t *testing.T) {
			got, cert, err := signer.OpenSignedData(tc.p7m, tc.anchors, testTime)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if err != nil && got != nil {
				t.Error("content in spite of an error")
			}
			if err == nil && (!bytes.Equal(got, content) || !cert.Equal(alfa.Certificate())) {
				t.Errorf("%d octets of %v", len(got), cert.Subject)
			}
		})
	}
}

// manyValues is one flat structure of eight million values.
func manyValues() []byte {
	const n = 16_000_000
	b := append([]byte{0x30, 0x84, byte(n >> 24), byte(n >> 16 & 0xff), byte(n >> 8 & 0xff), byte(n & 0xff)}, make([]byte, n)...)
	for i := 6; i < len(b); i += 2 {
		b[i] = 0x05
	}
	return b
}
