// Package timestamptest has time-stamping authorities for tests: a real one,
// which is OpenSSL behind HTTP, and one that makes tokens in the process at any
// time.
package timestamptest

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pecd/signer/signertest"
	"pecd/signer/timestamp"
)

// Policy is the policy of the authorities, unless another is asked for.
const Policy = "1.3.6.1.4.1.99999.1"

// An Authority is a throw-away time-stamping authority.
type Authority struct {
	CA          *signertest.CA
	Certificate *x509.Certificate
	// Now is the clock of Stamp.
	Now func() time.Time

	key crypto.Signer
	dir string // of the files for OpenSSL

	mu     sync.Mutex // guards serial and OpenSSL's serial file
	serial int64
}

// New makes an authority whose files last as long as the test. change, which may
// be nil, alters the certificate before it is issued.
func New(t testing.TB, change func(*x509.Certificate)) *Authority {
	t.Helper()
	ca := signertest.NewCA(t)
	key := signertest.Key(t, "tsa")
	tmpl := &x509.Certificate{
		SerialNumber:    big.NewInt(77),
		Subject:         pkix.Name{Country: []string{"IT"}, Organization: []string{"Test TSA"}, CommonName: "Test TSA"},
		NotBefore:       signertest.NotBefore,
		NotAfter:        signertest.NotAfter,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{Usage(true, 8)},
	}
	if change != nil {
		change(tmpl)
	}
	a := &Authority{CA: ca, Certificate: ca.Issue(t, tmpl, key.Public()), Now: time.Now, key: key, dir: t.TempDir()}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, "tsa.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	a.write(t, "tsa.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw}))
	a.write(t, "serial", []byte("01\n"))
	a.write(t, "tsa.cnf", fmt.Appendf(nil, configuration, a.dir, Policy))
	return a
}

// Usage is the extension of the extended key usage with the given purposes of
// RFC 5280, 4.2.1.12; 8 is for time stamps.
func Usage(critical bool, purposes ...int) pkix.Extension {
	var oids []asn1.ObjectIdentifier
	for _, p := range purposes {
		oids = append(oids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, p})
	}
	der, err := asn1.Marshal(oids)
	if err != nil {
		der = nil // cannot be: these are valid
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: der}
}

const configuration = `[tsa]
default_tsa = it
[it]
dir = %s
serial = $dir/serial
signer_cert = $dir/tsa.pem
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = %s
other_policies = 1.3.6.1.4.1.99999.2
digests = sha256
accuracy = secs:1
tsa_name = yes
ess_cert_id_alg = sha256
`

func (a *Authority) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Verifier returns a verifier that trusts a.
func (a *Authority) Verifier() *timestamp.Verifier { return timestamp.NewVerifier(a.CA.Pool()) }

// Reply lets OpenSSL answer the query: a TimeStampResp.
func (a *Authority) Reply(ctx context.Context, query []byte) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in, out := filepath.Join(a.dir, "query"), filepath.Join(a.dir, "reply")
	if err := os.WriteFile(in, query, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "openssl", "ts", "-reply", "-config", filepath.Join(a.dir, "tsa.cnf"), "-queryfile", in, "-out", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("openssl ts -reply: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

// Stamp makes a token at a's time, as a timestamp.Client does.
func (a *Authority) Stamp(ctx context.Context, digest [sha256.Size]byte) (*timestamp.Token, error) {
	der, err := a.Token(Info{Digest: digest[:], Time: a.Now()})
	if err != nil {
		return nil, err
	}
	return a.Verifier().Verify(ctx, der, digest)
}

// An Info is what a token of Token says.
type Info struct {
	Digest []byte
	Time   time.Time
	Nonce  *big.Int // may be nil
}

// Token makes a token.
func (a *Authority) Token(i Info) ([]byte, error) {
	a.mu.Lock()
	a.serial++
	serial := a.serial
	a.mu.Unlock()
	return encodeToken(a.Certificate, a.key, i, serial)
}

// Response wraps a token into an answer of an authority.
func Response(token []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		Status struct{ Status int }
		Token  asn1.RawValue
	}{Token: asn1.RawValue{FullBytes: token}})
}
