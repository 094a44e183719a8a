package logstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// VerifyOptions are what Verify needs.
type VerifyOptions struct {
	// From is the first entry to be checked; zero means the first that is kept. The
	// chain of the one before is believed.
	From int64
	// Known are what something outside of the store vouches for, in any order.
	Known []Anchor
	// ChainOnly leaves out all but the chain and the anchors. It is many times
	// faster, and enough for what was sealed and is searched nowhere else.
	ChainOnly bool
	// Pages has SQLite check its pages and its own indexes too; that takes long.
	Pages bool
	// Limit bounds how many breaks are told; zero means 100.
	Limit int
	// Progress hears how many entries of how many have been read; nil if nobody
	// wants to know.
	Progress func(done, total int64)
}

// Result is what Verify found.
type Result struct {
	// First and Last are the numbers of the first and the last entry that were
	// checked, both 0 if there was none. Entries that are written during the
	// verification are not among them.
	First, Last int64
	// Entries and Octets are how many entries were read, and the size of their
	// records.
	Entries, Octets int64
	// Purged is the number of the last entry that went after its term, or 0.
	Purged int64
	// Unnamed is the number of the last entry whose record does not name its keys:
	// up to it the table issued cannot be checked.
	Unnamed int64
	// Good is the number of the last entry before the first break; if there is no
	// break it is Last.
	Good int64
	// Broken are the breaks, by their entries.
	Broken []Break
	// More is how many breaks were found beyond the limit.
	More int64
	// Covered is the last anchor that agrees; zero if none does.
	Covered Anchor
	// Below is how many anchors are of entries that went or are before From; nothing
	// was found out about them.
	Below int
	// Uncovered are the entries after Covered: nothing outside of the store vouches
	// for them, so whoever can write to the store could have written them anew.
	Uncovered Uncovered
}

// Uncovered says which entries are not covered; zero if all are.
type Uncovered struct {
	First, Last int64
	// Since and Until are the instants of the two.
	Since, Until time.Time
}

// Sound reports whether nothing is broken.
func (r Result) Sound() bool { return len(r.Broken) == 0 }

// A Break is a place where the store is not what was written.
type Break struct {
	// First and Last are the entries it is about: one entry, or several of which it
	// cannot be said which. Zero if it is about no entry.
	First, Last int64
	// Table is the table that is wrong, "schema", "anchor" or "database".
	Table string
	// What says what differs, for the operator.
	What string
}

// String implements fmt.Stringer.
func (b Break) String() string {
	switch {
	case b.Last == 0:
		return fmt.Sprintf("%s: %s", b.Table, b.What)
	case b.First == b.Last:
		return fmt.Sprintf("entry %d: %s: %s", b.Last, b.Table, b.What)
	}
	return fmt.Sprintf("entries %d to %d: %s: %s", b.First, b.Last, b.Table, b.What)
}

// ErrPurgedMeanwhile says that entries went while the register was verified; the
// caller does it again.
var ErrPurgedMeanwhile = errors.New("entries were purged during the verification")

// defaultBreaks is how many breaks Verify tells.
const defaultBreaks = 100

// A verification is a Verify under way; it belongs to its goroutine.
type verification struct {
	r       *Reader
	o       VerifyOptions
	res     Result
	next    int64  // the number that the next entry must have
	chain   Digest // of the entry before
	anchors []Anchor
	tables  *tableSums
	purged  []purgedRow
	purges  map[int64]recordPurge // by the number of their entry
	lastAt  time.Time             // of the last entry that was read
	since   time.Time             // of the first entry after Covered
}

// Verify recomputes the chain from the first entry that is kept, and finds out
// whether its numbers have no gaps, what is derived from the records is as they say
// and nothing else is there, and the schema is that of this program. It compares
// the chain with the anchors. After a break it goes on with the chain that is
// written there, so that each broken place is told once. It only reads, a bounded
// part at a time, and the register may grow meanwhile. An error says that it could
// not be done: what is broken is in the Result.
func (r *Reader) Verify(ctx context.Context, o VerifyOptions) (_ Result, err error) {
	purged, err := r.PurgedThrough(ctx)
	if err != nil {
		return Result{}, err
	}
	// Connections of its own, two for each table that is walked at a time: those of
	// the daemon have other work.
	db, err := openDatabase(r.dir, readOptions, 2*derivedTables)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	v := &verification{r: &Reader{db: db, dir: r.dir}, o: o, purges: map[int64]recordPurge{}}
	if v.o.Limit == 0 {
		v.o.Limit = defaultBreaks
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return v.begin(ctx, purged) },
		v.schema, v.entries, v.derived, v.purgeRows, v.pages,
	} {
		if err := step(ctx); err != nil {
			return Result{}, failure("verifying the register", err)
		}
	}
	again, err := r.PurgedThrough(ctx)
	if err != nil {
		return Result{}, err
	}
	if again.Seq != purged.Seq {
		return Result{}, failure("verifying the register", ErrPurgedMeanwhile)
	}
	v.end()
	return v.res, nil
}

// begin finds out where the verification starts and ends.
func (v *verification) begin(ctx context.Context, purged Link) error {
	v.res.Purged, v.next, v.chain = purged.Seq, purged.Seq+1, purged.Chain
	if v.o.From > v.next {
		before, err := v.r.LinkAt(ctx, v.o.From-1)
		if err != nil {
			return err
		}
		v.next, v.chain = v.o.From, before.Chain
	}
	var err error
	if v.purged, err = v.r.purgedRows(ctx); err != nil {
		return err
	}
	var last int64
	err = v.r.db.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0), (SELECT coalesce(max(seq), 0) FROM unnamed_keys) FROM entry").
		Scan(&last, &v.res.Unnamed)
	if err != nil {
		return err
	}
	if last >= v.next {
		v.res.First, v.res.Last = v.next, last
	}
	v.tables = newTableSums(v.next, last, v.res.Unnamed)
	v.sortAnchors(Anchor{Seq: purged.Seq, Chain: purged.Chain})
	return nil
}

// sortAnchors takes the anchors that can be compared with entries. One of the last
// entry that went is compared at once.
func (v *verification) sortAnchors(purged Anchor) {
	for _, a := range v.o.Known {
		switch {
		case a.Seq == purged.Seq && a.Seq > 0:
			if a.Chain != purged.Chain {
				v.broken(a.Seq, a.Seq, "anchor", "its chain is another than the purge says")
			} else if v.res.Covered.Seq < a.Seq {
				v.res.Covered = a
			}
		case a.Seq < v.next:
			v.res.Below++
		default:
			v.anchors = append(v.anchors, a)
		}
	}
	slices.SortFunc(v.anchors, func(a, b Anchor) int { return int(min(max(a.Seq-b.Seq, -1), 1)) })
}

func (v *verification) broken(first, last int64, table, what string) {
	if len(v.res.Broken) >= v.o.Limit {
		v.res.More++
		return
	}
	v.res.Broken = append(v.res.Broken, Break{First: first, Last: last, Table: table, What: what})
}

// entries walks the register. The next page is read while one is checked.
func (v *verification) entries(ctx context.Context) error {
	if v.res.Last == 0 {
		return nil
	}
	reading, cancel := context.WithCancel(ctx)
	pages := make(chan verifyPage)
	go v.r.verifyPages(reading, v.next, v.res.Last, pages)
	defer func() {
		cancel()
		for range pages { // until it has ended
		}
	}()
	total := v.res.Last - v.next + 1
	for p := range pages {
		if lasting(p.err) {
			v.broken(v.next, v.res.Last, "entry", "cannot be read: "+p.err.Error())
			return nil
		}
		if p.err != nil {
			return p.err
		}
		if !v.o.ChainOnly {
			deriveAll(p.rows, v.tables)
		}
		for i := range p.rows {
			v.entry(&p.rows[i])
		}
		if v.o.Progress != nil {
			v.o.Progress(v.res.Entries, total)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.next <= v.res.Last {
		v.broken(v.next, v.res.Last, "entry", "missing")
	}
	return nil
}

// entry checks one entry, in its turn.
func (v *verification) entry(e *verifyRow) {
	v.res.Entries++
	v.res.Octets += int64(len(e.record))
	v.lastAt = time.Unix(0, e.at).UTC()
	stored := Digest(slices.Concat(e.chain, make([]byte, len(Digest{})))[:len(Digest{})])
	switch {
	case e.seq != v.next:
		v.broken(v.next, e.seq-1, "entry", "missing")
	case len(e.chain) != len(stored):
		v.broken(e.seq, e.seq, "entry", fmt.Sprintf("its chain has %d octets", len(e.chain)))
	case e.large:
		v.broken(e.seq, e.seq, "entry", "its record is larger than any that is written")
	case v.chain.Next(e.record) != stored:
		v.broken(e.seq, e.seq, "entry", "the chain does not follow from the record and the entry before")
	}
	for _, what := range e.wrong {
		v.broken(e.seq, e.seq, "entry", what)
	}
	if e.unnamed {
		v.broken(e.seq, e.seq, "unnamed_keys", "it counts this entry, which does name its keys")
	}
	if e.purge != nil {
		v.purges[e.seq] = *e.purge
	}
	v.tables.add(e)
	v.chain, v.next = stored, e.seq+1
	if v.since.IsZero() {
		v.since = v.lastAt
	}
	v.anchor(e.seq)
}

// anchor compares the chain at entry seq with what is known of it.
func (v *verification) anchor(seq int64) {
	for len(v.anchors) > 0 && v.anchors[0].Seq <= seq {
		a := v.anchors[0]
		v.anchors = v.anchors[1:]
		switch {
		case a.Seq < seq:
			v.broken(a.Seq, a.Seq, "anchor", "something outside vouches for this entry, which is missing")
		case a.Chain != v.chain:
			v.broken(min(max(v.res.Covered.Seq+1, v.res.First), seq), seq, "anchor",
				fmt.Sprintf("something outside vouches for chain %v at entry %d, which has %v: the register was written anew", a.Chain, seq, v.chain))
		default:
			v.res.Covered, v.since = a, time.Time{}
		}
	}
}

// end sums up.
func (v *verification) end() {
	for _, a := range v.anchors {
		v.broken(max(v.res.Last, v.next-1)+1, a.Seq, "anchor", fmt.Sprintf("something outside vouches for this entry, and the register ends with entry %d", v.res.Last))
	}
	slices.SortStableFunc(v.res.Broken, func(a, b Break) int { return int(min(max(a.First-b.First, -1), 1)) })
	v.res.Good = v.res.Last
	for _, b := range v.res.Broken {
		if b.First > 0 {
			v.res.Good = min(v.res.Good, b.First-1)
			break
		}
	}
	if v.res.Last > v.res.Covered.Seq {
		v.res.Uncovered = Uncovered{First: max(v.res.Covered.Seq+1, v.res.First), Last: v.res.Last, Since: v.since, Until: v.lastAt}
	}
}

// A verifyRow is an entry as the table has it, and what was found out about it.
type verifyRow struct {
	seq, at          int64
	kind, identifier string
	record, chain    []byte
	large            bool // the record is not there

	wrong   []string
	unnamed bool // it names keys and should not
	purge   *recordPurge
	sums    [derivedTables]sum
}

// A verifyPage is some entries, or why they could not be read.
type verifyPage struct {
	rows []verifyRow
	err  error
}

// verifyOctets bounds the records of a page, which may go above it by one.
const verifyOctets = 4 << 20

// verifyPages sends the entries from next to last. It ends with ctx, or after an
// error.
func (r *Reader) verifyPages(ctx context.Context, next, last int64, pages chan<- verifyPage) {
	defer close(pages)
	for next <= last {
		rows, err := r.verifyPage(ctx, next, last)
		select {
		case pages <- verifyPage{rows, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || len(rows) == 0 {
			return
		}
		next = rows[len(rows)-1].seq + 1
	}
}

// verifyPage reads entries. It takes whatever stands there, of whatever type.
func (r *Reader) verifyPage(ctx context.Context, next, last int64) ([]verifyRow, error) {
	rows, err := r.db.QueryContext(ctx, `SELECT seq, coalesce(CAST(at AS INTEGER), 0), coalesce(CAST(type AS TEXT), ''),
		coalesce(CAST(identifier AS TEXT), ''), octet_length(record) > ?, CASE WHEN octet_length(record) <= ? THEN CAST(record AS BLOB) END,
		CASE WHEN octet_length(chain) <= 32 THEN CAST(chain AS BLOB) END
		FROM entry WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?`, maxRecord, maxRecord, next, last, chainPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	page := make([]verifyRow, 0, chainPage)
	for octets := 0; octets < verifyOctets && rows.Next(); {
		var e verifyRow
		var large *bool
		if err := rows.Scan(&e.seq, &e.at, &e.kind, &e.identifier, &large, &e.record, &e.chain); err != nil {
			return nil, err
		}
		e.large = large != nil && *large
		octets += len(e.record)
		page = append(page, e)
	}
	return page, rows.Err()
}

// deriveAll does what needs no order, on all processors.
func deriveAll(rows []verifyRow, sums *tableSums) {
	workers := runtime.GOMAXPROCS(0)
	share := (len(rows) + workers - 1) / workers
	var wg sync.WaitGroup
	for len(rows) > 0 {
		mine := rows[:min(share, len(rows))]
		rows = rows[len(mine):]
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range mine {
				mine[i].derive(sums)
			}
		}()
	}
	wg.Wait()
}

// derive compares the columns with the record, and sums up what the other tables
// must hold.
func (e *verifyRow) derive(sums *tableSums) {
	if e.large {
		return
	}
	r, err := decodeRecord(e.record)
	if err != nil {
		e.wrong = append(e.wrong, "its record is no JSON of an entry")
		return
	}
	for _, c := range []struct {
		column string
		same   bool
	}{
		{"seq", r.Seq == e.seq},
		{"at", r.At.UnixNano() == e.at},
		{"type", string(r.Type) == valid(e.kind)},
		{"identifier", string(r.Identifier) == valid(e.identifier)},
	} {
		if !c.same {
			e.wrong = append(e.wrong, "its column "+c.column+" is not what the record says")
		}
	}
	e.purge = r.Purge
	e.unnamed = len(r.Keys) > 0 && e.seq <= sums.unnamed
	for t, tuples := range r.tuples(e.seq) {
		for _, x := range tuples {
			e.sums[t].add(sums.hash(x))
		}
	}
}
