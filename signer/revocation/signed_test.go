package revocation

import (
	"testing"

	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/signertest"
)

// signed returns something that id signed.
func signed(t testing.TB, id *signertest.Identity) []byte {
	t.Helper()
	p7m, err := signer.NewSigner(id.Identity).SignRecords(t.Context(), []directory.Provider{{
		Name: "Alfa", Certificates: [][]byte{id.Certificate().Raw}, ServiceMailbox: "a@alfa.example", Domains: []string{"alfa.example"},
	}}, start)
	if err != nil {
		t.Fatal(err)
	}
	return p7m
}
