package signer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"pecd/pec/directory"
)

// ErrRecords says that records of the directory are not ones that the identity
// may sign.
var ErrRecords = errors.New("signer: not the provider's own records")

// SignRecords returns records, all those of one provider, as the file that the
// authority fetches from the provider's LDIFLocationURL: LDIF inside a
// SignedData in DER (RFC 6109, 4.5), signed at the instant at with the identity
// in force then. It is not a way to sign other octets: records that
// directory.Marshal does not take are refused, and so are those of several
// providers, and those that do not hold the certificate that signs them. Such
// errors wrap ErrRecords, and the key was not used then.
func (s *Signer) SignRecords(ctx context.Context, records []directory.Provider, at time.Time) ([]byte, error) {
	t := s.at(at)
	if t.prepared != nil {
		return nil, t.prepared
	}
	if err := t.checkRecords(records); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecords, err)
	}
	var ldif bytes.Buffer
	if err := directory.Marshal(&ldif, records); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecords, err)
	}
	detached, err := t.signDigest(ctx, sha256.Sum256(ldif.Bytes()), at)
	if err != nil {
		return nil, err
	}
	return enclose(detached, ldif.Bytes())
}

func (t *term) checkRecords(records []directory.Provider) error {
	if len(records) == 0 {
		return errors.New("there are none")
	}
	own := false
	for _, p := range records {
		if p.Name != records[0].Name {
			return fmt.Errorf("%.100q beside %.100q", p.Name, records[0].Name)
		}
		own = own || slices.ContainsFunc(p.Certificates, func(der []byte) bool { return bytes.Equal(der, t.id.leaf.Raw) })
	}
	if !own {
		return errors.New("none of them has the certificate that signs")
	}
	return nil
}

// enclose puts content into the detached SignedData that was made over it. The
// signature is the same: it is over the digest.
func enclose(detached, content []byte) ([]byte, error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(detached, &outer); err != nil {
		return nil, err
	}
	var fields []asn1.RawValue // version, digest algorithms, content, certificates, signers
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &fields); err != nil {
		return nil, err
	}
	signedData, err := asn1.Marshal(outer.Type)
	if err != nil {
		return nil, err
	}
	data, err := asn1.Marshal(oidData)
	if err != nil {
		return nil, err
	}
	var body [][]byte
	for i, f := range fields {
		if i == 2 {
			f.FullBytes = tlv(tagSequence, data, tlv(tagContext0, tlv(tagOctetString, content)))
		}
		body = append(body, f.FullBytes)
	}
	return tlv(tagSequence, signedData, tlv(tagContext0, tlv(tagSequence, body...))), nil
}

// OpenData is OpenSignedData with a verifier of one's own: its anchors, its
// policy and what it knows about revocation. The report is nil unless the
// structure could be read; the content is returned only if everything holds.
func (v *Verifier) OpenData(ctx context.Context, p7m []byte, at time.Time) (content []byte, r *Report, err error) {
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
	r = new(Report)
	if err := v.verify(ctx, r, sd, memoryDigest{sd.content, sd.signer.hash}, at); err != nil {
		return nil, r, err
	}
	return sd.content, r, nil
}

// WithoutRevokers returns a verifier that asks nobody about revocation: for what
// was found good before, when nobody can be reached.
func (v *Verifier) WithoutRevokers() *Verifier {
	w := *v
	w.revokers = nil
	return &w
}
