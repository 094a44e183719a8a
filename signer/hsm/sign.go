package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"
)

// A job is what a session is asked to sign: a DigestInfo by RSA, a digest by
// ECDSA.
type job struct {
	mechanism uint
	input     []byte
}

// digestInfos are the DER of DigestInfo up to the digest; RFC 8017, 9.2.
var digestInfos = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

func newJob(public crypto.PublicKey, digest []byte, hash crypto.Hash) (job, error) {
	prefix, known := digestInfos[hash]
	if !known || len(digest) != hash.Size() {
		return job{}, fmt.Errorf("hsm: a digest of %d octets as %s", len(digest), hash)
	}
	switch public.(type) {
	case *rsa.PublicKey:
		return job{pkcs11.CKM_RSA_PKCS, slices.Concat(prefix, digest)}, nil
	case *ecdsa.PublicKey:
		return job{pkcs11.CKM_ECDSA, slices.Clone(digest)}, nil
	}
	return job{}, fmt.Errorf("hsm: a key of type %T", public)
}

// sign does j in s. The caller holds module.use.
func (j job) sign(k *Key, s session) ([]byte, error) {
	api, handle := k.module.api, handleOf(s)
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(j.mechanism, nil)}
	if err := api.SignInit(handle, mechanism, pkcs11.ObjectHandle(s.key)); err != nil {
		return nil, fmt.Errorf("begin to sign: %w", err)
	}
	if s.always {
		if err := k.login(handle, pkcs11.CKU_CONTEXT_SPECIFIC); err != nil {
			return nil, err
		}
	}
	signature, err := api.Sign(handle, j.input)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if j.mechanism == pkcs11.CKM_ECDSA {
		return ecdsaDER(signature)
	}
	return signature, nil
}

// ecdsaDER makes an Ecdsa-Sig-Value (RFC 3279, 2.2.3) of r and s side by side.
func ecdsaDER(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("an ECDSA signature of %d octets", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// errMismatch says that the key's signature is not that of any candidate.
var errMismatch = errors.New("the key in the token belongs to none of the certificates")

// recognise sets k.public to the candidate that a trial signature is genuine
// for. The trial is the digest of a text that is no CMS structure.
func (k *Key) recognise(ctx context.Context, candidates []crypto.PublicKey) error {
	trial := sha256.Sum256([]byte("pecd: which key is this?"))
	last := fmt.Errorf("%w: %w", ErrNoKey, errMismatch)
	var tried []uint
	for _, public := range candidates {
		j, err := newJob(public, trial[:], crypto.SHA256)
		if err != nil {
			continue
		}
		if slices.Contains(tried, j.mechanism) {
			continue
		}
		tried = append(tried, j.mechanism)
		signature, err := k.run(ctx, j)
		if err != nil {
			last = err
			continue
		}
		for _, public := range candidates {
			if holds(public, trial[:], signature) {
				k.public = public
				return nil
			}
		}
		return fmt.Errorf("%w: %w", ErrNoKey, errMismatch)
	}
	return last
}

func holds(public crypto.PublicKey, digest, signature []byte) bool {
	switch p := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, digest, signature)
	}
	return false
}
