package message

import (
	"bytes"
	"encoding/binary"
)

// Facts are what the way of a message through MTAs depends on.
type Facts struct {
	Size          int64 // octets
	LongestLine   int   // octets without the line end
	EightBit      bool  // an octet over 127
	NUL           bool
	BareCR        bool // a CR without LF
	BareLF        bool // an LF without CR
	EndsInNewline bool
}

// MaxLine is the longest line, in octets without its end, that every MTA hands on
// unfolded (RFC 5321, 4.5.3.1.6): a fold inside a signed part breaks the signature.
const MaxLine = 998

// Carriable reports whether a message with these facts can stand inside one that is
// signed: MTAs hand it on as it is.
func (f Facts) Carriable() bool {
	return f.LongestLine <= MaxLine && !f.NUL && !f.BareCR && !f.BareLF
}

// A Scanner is a writer that looks at what is written. Its zero value is ready.
// It is for one goroutine.
type Scanner struct {
	facts Facts
	line  int  // octets of the line so far
	cr    bool // the last of them is a CR
}

// Write never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	f := &s.facts
	f.Size += int64(len(p))
	f.NUL = f.NUL || bytes.IndexByte(p, 0) >= 0
	f.EightBit = f.EightBit || hasEightBit(p)
	for rest := p; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			s.text(rest)
			return len(p), nil
		}
		s.text(rest[:i])
		s.endLine()
		rest = rest[i+1:]
	}
}

// text takes octets without LF.
func (s *Scanner) text(b []byte) {
	if len(b) == 0 {
		return
	}
	last := len(b) - 1
	if s.cr || !s.facts.BareCR && bytes.IndexByte(b[:last], '\r') >= 0 {
		s.facts.BareCR = true
	}
	s.cr = b[last] == '\r'
	s.line += len(b)
}

func (s *Scanner) endLine() {
	if s.cr {
		s.line--
	} else {
		s.facts.BareLF = true
	}
	s.facts.LongestLine = max(s.facts.LongestLine, s.line)
	s.line, s.cr = 0, false
}

// Facts returns the facts of what has been written so far, as if it were all.
func (s *Scanner) Facts() Facts {
	f := s.facts
	f.BareCR = f.BareCR || s.cr
	f.LongestLine = max(f.LongestLine, s.line)
	f.EndsInNewline = f.Size > 0 && s.line == 0
	return f
}

// hasEightBit looks at eight octets at a time.
func hasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for ; len(p) >= 32; p = p[32:] {
		if (binary.LittleEndian.Uint64(p)|binary.LittleEndian.Uint64(p[8:])|
			binary.LittleEndian.Uint64(p[16:])|binary.LittleEndian.Uint64(p[24:]))&high != 0 {
			return true
		}
	}
	for _, c := range p {
		if c > 127 {
			return true
		}
	}
	return false
}

// ScanContent returns the facts of c. Errors come from its sources.
func ScanContent(c Content) (Facts, error) {
	var s Scanner
	_, err := c.WriteTo(&s)
	return s.Facts(), err
}
