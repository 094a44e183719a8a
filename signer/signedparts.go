package signer

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"

	"pecd/pec/message"
)

// signedParts returns the two parts of a multipart/signed message: what is
// signed and the signature; RFC 8551, 3.5.3. Of a large message it also returns
// the beginning of a digest.
func signedParts(m *message.Message) (entity, signature *message.Part, ahead *aheadSource, err error) {
	mediaType, params, err := m.Header.MediaType()
	if err != nil || mediaType != "multipart/signed" || !isSMIME(params["protocol"]) {
		return nil, nil, nil, ErrNoSignature
	}
	read := *m
	if ahead = readAhead(m, params); ahead != nil {
		read.Source = ahead
	}
	root, err := read.Structure()
	switch {
	case errors.Is(err, message.ErrMalformed), errors.Is(err, message.ErrLimit):
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrMalformedSignature, err)
	case err != nil:
		return nil, nil, nil, err
	case len(root.Children) != 2:
		return nil, nil, nil, fmt.Errorf("%w: multipart/signed of %d parts", ErrMalformedSignature, len(root.Children))
	}
	setSource(root, m.Source)
	entity, signature = root.Children[0], root.Children[1]
	if !isSMIME(signature.MediaType) {
		return nil, nil, nil, fmt.Errorf("%w: the second part is %.60q", ErrMalformedSignature, signature.MediaType)
	}
	return entity, signature, ahead, nil
}

func setSource(p *message.Part, src message.Source) {
	p.Source = src
	for _, c := range p.Children {
		setSource(c, src)
	}
}

// isSMIME knows the type of a detached signature with its old name, which
// providers still write. Without a protocol the second part decides.
func isSMIME(mediaType string) bool {
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/pkcs7-signature", "application/x-pkcs7-signature", "":
		return true
	}
	return false
}

// readSignature returns the CMS structure in the signature part. Decoding takes
// what real mail has: rubbish between the lines, missing padding.
func readSignature(p *message.Part) ([]byte, error) {
	// Base64 takes four octets for three, and line ends at most as many again.
	if p.Body.Len > 3*MaxSignature {
		return nil, fmt.Errorf("%w: part of %d octets", ErrMalformedSignature, p.Body.Len)
	}
	p7s, err := io.ReadAll(io.LimitReader(p.Decoded(), MaxSignature+1))
	if err != nil {
		return nil, err // of the source: Decoded has no others
	}
	if len(p7s) > MaxSignature {
		return nil, fmt.Errorf("%w: more than %d octets", ErrMalformedSignature, MaxSignature)
	}
	return p7s, nil
}

// entityDigests computes the digest of a stored entity: as it stands and, if
// that is not accepted, with CRLF in place of bare LFs, which is what was signed when a tool saved the message with LF (RFC 8551, 3.1.1).
type entityDigests struct {
	src   message.Source
	rng   message.Range
	hash  crypto.Hash
	ahead *aheadSource // nil, or the digest of the beginning
}

func (e entityDigests) digest(accept func([]byte) bool) (bool, error) {
	h, rest := e.hash.New(), e.rng
	if e.ahead.fits(e.rng, e.hash) {
		h, rest = e.ahead.hash, message.Range{Off: e.ahead.next, Len: e.rng.End() - e.ahead.next}
	}
	if err := pour(message.Section(e.src, rest), h); err != nil {
		return false, err
	}
	if accept(h.Sum(nil)) {
		return true, nil
	}
	h.Reset()
	if err := pour(message.Section(e.src, e.rng), &crlfWriter{to: h}); err != nil {
		return false, err
	}
	return accept(h.Sum(nil)), nil
}

var crlf = []byte("\r\n")

// A crlfWriter passes text on with CRLF in place of each bare LF.
type crlfWriter struct {
	to io.Writer
	cr bool // the last octet was CR
}

func (w *crlfWriter) Write(p []byte) (int, error) {
	begin := 0
	for i := 0; i < len(p); i++ {
		next := bytes.IndexByte(p[i:], '\n')
		if next < 0 {
			break
		}
		i += next
		if i > 0 && p[i-1] == '\r' || i == 0 && w.cr {
			continue
		}
		if err := w.pass(p[begin:i], crlf); err != nil {
			return 0, err
		}
		begin = i + 1
	}
	w.cr = len(p) > 0 && p[len(p)-1] == '\r' || len(p) == 0 && w.cr
	return len(p), w.pass(p[begin:])
}

func (w *crlfWriter) pass(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := w.to.Write(p); err != nil {
			return err
		}
	}
	return nil
}
