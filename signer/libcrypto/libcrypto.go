// Package libcrypto makes RSA signatures with the machine's OpenSSL, which takes a
// third of the time that Go takes. The library is opened at run time: without one,
// or with one that fails, Go signs.
package libcrypto

import (
	"crypto"
	"crypto/rsa"
	"fmt"
	"io"
	"sync"

	"github.com/golang-fips/openssl/v2"
	"github.com/golang-fips/openssl/v2/bbig"
)

// library is the name of OpenSSL's library; its interface is stable through all of
// version 3.
const library = "libcrypto.so.3"

// load opens the library, once.
var load = sync.OnceValues(func() (version string, err error) {
	if err := openssl.Init(library); err != nil {
		return "", fmt.Errorf("libcrypto: %w", err)
	}
	return openssl.VersionText(), nil
})

// Version returns the name and version of the library, or why there is none.
func Version() (string, error) { return load() }

// Faster returns a key that signs as key does, with the library if key is RSA and
// there is one; otherwise key itself. The result may be used concurrently.
func Faster(key crypto.Signer) crypto.Signer {
	plain, ok := key.(*rsa.PrivateKey)
	if !ok || len(plain.Primes) != 2 {
		return key
	}
	if _, err := load(); err != nil {
		return key
	}
	plain.Precompute()
	p := plain.Precomputed
	fast, err := openssl.NewPrivateKeyRSA(bbig.Enc(plain.N), openssl.BigInt{uint(plain.E)}, bbig.Enc(plain.D),
		bbig.Enc(plain.Primes[0]), bbig.Enc(plain.Primes[1]), bbig.Enc(p.Dp), bbig.Enc(p.Dq), bbig.Enc(p.Qinv))
	if err != nil {
		return key
	}
	return &signer{plain: plain, sign: func(h crypto.Hash, digest []byte) ([]byte, error) { return openssl.SignRSAPKCS1v15(fast, h, digest) }}
}

// A signer is a key in both libraries.
type signer struct {
	plain *rsa.PrivateKey
	sign  func(crypto.Hash, []byte) ([]byte, error)
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.plain.Public() }

// Sign implements crypto.Signer for PKCS #1 v1.5; for RSA-PSS Go signs. What the
// library made is verified by Go: a signature that was computed wrongly would be
// of no use to anybody, and could give the key away.
func (s *signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	h := opts.HashFunc()
	if _, pss := opts.(*rsa.PSSOptions); !pss {
		signature, err := s.sign(h, digest)
		if err == nil && rsa.VerifyPKCS1v15(&s.plain.PublicKey, h, digest, signature) == nil {
			return signature, nil
		}
	}
	return s.plain.Sign(random, digest, opts)
}
