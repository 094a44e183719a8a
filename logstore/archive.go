package logstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// A Month is a month of the register, of legal time.
type Month struct {
	// Since and Until bound it: Since <= At < Until.
	Since, Until time.Time
	Span
}

// Months returns the months from that of the oldest to that of the newest instant
// in the register, in the legal time of loc, also those without entries.
func (r *Reader) Months(ctx context.Context, loc *time.Location) ([]Month, error) {
	var first, last int64
	err := r.db.QueryRowContext(ctx, "SELECT coalesce((SELECT min(at) FROM entry), 0), coalesce((SELECT max(at) FROM entry), -1)").Scan(&first, &last)
	if err != nil {
		return nil, failure("reading the register", err)
	}
	end := time.Unix(0, last)
	y, m, _ := time.Unix(0, first).In(loc).Date()
	var out []Month
	for since := time.Date(y, m, 1, 0, 0, 0, 0, loc); !since.After(end); {
		m++
		month := Month{Since: since, Until: time.Date(y, m, 1, 0, 0, 0, 0, loc)}
		if month.Span, err = r.Span(ctx, month.Since, month.Until); err != nil {
			return nil, err
		}
		out, since = append(out, month), month.Until
	}
	return out, nil
}

// Archived says what is in an archive.
type Archived struct {
	// First and Last are the numbers of its entries; both 0 if it has none.
	First, Last int64
	// Before is the chain of the entry before First, and Chain that of Last.
	Before, Chain Digest
	// Octets is its size, and Digest the SHA-256 digest of it all.
	Octets int64
	Digest Digest
}

// ErrArchive says that an archive is not one, or not as it was written.
var ErrArchive = errors.New("not an archive of the register")

// Archive writes the entries from first to last to w, for whoever keeps them for
// longer: a line with the chain of the entry before, the records one a line as they
// are stored, a line with the chain of the last. All is text with line feeds, so
// that each chain can be recomputed with common tools. Its memory is bounded.
// ErrNoEntry if one of them is missing, ErrInvalid if the chain does not hold.
func (r *Reader) Archive(ctx context.Context, first, last int64, w io.Writer) (Archived, error) {
	if first < 1 || last < first {
		return Archived{}, fmt.Errorf("logstore: %w: an archive of the entries %d to %d", ErrInvalid, first, last)
	}
	before, err := r.chainBefore(ctx, first)
	if err != nil {
		return Archived{}, err
	}
	a := &archiver{w: w, digest: sha256.New(), Archived: Archived{First: first, Before: before, Chain: before}}
	if err := a.line([]byte(before.String())); err != nil {
		return Archived{}, err
	}
	err = r.Chain(ctx, first, a.entry(last))
	if err != nil && !errors.Is(err, errEnough) {
		return Archived{}, err
	}
	if a.Last < last {
		return Archived{}, fmt.Errorf("logstore: %w: %d", ErrNoEntry, a.Last+1)
	}
	if err := a.line([]byte(a.Chain.String())); err != nil {
		return Archived{}, err
	}
	a.digest.Sum(a.Digest[:0])
	return a.Archived, nil
}

func (r *Reader) chainBefore(ctx context.Context, first int64) (Digest, error) {
	purged, err := r.PurgedThrough(ctx)
	if err != nil || first == purged.Seq+1 {
		return purged.Chain, err
	}
	l, err := r.LinkAt(ctx, first-1)
	return l.Chain, err
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// An archiver is an Archive under way.
type archiver struct {
	Archived
	w      io.Writer
	digest hash.Hash
}

func (a *archiver) entry(last int64) func(Link) error {
	return func(l Link) error {
		if l.Seq > last {
			return errEnough
		}
		a.Chain = a.Chain.Next(l.Record)
		if a.Chain != l.Chain {
			return fmt.Errorf("logstore: %w: the chain is broken at entry %d", ErrInvalid, l.Seq)
		}
		a.Last = l.Seq
		return a.line(l.Record)
	}
}

func (a *archiver) line(text []byte) error {
	line := append(text[:len(text):len(text)], '\n')
	a.digest.Write(line) // never fails
	a.Octets += int64(len(line))
	if _, err := a.w.Write(line); err != nil {
		return fmt.Errorf("logstore: writing an archive: %w", err)
	}
	return nil
}

// ReadArchive reads what Archive wrote, recomputes the chain and calls f, which may
// be nil, for each entry until f returns an error, which it returns. The Record of
// a Link is good during the call. ErrArchive if anything is not as Archive writes
// it; then what f has heard counts for nothing. Its memory is bounded.
func ReadArchive(rd io.Reader, f func(Link) error) (Archived, error) {
	digest := sha256.New()
	s := &archiveReader{r: bufio.NewReaderSize(io.TeeReader(rd, digest), 64<<10)}
	text, err := s.line()
	if err != nil {
		return Archived{}, err
	}
	var a Archived
	if err := a.Before.UnmarshalText(text); err != nil {
		return Archived{}, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	a.Chain = a.Before
	for {
		text, err := s.line()
		if err != nil {
			return Archived{}, err
		}
		if len(text) == 0 || text[0] != '{' {
			if err := a.end(text, s); err != nil {
				return Archived{}, err
			}
			digest.Sum(a.Digest[:0])
			a.Octets = s.octets
			return a, nil
		}
		l, err := a.next(text)
		if err != nil {
			return Archived{}, err
		}
		if f == nil {
			continue
		}
		if err := f(l); err != nil {
			return Archived{}, err
		}
	}
}

// next takes the next record.
func (a *Archived) next(text []byte) (Link, error) {
	r, err := decodeRecord(text)
	if err != nil {
		return Link{}, fmt.Errorf("logstore: %w: %w", ErrArchive, err)
	}
	switch {
	case a.First == 0 && r.Seq > 0:
		a.First = r.Seq
	case a.First == 0 || r.Seq != a.Last+1:
		return Link{}, fmt.Errorf("logstore: %w: entry %d after entry %d", ErrArchive, r.Seq, a.Last)
	}
	a.Last, a.Chain = r.Seq, a.Chain.Next(text)
	return Link{Seq: r.Seq, At: r.At.UTC(), Chain: a.Chain, Record: text}, nil
}

// end takes the last line.
func (a *Archived) end(text []byte, s *archiveReader) error {
	var chain Digest
	if err := chain.UnmarshalText(text); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if chain != a.Chain {
		return fmt.Errorf("logstore: %w: the records do not lead to its last line", ErrArchive)
	}
	if _, err := s.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("logstore: %w: something follows its last line", ErrArchive)
	}
	return nil
}

// An archiveReader reads lines of bounded length.
type archiveReader struct {
	r      *bufio.Reader
	long   []byte
	octets int64
}

func (s *archiveReader) line() ([]byte, error) {
	s.long = s.long[:0]
	for {
		part, err := s.r.ReadSlice('\n')
		s.octets += int64(len(part))
		if len(s.long)+len(part) > maxRecord+1 {
			return nil, fmt.Errorf("logstore: %w: a line that is too long", ErrArchive)
		}
		switch {
		case err == nil && len(s.long) == 0:
			return bytes.TrimSuffix(part, []byte("\n")), nil
		case err == nil:
			s.long = append(s.long, part...)
			return bytes.TrimSuffix(s.long, []byte("\n")), nil
		case errors.Is(err, bufio.ErrBufferFull):
			s.long = append(s.long, part...)
		case err == io.EOF:
			return nil, fmt.Errorf("logstore: %w: it ends too early", ErrArchive)
		default:
			return nil, fmt.Errorf("logstore: reading an archive: %w", err)
		}
	}
}
