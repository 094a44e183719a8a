package logstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"
	"unsafe"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/signer"
)

// maxNesting bounds contents within contents.
const maxNesting = 32

// copyBuffer is the size in octets of the largest buffer for copying sources.
const copyBuffer = 64 << 10

// A letter is a signed message as the outbox stores it.
type letter struct {
	kind       pec.Kind
	messageID  string
	envelopeID string
	from       pec.Address
	to         []pec.Address
	eightBit   bool
	pieces     []piece
}

// A piece is text or a run of a body of this store.
type piece struct {
	text []byte
	id   int64 // of the body; 0: text
	body *body // nil if the body came out of the outbox
	run  message.Range
}

// A spool turns contents into pieces for one transaction. Sources that are not
// bodies of the store are copied, each once.
type spool struct {
	store  *SQLite
	copies map[copyKey]*body
}

// A copyKey recognises a source within a transaction.
type copyKey struct {
	source any // a pointer
	run    message.Range
}

func (s *spool) letter(m *signer.Signed, envelopeID string) (letter, error) {
	event := m.Event()
	l := letter{
		kind: event.Kind, messageID: m.MessageID(), envelopeID: envelopeID,
		from: m.From(), to: m.To(), eightBit: m.EightBit(),
	}
	if l.envelopeID == "" {
		l.envelopeID = string(event.Identifier)
	}
	err := s.flatten(&l, m.Content(), 0)
	return l, err
}

func (s *spool) flatten(l *letter, c message.Content, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%w: a content nested too deeply", ErrInvalid)
	}
	for _, p := range c {
		if err := s.add(l, p, depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) add(l *letter, p message.Piece, depth int) error {
	if p.Size() == 0 {
		return nil
	}
	if p.Source != nil && (p.Range.Off < 0 || p.Range.Len < 0 || p.Range.End() > p.Source.Size()) {
		return fmt.Errorf("%w: a piece beyond the end of its source", ErrInvalid)
	}
	switch src := p.Source.(type) {
	case nil:
		return s.addText(l, p.Text)
	case message.Content:
		part, err := cut(src, p.Range)
		if err != nil {
			return err
		}
		return s.flatten(l, part, depth+1)
	case message.Bytes:
		return s.addText(l, src[p.Range.Off:p.Range.End()])
	case *body:
		if src.store == s.store {
			l.pieces = append(l.pieces, piece{id: src.id, body: src, run: p.Range})
			return nil
		}
	case *storedBody:
		if src.store == s.store {
			l.pieces = append(l.pieces, piece{id: src.id, run: p.Range})
			return nil
		}
	}
	return s.addCopy(l, p.Source, p.Range, foreign(p.Source, p.Range))
}

// addText adds text, joined to text before it. Text too long for a row is
// stored as a body.
func (s *spool) addText(l *letter, text []byte) error {
	if int64(len(text)) > s.store.options.InlineLimit {
		return s.addCopy(l, message.Bytes(text), message.Range{Len: int64(len(text))}, copyKey{
			source: unsafe.SliceData(text), run: message.Range{Len: int64(len(text))},
		})
	}
	if n := len(l.pieces); n > 0 && l.pieces[n-1].id == 0 {
		last := &l.pieces[n-1]
		last.text = append(last.text[:len(last.text):len(last.text)], text...)
		return nil
	}
	l.pieces = append(l.pieces, piece{text: text})
	return nil
}

// foreign returns the key of a run of src; the zero key if src cannot be
// recognised.
func foreign(src message.Source, run message.Range) copyKey {
	if reflect.TypeOf(src).Kind() != reflect.Pointer {
		return copyKey{}
	}
	return copyKey{source: src, run: run}
}

// addCopy adds run of src by way of a body of its own.
func (s *spool) addCopy(l *letter, src message.Source, run message.Range, key copyKey) error {
	b := s.copies[key]
	if b == nil || key == (copyKey{}) {
		b = s.store.newBody()
		if key == (copyKey{}) {
			key = copyKey{source: b} // only so that close finds it
		}
		s.copies[key] = b
		n, err := io.CopyBuffer(struct{ io.Writer }{b},
			struct{ io.Reader }{io.NewSectionReader(src, run.Off, run.Len)}, make([]byte, min(copyBuffer, run.Len)))
		if err != nil {
			return fmt.Errorf("copying a source: %w", err)
		}
		if n != run.Len {
			return fmt.Errorf("copying a source: %w", io.ErrUnexpectedEOF)
		}
	}
	l.pieces = append(l.pieces, piece{id: b.id, body: b, run: message.Range{Len: run.Len}})
	return nil
}

// close lets go of the copies.
func (s *spool) close() error {
	var errs []error
	for _, b := range s.copies {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// cut returns the run r of c.
func cut(c message.Content, r message.Range) (message.Content, error) {
	var out message.Content
	off, left := r.Off, r.Len
	for _, p := range c {
		size := p.Size()
		if size < 0 {
			return nil, fmt.Errorf("%w: a piece of negative size", ErrInvalid)
		}
		if off >= size {
			off -= size
			continue
		}
		n := min(left, size-off)
		if n == 0 {
			break
		}
		if p.Source == nil {
			out = append(out, message.Piece{Text: p.Text[off : off+n]})
		} else {
			out = append(out, message.Piece{Source: p.Source, Range: message.Range{Off: p.Range.Off + off, Len: n}})
		}
		off, left = 0, left-n
	}
	return out, nil
}

// post puts l into the outbox, due at once.
func (t *transaction) post(ctx context.Context, l letter, seq int64, at time.Time) error {
	r, err := t.conn.ExecContext(ctx, `INSERT INTO outbox (seq, kind, message_id, envelope, sender, eight_bit, created, due)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, seq, string(l.kind), l.messageID, l.envelopeID, string(l.from), l.eightBit,
		at.UnixNano(), at.UnixNano())
	if err != nil {
		return err
	}
	id, err := r.LastInsertId()
	if err != nil {
		return err
	}
	for i, a := range l.to {
		if _, err := t.exec(ctx, "INSERT INTO outbox_recipient (outbox, position, address) VALUES (?, ?, ?)", id, i, string(a)); err != nil {
			return err
		}
	}
	for i, p := range l.pieces {
		var text, body any
		if p.id == 0 {
			text = p.text
		} else {
			body = p.id
		}
		_, err := t.exec(ctx, "INSERT INTO outbox_piece (outbox, position, text, body, off, len) VALUES (?, ?, ?, ?, ?, ?)",
			id, i, text, body, p.run.Off, p.run.Len)
		if err != nil {
			return err
		}
	}
	return nil
}
