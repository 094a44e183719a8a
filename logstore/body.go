package logstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Bodies in files live in Dir/bodies: <id> once a commit has named them, and
// <id>.tmp before.
const tempSuffix = ".tmp"

func (s *SQLite) bodyDir() string { return filepath.Join(s.options.Dir, "bodies") }

func (s *SQLite) bodyPath(id int64) string {
	return filepath.Join(s.bodyDir(), strconv.FormatInt(id, 10))
}

// parseBodyName returns the id that a file of the body directory belongs to.
func parseBodyName(name string) (id int64, temporary, ok bool) {
	digits := strings.TrimSuffix(name, tempSuffix)
	id, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || id <= 0 || strconv.FormatInt(id, 10) != digits {
		return 0, false, false
	}
	return id, digits != name, true
}

// A body is a Body: in memory up to the inline limit, then in a file.
type body struct {
	store *SQLite
	id    int64

	mu      sync.Mutex // guards all below; buf and file do not change once sealed
	buf     []byte     // all of it while it is small, then what is not yet in file
	file    *os.File
	size    int64
	sealed  bool  // no more writes
	renamed bool  // the file has its final name
	named   bool  // and durably
	stored  bool  // there is a row for it, or may be
	closed  bool  // by Close
	broken  error // the first failed write; the body is of no use after it
}

// NewBody returns an empty body. It takes neither disk nor memory until it is
// written to.
func (s *SQLite) NewBody() (Body, error) {
	select {
	case <-s.closing:
		return nil, failure("store is closing", ErrUnavailable)
	default:
		return s.newBody(), nil
	}
}

func (s *SQLite) newBody() *body {
	b := &body{store: s, id: s.nextBody.Add(1)}
	s.pin(b.id, b)
	return b
}

// Write implements io.Writer; ErrUnavailable if the disk does not take it.
func (b *body) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.broken != nil:
		return 0, b.broken
	case b.sealed || b.closed:
		return 0, errors.New("logstore: write to a body that is complete")
	}
	if b.broken = b.append(p); b.broken != nil {
		return 0, b.broken
	}
	b.size += int64(len(p))
	return len(p), nil
}

func (b *body) append(p []byte) error {
	limit := int(b.store.options.InlineLimit)
	if len(b.buf)+len(p) <= limit {
		b.buf = append(b.buf, p...)
		return nil
	}
	if err := b.flush(); err != nil {
		return err
	}
	if len(p) < limit {
		b.buf = append(b.buf, p...)
		return nil
	}
	return b.writeFile(p)
}

// flush moves buf to the file, which it creates if there is none yet.
func (b *body) flush() error {
	err := b.writeFile(b.buf)
	b.buf = b.buf[:0]
	return err
}

func (b *body) writeFile(p []byte) error {
	if b.file == nil {
		f, err := create(b.store.bodyPath(b.id) + tempSuffix)
		if err != nil {
			return failure("creating a body", err)
		}
		b.file = f
	}
	err := b.store.around(StepPrepared, func() error {
		_, err := b.file.Write(p)
		return err
	})
	if err != nil {
		return failure("writing a body", err)
	}
	return nil
}

// seal ends the writing.
func (b *body) seal() error {
	if b.broken != nil || b.sealed {
		return b.broken
	}
	if b.file != nil {
		if b.broken = b.flush(); b.broken != nil {
			return b.broken
		}
		b.buf = nil
	}
	b.sealed = true
	return nil
}

// Size implements message.Source.
func (b *body) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// Path returns the file that holds all of the body; ok is false while it is small
// enough for memory. The name is good until Commit or Close, so whoever needs the
// file longer links it at once.
func (b *body) Path() (path string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.seal(); err != nil || b.closed || b.file == nil {
		return "", false
	}
	path = b.store.bodyPath(b.id)
	if !b.renamed {
		path += tempSuffix
	}
	return path, true
}

// ReadAt implements io.ReaderAt.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	err := b.seal()
	if b.closed {
		err = os.ErrClosed
	}
	buf, file := b.buf, b.file
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if file != nil {
		return file.ReadAt(p, off)
	}
	return readAt(buf, p, off)
}

func readAt(data, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("logstore: negative offset")
	}
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	return b.store.unpin(b.id)
}

// sync is step 2 of Commit: the bytes of the file to stable storage. It returns
// what goes into the body's row.
func (b *body) sync() (row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.seal(); err != nil {
		return row{}, err
	}
	if b.file != nil && !b.named {
		if err := b.store.around(StepSynced, func() error { return b.store.sync(b.file) }); err != nil {
			// What has reached the disk after a failed sync nobody knows.
			b.broken = failure("syncing a body", err)
			return row{}, b.broken
		}
	}
	return row{body: b, size: b.size, data: b.buf, file: b.file != nil, stored: b.stored}, nil
}

// name is step 3 of Commit; it reports whether there was something to do. Names
// become durable with the next syncNames.
func (b *body) name() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil || b.named {
		return false, nil
	}
	if !b.renamed {
		path := b.store.bodyPath(b.id)
		if err := b.store.around(StepNamed, func() error { return os.Rename(path+tempSuffix, path) }); err != nil {
			return false, failure("naming a body", err)
		}
		b.renamed = true
	}
	return true, nil
}

func (b *body) setNamed() {
	b.mu.Lock()
	b.named = true
	b.mu.Unlock()
}

func (b *body) setStored() {
	b.mu.Lock()
	b.stored = true
	b.mu.Unlock()
}

// drop frees what the handle holds, and the bytes if no commit has taken them.
func (b *body) drop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = nil
	if b.file == nil {
		return nil
	}
	errs := []error{b.file.Close()}
	if !b.stored {
		path := b.store.bodyPath(b.id)
		errs = append(errs, removeFile(path+tempSuffix), removeFile(path))
	}
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("logstore: %w", err)
	}
	return nil
}

// A storedBody is a body as Outgoing hands it out: it holds no file open, so
// that nobody has to close it.
type storedBody struct {
	store *SQLite
	id    int64
	size  int64
	data  []byte // nil: a file
}

// Size implements message.Source.
func (b *storedBody) Size() int64 { return b.size }

// ReadAt implements io.ReaderAt. It opens the file for each call: readers come
// with blocks of 64 KiB.
func (b *storedBody) ReadAt(p []byte, off int64) (int, error) {
	if b.data != nil {
		return readAt(b.data, p, off)
	}
	f, err := os.Open(b.store.bodyPath(b.id))
	if err != nil {
		return 0, failure("reading a body", err)
	}
	n, err := f.ReadAt(p, off)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return n, err // io.EOF as it is: readers compare it
}
