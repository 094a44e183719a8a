package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"pecd/pec/message"
)

// An item is one message to judge.
type item struct {
	file   string
	number int // in the mailbox file, from 1; 0 in a file of its own
	src    message.Source
	quoted bool  // see entry
	err    error // why it cannot be read; src is nil then
}

// A walker finds the messages in what the user names.
type walker struct {
	in      io.Reader // standard input
	visit   func(item) error
	skipped int // files of folders that hold no message
}

// errNamed says that what the user named cannot be read.
var errNamed = errors.New("cannot be read")

// walk visits the messages of path: a message, an mbox file, a maildir, a folder
// of them, or - for standard input. A file of a folder that cannot be read is
// visited with its error.
func (w *walker) walk(ctx context.Context, path string) error {
	if path == "-" {
		return w.standard(ctx)
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNamed, err)
	case st.IsDir():
		return w.folder(ctx, path)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%w: %s is neither a file nor a folder", errNamed, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errNamed, err)
	}
	defer f.Close()
	return w.file(ctx, path, source{f, st.Size()})
}

// source is a part of a file, or all of it.
type source struct {
	io.ReaderAt
	size int64
}

func (s source) Size() int64 { return s.size }

// standard spools standard input, which can be read only once.
func (w *walker) standard(ctx context.Context) error {
	var s spool
	defer s.Close()
	if _, err := io.Copy(&s, w.in); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return w.file(ctx, "-", &s)
}

// file visits the message in src, or if it is an mbox file each of its messages.
func (w *walker) file(ctx context.Context, name string, src message.Source) error {
	if !isMailbox(src) {
		return w.visit(item{file: name, src: src})
	}
	n := 0
	err := split(io.NewSectionReader(src, 0, src.Size()), func(e entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n++
		part := source{io.NewSectionReader(src, e.rng.Off, e.rng.Len), e.rng.Len}
		return w.visit(item{file: name, number: n, src: part, quoted: e.quoted})
	})
	if errors.Is(err, errVisit) || err == nil || ctx.Err() != nil {
		return err
	}
	return w.visit(item{file: name, number: n + 1, err: err})
}

// isMailbox reports whether src begins as an mbox file does.
func isMailbox(src message.Source) bool {
	b := make([]byte, maxSeparator)
	n, err := src.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false // whoever reads it next says why
	}
	line, _, found := strings.Cut(string(b[:n]), "\n")
	return found && isSeparator([]byte(line), true)
}

// folder visits what is in a folder and the folders in it: all that stands in
// cur and new of a maildir, files named .eml, and mbox files under any name.
// Links are not followed.
func (w *walker) folder(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if d != nil && d.IsDir() && path != root {
				return errors.Join(w.visit(item{file: path, err: err}), fs.SkipDir)
			}
			return w.visit(item{file: path, err: err})
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			w.skipped++
			return nil
		}
		return w.member(ctx, path)
	})
}

func (w *walker) member(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return w.visit(item{file: path, err: err})
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return w.visit(item{file: path, err: err})
	}
	src := source{f, st.Size()}
	switch parent := filepath.Base(filepath.Dir(path)); {
	case parent == "cur", parent == "new", strings.EqualFold(filepath.Ext(path), ".eml"), isMailbox(src):
		return w.file(ctx, path, src)
	}
	w.skipped++
	return nil
}

// maxMemory is how much of a spool stays in memory, in octets.
const maxMemory = 256 << 10

// A spool keeps what is written to it, from maxMemory on in a nameless file.
// Close frees it. The zero value is ready.
type spool struct {
	mem  []byte
	file *os.File
	size int64
}

var _ message.Spool = (*spool)(nil)

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.size+int64(len(p)) <= maxMemory {
		s.mem = append(s.mem, p...)
		s.size += int64(len(p))
		return len(p), nil
	}
	if err := s.spill(); err != nil {
		return 0, err
	}
	n, err := s.file.Write(p)
	s.size += int64(n)
	return n, err
}

// spill moves what is in memory to a file.
func (s *spool) spill() error {
	if s.file != nil {
		return nil
	}
	f, err := os.CreateTemp("", "pecd-verify-")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return err
	}
	if _, err := f.Write(s.mem); err != nil {
		_ = f.Close()
		return err
	}
	s.file, s.mem = f, nil
	return nil
}

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	return message.Bytes(s.mem).ReadAt(p, off)
}

// Size returns the number of octets written.
func (s *spool) Size() int64 { return s.size }

// Close frees the spool.
func (s *spool) Close() error {
	s.mem = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
