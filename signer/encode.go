package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
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
func (t *term) signDigest(ctx context.Context, digest [sha256.Size]byte, at time.Time) ([]byte, error) {
	if cert := t.id.leaf; at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
		return nil, fmt.Errorf("%w: nothing can be signed at %s: its certificate is %s; is the clock right?", ErrIdentity, at.UTC().Format(time.RFC3339), validity(cert))
	}
	attributes, err := signedAttributes(digest, at)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tlv(tagSet, attributes))
	signature, err := t.id.sign(ctx, sum[:])
	if err != nil {
		return nil, err
	}
	return t.signedData(attributes, signature), nil
}

// signedData returns the SignedData with its type around it, in one buffer.
func (t *term) signedData(attributes, signature []byte) []byte {
	signerInfo := len(t.infoHead) + tlvSize(len(attributes)) + len(t.signatureAlgorithm) + tlvSize(len(signature))
	signedData := len(t.dataHead) + tlvSize(tlvSize(signerInfo))
	whole := len(t.signedDataType) + tlvSize(tlvSize(signedData))
	der := make([]byte, 0, tlvSize(whole))

	der = append(appendHead(der, tagSequence, whole), t.signedDataType...)
	der = appendHead(der, tagContext0, tlvSize(signedData))
	der = append(appendHead(der, tagSequence, signedData), t.dataHead...)
	der = appendHead(der, tagSet, tlvSize(signerInfo))
	der = append(appendHead(der, tagSequence, signerInfo), t.infoHead...)
	der = append(appendHead(der, tagContext0, len(attributes)), attributes...)
	der = append(der, t.signatureAlgorithm...)
	return append(appendHead(der, tagOctetString, len(signature)), signature...)
}

// sign returns the key's signature of a SHA-256 digest.
func (id *Identity) sign(ctx context.Context, digest []byte) (signature []byte, err error) {
	switch key := id.key.(type) {
	case *rsa.PrivateKey:
		// PKCS #1 v1.5 draws no randomness; crypto/rsa verifies what it made.
		if signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest); err != nil {
			return nil, fmt.Errorf("signer: the key does not sign: %w", err)
		}
		return signature, nil
	case interface {
		SignContext(context.Context, []byte, crypto.SignerOpts) ([]byte, error)
	}:
		signature, err = key.SignContext(ctx, digest, crypto.SHA256)
	default:
		// Without a source of randomness ECDSA draws none either (RFC 6979).
		signature, err = id.key.Sign(nil, digest, crypto.SHA256)
	}
	if err != nil {
		return nil, fmt.Errorf("signer: the key does not sign: %w", err)
	}
	// A module that computes wrongly must not be heard of by other providers.
	if !checkDigest(id.leaf, crypto.SHA256, digest, signature) {
		return nil, fmt.Errorf("%w: the key made a signature that does not hold", ErrIdentity)
	}
	return signature, nil
}

// What stands before the values of the attributes content type, signing time and
// message digest: SEQUENCE, type and SET. The first has its value too, data.
var (
	contentTypeAttribute = attribute(oidContentType, 11, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01)
	signingTimeAttribute = attribute(oidSigningTime, 15, 0x17, 13)
	generalTimeAttribute = attribute(oidSigningTime, 17, 0x18, 15)
	digestAttribute      = attribute(oidMessageDigest, 2+sha256.Size, 0x04, sha256.Size)
)

// attribute returns an attribute up to where the value's own octets begin, or
// with them; size is that of the whole value.
func attribute(oid asn1.ObjectIdentifier, size byte, value ...byte) []byte {
	const pkcs9 = 9 // octets in the types of these attributes, all below 1.2.840.113549.1.9
	head := []byte{tagSequence, 2 + pkcs9 + 2 + size, 0x06, pkcs9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, byte(oid[6]), tagSet, size}
	return append(head, value...)
}

// signedAttributes returns the attributes in the order of a DER SET OF, shorter
// ones first, without the tag around them: they are signed under SET and written
// under [0]. The time is UTCTime until 2049; RFC 5652, 11.3.
func signedAttributes(digest [sha256.Size]byte, at time.Time) ([]byte, error) {
	at = at.UTC()
	der := append(make([]byte, 0, 112), contentTypeAttribute...)
	switch year := at.Year(); {
	case year >= 1950 && year < 2050:
		der = at.AppendFormat(append(der, signingTimeAttribute...), "060102150405Z")
	case year >= 2050 && year <= 9999:
		der = at.AppendFormat(append(der, generalTimeAttribute...), "20060102150405Z")
	default:
		return nil, fmt.Errorf("signer: no signing time can be in the year %d", year)
	}
	return append(append(der, digestAttribute...), digest[:]...), nil
}

// prepare encodes what is the same in every signature of an identity.
func newTerm(id *Identity, from time.Time) term {
	t := term{id: id, from: from}
	t.prepared = t.prepare()
	return t
}

func (t *term) prepare() error {
	oids := make([][]byte, 0, 5)
	for _, oid := range []asn1.ObjectIdentifier{oidSignedData, oidData, oidSHA256, oidRSAEncryption, oidECDSAWithSHA256} {
		der, err := asn1.Marshal(oid)
		if err != nil {
			return err
		}
		oids = append(oids, der)
	}
	serial, err := asn1.Marshal(t.id.leaf.SerialNumber)
	if err != nil {
		return err
	}
	version, encapsulated, digestAlgorithm := tlv(tagInteger, []byte{1}), tlv(tagSequence, oids[1]), tlv(tagSequence, oids[2])
	t.signedDataType = oids[0]
	t.signatureAlgorithm = tlv(tagSequence, oids[3], tlv(tagNull))
	if _, ok := t.id.leaf.PublicKey.(*ecdsa.PublicKey); ok {
		t.signatureAlgorithm = tlv(tagSequence, oids[4])
	}
	t.infoHead = slices.Concat(version, tlv(tagSequence, t.id.leaf.RawIssuer, serial), digestAlgorithm)
	t.dataHead = slices.Concat(version, tlv(tagSet, digestAlgorithm), encapsulated,
		tlv(tagContext0, certificateSet(t.id.leaf, t.id.issuers)...))
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
