package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// OpenSignedData verifies a file that carries its content inside the signature,
// as the directory of the providers does (igpec.ldif.p7m, RFC 6109, 4.5), in
// DER, BER or PEM of at most MaxSignedFile octets. Time and anchors mean what
// they mean to Verify. The content is returned only if everything holds, the
// signer's certificate as soon as it is known.
func OpenSignedData(p7m []byte, anchors *x509.CertPool, at time.Time) (content []byte, signer *x509.Certificate, err error) {
	if p7m, err = unwrapPEM(p7m); err != nil {
		return nil, nil, err
	}
	if len(p7m) > MaxSignedFile {
		return nil, nil, fmt.Errorf("%w: larger than %d octets", ErrMalformedSignature, MaxSignedFile)
	}
	sd, err := readSignedData(p7m)
	if err != nil {
		return nil, nil, err
	}
	if sd.content == nil {
		return nil, nil, fmt.Errorf("%w: the content is not in it", ErrMalformedSignature)
	}
	r := new(Report)
	err = NewVerifier(anchors).verify(context.Background(), r, sd, memoryDigest{sd.content, sd.signer.hash}, at)
	if err != nil {
		return nil, r.Signer, err
	}
	return sd.content, r.Signer, nil
}

func unwrapPEM(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data[:min(len(data), 1024)]), []byte("-----BEGIN ")) {
		return data, nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%w: broken PEM", ErrMalformedSignature)
	}
	if !strings.Contains(block.Type, "PKCS7") && !strings.Contains(block.Type, "PKCS #7") && block.Type != "CMS" {
		return nil, fmt.Errorf("%w: PEM of type %.40q", ErrMalformedSignature, block.Type)
	}
	return block.Bytes, nil
}

type memoryDigest struct {
	content []byte
	hash    crypto.Hash
}

func (m memoryDigest) digest(accept func([]byte) bool) (bool, error) {
	h := m.hash.New()
	h.Write(m.content)
	return accept(h.Sum(nil)), nil
}
