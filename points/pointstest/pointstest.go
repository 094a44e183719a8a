// Package pointstest builds a small world for tests of the points and of what
// carries them out: two providers with keys and certificates, and the directory
// that holds both.
package pointstest

import (
	"bytes"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/issue"
	"pecd/signer"
	"pecd/signer/signertest"
)

// At is an instant within the validity of all certificates here, in legal time.
var At = time.Date(2026, 11, 22, 10, 45, 37, 0, time.FixedZone("", 3600))

// A World is two providers, Alfa and Beta, that find each other in Directory.
type World struct {
	CA         *signertest.CA
	Alfa, Beta *Provider
	Directory  *directory.Directory
	LDIF       []byte
	Verifier   *signer.Verifier
}

// A Provider can issue.
type Provider struct {
	Identity *signertest.Identity
	Issuer   issue.Issuer
	Signer   *signer.Signer
	Record   *directory.Provider
}

// New makes a world.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{CA: signertest.NewCA(t)}
	w.Alfa = newProvider(t, w.CA, "Alfa PEC S.p.A.", "alfa.example")
	w.Beta = newProvider(t, w.CA, "Beta PEC S.p.A.", "beta.example")
	var ldif bytes.Buffer
	if err := directory.Marshal(&ldif, []directory.Provider{*w.Alfa.Record, *w.Beta.Record}); err != nil {
		t.Fatal(err)
	}
	w.LDIF = ldif.Bytes()
	var err error
	if w.Directory, err = directory.Parse(w.LDIF); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Provider{w.Alfa, w.Beta} {
		p.Record, _ = w.Directory.ByCertificate(p.Identity.Certificate().Raw)
	}
	w.Verifier = signer.NewVerifier(w.CA.Pool())
	return w
}

func newProvider(t testing.TB, ca *signertest.CA, name, domain string) *Provider {
	id := ca.Identity(t, name, "posta-certificata@"+domain)
	return &Provider{
		Identity: id,
		Issuer:   issue.Issuer{Name: name, Address: id.Address()},
		Signer:   signer.NewSigner(id.Identity),
		Record: &directory.Provider{Name: name, Certificates: [][]byte{id.Certificate().Raw},
			ServiceMailbox: pec.Address("ricevute@" + domain), Domains: []string{domain}},
	}
}
