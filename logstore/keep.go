package logstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"pecd/pec/message"
)

// Infected messages are files in Dir/virus, named like bodies: <id> once a commit
// has named them, and <id>.tmp before. They share nothing with the bodies of the
// outbox, which come and go.
func virusDir(dir string) string { return filepath.Join(dir, "virus") }

func virusPath(dir string, id int64) string {
	return filepath.Join(virusDir(dir), strconv.FormatInt(id, 10))
}

// A keptFile is an infected message on its way into the virus store. It belongs to
// the goroutine of its Commit, and to the writer between submit and the outcome.
type keptFile struct {
	store  *SQLite
	id     int64
	file   *os.File
	digest hash.Hash
	size   int64
	rowed  bool // its row is written in this attempt
	stored bool // there is a row for it, or may be
}

// newKeptFile copies c into a temporary file.
func (s *SQLite) newKeptFile(c message.Content) (*keptFile, error) {
	k := &keptFile{store: s, id: s.nextKept.Add(1), digest: sha256.New()}
	f, err := create(virusPath(s.options.Dir, k.id) + tempSuffix)
	if err != nil {
		return nil, failure("creating an infected message", err)
	}
	k.file = f
	if _, err := c.WriteTo(k); err != nil {
		return nil, errors.Join(fmt.Errorf("keeping an infected message: %w", err), k.close())
	}
	return k, nil
}

// Write implements io.Writer.
func (k *keptFile) Write(p []byte) (int, error) {
	n, err := k.file.Write(p)
	k.digest.Write(p[:n]) // never fails
	k.size += int64(n)
	if err != nil {
		err = failure("writing an infected message", err)
	}
	return n, err
}

func (k *keptFile) sum() string { return hex.EncodeToString(k.digest.Sum(nil)) }

// name gives the file its name, durable with the next sync of the directory.
func (k *keptFile) name() error {
	path := virusPath(k.store.options.Dir, k.id)
	if err := os.Rename(path+tempSuffix, path); err != nil {
		return failure("naming an infected message", err)
	}
	return nil
}

// close removes the file if no commit has taken it.
func (k *keptFile) close() error {
	errs := []error{k.file.Close()}
	if !k.stored {
		path := virusPath(k.store.options.Dir, k.id)
		errs = append(errs, removeFile(path+tempSuffix), removeFile(path))
	}
	return errors.Join(errs...)
}

// syncKept is step 2 of Commit for infected messages.
func (j *commitJob) syncKept() error {
	for _, k := range j.kept {
		if err := j.store.sync(k.file); err != nil {
			return failure("syncing an infected message", err)
		}
	}
	return nil
}

// nameKept is step 3 of Commit for infected messages.
func (j *commitJob) nameKept() error {
	for _, k := range j.kept {
		if err := k.name(); err != nil {
			return err
		}
	}
	return nil
}

// syncKeptNames is step 4 of Commit for infected messages.
func (j *commitJob) syncKeptNames() error {
	if len(j.kept) == 0 {
		return nil
	}
	if err := syncDir(virusDir(j.store.options.Dir), j.store.sync); err != nil {
		return failure("syncing the names of infected messages", err)
	}
	return nil
}

// keep writes the row of an infected message that entry e, of number seq, is
// about.
func (t *transaction) keep(ctx context.Context, k *keptFile, what *Kept, e Entry, seq int64) error {
	_, err := t.exec(ctx, `INSERT INTO infected (id, seq, at, identifier, sender, virus, source, size, digest, until)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.id, seq, e.At.UnixNano(), string(e.Identifier), string(e.Sender),
		what.Virus, what.Source, k.size, k.sum(), what.Until.UnixNano())
	k.rowed = err == nil
	return err
}

// A keptReader reads an infected message and checks it at its end.
type keptReader struct {
	file   *os.File
	digest hash.Hash
	want   string
}

// Read implements io.Reader.
func (r *keptReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.digest.Write(p[:n]) // never fails
	if err == io.EOF && hex.EncodeToString(r.digest.Sum(nil)) != r.want {
		err = fmt.Errorf("logstore: %w: its digest is another", ErrAltered)
	}
	return n, err
}

// Close implements io.Closer.
func (r *keptReader) Close() error { return r.file.Close() }
