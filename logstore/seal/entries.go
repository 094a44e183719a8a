package seal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"pecd/logstore"
)

// A lines reads a file line by line and digests it.
type lines struct {
	name   string
	file   fs.File
	reader *bufio.Reader
	digest hash.Hash
	number int // of the line read last
	line   []byte
}

func openLines(files fs.FS, name string) (*lines, *Problem) {
	f, err := files.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	l := &lines{name: name, file: f, digest: sha256.New()}
	l.reader = bufio.NewReaderSize(io.TeeReader(f, l.digest), 64<<10)
	return l, nil
}

// next returns a line with its line feed, good until the next call; nil at the
// end. A last line without line feed is a problem.
func (l *lines) next(seq int64) ([]byte, *Problem) {
	l.number++
	l.line = l.line[:0]
	for {
		piece, err := l.reader.ReadSlice('\n')
		l.line = append(l.line, piece...)
		switch {
		case len(l.line) > maxLine:
			return nil, l.problem(seq, fmt.Sprintf("it has more than %d octets", maxLine))
		case err == nil:
			return l.line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(l.line) == 0:
			return nil, nil
		case errors.Is(err, io.EOF):
			return nil, l.problem(seq, "it is cut off")
		default:
			return nil, l.problem(seq, fmt.Sprintf("it cannot be read: %v", err))
		}
	}
}

func (l *lines) problem(seq int64, text string) *Problem {
	return &Problem{File: l.name, Line: l.number, Seq: seq, Text: text}
}

// end checks that nothing follows and that the digest of all is want.
func (l *lines) end(want logstore.Digest) *Problem {
	line, problem := l.next(0)
	if problem != nil || line != nil {
		return l.problem(0, "it stands after the last entry")
	}
	if !bytes.Equal(l.digest.Sum(nil), want[:]) {
		return &Problem{File: l.name, Text: "its digest is not the sealed one"}
	}
	return nil
}

// verifyEntries reads both files of a day side by side.
func verifyEntries(ctx context.Context, files fs.FS, m Manifest) *Problem {
	zone, err := time.LoadLocation(m.Zone)
	if err != nil {
		return &Problem{File: m.Day.name(nameManifest), Text: fmt.Sprintf("its zone %.40q is not known here", m.Zone)}
	}
	records, problem := openLines(files, m.Day.name(nameRecords))
	if problem != nil {
		return problem
	}
	defer records.file.Close()
	text, problem := openLines(files, m.Day.name(nameText))
	if problem != nil {
		return problem
	}
	defer text.file.Close()
	if problem := verifyHeader(records, m); problem != nil {
		return problem
	}
	chain := m.ChainBefore
	for seq := m.First; seq <= m.Last; seq++ {
		if ctx.Err() != nil {
			return &Problem{Text: ctx.Err().Error()}
		}
		if chain, problem = verifyEntry(records, text, seq, chain, zone); problem != nil {
			return problem
		}
	}
	if problem := records.end(m.RecordsSHA256); problem != nil {
		return problem
	}
	if problem := text.end(m.TextSHA256); problem != nil {
		return problem
	}
	if chain != m.ChainAfter {
		return &Problem{File: records.name, Text: "its chain does not end as the seal says"}
	}
	return nil
}

func verifyHeader(records *lines, m Manifest) *Problem {
	want, err := m.header()
	if err != nil {
		return &Problem{File: records.name, Text: err.Error()}
	}
	line, problem := records.next(0)
	if problem == nil && !bytes.Equal(line, want) {
		problem = records.problem(0, "it is not what the seal says")
	}
	return problem
}

// verifyEntry reads an entry of both files and returns its chain.
func verifyEntry(records, text *lines, seq int64, chain logstore.Digest, zone *time.Location) (logstore.Digest, *Problem) {
	line, problem := records.next(seq)
	if problem != nil {
		return chain, problem
	}
	if line == nil {
		return chain, records.problem(seq, "it is missing")
	}
	octets, stated, ok := splitLine(line)
	if !ok {
		return chain, records.problem(seq, "it is not a line of records")
	}
	next := chain.Next(octets)
	if stated != next {
		return chain, records.problem(seq, "it does not follow in the chain from the one before")
	}
	r, err := readRecord(octets)
	if err != nil {
		return chain, records.problem(seq, err.Error())
	}
	if r.Seq != seq {
		return chain, records.problem(seq, fmt.Sprintf("it is entry %d", r.Seq))
	}
	shown, problem := text.next(seq)
	switch {
	case problem != nil:
		return chain, problem
	case shown == nil:
		return chain, text.problem(seq, "it is missing")
	case !bytes.Equal(shown, r.line(zone)):
		return chain, text.problem(seq, "it is not what the record says")
	}
	return next, nil
}

// splitLine takes a line of records apart: the record's octets and the chain.
func splitLine(line []byte) (octets []byte, chain logstore.Digest, ok bool) {
	rest, found := bytes.CutPrefix(line, []byte(linePrefix))
	if !found || len(rest) < 64 || chain.UnmarshalText(rest[:64]) != nil {
		return nil, chain, false
	}
	if rest, found = bytes.CutPrefix(rest[64:], []byte(lineMiddle)); !found {
		return nil, chain, false
	}
	octets, found = bytes.CutSuffix(rest, []byte(lineSuffix))
	return octets, chain, found
}
