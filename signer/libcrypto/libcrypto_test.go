package libcrypto

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
)

var digest = sha256.Sum256([]byte("quietanza"))

func newKey(t testing.TB, bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestSame wants the very signature that Go makes (PKCS #1 v1.5 is deterministic),
// from several goroutines at once.
func TestSame(t *testing.T) {
	if v, err := Version(); err != nil {
		t.Fatalf("%v; the tests need OpenSSL's library", err)
	} else {
		t.Log(v)
	}
	for _, bits := range []int{2048, 3072, 4096} {
		key := newKey(t, bits)
		want, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		fast := Faster(key)
		if _, ok := fast.(*signer); !ok {
			t.Fatalf("%d bits: the library is not used", bits)
		}
		fast.(*signer).plain = &rsa.PrivateKey{PublicKey: key.PublicKey} // so that Go cannot step in
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if got, err := fast.Sign(nil, digest[:], crypto.SHA256); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bits: another signature than Go's, %v", bits, err)
				}
			}()
		}
		wg.Wait()
	}
}

// TestStepsIn wants Go's signature where the library fails or computes wrongly.
func TestStepsIn(t *testing.T) {
	key := newKey(t, 2048)
	for name, sign := range map[string]func(crypto.Hash, []byte) ([]byte, error){
		"fails":        func(crypto.Hash, []byte) ([]byte, error) { return nil, errors.New("away") },
		"wrong":        func(crypto.Hash, []byte) ([]byte, error) { return make([]byte, 256), nil },
		"other digest": func(h crypto.Hash, d []byte) ([]byte, error) { x := sha256.Sum256(d); return key.Sign(nil, x[:], h) },
	} {
		got, err := (&signer{key, sign}).Sign(nil, digest[:], crypto.SHA256)
		if err != nil || rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], got) != nil {
			t.Errorf("%s: no signature that holds, %v", name, err)
		}
	}
}

func TestPSS(t *testing.T) {
	key := newKey(t, 2048)
	o := &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
	got, err := Faster(key).Sign(rand.Reader, digest[:], o)
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest[:], got, o); err != nil {
		t.Error(err)
	}
}

// TestOthers leaves keys alone that are not RSA.
func TestOthers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if Faster(key) != crypto.Signer(key) {
		t.Error("an EC key was wrapped")
	}
}

func BenchmarkSign(b *testing.B) {
	key := newKey(b, 2048)
	for name, k := range map[string]crypto.Signer{"Go": key, "OpenSSL": Faster(key)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
