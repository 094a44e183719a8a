package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// signDigest returns the detached SignedData (RFC 5652) over a content with this
// SHA-256 digest, in DER: signed attributes content type, signing time and
// message digest, the signer's certificate and its issuers. The same key,
// digest and instant give the same octets.
func (s *Signer) signDigest(digest [sha256.Size]byte, at time.Time) ([]byte, error) {
	attributes, err := signedAttributes(digest, at)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tlv(tagSet, attributes))
	// Neither PKCS #1 v1.5 nor, without a source of randomness, ECDSA (RFC
	// 6979) draws any.
	signature, err := s.id.key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signer: the key does not sign: %w", err)
	}
	// A module that computes wrongly must not be heard of by other providers.
	if !checkDigest(s.id.leaf, crypto.SHA256, sum[:], signature) {
		return nil, fmt.Errorf("%w: the key made a signature that does not hold", ErrIdentity)
	}
	signerInfo := tlv(tagSequence,
		s.version,
		s.issuerAndSerial,
		s.digestAlgorithm,
		tlv(tagContext0, attributes),
		s.signatureAlgorithm,
		tlv(tagOctetString, signature))
	signedData := tlv(tagSequence,
		s.version,
		tlv(tagSet, s.digestAlgorithm),
		s.encapsulated,
		s.certificates,
		tlv(tagSet, signerInfo))
	return tlv(tagSequence, s.signedDataType, tlv(tagContext0, signedData)), nil
}

// signedAttributes returns the attributes in the order of a DER SET OF, without
// the tag around them: they are signed under SET and written under [0].
func signedAttributes(digest [sha256.Size]byte, at time.Time) ([]byte, error) {
	var set [][]byte
	for _, a := range []struct {
		oid   asn1.ObjectIdentifier
		value any
	}{
		{oidContentType, oidData},
		{oidSigningTime, at.UTC()}, // UTCTime until 2049; RFC 5652, 11.3
		{oidMessageDigest, digest[:]},
	} {
		oid, err := asn1.Marshal(a.oid)
		if err != nil {
			return nil, err
		}
		value, err := asn1.Marshal(a.value)
		if err != nil {
			return nil, err
		}
		set = append(set, tlv(tagSequence, oid, tlv(tagSet, value)))
	}
	slices.SortFunc(set, bytes.Compare)
	return slices.Concat(set...), nil
}

// prepare encodes what is the same in every signature of an identity.
func (s *Signer) prepare() error {
	oids := make([][]byte, 0, 5)
	for _, oid := range []asn1.ObjectIdentifier{oidSignedData, oidData, oidSHA256, oidRSAEncryption, oidECDSAWithSHA256} {
		der, err := asn1.Marshal(oid)
		if err != nil {
			return err
		}
		oids = append(oids, der)
	}
	serial, err := asn1.Marshal(s.id.leaf.SerialNumber)
	if err != nil {
		return err
	}
	s.version = tlv(tagInteger, []byte{1})
	s.signedDataType = oids[0]
	s.encapsulated = tlv(tagSequence, oids[1])
	s.digestAlgorithm = tlv(tagSequence, oids[2])
	s.signatureAlgorithm = tlv(tagSequence, oids[3], tlv(tagNull))
	if _, ok := s.id.leaf.PublicKey.(*ecdsa.PublicKey); ok {
		s.signatureAlgorithm = tlv(tagSequence, oids[4])
	}
	s.issuerAndSerial = tlv(tagSequence, s.id.leaf.RawIssuer, serial)
	s.certificates = tlv(tagContext0, certificateSet(s.id.leaf, s.id.issuers)...)
	return nil
}

// certificateSet returns the certificates in the order of a DER SET OF.
func certificateSet(leaf *x509.Certificate, issuers []*x509.Certificate) [][]byte {
	set := [][]byte{leaf.Raw}
	for _, c := range issuers {
		set = append(set, c.Raw)
	}
	slices.SortFunc(set, bytes.Compare)
	return slices.CompactFunc(set, bytes.Equal)
}
