package signer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pecd/pec/message"
)

// FuzzSignedData: whatever the structure, reading it ends, and what is read can
// be asked about everything.
func FuzzSignedData(f *testing.F) {
	for _, p7s := range storedStructures(f) {
		f.Add(p7s)
	}
	files, err := filepath.Glob("testdata/vectors/*.eml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		mail, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		m, err := message.Read(message.Bytes(mail))
		if err != nil {
			f.Fatal(err)
		}
		if _, part, _, err := signedParts(m); err == nil {
			p7s, err := readSignature(part)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p7s)
		}
	}
	anchors, _, err := LoadAnchors("testdata/vectors/root.pem")
	if err != nil {
		f.Fatal(err)
	}
	v := NewVerifier(anchors)
	at := time.Date(2026, 9, 19, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, p7s []byte) {
		sd, err := readSignedData(p7s)
		if err != nil {
			return
		}
		content := []byte("Content-Type: text/plain\r\n\r\nProva di firma\r\nseconda riga\r\n")
		r := new(Report)
		err = v.verify(t.Context(), r, sd, memoryDigest{content, sd.signer.hash}, at)
		if err == nil && (!r.SignatureHolds || !r.ContentIntact || r.Signer == nil) {
			t.Errorf("verified with %+v", r)
		}
	})
}

// FuzzCRL: whatever the list, an index of it has what it lists.
func FuzzCRL(f *testing.F) {
	data, err := os.ReadFile("testdata/vectors/crl.pem")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(data)
	f.Add(block.Bytes, int64(1001))
	f.Add([]byte{0x30, 0x80}, int64(0))
	cert := &x509.Certificate{SerialNumber: big.NewInt(1)}
	f.Fuzz(func(t *testing.T, der []byte, serial int64) {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return
		}
		x := IndexCRL(list)
		listed := map[string]bool{}
		for _, e := range list.RevokedCertificateEntries {
			on, revoked := x.Find(e.SerialNumber)
			if e.ReasonCode != removeFromCRL && (!revoked || on.After(e.RevocationTime)) {
				t.Errorf("serial %v of %v: %v, %t", e.SerialNumber, e.RevocationTime, on, revoked)
			}
			listed[string(e.SerialNumber.Bytes())] = true
		}
		other := big.NewInt(serial)
		if _, revoked := x.Find(other); revoked && !listed[string(other.Bytes())] {
			t.Errorf("serial %v is not in the list", other)
		}
		cert.RawIssuer = list.RawIssuer
		if err := CRLs([]*x509.RevocationList{list}).Revoked(t.Context(), cert, cert, time.Unix(1<<40, 0)); err != nil {
			t.Errorf("a list that nobody signed counts: %v", err)
		}
	})
}

// FuzzPKCS12: whatever the file, reading it ends soon, and what is read is a key
// with a certificate. The pass phrase of the seeds is "test".
func FuzzPKCS12(f *testing.F) {
	files, err := filepath.Glob("testdata/pkcs12/*.p12")
	if err != nil || len(files) < 3 {
		f.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, file := range files {
		p12, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if key, certs, err := decodePKCS12(p12, "test"); err != nil || key == nil || len(certs) == 0 {
			f.Fatalf("%s: %v", file, err)
		}
		f.Add(p12)
	}
	f.Fuzz(func(t *testing.T, p12 []byte) {
		key, certs, err := decodePKCS12(p12, "test")
		if err == nil && (key == nil || len(certs) == 0) {
			t.Errorf("%v, %d certificates", key, len(certs))
		}
	})
}

// TestRounds: counts of rounds that would take hours are refused, wherever they
// stand.
func TestRounds(t *testing.T) {
	salt := tlv(tagOctetString, bytes.Repeat([]byte{7}, 8))
	count := func(n ...byte) []byte { return tlv(tagInteger, n) }
	for name, tc := range map[string]struct {
		der  []byte
		want error
	}{
		"usual":       {tlv(tagSequence, salt, count(0x08, 0)), nil},
		"million":     {tlv(tagSequence, salt, count(0x0f, 0x42, 0x40)), nil},
		"too many":    {tlv(tagSequence, salt, count(0x7f, 0xff, 0xff, 0xff)), errRounds},
		"negative":    {tlv(tagSequence, salt, count(0xff, 0xff, 0xff, 0xff)), errRounds},
		"inside":      {tlv(tagSequence, tlv(tagOctetString, tlv(tagSequence, salt, count(0x7f, 0xff, 0xff, 0xff)))), errRounds},
		"key length":  {tlv(tagSequence, salt, count(8, 0), count(32)), nil},
		"long key":    {tlv(tagSequence, salt, count(8, 0), count(0x7f, 0xff, 0xff)), errRounds},
		"no salt":     {tlv(tagSequence, count(0x7f, 0xff, 0xff, 0xff)), nil},
		"not a value": {[]byte{0x30, 5}, nil},
	} {
		if err := checkRounds(tc.der, 0); err != tc.want {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
