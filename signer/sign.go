// Package signer turns the drafts of package issue into signed messages and
// verifies the signed messages of others: S/MIME (RFC 8551) as RFC 6109, 2.1
// and 4.3 want it, with a CMS encoder of its own because the digest is computed
// while the message streams by, the signing time is the event's, and the key
// may be any crypto.Signer.
//
// There is no way to sign just any octets: Sign reads a draft back and refuses
// what is not, in every detail that others rely on, the message that its event
// describes. What others send is hostile until it is verified: it is read under
// limits of size and depth. The package does not look at revocation.
package signer

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"slices"

	"pecd/pec/issue"
	"pecd/pec/message"
)

// A Signer signs drafts with one identity. It does not change and may be used
// concurrently, as far as the key may.
type Signer struct {
	id *Identity

	// The DER values that are the same in every signature.
	version, signedDataType, encapsulated []byte
	digestAlgorithm, signatureAlgorithm   []byte
	issuerAndSerial, certificates         []byte
	prepared                              error
}

// NewSigner returns a signer with the identity id.
func NewSigner(id *Identity) *Signer {
	s := &Signer{id: id}
	s.prepared = s.prepare()
	return s
}

// Identity returns the identity that signs.
func (s *Signer) Identity() *Identity { return s.id }

// Sign checks d and signs it. An error that wraps ErrDraft says that d is not
// what it should be, and the key was not used; any other error comes from the
// key or from reading the stored pieces of d. The entity is read twice and not
// held in memory; the result points to the same stored pieces.
func (s *Signer) Sign(d issue.Draft) (*Signed, error) {
	if s.prepared != nil {
		return nil, s.prepared
	}
	if err := s.checkDraft(d); err != nil {
		return nil, err
	}
	digest, err := digestEntity(d)
	if err != nil {
		return nil, err
	}
	p7s, err := s.signDigest(digest, d.Event.At)
	if err != nil {
		return nil, err
	}
	return &Signed{
		event:     d.Event,
		content:   assemble(d, p7s),
		digest:    digest,
		messageID: d.MessageID,
		from:      d.From,
		to:        slices.Clone(d.To),
		eightBit:  d.EightBit || hasEightBit(d.Header),
	}, nil
}

// digestEntity returns the digest of the entity, after the checks that need
// every octet of it: they share one pass.
func digestEntity(d issue.Draft) (digest [sha256.Size]byte, err error) {
	h := sha256.New()
	var scan message.Scanner
	if _, err := d.Entity.WriteTo(io.MultiWriter(h, &scan)); err != nil {
		return digest, err
	}
	if !anomaly(d) {
		if err := checkFacts("entity", scan.Facts()); err != nil {
			return digest, err
		}
	}
	// What is declared 8-bit may hold none: an original whose only octets over 127
	// stood in the Message-ID that was replaced.
	if scan.Facts().EightBit && !d.EightBit {
		return digest, refuse("entity: octets over 127 that are not declared")
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// The text before the first boundary, for programs that know no MIME.
const preamble = "Messaggio di posta certificata con firma S/MIME (S/MIME signed message).\r\n"

// frame returns what stands before and behind the entity, all but the
// signature's base64; RFC 8551, 3.5.3.
func frame(d issue.Draft) (before, behind string) {
	encoding := ""
	if d.EightBit {
		encoding = "Content-Transfer-Encoding: 8bit\r\n"
	}
	before = string(d.Header) +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n" +
		"\tmicalg=\"sha-256\";\r\n" +
		"\tboundary=\"" + d.Boundary + "\"\r\n" +
		encoding +
		"\r\n" + preamble +
		"\r\n--" + d.Boundary + "\r\n"
	behind = "\r\n--" + d.Boundary + "\r\n" +
		"Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: attachment; filename=\"smime.p7s\"\r\n" +
		"\r\n"
	return before, behind
}

// assemble returns the whole message with the signature p7s.
func assemble(d issue.Draft, p7s []byte) message.Content {
	before, behind := frame(d)
	end := []byte(behind)
	for text := base64.StdEncoding.EncodeToString(p7s); text != ""; {
		line := text[:min(len(text), 76)]
		text = text[len(line):]
		end = append(append(end, line...), "\r\n"...)
	}
	end = append(end, "--"+d.Boundary+"--\r\n"...)
	return slices.Concat(message.Text([]byte(before)), d.Entity, message.Text(end))
}
