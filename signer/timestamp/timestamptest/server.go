package timestamptest

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"

	"pecd/signer/timestamp"
)

// Server lets a answer over HTTP (RFC 3161, 3.4) until the test ends.
func (a *Authority) Server(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP answers a query.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "not a time stamp query", http.StatusBadRequest)
		return
	}
	query, err := io.ReadAll(io.LimitReader(r.Body, timestamp.MaxToken))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply, err := a.Reply(r.Context(), query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(reply)
}

// Answer answers the query in the process, as of a's clock: a TimeStampResp. It is
// for tests that move the clock, where OpenSSL cannot follow.
func (a *Authority) Answer(query []byte) ([]byte, error) {
	var q struct {
		Version int
		Imprint struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Nonce   *big.Int `asn1:"optional"`
		CertReq bool     `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(query, &q); err != nil {
		return nil, err
	}
	token, err := a.Token(Info{Digest: q.Imprint.Digest, Time: a.Now(), Nonce: q.Nonce})
	if err != nil {
		return nil, err
	}
	return Response(token)
}
