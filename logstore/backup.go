package logstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

// ErrNotEmpty says that a backup was to be put where something is.
var ErrNotEmpty = errors.New("the directory is not empty")

// ErrBackup says that the copy of the database is not one, and was thrown away.
var ErrBackup = errors.New("the copy of the database is damaged")

// Backup says what is in a backup.
type Backup struct {
	// Head is the last entry of its register.
	Head Link
	// Files is how many bodies and infected messages it has beside the database,
	// and Octets the size of all.
	Files  int
	Octets int64
	// Missing are files that the database names and the store does not have, cannot
	// read, or has not as they were kept, each with what is wrong. What there is of them
	// is in the backup.
	Missing []string
}

// partName is the database of a backup until all is there: what was broken off is
// not taken for a store.
const partName = databaseName + ".part"

// Backup makes a copy of the store, as it is at one instant, in dir, while commits
// go on: the database, and the bodies and infected messages that it names. The copy
// is read back and checked. dir is created, or must be empty; to restore is to open
// it as a store. It holds the store's secret and messages that the MTA may have
// taken since: a daemon that opens it sends those once more. What fails leaves
// nothing in dir; a file that the store has lost or cannot read is no failure, or there
// would be no backup any more of all the rest. first, which may be nil, is called when dir is there
// and empty: what it copies of what is said about the register elsewhere says nothing
// about entries that the copy lacks. progress, which may be nil, hears octets.
func (s *SQLite) Backup(ctx context.Context, dir string, first func() error, progress func(done, total int64)) (Backup, error) {
	created, err := makeEmptyDir(dir)
	if err != nil {
		return Backup{}, err
	}
	b := &backup{store: s, dir: dir, progress: progress}
	// From before the snapshot on no file of the store goes away.
	s.hold()
	if first != nil {
		err = first()
	}
	if err == nil {
		err = b.run(ctx)
	}
	if unholdErr := s.unhold(); unholdErr != nil {
		s.log.Warn("files that nobody needs are left until the next start", "error", unholdErr)
	}
	if err != nil {
		return Backup{}, errors.Join(failure("backup", err), b.discard(created))
	}
	return b.made, nil
}

// makeEmptyDir reports whether it created dir.
func makeEmptyDir(dir string) (created bool, err error) {
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, makeDir(dir)
	case err != nil:
		return false, failure("reading the place for the backup", err)
	case len(names) > 0:
		return false, fmt.Errorf("logstore: %w: %s", ErrNotEmpty, dir)
	}
	return false, nil
}

// A backup is a Backup under way; it belongs to its goroutine.
type backup struct {
	store       *SQLite
	dir         string
	progress    func(done, total int64)
	made        Backup
	files       []backupFile
	done, total int64
}

// A backupFile is a file beside the database, named relative to the store.
type backupFile struct {
	name   string
	size   int64
	digest string // empty: not known
}

func (b *backup) run(ctx context.Context) error {
	if err := b.copyDatabase(ctx); err != nil {
		return err
	}
	for _, sub := range []string{"bodies", "virus"} {
		if err := makeDir(filepath.Join(b.dir, sub)); err != nil {
			return err
		}
	}
	for _, f := range b.files {
		if err := b.copyFile(ctx, f); err != nil {
			return err
		}
	}
	if err := b.check(ctx); err != nil {
		return err
	}
	for _, sub := range []string{"bodies", "virus", "."} {
		if err := syncDir(filepath.Join(b.dir, sub), (*os.File).Sync); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(b.dir, partName), filepath.Join(b.dir, databaseName)); err != nil {
		return err
	}
	return syncDir(b.dir, (*os.File).Sync)
}

// discard removes what run has written.
func (b *backup) discard(created bool) error {
	names, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(b.dir, n.Name())))
	}
	if created {
		errs = append(errs, os.Remove(b.dir))
	}
	return errors.Join(errs...)
}

// copyDatabase copies the database as one reading transaction sees it, and lists
// the files that it names.
func (b *backup) copyDatabase(ctx context.Context) (err error) {
	f, err := os.OpenFile(filepath.Join(b.dir, partName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	from, err := openConn(ctx, b.store.options.Dir, databaseName, readOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	to, err := openConn(ctx, b.dir, partName, "?mode=rw&_synchronous=FULL&_journal_mode=DELETE")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	if _, err := from.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	if b.files, err = snapshotFiles(ctx, from.Conn); err != nil {
		return err
	}
	for _, f := range b.files {
		b.total += f.size
	}
	b.made.Files = len(b.files)
	if err := b.copyPages(ctx, from.Conn, to.Conn); err != nil {
		return err
	}
	_, err = from.ExecContext(ctx, "COMMIT")
	return err
}

// snapshotFiles lists the files that the database names. Its first query is where
// the snapshot begins.
func snapshotFiles(ctx context.Context, c *sql.Conn) ([]backupFile, error) {
	rows, err := c.QueryContext(ctx, `SELECT 'bodies', id, size, '' FROM body WHERE data IS NULL
		UNION ALL SELECT 'virus', id, size, digest FROM infected`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var files []backupFile
	for rows.Next() {
		var f backupFile
		var id int64
		if err := rows.Scan(&f.name, &id, &f.size, &f.digest); err != nil {
			return nil, err
		}
		f.name = filepath.Join(f.name, strconv.FormatInt(id, 10))
		files = append(files, f)
	}
	return files, rows.Err()
}

const (
	backupPages = 1000 // of one step
	backupTries = 500  // of a step that finds the database locked, housePause apart
)

// copyPages copies all pages through SQLite.
func (b *backup) copyPages(ctx context.Context, from, to *sql.Conn) (err error) {
	return from.Raw(func(src any) error {
		return to.Raw(func(dst any) (err error) {
			copying, err := dst.(*sqlite3.SQLiteConn).Backup("main", src.(*sqlite3.SQLiteConn), "main")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, copying.Finish()) }()
			return b.steps(ctx, copying)
		})
	})
}

func (b *backup) steps(ctx context.Context, copying *sqlite3.SQLiteBackup) error {
	left, tries, files := -1, 0, b.total
	for {
		end, err := copying.Step(backupPages)
		if err != nil {
			return err
		}
		b.done = int64(copying.PageCount()-copying.Remaining()) * pageSize
		b.total = files + int64(copying.PageCount())*pageSize
		b.report()
		if end {
			return nil
		}
		if copying.Remaining() != left {
			left, tries = copying.Remaining(), 0
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		if tries++; tries > backupTries {
			return fmt.Errorf("%w: the database is locked", ErrUnavailable)
		}
		if err := b.store.pause(ctx); err != nil {
			return err
		}
	}
}

// pageSize is SQLite's, for progress only.
const pageSize = 4096

func (b *backup) report() {
	if b.progress != nil {
		b.progress(b.done, b.total)
	}
}

// copyFile copies a file and compares its size and digest with what the database
// says.
func (b *backup) copyFile(ctx context.Context, f backupFile) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	from, err := os.Open(filepath.Join(b.store.options.Dir, f.name))
	if err != nil {
		lost := Unreadable(err)
		if lost == "" {
			return err
		}
		b.made.Files--
		b.passed(f, 0, lost)
		return nil
	}
	defer from.Close() // nothing was written to it
	to, err := os.OpenFile(filepath.Join(b.dir, f.name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	n, wrong, err := CopyReadable(to, from)
	if err != nil {
		return err
	}
	if wrong == "" && n != f.size {
		wrong = fmt.Sprintf("has %d octets and should have %d", n, f.size)
	} else if wrong == "" && f.digest != "" {
		digest := sha256.New()
		if _, err := io.Copy(digest, io.NewSectionReader(to, 0, n)); err != nil {
			return err
		}
		if got := hex.EncodeToString(digest.Sum(nil)); got != f.digest {
			wrong = "is not what was kept"
		}
	}
	b.passed(f, n, wrong)
	return to.Sync()
}

// passed notes that n octets of f are copied, and what is wrong with it; empty:
// nothing.
func (b *backup) passed(f backupFile, n int64, wrong string) {
	if wrong != "" {
		b.made.Missing = append(b.made.Missing, f.name+" "+wrong)
	}
	b.done += f.size
	b.made.Octets += n
	b.report()
}

// check reads the copied database back.
func (b *backup) check(ctx context.Context) (err error) {
	// SQLite's log is not wanted: it would keep the name of now.
	c, err := openConn(ctx, b.dir, partName, "?mode=rw&_synchronous=FULL&_journal_mode=DELETE")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var said string
	if err := c.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return fmt.Errorf("%w: %s", ErrBackup, said)
	}
	if err := checkSchema(ctx, c.Conn); err != nil {
		return err
	}
	b.made.Head, err = headOf(ctx, c)
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(b.dir, partName))
	if err != nil {
		return err
	}
	b.made.Octets += info.Size()
	return nil
}

// A lone is the one connection to a database.
type lone struct {
	*sql.Conn
	db *sql.DB
}

func openConn(ctx context.Context, dir, name, options string) (*lone, error) {
	db, err := openDatabaseFile(dir, name, options, 1)
	if err != nil {
		return nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &lone{c, db}, nil
}

func (c *lone) close() error { return errors.Join(c.Conn.Close(), c.db.Close()) }

// hold keeps files in the store until unhold.
func (s *SQLite) hold() {
	s.mu.Lock()
	s.holds++
	s.mu.Unlock()
}

// unhold removes the files that should have gone meanwhile, after the last holder.
func (s *SQLite) unhold() error {
	s.mu.Lock()
	s.holds--
	var gone []string
	if s.holds == 0 {
		gone, s.held = s.held, nil
	}
	s.mu.Unlock()
	var errs []error
	for _, path := range gone {
		errs = append(errs, removeFile(path))
	}
	return errors.Join(errs...)
}

// removeStored removes a file to which no row points any more, or has it removed
// when nobody holds it.
func (s *SQLite) removeStored(path string) error {
	s.mu.Lock()
	held := s.holds > 0
	if held {
		s.held = append(s.held, path)
	}
	s.mu.Unlock()
	if held {
		return nil
	}
	return removeFile(path)
}
