package main

import (
	"archive/zip"
	"errors"
	"io"
	"strings"

	"pecd/pec/message"
	"pecd/plugins/spool"
)

// Limits of the archives of one message.
const (
	maxArchives  = 3        // archives in each other, the outermost among them
	maxDirectory = 1 << 20  // octets that are read for the directory of one
	maxEntries   = 10000    // in all together
	maxUnpacked  = 64 << 20 // octets of archives in archives, all together
)

// zip looks at the names in the archive src, and into archives in it.
func (w *walk) zip(src message.Source, name string, depth int) error {
	bounded := &budget{ReaderAt: src, left: maxDirectory}
	r, err := zip.NewReader(bounded, src.Size())
	if bounded.err != nil {
		return bounded.err
	}
	if err != nil {
		return w.unreadable(name)
	}
	bounded.left = -1 // from here on it is files that are read
	for _, f := range r.File {
		if w.entries++; w.entries > maxEntries {
			return w.unreadable(name)
		}
		if err := w.entry(f, name, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry looks at f, a file of the archive of that name.
func (w *walk) entry(f *zip.File, name string, depth int) error {
	if err := w.name(f.Name); err != nil {
		return err
	}
	const encrypted = 0x1
	if f.Flags&encrypted != 0 {
		return w.encrypted(name)
	}
	if !strings.HasSuffix(plain(f.Name), ".zip") {
		return nil
	}
	if depth == maxArchives || w.ctx.Err() != nil {
		return errors.Join(w.ctx.Err(), w.unreadable(f.Name))
	}
	return w.unpack(f, depth+1)
}

// unpack looks into f, an archive.
func (w *walk) unpack(f *zip.File, depth int) error {
	rc, err := f.Open()
	if err != nil {
		return w.unreadable(f.Name)
	}
	defer rc.Close()
	read := &counter{Reader: rc}
	s, err := spool.New(w.temp, read, w.filter.unpack-w.unpacked)
	w.unpacked += read.n // of a broken one too: it was work as well
	switch {
	case errors.Is(err, spool.ErrRoom):
		return err
	case err != nil: // a broken file, or one that is too large
		return w.unreadable(f.Name)
	}
	defer s.Close()
	return w.zip(s, f.Name, depth)
}

// A counter counts the octets that are read.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// errDirectory says that the directory of an archive is too large.
var errDirectory = errors.New("its directory is too large")

// A budget is a source of which only so much is read: the reader of the library
// takes as many entries as there are, and keeps them all. It is for one goroutine.
type budget struct {
	io.ReaderAt
	left int   // octets; without limit if negative
	err  error // of the source: it is no fault of the archive
}

// ReadAt implements io.ReaderAt.
func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left >= 0 {
		if b.left -= len(p); b.left < 0 {
			b.left = 0
			return 0, errDirectory
		}
	}
	n, err := b.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
