package seal

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"

	"pecd/logstore"
)

// A Head says how far the register was at some instant: its last entry and the
// chain there. It fixes all entries up to it.
type Head struct {
	Seq   int64           `json:"seq"`
	Chain logstore.Digest `json:"chain"`
	At    time.Time       `json:"at"` // of the entry
}

// HeadOf returns the head at an entry.
func HeadOf(l logstore.Link) Head { return Head{l.Seq, l.Chain, l.At} }

// Field returns h without its instant, as logstore.Link.Field does.
func (h Head) Field() string { return logstore.Link{Seq: h.Seq, Chain: h.Chain}.Field() }

// ReadHeads calls f for each head that stands anywhere in the text r as Field
// writes it: in the log of a witness, in a message with a header field of ours,
// also a folded one. Their instants are zero. It reads words of up to 1 MiB and
// returns the first error of f or r.
func ReadHeads(r io.Reader, f func(Head) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	s.Split(bufio.ScanWords)
	before := ""
	for s.Scan() {
		word := s.Text()
		if h, ok := readHead(before, word); ok {
			if err := f(h); err != nil {
				return err
			}
		}
		before = word
	}
	return s.Err()
}

// readHead reads two words that follow one another.
func readHead(first, second string) (h Head, ok bool) {
	i := strings.LastIndex(first, "seq=")
	rest, found := strings.CutPrefix(second, "chain=")
	if i < 0 || !found || len(rest) < 64 || !strings.HasSuffix(first, ";") {
		return h, false
	}
	digits := strings.TrimSuffix(first[i+len("seq="):], ";")
	seq, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || seq < 1 || strconv.FormatInt(seq, 10) != digits {
		return h, false
	}
	h.Seq = seq
	return h, h.Chain.UnmarshalText([]byte(rest[:64])) == nil
}
