package seal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"pecd/logstore"
)

// A line of the file of records is prefix, chain, middle, the record's octets as
// they are in the register, and suffix.
const (
	linePrefix = `{"chain":"`
	lineMiddle = `","entry":`
	lineSuffix = "}\n"
)

// An output is a file that is digested while it is written.
type output struct {
	file   *os.File
	buffer *bufio.Writer
	digest hash.Hash
}

func create(name string) (*output, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	o := &output{file: f, digest: sha256.New()}
	o.buffer = bufio.NewWriterSize(io.MultiWriter(f, o.digest), 64<<10)
	return o, nil
}

func (o *output) Write(p []byte) (int, error) { return o.buffer.Write(p) }

// finish makes the file durable and returns its digest.
func (o *output) finish() (d logstore.Digest, err error) {
	err = errors.Join(o.buffer.Flush(), o.file.Sync(), o.file.Close())
	o.digest.Sum(d[:0])
	return d, err
}

// writeFile makes a small file durable.
func writeFile(name string, data []byte) error {
	o, err := create(name)
	if err != nil {
		return err
	}
	_, err = o.Write(data)
	_, finished := o.finish()
	return errors.Join(err, finished)
}

// makeDir makes a folder, for its owner only, and its name durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// export writes the entries of m, from First to Last, as text and as records into
// dir, and completes m with what it found.
func (s *Sealer) export(ctx context.Context, dir string, m *Manifest) error {
	text, err := create(filepath.Join(dir, m.Day.String()+nameText))
	if err != nil {
		return err
	}
	defer text.file.Close() // a second time where all is well
	records, err := create(filepath.Join(dir, m.Day.String()+nameRecords))
	if err != nil {
		return err
	}
	defer records.file.Close()
	head, err := m.header()
	if err != nil {
		return err
	}
	if _, err := records.Write(head); err != nil {
		return err
	}
	if m.ChainAfter, err = s.entries(ctx, m, text, records); err != nil {
		return err
	}
	if m.TextSHA256, err = text.finish(); err != nil {
		return err
	}
	m.RecordsSHA256, err = records.finish()
	return err
}

var errEnough = errors.New("seal: enough")

// entries writes all entries of m and returns the chain of the last. The chain is
// computed, and compared with that of the register.
func (s *Sealer) entries(ctx context.Context, m *Manifest, text, records io.Writer) (logstore.Digest, error) {
	chain, next := m.ChainBefore, m.First
	if m.Entries == 0 {
		return chain, nil
	}
	err := s.o.Register.Chain(ctx, m.First, func(l logstore.Link) error {
		chain = chain.Next(l.Record)
		if l.Seq != next || l.Chain != chain {
			return fmt.Errorf("%w: entry %d", ErrBroken, next)
		}
		if err := writeEntry(l, s.o.Zone, text, records); err != nil {
			return err
		}
		if next++; next > m.Last {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, logstore.ErrNoEntry):
		return chain, fmt.Errorf("%w: %w", ErrBroken, err)
	case err == nil:
		return chain, fmt.Errorf("%w: it ends before entry %d", ErrBroken, next)
	case !errors.Is(err, errEnough):
		return chain, err
	}
	return chain, nil
}

func writeEntry(l logstore.Link, zone *time.Location, text, records io.Writer) error {
	r, err := exportable(l)
	if err != nil {
		return err
	}
	if _, err := text.Write(r.line(zone)); err != nil {
		return err
	}
	return writeRecord(records, l)
}

// WriteLine writes an entry as a line of FormatText, with its time in the zone.
// ErrRecord if the entry cannot be exported.
func WriteLine(w io.Writer, l logstore.Link, zone *time.Location) error {
	r, err := exportable(l)
	if err != nil {
		return err
	}
	_, err = w.Write(r.line(zone))
	return err
}

// WriteRecord writes an entry as a line of FormatRecords. ErrRecord if the entry
// cannot be exported.
func WriteRecord(w io.Writer, l logstore.Link) error {
	if _, err := exportable(l); err != nil {
		return err
	}
	return writeRecord(w, l)
}

func writeRecord(w io.Writer, l logstore.Link) error {
	_, err := fmt.Fprintf(w, "%s%s%s%s%s", linePrefix, l.Chain, lineMiddle, l.Record, lineSuffix)
	return err
}

func exportable(l logstore.Link) (record, error) {
	r, err := readRecord(l.Record)
	switch {
	case err != nil:
	case r.Seq != l.Seq:
		err = fmt.Errorf("its record says that it is %d", r.Seq)
	case bytes.IndexByte(l.Record, '\n') >= 0:
		err = errors.New("its record has a line feed")
	case len(l.Record) > maxLine-256:
		err = fmt.Errorf("its record has %d octets", len(l.Record))
	}
	if err != nil {
		return r, fmt.Errorf("%w: %d: %w", ErrRecord, l.Seq, err)
	}
	return r, nil
}
