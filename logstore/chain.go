package logstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// A Digest is a SHA-256 digest; its text is 64 digits of lower-case hexadecimal.
type Digest [sha256.Size]byte

// String implements fmt.Stringer.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes nothing that
// MarshalText does not write.
func (d *Digest) UnmarshalText(text []byte) error {
	var out Digest
	if len(text) != hex.EncodedLen(len(out)) {
		return fmt.Errorf("logstore: a digest of %d digits", len(text))
	}
	if _, err := hex.Decode(out[:], text); err != nil {
		return fmt.Errorf("logstore: a digest: %w", err)
	}
	if out.String() != string(text) {
		return errors.New("logstore: a digest in capital letters")
	}
	*d = out
	return nil
}

// Next returns the chain of the entry with the given record that follows one with
// chain d: the SHA-256 digest over d in hexadecimal, a line feed, the record, a
// line feed. The zero Digest is the chain before the first entry.
func (d Digest) Next(record []byte) Digest {
	b := make([]byte, 0, hex.EncodedLen(len(d))+len(record)+2)
	b = hex.AppendEncode(b, d[:])
	b = append(b, '\n')
	b = append(b, record...)
	b = append(b, '\n')
	return sha256.Sum256(b)
}

// A Link is an entry in the chain.
type Link struct {
	Seq   int64
	At    time.Time // UTC
	Chain Digest
	// Record holds the octets of the entry's JSON, without a line feed.
	Record []byte
}

// An Anchor is what something outside of the store vouches for: that entry Seq had
// this chain.
type Anchor struct {
	Seq   int64
	Chain Digest
}

// Evidence is the register as a chain. SQLite and Reader have it; all methods may
// be called concurrently, also while entries are written.
type Evidence interface {
	// Head returns the last entry; of an empty register the zero Link. It is cheap.
	Head(ctx context.Context) (Link, error)
	// LinkAt returns entry seq, or ErrNoEntry.
	LinkAt(ctx context.Context, seq int64) (Link, error)
	// Chain calls f for the entries from number from on, in order, until f returns an
	// error, which it returns. ErrNoEntry if entries in between are missing. Its
	// memory is bounded. The Link's Record may be kept.
	Chain(ctx context.Context, from int64, f func(Link) error) error
	// Span returns where the entries of since <= At < until stand.
	Span(ctx context.Context, since, until time.Time) (Span, error)
	// PurgedThrough returns the last entry that went after its term, without its
	// record: the chain goes on from it. The zero Link if none went.
	PurgedThrough(ctx context.Context) (Link, error)
}

var (
	_ Evidence = (*Reader)(nil)
	_ Evidence = (*SQLite)(nil)
)

// ErrNoEntry says that the register has no entry of that number.
var ErrNoEntry = errors.New("no such entry in the register")

// A Span says where the entries of a time stand in the register. Instants need not
// rise with the numbers: of two acts at the same time the later may be written
// first, and clocks are set. So entries of other times can stand between First
// and Last. Whoever seals day after day seals from the entry after the last seal
// up to Last.
type Span struct {
	// First and Last are the lowest and the highest number; 0 if there is none.
	First, Last int64
	// Entries is how many entries the time has.
	Entries int64
}

const linkColumns = "seq, at, chain, record"

func scanLink(scan func(...any) error) (Link, error) {
	var l Link
	var at int64
	var chain []byte
	if err := scan(&l.Seq, &at, &chain, &l.Record); err != nil {
		return Link{}, err
	}
	l.At = time.Unix(0, at).UTC()
	if copy(l.Chain[:], chain) != len(l.Chain) || len(chain) != len(l.Chain) {
		return Link{}, fmt.Errorf("entry %d has a chain of %d octets", l.Seq, len(chain))
	}
	return l, nil
}

// Head returns the last entry; see Evidence.
func (r *Reader) Head(ctx context.Context) (Link, error) {
	l, err := headOf(ctx, r.db)
	if err != nil {
		return Link{}, failure("reading the register", err)
	}
	return l, nil
}

func headOf(ctx context.Context, q rowQuerier) (Link, error) {
	l, err := scanLink(q.QueryRowContext(ctx, "SELECT "+linkColumns+" FROM entry ORDER BY seq DESC LIMIT 1").Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Link{}, nil
	}
	return l, err
}

// LinkAt returns an entry; see Evidence.
func (r *Reader) LinkAt(ctx context.Context, seq int64) (Link, error) {
	l, err := scanLink(r.db.QueryRowContext(ctx, "SELECT "+linkColumns+" FROM entry WHERE seq = ?", seq).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Link{}, fmt.Errorf("logstore: %w: %d", ErrNoEntry, seq)
	}
	if err != nil {
		return Link{}, failure("reading the register", err)
	}
	return l, nil
}

// chainPage is how many entries are read at a time. Between two pages nothing is
// held open.
const chainPage = 1000

// Chain calls f for entries in their order; see Evidence.
func (r *Reader) Chain(ctx context.Context, from int64, f func(Link) error) error {
	for next := from; ; {
		page, err := r.links(ctx, next)
		if err != nil {
			return failure("reading the register", err)
		}
		for _, l := range page {
			if l.Seq != next {
				return fmt.Errorf("logstore: %w: %d", ErrNoEntry, next)
			}
			if err := f(l); err != nil {
				return err
			}
			next++
		}
		if len(page) < chainPage {
			return nil
		}
	}
}

func (r *Reader) links(ctx context.Context, from int64) ([]Link, error) {
	rows, err := r.db.QueryContext(ctx, "SELECT "+linkColumns+" FROM entry WHERE seq >= ? ORDER BY seq LIMIT ?", from, chainPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []Link
	for rows.Next() {
		l, err := scanLink(rows.Scan)
		if err != nil {
			return nil, err
		}
		page = append(page, l)
	}
	return page, rows.Err()
}

// Span returns where the entries of a time stand; see Evidence. It walks the index
// of instants, a million entries in a fraction of a second.
func (r *Reader) Span(ctx context.Context, since, until time.Time) (Span, error) {
	var s Span
	err := r.db.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0), coalesce(max(seq), 0), count(*) FROM entry INDEXED BY entry_by_time
		WHERE at >= ? AND at < ?`, clamp(since), clamp(until)).Scan(&s.First, &s.Last, &s.Entries)
	if err != nil {
		return Span{}, failure("reading the register", err)
	}
	return s, nil
}

// PurgedThrough returns the last entry that went; see Evidence.
func (r *Reader) PurgedThrough(ctx context.Context) (Link, error) {
	var l Link
	var chain []byte
	err := r.db.QueryRowContext(ctx, "SELECT through, chain FROM purged ORDER BY through DESC LIMIT 1").Scan(&l.Seq, &chain)
	if errors.Is(err, sql.ErrNoRows) {
		return Link{}, nil
	}
	if err != nil {
		return Link{}, failure("reading the register", err)
	}
	copy(l.Chain[:], chain) // the schema sees to its length
	return l, nil
}

// Field returns how far the register is at l, as header fields, lines of logs and
// time-stamped octets have it: "seq=1234; chain=" and 64 digits.
func (l Link) Field() string { return fmt.Sprintf("seq=%d; chain=%s", l.Seq, l.Chain) }
