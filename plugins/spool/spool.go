// Package spool holds what a plugin has decoded while it is looked at: a message
// in a message that is encoded, an archive. It is for the plugins that come with
// pecd.
package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"pecd/pec/message"
)

// inMemory is the largest spool that is not a file, in octets.
const inMemory = 1 << 20

// Errors of New. Any other is that of the reader.
var (
	ErrTooLarge = errors.New("more octets than are taken")
	// ErrRoom says that the spool could not be made, which is no fault of the
	// message.
	ErrRoom = errors.New("no room for what was decoded")
)

// A Spool is a source of octets that were read. Its file has no name, so that
// nothing stays behind.
type Spool struct {
	message.Source
	file *os.File // nil in memory
}

// New reads r to its end, up to limit octets. A file that it needs is in dir, the
// system's directory for such files if empty.
func New(dir string, r io.Reader, limit int64) (*Spool, error) {
	var b bytes.Buffer
	r = io.LimitReader(r, limit+1)
	if _, err := io.CopyN(&b, r, inMemory); err == io.EOF {
		if int64(b.Len()) > limit {
			return nil, ErrTooLarge
		}
		return &Spool{Source: message.Bytes(b.Bytes())}, nil
	} else if err != nil {
		return nil, err
	}
	return inFile(dir, &b, r, limit)
}

// inFile spools what first and then rest give.
func inFile(dir string, first *bytes.Buffer, rest io.Reader, limit int64) (_ *Spool, err error) {
	f, err := os.CreateTemp(dir, "spool")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoom, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoom, err)
	}
	w := &writer{File: f}
	size, err := io.Copy(w, io.MultiReader(first, rest))
	switch {
	case w.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrRoom, w.err)
	case err != nil:
		return nil, err
	case size > limit:
		return nil, ErrTooLarge
	}
	return &Spool{Source: io.NewSectionReader(f, 0, size), file: f}, nil
}

// A writer tells errors of writing from those of reading.
type writer struct {
	*os.File
	err error
}

// ReadFrom hides that of the file, which would mix the two.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

func (w *writer) Write(p []byte) (n int, err error) {
	n, err = w.File.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Close frees the spool.
func (s *Spool) Close() {
	if s.file != nil {
		_ = s.file.Close() // it was only read, and has no name
	}
}
