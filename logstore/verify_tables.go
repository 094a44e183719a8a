package logstore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
)

// The tables that are derived from the records can hold more than fits into
// memory, in another order than the register. So sums are compared: of the digests
// of all rows that the records demand, and of all that are there, each over a
// stretch of the register. Only where they differ rows are compared one by one.
const (
	derivedAddress = iota
	derivedMessage
	derivedIssued
	derivedTables
)

// A derivedTable is how the rows of such a table are read.
type derivedTable struct {
	name string
	key  []string // the columns of its primary key, in their order
	// columns has all columns as tuple has them.
	columns string
	// args returns the key of a tuple.
	args func(tuple) []any
	// remove removes the row of a key if it is of an entry.
	remove string
}

var derived = [derivedTables]derivedTable{
	derivedAddress: {
		name: "entry_address", key: []string{"address", "at", "seq"},
		remove:  "DELETE FROM entry_address WHERE address = ? AND at = ? AND seq = ? AND seq = ?",
		columns: "coalesce(CAST(address AS TEXT), ''), '', '', '', coalesce(CAST(at AS INTEGER), 0), coalesce(CAST(seq AS INTEGER), 0)",
		args:    func(t tuple) []any { return []any{t.text[0], t.at, t.seq} },
	},
	derivedMessage: {
		name: "entry_message", key: []string{"message_id", "at", "seq"},
		remove:  "DELETE FROM entry_message WHERE message_id = ? AND at = ? AND seq = ? AND seq = ?",
		columns: "coalesce(CAST(message_id AS TEXT), ''), '', '', '', coalesce(CAST(at AS INTEGER), 0), coalesce(CAST(seq AS INTEGER), 0)",
		args:    func(t tuple) []any { return []any{t.text[0], t.at, t.seq} },
	},
	derivedIssued: {
		name: "issued", key: []string{"identifier", "kind", "origin", "recipient"},
		remove: "DELETE FROM issued WHERE identifier = ? AND kind = ? AND origin = ? AND recipient = ? AND seq = ?",
		columns: "coalesce(CAST(identifier AS TEXT), ''), coalesce(CAST(kind AS TEXT), ''), coalesce(CAST(origin AS TEXT), ''), " +
			"coalesce(CAST(recipient AS TEXT), ''), 0, coalesce(CAST(seq AS INTEGER), 0)",
		args: func(t tuple) []any { return []any{t.text[0], t.text[1], t.text[2], t.text[3]} },
	},
}

// A tuple is a row of a derived table.
type tuple struct {
	text    [4]string
	at, seq int64
}

func (t tuple) String() string {
	return fmt.Sprintf("%.200q", strings.Join(strings.Fields(strings.Join(t.text[:], " ")), " "))
}

// tuples returns the rows that r, as entry seq, demands of each table.
func (r record) tuples(seq int64) [derivedTables][]tuple {
	var out [derivedTables][]tuple
	at := r.At.UnixNano()
	for _, a := range r.addresses() {
		out[derivedAddress] = append(out[derivedAddress], tuple{text: [4]string{a}, at: at, seq: seq})
	}
	for _, id := range r.messageIDs() {
		out[derivedMessage] = append(out[derivedMessage], tuple{text: [4]string{id}, at: at, seq: seq})
	}
	for _, k := range r.issued() {
		out[derivedIssued] = append(out[derivedIssued], tuple{text: [4]string{k.identifier, k.kind, k.origin, k.recipient}, seq: seq})
	}
	return out
}

// A sum is the sum of digests, in no order.
type sum [2]uint64

func (s *sum) add(o sum) { s[0] += o[0]; s[1] += o[1] }

// tableSums are the sums by stretch of the register. hash and the fields that do
// not change may be used concurrently.
type tableSums struct {
	first, last int64 // entries
	unnamed     int64 // up to here issued is not derived
	stretch     int64 // entries of a stretch
	seeds       [2]maphash.Seed
	want        [derivedTables][]sum
}

// maxStretches bounds the memory of the sums.
const maxStretches = 4096

func newTableSums(first, last, unnamed int64) *tableSums {
	n := max(last-first+1, 0)
	s := &tableSums{first: first, last: last, unnamed: unnamed, stretch: n/maxStretches + 1}
	// Seeds that nobody knows: rows cannot be made so that the sums agree.
	s.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	for t := range s.want {
		s.want[t] = make([]sum, n/s.stretch+1)
	}
	return s
}

func (s *tableSums) hash(t tuple) sum {
	b := make([]byte, 0, 256)
	for _, v := range t.text {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(t.at))
	b = binary.LittleEndian.AppendUint64(b, uint64(t.seq))
	return sum{maphash.Bytes(s.seeds[0], b), maphash.Bytes(s.seeds[1], b)}
}

// covers reports whether the rows of table t of entry seq are compared.
func (s *tableSums) covers(t int, seq int64) bool {
	return seq >= s.first && seq <= s.last && (t != derivedIssued || seq > s.unnamed)
}

func (s *tableSums) add(e *verifyRow) {
	for t := range s.want {
		if s.covers(t, e.seq) {
			s.want[t][(e.seq-s.first)/s.stretch].add(e.sums[t])
		}
	}
}

// derived compares the tables with what the entries demand.
func (v *verification) derived(ctx context.Context) error {
	if v.o.ChainOnly {
		return nil
	}
	var have [derivedTables][]sum
	var stray [derivedTables][]tuple
	var errs [derivedTables]error
	var wg sync.WaitGroup
	for t := range derived {
		wg.Add(1)
		go func() {
			defer wg.Done()
			have[t], stray[t], errs[t] = v.sumTable(ctx, t)
		}()
	}
	wg.Wait()
	for t := range derived {
		if lasting(errs[t]) {
			v.broken(v.res.First, v.res.Last, derived[t].name, "cannot be read: "+errs[t].Error())
			continue
		}
		if errs[t] != nil {
			return errs[t]
		}
		for _, x := range stray[t] {
			v.broken(0, 0, derived[t].name, fmt.Sprintf("a row %v of entry %d, which there is not", x, x.seq))
		}
		if err := v.compareTable(ctx, t, have[t]); err != nil {
			return err
		}
	}
	return v.infected(ctx)
}

// sumTable returns the sums of the rows that are there, and rows of entries that
// are not: of number 0 and below, and of numbers to come.
func (v *verification) sumTable(ctx context.Context, t int) (sums []sum, stray []tuple, err error) {
	s, top := v.tables, v.tables.last
	sums = make([]sum, len(s.want[t]))
	var topErr error
	err = v.r.tableRows(ctx, t, "TRUE", nil, func(x tuple) {
		if s.covers(t, x.seq) {
			sums[(x.seq-s.first)/s.stretch].add(s.hash(x))
			return
		}
		if x.seq > top && topErr == nil { // perhaps of an entry that was written meanwhile
			top, topErr = lastOf(ctx, v.r.db)
		}
		if (x.seq <= 0 || x.seq > top) && len(stray) < v.o.Limit {
			stray = append(stray, x)
		}
	})
	return sums, stray, errors.Join(err, topErr)
}

// tablePage is how many rows of a derived table are read at a time.
const tablePage = 20_000

// tableRows calls f for the rows of table t that condition selects.
func (r *Reader) tableRows(ctx context.Context, t int, condition string, args []any, f func(tuple)) error {
	d := derived[t]
	keys := strings.Join(d.key, ", ")
	after := "(" + keys + ") > (?" + strings.Repeat(", ?", len(d.key)-1) + ")"
	where, more := condition, args
	for {
		rows, err := r.db.QueryContext(ctx, "SELECT "+d.columns+" FROM "+d.name+" WHERE "+where+" ORDER BY "+keys+" LIMIT ?",
			append(more[:len(more):len(more)], tablePage)...)
		if err != nil {
			return err
		}
		last, n, err := eachTuple(rows, f)
		if err != nil || n < tablePage {
			return err
		}
		where, more = condition+" AND "+after, append(args[:len(args):len(args)], d.args(last)...)
	}
}

func eachTuple(rows *sql.Rows, f func(tuple)) (last tuple, n int, err error) {
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&last.text[0], &last.text[1], &last.text[2], &last.text[3], &last.at, &last.seq); err != nil {
			return last, n, err
		}
		f(last)
		n++
	}
	return last, n, rows.Err()
}

// maxCompared bounds how many stretches of a table are compared row by row.
const maxCompared = 16

// compareTable tells the rows of table t that are missing or too many.
func (v *verification) compareTable(ctx context.Context, t int, have []sum) error {
	s, compared := v.tables, 0
	for i := range have {
		if have[i] == s.want[t][i] {
			continue
		}
		first := s.first + int64(i)*s.stretch
		last := min(first+s.stretch-1, s.last)
		if compared++; compared > maxCompared {
			v.broken(first, last, derived[t].name, "is not what the records say")
			continue
		}
		if err := v.compareStretch(ctx, t, first, last); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) compareStretch(ctx context.Context, t int, first, last int64) error {
	want := map[tuple]bool{}
	for next := first; next <= last; {
		rows, err := v.r.verifyPage(ctx, next, last)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, e := range rows {
			next = e.seq + 1
			if r, err := decodeRecord(e.record); err == nil && v.tables.covers(t, e.seq) {
				for _, x := range r.tuples(e.seq)[t] {
					want[x] = true
				}
			}
		}
	}
	name := derived[t].name
	err := v.r.tableRows(ctx, t, "seq BETWEEN ? AND ?", []any{first, last}, func(x tuple) {
		if !v.tables.covers(t, x.seq) {
			return
		}
		if !want[x] {
			v.broken(x.seq, x.seq, name, fmt.Sprintf("a row %v that its record does not name", x))
		}
		delete(want, x)
	})
	for x := range want {
		v.broken(x.seq, x.seq, name, fmt.Sprintf("the row %v that its record names is missing", x))
	}
	return err
}

// infected compares the virus store with the entries that put messages there.
func (v *verification) infected(ctx context.Context) error {
	for after := int64(0); ; {
		list, err := v.r.infectedPage(ctx, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, m := range list {
			after = m.ID
			if m.Seq < v.next && m.Seq >= v.res.First {
				if err := v.infectedRow(ctx, m); err != nil {
					return err
				}
			}
		}
	}
}

func (r *Reader) infectedPage(ctx context.Context, after int64) ([]Infected, error) {
	rows, err := r.db.QueryContext(ctx, "SELECT "+infectedColumns+" FROM infected WHERE id > ? ORDER BY id LIMIT ?", after, chainPage)
	if err != nil {
		return nil, err
	}
	return scanInfected(rows)
}

func (v *verification) infectedRow(ctx context.Context, m Infected) error {
	rows, err := v.r.verifyPage(ctx, m.Seq, m.Seq)
	if err != nil {
		return err
	}
	var r record
	if len(rows) == 1 {
		if r, err = decodeRecord(rows[0].record); err != nil {
			return nil // told already
		}
	}
	if r.Kept != m.Digest || !r.At.Equal(m.At) || valid(string(m.Identifier)) != string(r.Identifier) || valid(string(m.Sender)) != string(r.Sender) {
		v.broken(m.Seq, m.Seq, "infected", fmt.Sprintf("message %d is not what its entry says", m.ID))
	}
	return nil
}
