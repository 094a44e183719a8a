package logstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/message"
)

// ErrNotKept says that there is no infected message of that id, or not any more.
var ErrNotKept = errors.New("no such infected message")

// ErrAltered says that the file of an infected message does not hold the octets
// that were put there.
var ErrAltered = errors.New("the infected message is not what was kept")

// Where an infected message was found; values of Kept.Source.
const (
	KeptAccess    = "access"
	KeptReception = "reception"
	KeptDelivery  = "delivery"
)

// Kept is an infected message on its way into the virus store (RFC 6109, 2.2.4).
// It gets identifier and sender from the entry of its act. Each Kept is stored
// on its own, also one of the same octets: where one message makes several acts,
// one of them keeps it.
type Kept struct {
	// Content is the whole message as it was found.
	Content message.Content
	// Virus is the name that the scanner gave it; not empty.
	Virus string
	// Until is when the message may be purged, after the instant of the
	// transaction: 30 months later.
	Until time.Time
	// Source is where it was found: KeptAccess, KeptReception or KeptDelivery.
	Source string
}

// Infected is a message of the virus store.
type Infected struct {
	// ID is never used again.
	ID int64 `json:"id"`
	// Seq is the number of the register entry of the event that kept it, and At
	// the instant.
	Seq        int64          `json:"seq"`
	At         time.Time      `json:"at"`
	Identifier pec.Identifier `json:"identifier"`
	Sender     pec.Address    `json:"sender"`
	Virus      string         `json:"virus"`
	Source     string         `json:"source"`
	// Size is in octets.
	Size int64 `json:"size"`
	// Digest is the SHA-256 digest of the message, in hexadecimal.
	Digest string    `json:"digest"`
	Until  time.Time `json:"until"`
}

// An InfectedQuery selects infected messages; zero fields match everything.
type InfectedQuery struct {
	ID         int64
	Identifier pec.Identifier
	// Since bounds At: Since <= At.
	Since time.Time
}

// check refuses what could not be kept as it must be.
func (k *Kept) check(at time.Time) error {
	if k == nil {
		return nil
	}
	switch {
	case k.Virus == "":
		return errors.New("what it keeps has no virus")
	case k.Source != KeptAccess && k.Source != KeptReception && k.Source != KeptDelivery:
		return errors.New("what it keeps was found nowhere")
	case !inRange(k.Until) || !k.Until.After(at):
		return errors.New("what it keeps has no term")
	}
	return nil
}

// infectedColumns are what scanInfected reads.
const infectedColumns = "id, seq, at, identifier, sender, virus, source, size, digest, until"

func scanInfected(rows *sql.Rows) ([]Infected, error) {
	defer rows.Close()
	var out []Infected
	for rows.Next() {
		var m Infected
		var at, until sql.NullInt64
		err := rows.Scan(&m.ID, &m.Seq, &at, &m.Identifier, &m.Sender, &m.Virus, &m.Source, &m.Size, &m.Digest, &until)
		if err != nil {
			return nil, err
		}
		m.At, m.Until = instant(at), instant(until)
		out = append(out, m)
	}
	return out, rows.Err()
}

// Infected returns infected messages; see Store.
func (r *Reader) Infected(ctx context.Context, q InfectedQuery) ([]Infected, error) {
	where, args := []string{"TRUE"}, []any{}
	add := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	if q.ID != 0 {
		add("id = ?", q.ID)
	}
	if q.Identifier != "" {
		add("identifier = ?", string(q.Identifier))
	}
	if !q.Since.IsZero() {
		add("at >= ?", clamp(q.Since))
	}
	rows, err := r.db.QueryContext(ctx, "SELECT "+infectedColumns+" FROM infected WHERE "+strings.Join(where, " AND ")+" ORDER BY id", args...)
	if err != nil {
		return nil, failure("reading the virus store", err)
	}
	out, err := scanInfected(rows)
	if err != nil {
		return nil, failure("reading the virus store", err)
	}
	return out, nil
}

// OpenInfected opens an infected message; see Store.
func (r *Reader) OpenInfected(ctx context.Context, id int64) (io.ReadCloser, error) {
	m, err := r.infected(ctx, id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(virusPath(r.dir, id))
	if errors.Is(err, os.ErrNotExist) {
		// Perhaps its term ended meanwhile.
		if _, again := r.infected(ctx, id); again != nil {
			return nil, again
		}
		return nil, fmt.Errorf("logstore: %w: its file is missing", ErrAltered)
	}
	if err != nil {
		return nil, failure("opening an infected message", err)
	}
	return &keptReader{file: f, digest: sha256.New(), want: m.Digest}, nil
}

func (r *Reader) infected(ctx context.Context, id int64) (Infected, error) {
	list, err := r.Infected(ctx, InfectedQuery{ID: id})
	if err == nil && (id == 0 || len(list) == 0) {
		err = fmt.Errorf("logstore: %w: %d", ErrNotKept, id)
	}
	if err != nil {
		return Infected{}, err
	}
	return list[0], nil
}
