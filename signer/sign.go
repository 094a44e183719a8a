// Package signer turns the drafts of package issue into signed messages and
// verifies the signed messages of others: S/MIME (RFC 8551) as RFC 6109, 2.1
// and 4.3 want it, with a CMS encoder of its own because the digest is computed
// while the message streams by, the signing time is the event's, and the key
// may be any crypto.Signer.
//
// There is no way to sign just any octets: Sign reads a draft back and refuses
// what is not, in every detail that others rely on, the message that its event
// describes. What others send is hostile until it is verified: it is read under
// limits of size and depth. Whether a certificate was revoked, a Revoker is asked.
package signer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"pecd/pec/issue"
	"pecd/pec/message"
)

// A Signer signs drafts with one identity or, over a renewal, with two. It does
// not change and may be used concurrently.
type Signer struct {
	terms []term // at least one; the first is in force from the zero time
}

// A term is an identity, with the DER values that are the same in all of its
// signatures.
type term struct {
	id   *Identity
	from time.Time

	signedDataType, dataHead     []byte // all that stands before the SignerInfo
	infoHead, signatureAlgorithm []byte // in it, before and behind the attributes
	prepared                     error
}

// NewSigner returns a signer with the identity id.
func NewSigner(id *Identity) *Signer {
	return &Signer{terms: []term{newTerm(id, time.Time{})}}
}

// Sign is SignContext without a deadline but the key's own.
func (s *Signer) Sign(d issue.Draft) (*Signed, error) {
	return s.SignContext(context.Background(), d)
}

// SignContext checks d and signs it with the identity that is in force at the
// event's instant. An error that wraps ErrDraft says that d is not what it
// should be, and the key was not used; one that wraps ErrKeyUnavailable that the
// key is away, also when ctx ended while it was waited for; any other error comes
// from the key or from reading the stored pieces of d. A message of up to 64 KiB
// is read once; the entity of a larger one twice, and it is not held in memory.
// The result points to the same stored pieces.
func (s *Signer) SignContext(ctx context.Context, d issue.Draft) (*Signed, error) {
	t := s.at(d.Signing())
	if t.prepared != nil {
		return nil, t.prepared
	}
	frame := frameOf(d)
	digest, err := t.checkedDigest(d, frame)
	if err != nil {
		return nil, err
	}
	p7s, err := t.signDigest(ctx, digest, d.Signing())
	if err != nil {
		return nil, err
	}
	return &Signed{
		duplicate: d.Duplicate != nil,
		event:     d.Event,
		content:   frame.around(d.Entity, p7s),
		digest:    digest,
		messageID: d.MessageID,
		from:      d.From,
		to:        slices.Clone(d.To),
		eightBit:  d.EightBit || hasEightBit(d.Header),
	}, nil
}

// Try has the key that is in force at at sign a text that is no message, and drops the
// signature: it tells whether the key is there before anything depends on it. Errors are
// those of SignContext.
func (s *Signer) Try(ctx context.Context, at time.Time) error {
	trial := sha256.Sum256([]byte("pecd: does the key sign?"))
	_, err := s.at(at).id.sign(ctx, trial[:])
	return err
}

// checkedDigest returns the digest of d's entity, after all checks.
func (t *term) checkedDigest(d issue.Draft, f frame) (digest [sha256.Size]byte, err error) {
	b := blocks.Get().(*block)
	defer blocks.Put(b) // none of the checks keeps anything of it
	whole, entity, err := f.gather(d.Entity, b)
	if err != nil {
		return digest, err
	}
	d.Entity = entity
	if err := t.checkDraft(d, f, whole); err != nil {
		return digest, err
	}
	return digestEntity(d)
}

// digestEntity returns the digest of the entity, after the checks that need
// every octet of it: they share one pass.
func digestEntity(d issue.Draft) (digest [sha256.Size]byte, err error) {
	h := sha256.New()
	var scan message.Scanner
	if err := pour(d.Entity, h, &scan); err != nil {
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
	h.Sum(digest[:0])
	return digest, nil
}

// The text before the first boundary, for programs that know no MIME.
const preamble = "Messaggio di posta certificata con firma S/MIME (S/MIME signed message).\r\n"

// A frame is what stands around the entity and the signature's base64; RFC 8551,
// 3.5.3.
type frame struct {
	before, behind []byte
	end            string
}

func frameOf(d issue.Draft) frame {
	encoding := ""
	if d.EightBit {
		encoding = "Content-Transfer-Encoding: 8bit\r\n"
	}
	return frame{
		before: slices.Concat(d.Header, []byte("MIME-Version: 1.0\r\n"+
			"Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n"+
			"\tmicalg=\"sha-256\";\r\n"+
			"\tboundary=\""+d.Boundary+"\"\r\n"+
			encoding+
			"\r\n"+preamble+
			"\r\n--"+d.Boundary+"\r\n")),
		behind: []byte("\r\n--" + d.Boundary + "\r\n" +
			"Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\n" +
			"Content-Transfer-Encoding: base64\r\n" +
			"Content-Disposition: attachment; filename=\"smime.p7s\"\r\n" +
			"\r\n"),
		end: "--" + d.Boundary + "--\r\n",
	}
}

// gather returns the whole message with an empty signature in place, and the
// entity in it. If they fit, both are read into b, so that what is checked and
// what is signed are the same octets whatever the stored pieces do.
func (f frame) gather(entity message.Content, b *block) (message.Source, message.Content, error) {
	size := entity.Size()
	if size > int64(len(b)-len(f.before)-len(f.behind)-len(f.end)) {
		return f.around(entity, nil), entity, nil
	}
	start, end := len(f.before), len(f.before)+int(size)
	copy(b[:], f.before)
	if n, err := entity.ReadAt(b[start:end], 0); n < int(size) {
		return nil, nil, err
	}
	whole := append(append(b[:end], f.behind...), f.end...)
	return message.Bytes(whole), message.Text(whole[start:end:end]), nil
}

// around returns the whole message with the signature p7s.
func (f frame) around(entity message.Content, p7s []byte) message.Content {
	const row = 57 // octets in a line of 76
	last := make([]byte, 0, len(f.behind)+len(p7s)*3/2+len(f.end)+4)
	last = append(last, f.behind...)
	for len(p7s) > 0 {
		n := min(len(p7s), row)
		last = append(base64.StdEncoding.AppendEncode(last, p7s[:n]), "\r\n"...)
		p7s = p7s[n:]
	}
	last = append(last, f.end...)
	c := make(message.Content, 0, len(entity)+2)
	return append(append(append(c, message.Piece{Text: f.before}), entity...), message.Piece{Text: last})
}
