package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A journal is the file with the entries of the day, one a line:
//
//	UNIX-TIME RECIPIENTS MARK "SENDER"
//
// with the mark in hexadecimal and the sender quoted as in Go. A line is written
// in one piece; one that a crash left half is no entry. It is guarded by its
// owner.
type journal struct {
	path   string
	file   *os.File
	synced time.Time
	torn   bool // the last line may be half
}

const (
	journalName = "counts"
	maxLine     = 8 << 10     // octets; a sender has at most some hundred
	syncEvery   = time.Second // a disk is not asked for more
)

// openJournal reads the entries of b's day into b, and writes a new file with
// them alone.
func openJournal(dir string, b *book, log *slog.Logger) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalName)}
	entries, broken, err := readJournal(j.path)
	if err != nil {
		return nil, err
	}
	if broken > 0 {
		log.Warn("lines of the counts are not understood and left out", "file", j.path, "lines", broken)
	}
	var today []entry
	for _, e := range entries {
		if e.at.In(b.zone).Format(time.DateOnly) == b.day {
			today = append(today, e)
			b.add(e)
		}
	}
	return j, j.begin(today)
}

// readJournal returns the entries of a journal, none if there is no file, and how
// many lines are none.
func readJournal(path string) (entries []entry, broken int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // longer than any entry
			line = nil
			_, err = r.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, 0, err
		}
		if err == io.EOF && len(line) == 0 {
			return entries, broken, nil
		}
		if e, ok := parseEntry(string(line)); ok {
			entries = append(entries, e)
		} else {
			broken++
		}
	}
}

// String is e as a line.
func (e entry) String() string {
	return fmt.Sprintf("%d %d %x %s\n", e.at.Unix(), e.recipients, uint64(e.mark), strconv.QuoteToASCII(e.sender))
}

// parseEntry reads a line. It takes what String writes and nothing else.
func parseEntry(line string) (e entry, ok bool) {
	field := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
	if len(field) != 4 {
		return entry{}, false
	}
	at, err1 := strconv.ParseInt(field[0], 10, 64)
	recipients, err2 := strconv.Atoi(field[1])
	m, err3 := strconv.ParseUint(field[2], 16, 64)
	sender, err4 := strconv.Unquote(field[3])
	e = entry{at: time.Unix(at, 0), recipients: recipients, mark: mark(m), sender: sender}
	if errors.Join(err1, err2, err3, err4) != nil || at < 0 || recipients < 0 || e.String() != line {
		return entry{}, false
	}
	return e, true
}

// begin puts a file with entries alone in the place of the journal. A crash leaves
// the old or the new one, and so does a full disk.
func (j *journal) begin(entries []entry) error {
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, entries); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), j.path); err != nil {
		return errors.Join(err, f.Close())
	}
	// From here on it is the journal: what is written to the old file is lost.
	err = j.close()
	j.file, j.torn = f, false
	return errors.Join(err, syncDir(filepath.Dir(j.path)))
}

// fill writes entries to f and makes them durable.
func fill(f *os.File, entries []entry) error {
	w := bufio.NewWriter(f)
	for _, e := range entries {
		// An error stays in w until Flush.
		_, _ = w.WriteString(e.String())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// add writes e, which outlives the program then. At most every second it makes
// durable what there is; what a power failure takes beside that is what the
// kernel did not write yet, by default the last half minute.
func (j *journal) add(e entry) error {
	line := e.String()
	if len(line) > maxLine {
		return fmt.Errorf("a sender of %d octets", len(e.sender))
	}
	if j.torn {
		line = "\n" + line
	}
	_, err := j.file.WriteString(line)
	j.torn = err != nil
	if err != nil || e.at.Sub(j.synced).Abs() < syncEvery {
		return err
	}
	j.synced = e.at
	return j.file.Sync()
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return errors.Join(j.file.Sync(), j.file.Close())
}
