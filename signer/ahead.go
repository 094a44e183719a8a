package signer

import (
	"bytes"
	"crypto"
	"hash"
	"strings"

	"pecd/pec/message"
)

// An aheadSource computes the digest of what is probably signed while the
// structure of the message is read, so that a large message is read once. It
// guesses where the entity begins and by which algorithm, and stops well before
// the signature may begin; whoever uses the digest checks the guesses. It is for
// one goroutine.
type aheadSource struct {
	message.Source
	hash        hash.Hash
	algorithm   crypto.Hash
	start, next int64 // the digest is of what is between
	limit       int64
}

const (
	// aheadTail is more than signature part and what follows it may have.
	aheadTail = 3*MaxSignature + 256<<10
	// aheadMin is what it must save.
	aheadMin = 256 << 10
)

// readAhead returns the source with which to read the structure of m, nil if
// there is nothing to be saved.
func readAhead(m *message.Message, params map[string]string) *aheadSource {
	limit := m.Body.End() - aheadTail
	if limit-m.Body.Off < aheadMin {
		return nil
	}
	head := make([]byte, 8<<10)
	if n, _ := m.Source.ReadAt(head, m.Body.Off); n < len(head) {
		return nil // the structure will say why
	}
	start := firstPart(head, params["boundary"])
	algorithm := micalg(params["micalg"])
	if start < 0 || !algorithm.Available() {
		return nil
	}
	off := m.Body.Off + int64(start)
	return &aheadSource{Source: m.Source, hash: algorithm.New(), algorithm: algorithm, start: off, next: off, limit: limit}
}

// firstPart returns where the first part begins in a body that begins with head,
// or -1.
func firstPart(head []byte, boundary string) int {
	pos := 0
	for line := range bytes.Lines(head) {
		pos += len(line)
		text := bytes.TrimRight(line, " \t\r\n")
		if boundary != "" && string(text) == "--"+boundary {
			return pos
		}
	}
	return -1
}

// micalg returns the algorithm of that name, with or without its hyphens
// (RFC 8551, 3.5.3.2); SHA-256 if there is none.
func micalg(name string) crypto.Hash {
	switch strings.ReplaceAll(strings.ToLower(name), "-", "") {
	case "sha1":
		return crypto.SHA1
	case "sha384":
		return crypto.SHA384
	case "sha512":
		return crypto.SHA512
	}
	return crypto.SHA256
}

// ReadAt passes on what continues what was read before to the digest.
func (a *aheadSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := a.Source.ReadAt(p, off)
	end := min(off+int64(n), a.limit)
	if off <= a.next && a.next < end {
		a.hash.Write(p[a.next-off : end-off])
		a.next = end
	}
	return n, err
}

// fits reports whether the digest is of the beginning of what rng has, by this
// algorithm.
func (a *aheadSource) fits(rng message.Range, algorithm crypto.Hash) bool {
	return a != nil && a.algorithm == algorithm && a.start == rng.Off && a.next <= rng.End()
}
