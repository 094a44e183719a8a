package timestamptest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

var (
	oidPolicy        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA256WithRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
)

type tstInfo struct {
	Version int
	Policy  asn1.ObjectIdentifier
	Imprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	Serial int64
	Time   time.Time `asn1:"generalized"`
	Nonce  *big.Int  `asn1:"optional"`
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value []any `asn1:"set"`
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type signerInfo struct {
	Version   int
	Signer    issuerAndSerial
	Digest    pkix.AlgorithmIdentifier
	Signed    asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature []byte
}

type signedData struct {
	Version      int
	Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
	Encapsulated struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"explicit,tag:0"`
	}
	Certificates asn1.RawValue
	Signers      []signerInfo `asn1:"set"`
}

func encodeToken(cert *x509.Certificate, key crypto.Signer, i Info, serial int64) ([]byte, error) {
	hash := pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	info := tstInfo{Version: 1, Policy: oidPolicy, Serial: serial, Time: i.Time.UTC().Truncate(time.Second), Nonce: i.Nonce}
	info.Imprint.Algorithm, info.Imprint.Digest = hash, i.Digest
	content, err := asn1.Marshal(info)
	if err != nil {
		return nil, err
	}
	attributes, err := encodeAttributes(cert, content)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(attributes)
	signature, err := key.Sign(nil, digest[:], crypto.SHA256) // RSA as in PKCS #1 v1.5 draws no randomness
	if err != nil {
		return nil, err
	}
	attributes[0] = 0xa0 // signed as SET, written as [0]; RFC 5652, 5.4
	sd := signedData{Version: 3, Digests: []pkix.AlgorithmIdentifier{hash}}
	sd.Encapsulated.Type, sd.Encapsulated.Content = oidTSTInfo, content
	sd.Certificates = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: cert.Raw}
	sd.Signers = []signerInfo{{
		Version:   1,
		Signer:    issuerAndSerial{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber},
		Digest:    hash,
		Signed:    asn1.RawValue{FullBytes: attributes},
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidSHA256WithRSA, Parameters: asn1.NullRawValue},
		Signature: signature,
	}}
	return asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content signedData `asn1:"explicit,tag:0"`
	}{oidSignedData, sd})
}

// encodeAttributes returns the signed attributes as they are signed.
func encodeAttributes(cert *x509.Certificate, content []byte) ([]byte, error) {
	digest, reference := sha256.Sum256(content), sha256.Sum256(cert.Raw)
	type certID struct{ Hash []byte }
	return asn1.MarshalWithParams([]attribute{
		{oidContentType, []any{oidTSTInfo}},
		{oidMessageDigest, []any{digest[:]}},
		{oidSigningCertV2, []any{struct{ Certs []certID }{[]certID{{reference[:]}}}}},
	}, "set")
}
