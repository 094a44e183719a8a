package verify

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"

	"pecd/pec/message"
)

// An entry is one message of an mbox file (RFC 4155), as it stands there.
type entry struct {
	rng message.Range
	// quoted says that lines of it begin with ">From ", perhaps since whoever
	// wrote the mailbox put the ">" there.
	quoted bool
}

const (
	lineBuffer   = 64 << 10
	maxSeparator = 1000 // octets of a line that begins a message
)

// split calls yield with each message of an mbox file, in its order. It takes
// any octets: what stands before the first separator is a message too. The
// empty line before a separator belongs to the mailbox. It holds no more than a
// part of a line in memory. An error of yield ends it.
func split(r io.Reader, yield func(entry) error) error {
	s := splitter{yield: yield, blank: true}
	in := bufio.NewReaderSize(r, lineBuffer)
	begins := true
	for {
		piece, err := in.ReadSlice('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		if failed := s.take(piece, begins, whole || errors.Is(err, io.EOF)); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return s.finish(0)
		}
		begins = whole
	}
}

// A splitter is a walk over an mbox file.
type splitter struct {
	yield func(entry) error
	pos   int64 // octets read
	now   entry
	open  bool // now has a separator or octets
	blank bool // the line before was empty
	empty int64
}

// take takes a piece of a line; begins says that it is the first, ends that it
// is the last.
func (s *splitter) take(piece []byte, begins, ends bool) error {
	at := s.pos
	s.pos += int64(len(piece))
	if begins && ends && isSeparator(piece, s.blank) {
		if err := s.finish(s.empty); err != nil {
			return err
		}
		s.now, s.open = entry{rng: message.Range{Off: s.pos}}, true
		s.blank, s.empty = false, 0
		return nil
	}
	s.open = s.open || len(piece) > 0
	s.now.rng.Len = s.pos - s.now.rng.Off
	s.now.quoted = s.now.quoted || begins && isQuoted(piece)
	s.blank, s.empty = false, 0
	if begins && (string(piece) == "\n" || string(piece) == "\r\n") {
		s.blank, s.empty = true, s.pos-at
	}
	return nil
}

// finish hands on the message that stands open, without the last cut octets.
func (s *splitter) finish(cut int64) error {
	if !s.open {
		return nil
	}
	s.open = false
	s.now.rng.Len = max(s.now.rng.Len-cut, 0)
	return s.yield(s.now)
}

var (
	from = []byte("From ")
	// dated is a separator as RFC 4155 has it. It is believed even where the
	// message before does not end in an empty line, since it was cut off.
	dated = regexp.MustCompile(`^From .*(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +[0-9]{1,2} [0-9]{2}:[0-9]{2}`)
	// timed is what other programs write; some write nothing after "From ".
	timed = regexp.MustCompile(`^From (\s*|.*[0-9]:[0-9]{2}.*)$`)
)

// isSeparator reports whether line begins a message; blank says that the line
// before was empty.
func isSeparator(line []byte, blank bool) bool {
	if !bytes.HasPrefix(line, from) || len(line) > maxSeparator {
		return false
	}
	line = bytes.TrimRight(line, "\r\n")
	return dated.Match(line) || blank && timed.Match(line)
}

// isQuoted reports whether line may have got its first ">" from the mailbox.
func isQuoted(line []byte) bool {
	return len(line) > 0 && line[0] == '>' && bytes.HasPrefix(bytes.TrimLeft(line, ">"), from)
}

// unquote writes src to to without the ">" that the mailbox put before "From ",
// one of any number. Old programs put it only where there was none: then a
// message that had both kinds of lines cannot be told from another.
func unquote(to io.Writer, src io.Reader) error {
	in := bufio.NewReaderSize(src, lineBuffer)
	begins := true
	for {
		piece, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		out := piece
		if begins && isQuoted(piece) {
			out = piece[1:]
		}
		if _, failed := to.Write(out); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		begins = err == nil
	}
}
