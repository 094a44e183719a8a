package logstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// schema compares what the database is made of with what the migrations make: a
// trigger that was dropped let somebody write what no trigger saw, and one that
// was added writes what no program did.
func (v *verification) schema(ctx context.Context) error {
	want, err := freshSchema(ctx)
	if err != nil {
		return err
	}
	have, err := readSchema(ctx, v.r.db)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch text, ok := have[name]; {
		case !ok:
			v.broken(0, 0, "schema", name+" is missing")
		case text != want[name]:
			v.broken(0, 0, "schema", name+" is another")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[name]; !ok {
			v.broken(0, 0, "schema", fmt.Sprintf("%.200s does not belong there", name))
		}
	}
	return nil
}

// freshSchema returns the schema of a new store.
func freshSchema(ctx context.Context) (_ map[string]string, err error) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := migrate(ctx, c, nil); err != nil {
		return nil, err
	}
	return readSchema(ctx, c)
}

// A querier is a database or a connection.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readSchema returns the SQL of all parts of the schema, by kind and name.
func readSchema(ctx context.Context, q querier) (map[string]string, error) {
	rows, err := q.QueryContext(ctx, `SELECT type || ' ' || name, tbl_name || ': ' || sql FROM sqlite_schema
		WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, err
		}
		out[name] = text
	}
	return out, rows.Err()
}

// purgeRows compares the table purged with the entries that say what went. A row
// whose own entry went is explained by a later one.
func (v *verification) purgeRows(context.Context) error {
	if v.o.ChainOnly {
		return nil
	}
	for i, p := range v.purged {
		said, ok := v.purges[p.seq]
		delete(v.purges, p.seq)
		before := p.seq < v.res.First && (i < len(v.purged)-1 || v.o.From > v.res.Purged+1)
		switch {
		case before:
		case !ok:
			v.broken(0, 0, "purged", fmt.Sprintf("entries up to %d were removed, and no entry says so", p.Through))
		case said != p.recordPurge:
			v.broken(p.seq, p.seq, "purged", fmt.Sprintf("the removal of the entries up to %d is not what this entry says", p.Through))
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(v.purges)) {
		v.broken(seq, seq, "purged", "the row about the removal that this entry tells is missing")
	}
	return nil
}

// pages has SQLite look at every page and index.
func (v *verification) pages(ctx context.Context) error {
	if !v.o.Pages {
		return nil
	}
	rows, err := v.r.db.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", v.o.Limit))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var said string
		if err := rows.Scan(&said); err != nil {
			return err
		}
		if said != "ok" {
			v.broken(0, 0, "database", said)
		}
	}
	if err := rows.Err(); lasting(err) {
		v.broken(0, 0, "database", err.Error())
	} else if err != nil {
		return err
	}
	return nil
}
