package signer

import (
	"errors"
	"fmt"
)

// Limits on the structures that toDER reads. A provider's signature has a depth
// of 12 and some 300 elements.
const (
	maxDepth    = 64
	maxElements = 1 << 18
)

// Identifier octets of the types that this package names.
const (
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagNull        = 0x05
	tagSequence    = 0x30
	tagSet         = 0x31
	tagContext0    = 0xa0 // [0], constructed
	tagChunked     = 0x24 // OCTET STRING, constructed: BER only
)

// An element is one value of a BER structure, in the order in which they stand.
type element struct {
	tag     []byte // identifier octets
	content []byte // of a primitive value
	parent  int32  // index of the value around it, -1 for the outermost
	chunk   bool   // part of a chunked OCTET STRING: its header is dropped
	size    int    // octets of the content in DER
}

func (e *element) constructed() bool { return e.tag[0]&0x20 != 0 }
func (e *element) isChunked() bool   { return e.tag[0] == tagChunked }

// toDER returns one BER value with definite lengths and whole OCTET STRINGs, so
// that parsers that know only DER can read it. It is the guard before them: it
// does not recurse, and it refuses nesting over maxDepth (pkcs7.Parse recurses,
// and a stack overflow ends the process), more than maxElements values, and
// octets after the value.
func toDER(ber []byte) ([]byte, error) {
	elements, err := scanBER(ber)
	if err != nil {
		return nil, fmt.Errorf("BER: %w", err)
	}
	// What is inside stands behind what is around it, so that going backwards
	// every size is known when it is added to its parent's.
	for i := len(elements) - 1; i >= 0; i-- {
		e := &elements[i]
		if !e.constructed() {
			e.size = len(e.content)
		}
		if e.parent >= 0 {
			elements[e.parent].size += e.total()
		}
	}
	der := make([]byte, 0, elements[0].total())
	for i := range elements {
		e := &elements[i]
		if !e.chunk {
			der = e.appendHeader(der)
		}
		der = append(der, e.content...)
	}
	return der, nil
}

func (e *element) total() int {
	if e.chunk {
		return e.size
	}
	return len(e.tag) + lengthOctets(e.size) + e.size
}

func (e *element) appendHeader(der []byte) []byte {
	if e.isChunked() {
		return appendLength(append(der, tagOctetString), e.size)
	}
	return appendLength(append(der, e.tag...), e.size)
}

// A level is a constructed value that scanBER is inside of.
type level struct {
	index      int32 // of its element
	end        int   // offset after it; of the level around it if indefinite
	indefinite bool
}

func scanBER(ber []byte) ([]element, error) {
	var elements []element
	var open []level
	pos := 0
	for {
		for len(open) > 0 && !open[len(open)-1].indefinite && pos == open[len(open)-1].end {
			open = open[:len(open)-1]
		}
		if len(elements) > 0 && len(open) == 0 {
			break
		}
		around := level{index: -1, end: len(ber)}
		if len(open) > 0 {
			around = open[len(open)-1]
		}
		if around.indefinite && around.end-pos >= 2 && ber[pos] == 0 && ber[pos+1] == 0 {
			open = open[:len(open)-1]
			pos += 2
			continue
		}
		head, err := readHeader(ber[:around.end], pos)
		if err != nil {
			return nil, err
		}
		if len(elements) >= maxElements {
			return nil, fmt.Errorf("more than %d values", maxElements)
		}
		e := element{tag: head.tag, parent: around.index}
		if err := e.join(elements); err != nil {
			return nil, err
		}
		pos = head.start
		if !e.constructed() {
			e.content = ber[pos : pos+head.length]
			pos += head.length
			elements = append(elements, e)
			continue
		}
		if len(open) >= maxDepth {
			return nil, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		end := around.end
		if !head.indefinite {
			end = pos + head.length
		}
		open = append(open, level{int32(len(elements)), end, head.indefinite})
		elements = append(elements, e)
	}
	if pos != len(ber) {
		return nil, errors.New("octets after the end")
	}
	return elements, nil
}

// join marks e as a chunk if it stands in a chunked OCTET STRING.
func (e *element) join(elements []element) error {
	if e.parent < 0 || !elements[e.parent].isChunked() {
		return nil
	}
	if e.tag[0] != tagOctetString && !e.isChunked() {
		return errors.New("an OCTET STRING holds something else")
	}
	e.chunk = true
	return nil
}

type header struct {
	tag        []byte
	start      int // offset of the content
	length     int
	indefinite bool
}

var errTruncated = errors.New("truncated")

// readHeader reads identifier and length at pos. The content is inside ber.
func readHeader(ber []byte, pos int) (header, error) {
	begin := pos
	if pos >= len(ber) {
		return header{}, errTruncated
	}
	if ber[pos] == 0 {
		return header{}, errors.New("end of contents where none is due")
	}
	constructed := ber[pos]&0x20 != 0
	highTag := ber[pos]&0x1f == 0x1f
	pos++
	for highTag {
		if pos >= len(ber) {
			return header{}, errTruncated
		}
		if pos-begin > 4 {
			return header{}, errors.New("tag number too large")
		}
		highTag = ber[pos]&0x80 != 0
		pos++
	}
	h := header{tag: ber[begin:pos]}
	if pos >= len(ber) {
		return header{}, errTruncated
	}
	first := ber[pos]
	pos++
	switch {
	case first < 0x80:
		h.length = int(first)
	case first == 0x80:
		if !constructed {
			return header{}, errors.New("indefinite length of a primitive value")
		}
		h.indefinite = true
	default:
		n := int(first & 0x7f)
		if n > 4 {
			return header{}, errors.New("length too large")
		}
		if len(ber)-pos < n {
			return header{}, errTruncated
		}
		var length uint32
		for _, b := range ber[pos : pos+n] {
			length = length<<8 | uint32(b)
		}
		pos += n
		if uint64(length) > uint64(len(ber)-pos) {
			return header{}, errTruncated
		}
		h.length = int(length)
	}
	if h.length > len(ber)-pos {
		return header{}, errTruncated
	}
	h.start = pos
	return h, nil
}

func lengthOctets(n int) int {
	octets := 1
	if n >= 0x80 {
		for ; n > 0; n >>= 8 {
			octets++
		}
	}
	return octets
}

func appendLength(der []byte, n int) []byte {
	if n < 0x80 {
		return append(der, byte(n))
	}
	octets := lengthOctets(n) - 1
	der = append(der, 0x80|byte(octets))
	for i := octets - 1; i >= 0; i-- {
		der = append(der, byte(n>>(8*i)))
	}
	return der
}

// tlvSize returns the octets of a DER value with a content of size.
func tlvSize(size int) int { return 1 + lengthOctets(size) + size }

// appendHead appends what stands before a content of size.
func appendHead(der []byte, tag byte, size int) []byte {
	return appendLength(append(der, tag), size)
}

// tlv returns the DER value with this tag and the parts as its content.
func tlv(tag byte, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	der := appendHead(make([]byte, 0, tlvSize(size)), tag, size)
	for _, p := range parts {
		der = append(der, p...)
	}
	return der
}
