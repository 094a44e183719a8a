package main

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

// errSpool says that the spool could not be made, which is no fault of the
// message.
var errSpool = errors.New("no room for an archive")

// A spool holds decoded octets while they are looked at. Its file has no name, so
// that nothing stays behind.
type spool struct {
	message.Source
	file *os.File // nil in memory
}

// newSpool reads r to its end. More than limit octets are errUnreadable.
func newSpool(dir string, r io.Reader, limit int64) (*spool, error) {
	var b bytes.Buffer
	r = io.LimitReader(r, limit+1)
	if _, err := io.CopyN(&b, r, inMemory); err == io.EOF {
		if int64(b.Len()) > limit {
			return nil, errUnreadable
		}
		return &spool{Source: message.Bytes(b.Bytes())}, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return fileSpool(dir, &b, r, limit)
}

// fileSpool spools what first and then rest give.
func fileSpool(dir string, first *bytes.Buffer, rest io.Reader, limit int64) (_ *spool, err error) {
	f, err := os.CreateTemp(dir, "spool")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	w := &writer{File: f}
	size, err := io.Copy(w, io.MultiReader(first, rest))
	switch {
	case w.err != nil:
		return nil, fmt.Errorf("%w: %w", errSpool, w.err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	case size > limit:
		return nil, errUnreadable
	}
	return &spool{Source: io.NewSectionReader(f, 0, size), file: f}, nil
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

// close frees the spool.
func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // it was only read, and has no name
	}
}
