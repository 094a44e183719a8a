package logstore

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// searchPage is how many entries Search reads at a time, and pageGrowth how many times
// as many as before until it does: whoever looks for the first, of a message to many
// recipients, does not pay for the others. Between two pages it holds nothing open, so
// that a slow caller does not keep SQLite's log growing.
const (
	searchPage = 500
	pageGrowth = 8
)

// Search calls f for each register entry that matches q; see Store. Entries that
// are committed during the search may or may not be found.
func (r *Reader) Search(ctx context.Context, q Query, f func(Entry) error) error {
	query, args := searchSQL(q)
	at, seq := int64(math.MinInt64), int64(0)
	for size := 1; ; size = min(size*pageGrowth, searchPage) {
		page, err := r.page(ctx, query, append(args[:len(args):len(args)], at, seq, size))
		if err != nil {
			return failure("searching the register", err)
		}
		for _, e := range page {
			if err := f(e); err != nil {
				return err
			}
		}
		if len(page) < size {
			return nil
		}
		last := page[len(page)-1]
		at, seq = last.At.UnixNano(), last.Seq
	}
}

func (r *Reader) page(ctx context.Context, query string, args []any) ([]Entry, error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []Entry
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, err
		}
		var e Entry
		if err := json.Unmarshal([]byte(record), &e); err != nil {
			return nil, fmt.Errorf("an entry cannot be read: %w", err)
		}
		page = append(page, e)
	}
	return page, rows.Err()
}

// searchSQL returns the query for a page of what q selects. Its last three
// arguments are missing: time and number of the last entry of the page before,
// and the size of a page. The narrowest condition leads, on an index that is in
// the order of the result; the others filter.
func searchSQL(q Query) (query string, args []any) {
	var from, where []string
	lead := "e"
	side := func(table, column, value string) {
		if lead == "e" {
			lead = "k"
			from = append(from, table+" AS k CROSS JOIN entry AS e ON e.seq = k.seq")
			where = append(where, "k."+column+" = ?")
		} else {
			where = append(where, fmt.Sprintf("e.seq IN (SELECT seq FROM %s WHERE %s = ?)", table, column))
		}
		args = append(args, value)
	}
	if id := bareID(q.MessageID); id != "" {
		side("entry_message", "message_id", id)
	}
	if q.Address != "" && q.Identifier == "" {
		side("entry_address", "address", foldAll(q.Address))
	}
	if len(from) == 0 {
		from = append(from, "entry AS e")
	}
	if q.Identifier != "" {
		where = append(where, "e.identifier = ?")
		args = append(args, string(q.Identifier))
	}
	if q.Address != "" && q.Identifier != "" {
		where = append(where, "EXISTS (SELECT 1 FROM entry_address AS a WHERE a.address = ? AND a.at = e.at AND a.seq = e.seq)")
		args = append(args, foldAll(q.Address))
	}
	if !q.Since.IsZero() {
		where = append(where, lead+".at >= ?")
		args = append(args, clamp(q.Since))
	}
	if !q.Until.IsZero() {
		where = append(where, lead+".at < ?")
		args = append(args, clamp(q.Until))
	}
	where = append(where, fmt.Sprintf("(%[1]s.at, %[1]s.seq) > (?, ?)", lead))
	return fmt.Sprintf("SELECT e.record FROM %s WHERE %s ORDER BY %[3]s.at, %[3]s.seq LIMIT ?",
		strings.Join(from, " "), strings.Join(where, " AND "), lead), args
}
