package signer_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// crl is a list by ca that revokes serial from at on, read from a file.
func crl(t *testing.T, ca *signertest.CA, serial *big.Int, at time.Time, asPEM bool) *x509.RevocationList {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at, NextUpdate: at.AddDate(0, 0, 1),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: at}}}, ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	if asPEM {
		der = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	file := filepath.Join(t.TempDir(), "crl")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := signer.LoadCRL(file)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRevoked(t *testing.T) {
	ca, other := signertest.NewCA(t), signertest.NewCA(t)
	id := ca.Identity(t, "Alfa PEC S.p.A.", "posta-certificata@alfa.example")
	m := read(t, bytesOf(t, sign(t, id.Identity, receiptDraft(t)).Content()))
	serial := id.Certificate().SerialNumber
	day := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	v := signer.NewVerifier(ca.Pool())
	for name, tt := range map[string]struct {
		list *x509.RevocationList
		at   time.Time
		want error
	}{
		"after":             {crl(t, ca, serial, day, false), day.AddDate(0, 0, 1), signer.ErrRevoked},
		"after, PEM":        {crl(t, ca, serial, day, true), day, signer.ErrRevoked},
		"before":            {crl(t, ca, serial, day, false), day.AddDate(0, 0, -1), nil},
		"another serial":    {crl(t, ca, big.NewInt(77), day, false), day.AddDate(0, 0, 1), nil},
		"by another issuer": {crl(t, other, serial, day, false), day.AddDate(0, 0, 1), nil},
	} {
		if _, err := v.WithCRLs([]*x509.RevocationList{tt.list}).Verify(m, tt.at); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestLoadCRLRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "crl")
	if err := os.WriteFile(file, []byte("no list"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.LoadCRL(file); err == nil {
		t.Error("read")
	}
}

// TestCRLIndex: of several entries the earliest counts, and one that takes a
// revocation back revokes nothing.
func TestCRLIndex(t *testing.T) {
	ca, other := signertest.NewCA(t), signertest.NewCA(t)
	day := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: day, NextUpdate: day.AddDate(0, 0, 1),
		RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(5), RevocationTime: day},
			{SerialNumber: big.NewInt(5), RevocationTime: day.AddDate(0, -1, 0)},
			{SerialNumber: big.NewInt(6), RevocationTime: day, ReasonCode: 8},
		}}, ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	x := signer.IndexCRL(list)
	if on, revoked := x.Find(big.NewInt(5)); !revoked || !on.Equal(day.AddDate(0, -1, 0)) {
		t.Errorf("5: %v, %t", on, revoked)
	}
	for _, serial := range []int64{6, 7} {
		if on, revoked := x.Find(big.NewInt(serial)); revoked {
			t.Errorf("%d: %v", serial, on)
		}
	}
	for range 2 {
		if err := x.SignedBy(ca.Certificate); err != nil {
			t.Error(err)
		}
		if x.SignedBy(other.Certificate) == nil {
			t.Error("signed by another")
		}
	}
	if x.List() != list {
		t.Error("another list")
	}
}
