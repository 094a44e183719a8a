package signer

import (
	"crypto"
	"crypto/ecdsa"
	_ "crypto/md5" // for crypto.MD5, named in reports of what is refused
	"crypto/rsa"
	_ "crypto/sha1"   // for crypto.SHA1
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// Object identifiers of CMS (RFC 5652) and of the algorithms in it (RFC 3370,
// RFC 5754).
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}

	oidSHA256          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSAEncryption   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidECPublicKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

// digests are the digest algorithms that are recognised. Whether one is
// accepted is the Policy's business.
var digests = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}, crypto.MD5},
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{oidSHA256, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

func digestOf(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	for _, d := range digests {
		if d.oid.Equal(oid) {
			return d.hash, true
		}
	}
	return 0, false
}

// signatures are the signature algorithms that are verified. RSASSA-PSS is not
// among them: no provider uses it.
var signatures = []struct {
	oid  asn1.ObjectIdentifier
	key  x509.PublicKeyAlgorithm
	hash crypto.Hash // 0: the digest algorithm decides
}{
	{oidRSAEncryption, x509.RSA, 0},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, x509.RSA, crypto.MD5},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, x509.RSA, crypto.SHA1},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.RSA, crypto.SHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.RSA, crypto.SHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.RSA, crypto.SHA512},
	{oidECPublicKey, x509.ECDSA, 0},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, x509.ECDSA, crypto.SHA1},
	{oidECDSAWithSHA256, x509.ECDSA, crypto.SHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSA, crypto.SHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSA, crypto.SHA512},
}

// signatureOf returns the kind of key that a signature algorithm needs. An
// algorithm that names another digest than hash is refused.
func signatureOf(oid asn1.ObjectIdentifier, hash crypto.Hash) (x509.PublicKeyAlgorithm, error) {
	for _, s := range signatures {
		if !s.oid.Equal(oid) {
			continue
		}
		if s.hash != 0 && s.hash != hash {
			return 0, fmt.Errorf("signature algorithm %s beside the digest %s", oid, hash)
		}
		return s.key, nil
	}
	return 0, fmt.Errorf("signature algorithm %s is not supported", oid)
}

// checkDigest reports whether signature is that of digest under cert's key.
func checkDigest(cert *x509.Certificate, hash crypto.Hash, digest, signature []byte) bool {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	}
	return false
}
