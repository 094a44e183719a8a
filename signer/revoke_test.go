package signer_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"pecd/signer"
	"pecd/signer/signertest"
)

// A revoker answers by the certificate's common name.
type revoker struct {
	answers map[string]error
	asked   atomic.Int32
	at      time.Time
	ctx     context.Context
}

func (r *revoker) Revoked(ctx context.Context, cert, issuer *x509.Certificate, at time.Time) error {
	r.asked.Add(1)
	r.at, r.ctx = at, ctx
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("not the issuer: %w", err)
	}
	return r.answers[cert.Subject.CommonName]
}

var errElse = errors.New("something else")

// TestRevoker: revocation is asked about last, about each certificate but the
// anchor, and what is not known is no answer.
func TestRevoker(t *testing.T) {
	ca, alfa := newAlfa(t)
	entity := []byte(entityText)
	subKey := ecdsaKey(t)
	tmpl := ca.Template("Sub CA", "ca@ca.example")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	sub := ca.Issue(t, tmpl, subKey.Public())
	leaf, err := x509.CreateCertificate(rand.Reader, ca.Template(alfaName, alfaPost), sub, signertest.Key(t, alfaPost).Public(), subKey)
	if err != nil {
		t.Fatal(err)
	}
	id := &signertest.Identity{KeyFile: alfa.KeyFile, CertFile: writeFile(t, "leaf.pem", pemOf("CERTIFICATE", leaf))}
	mail := wrap(entity, cmsSign(t, id, entity, "-certfile", writeFile(t, "sub.pem", pemOf("CERTIFICATE", sub.Raw))))
	bad := wrap(append(entity, 'x'), p7sOf(t, mail))
	unknown := fmt.Errorf("%w: no list", signer.ErrRevocationUnknown)
	revoked := fmt.Errorf("%w: on a day", signer.ErrRevoked)
	for name, tc := range map[string]struct {
		mail    []byte
		anchors *x509.CertPool
		answers map[string]error
		asked   int32
		want    error
		known   bool
	}{
		"good":            {mail, ca.Pool(), nil, 2, nil, true},
		"leaf":            {mail, ca.Pool(), map[string]error{alfaName: revoked}, 1, signer.ErrRevoked, true},
		"authority":       {mail, ca.Pool(), map[string]error{"Sub CA": revoked}, 2, signer.ErrRevoked, true},
		"unknown":         {mail, ca.Pool(), map[string]error{alfaName: unknown}, 2, signer.ErrRevocationUnknown, false},
		"unknown, sub CA": {mail, ca.Pool(), map[string]error{"Sub CA": unknown}, 2, signer.ErrRevocationUnknown, false},
		"known outweighs": {mail, ca.Pool(), map[string]error{alfaName: unknown, "Sub CA": revoked}, 2, signer.ErrRevoked, true},
		"another error":   {mail, ca.Pool(), map[string]error{alfaName: errElse}, 2, signer.ErrRevocationUnknown, false},
		"altered":         {bad, ca.Pool(), map[string]error{alfaName: unknown}, 0, signer.ErrAltered, false},
		"untrusted":       {mail, signertest.NewCA(t).Pool(), map[string]error{alfaName: unknown}, 0, signer.ErrUntrusted, false},
		"no anchors":      {mail, nil, map[string]error{alfaName: revoked}, 0, nil, false},
	} {
		r := &revoker{answers: tc.answers}
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, name)
		rep, err := signer.NewVerifier(tc.anchors).WithRevoker(r).VerifyContext(ctx, read(t, tc.mail), testTime)
		if !errors.Is(err, tc.want) || r.asked.Load() != tc.asked || rep.Revocation != tc.known {
			t.Errorf("%s: %v, asked %d times, report %+v", name, err, r.asked.Load(), rep)
		}
		if tc.asked > 0 && (!r.at.Equal(testTime) || r.ctx.Value(key{}) != name) {
			t.Errorf("%s: asked about %s", name, r.at)
		}
		if signer.ErrRevocationUnknown == tc.want && !errors.Is(rep.ChainErr, tc.want) {
			t.Errorf("%s: %v", name, rep.ChainErr)
		}
	}
}

// TestRevokedAuthorityRenewed: a chain through the authority's renewed
// certificate holds although the old one was revoked.
func TestRevokedAuthorityRenewed(t *testing.T) {
	ca, alfa := newAlfa(t)
	entity := []byte(entityText)
	key := ecdsaKey(t)
	var subs []byte
	var first *x509.Certificate
	var serials []*big.Int
	for range 2 {
		tmpl := ca.Template("Sub CA", "ca@ca.example")
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		sub := ca.Issue(t, tmpl, key.Public())
		first = sub
		subs = append(subs, pemOf("CERTIFICATE", sub.Raw)...)
		serials = append(serials, sub.SerialNumber)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, ca.Template(alfaName, alfaPost), first, signertest.Key(t, alfaPost).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	id := &signertest.Identity{KeyFile: alfa.KeyFile, CertFile: writeFile(t, "leaf.pem", pemOf("CERTIFICATE", leaf))}
	m := read(t, wrap(entity, cmsSign(t, id, entity, "-certfile", writeFile(t, "subs.pem", subs))))
	lists := []*x509.RevocationList{crl(t, ca, serials[0], testTime.AddDate(-1, 0, 0), false), crl(t, ca, serials[1], testTime.AddDate(-1, 0, 0), false)}
	v := signer.NewVerifier(ca.Pool())
	for i := range lists {
		if _, err := v.WithCRLs(lists[i:i+1]).Verify(m, testTime); err != nil {
			t.Errorf("certificate %d of the authority revoked: %v", i, err)
		}
	}
	if _, err := v.WithCRLs(lists).Verify(m, testTime); !errors.Is(err, signer.ErrRevoked) {
		t.Errorf("both revoked: %v", err)
	}
	if _, err := v.WithCRLs(lists[:1]).WithCRLs(lists[1:]).Verify(m, testTime); !errors.Is(err, signer.ErrRevoked) {
		t.Errorf("both revoked, in two lists: %v", err)
	}
}

// BenchmarkCRL looks a serial number up in a list of 100,000.
func BenchmarkCRL(b *testing.B) {
	ca := signertest.NewCA(b)
	var entries []x509.RevocationListEntry
	for i := range 100_000 {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i)*7919 + 1<<40), RevocationTime: testTime})
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: testTime,
		NextUpdate: testTime.AddDate(0, 0, 1), RevokedCertificateEntries: entries}, ca.Certificate, ca.Key)
	if err != nil {
		b.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		b.Fatal(err)
	}
	leaf := ca.Identity(b, alfaName, alfaPost).Certificate()
	r := signer.CRLs([]*x509.RevocationList{list})
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Revoked(b.Context(), leaf, ca.Certificate, testTime); err != nil {
			b.Fatal(err)
		}
	}
}
