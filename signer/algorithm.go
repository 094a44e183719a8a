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
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
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
	oidRSAPSS          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
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

// signatures are the signature algorithms that are verified.
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
	{oidRSAPSS, x509.RSA, 0},
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

// checkDigest reports whether the signature is that of digest under cert's key.
func (si *signerInfo) checkDigest(cert *x509.Certificate, digest []byte) bool {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && si.pss != nil {
		return rsa.VerifyPSS(key, si.hash, digest, si.signature, si.pss) == nil
	}
	return checkDigest(cert, si.hash, digest, si.signature)
}

// readPSS reads the parameters of RSASSA-PSS (RFC 4055, 3.1). What is left out
// is SHA-1 and a salt of 20 octets. The digest algorithm of the signer must be
// that of the parameters, and that of the mask too: nobody mixes them.
func readPSS(der []byte, hash crypto.Hash) (*rsa.PSSOptions, error) {
	var p struct {
		Hash    pkix.AlgorithmIdentifier `asn1:"explicit,optional,tag:0"`
		Mask    pkix.AlgorithmIdentifier `asn1:"explicit,optional,tag:1"`
		Salt    int                      `asn1:"explicit,optional,tag:2,default:20"`
		Trailer int                      `asn1:"explicit,optional,tag:3,default:1"`
	}
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("parameters of RSASSA-PSS: %w", orTrailing(err))
	}
	of := func(oid asn1.ObjectIdentifier) crypto.Hash {
		if len(oid) == 0 {
			return crypto.SHA1
		}
		h, _ := digestOf(oid)
		return h
	}
	var inner pkix.AlgorithmIdentifier
	if len(p.Mask.Algorithm) > 0 {
		rest, err := asn1.Unmarshal(p.Mask.Parameters.FullBytes, &inner)
		if err != nil || len(rest) > 0 || !p.Mask.Algorithm.Equal(oidMGF1) {
			return nil, errors.New("parameters of RSASSA-PSS: a mask other than MGF1")
		}
	}
	if of(p.Hash.Algorithm) != hash || of(inner.Algorithm) != hash || p.Trailer != 1 || p.Salt < 0 {
		return nil, fmt.Errorf("parameters of RSASSA-PSS that do not go with %s", hash)
	}
	// For crypto/rsa a salt of 0 octets is one of any length.
	return &rsa.PSSOptions{SaltLength: p.Salt, Hash: hash}, nil
}
