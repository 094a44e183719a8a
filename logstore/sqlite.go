package logstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrInUse says that another process has the store open.
var ErrInUse = errors.New("store is in use")

// defaultInlineLimit keeps usual messages without attachments inside SQLite.
const defaultInlineLimit = 64 << 10

// readers is how many reading connections the daemon keeps.
const readers = 4

// Options are what Open needs.
type Options struct {
	// Dir is the store's directory; it is created for its owner only if missing.
	Dir string
	// Now is the clock, for housekeeping only, never for entries; it may be nil.
	Now func() time.Time
	// Elapsed is a clock that does not jump and does not stand still while the machine
	// sleeps, whatever it began with. By it nothing is overdue that the store knows to be
	// younger; nil: only the dates of the register tell.
	Elapsed func() time.Duration
	// Rand is where a store that has no secret yet takes it from; it must be fit for
	// keys. It may be nil for a store that was opened before.
	Rand io.Reader
	// AtStep is called at each step of a commit and of a taking, from several
	// goroutines; nil in production. Tests and fault drills stop the process
	// there.
	AtStep func(Step)
	// Around is given each operation that leads to a step, by which something becomes
	// durable or is lost: it may carry it out or not, and say of it what it likes.
	// It is called from several goroutines; nil in production. The crash matrix breaks
	// each operation with it (cmd/pecd, TestCrashMatrix).
	Around func(step Step, do func() error) error
	// InlineLimit is the size in octets up to which a body is kept inside SQLite,
	// where one sync carries it with everything else; larger ones are files. Zero
	// means 64 KiB.
	InlineLimit int64
	// Migrating hears how far the migration of an older store has come, from the
	// goroutine of Open; nil if nobody wants to know.
	Migrating func(done, total int64)
	// Log receives what the operator should know; nil discards it.
	Log *slog.Logger
}

// SQLite is the Store on SQLite: a database in WAL mode with synchronous=FULL,
// and files for large bodies and for infected messages beside it. One goroutine
// writes, and makes one SQLite transaction of all that wait.
type SQLite struct {
	Reader
	options Options
	log     *slog.Logger
	lock    *os.File
	wake    chan struct{}
	secret  []byte // set by open

	queue   chan job      // unbuffered: what was received gets its outcome
	alone   chan job      // unbuffered: jobs that remove entries
	sweeps  chan struct{} // orphans may have become free
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when run has returned
	once    sync.Once     // Close
	closed  error         // what Close returned; after once

	// The fields of this group belong to the goroutine of run.
	writer  *sql.DB
	conn    *sql.Conn // nil after a failure
	seq     int64     // of the last entry
	chain   Digest    // of the last entry
	mark    int64     // of the last transaction
	unknown bool      // a commit's outcome could not be found out yet

	// Changed by tests only, before the store has work.
	commit   func(*sql.Conn) error
	sync     func(*os.File) error
	patience time.Duration

	purging  sync.Mutex // held by whoever removes entries of the register
	nextBody atomic.Int64
	nextKept atomic.Int64 // the last id of an infected message

	mu      sync.Mutex
	pins    map[int64]*pin     // bodies that must not go away, by id; guarded by mu
	orphans map[int64]struct{} // bodies to be removed when no pin is left; guarded by mu
	holds   int                // backups under way; guarded by mu
	held    []string           // files to be removed when there is none; guarded by mu
}

var _ Store = (*SQLite)(nil)

// Open opens the store in o.Dir, and creates or migrates it if need be. It
// removes what a crash left: temporary files, bodies that no message of the
// outbox points to, and infected messages that no transaction put there. ErrInUse
// if another process has it, ErrSchema if a newer program wrote it.
func Open(ctx context.Context, o Options) (*SQLite, error) {
	if o.InlineLimit == 0 {
		o.InlineLimit = defaultInlineLimit
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &SQLite{
		options: o, log: o.Log,
		wake: make(chan struct{}, 1), queue: make(chan job), alone: make(chan job), sweeps: make(chan struct{}, 1),
		closing: make(chan struct{}), ended: make(chan struct{}),
		commit: commitSQL, sync: (*os.File).Sync, patience: findOutLimit,
		pins: map[int64]*pin{}, orphans: map[int64]struct{}{},
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	go s.run()
	return s, nil
}

func (s *SQLite) open(ctx context.Context) error {
	if err := makeDir(s.options.Dir); err != nil {
		return err
	}
	for _, dir := range []string{s.bodyDir(), virusDir(s.options.Dir)} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	var err error
	if s.lock, err = lockDir(s.options.Dir, s.options.Now); err != nil {
		return err
	}
	if err = makeDatabase(s.options.Dir); err != nil {
		return err
	}
	if s.writer, err = openDatabase(s.options.Dir, writeOptions, 1); err != nil {
		return err
	}
	if err = s.connect(ctx); err != nil {
		return err
	}
	if err = migrate(ctx, s.conn, s.options.Migrating); err != nil {
		return err
	}
	if err = s.makeReclaimable(ctx); err != nil {
		return err
	}
	if err = s.loadSecret(ctx); err != nil {
		return err
	}
	if err = s.recover(ctx); err != nil {
		return err
	}
	s.Reader.dir, s.Reader.timeline = s.options.Dir, newTimeline(s.options.Elapsed, s.seq)
	s.Reader.db, err = openDatabase(s.options.Dir, readOptions, readers)
	return err
}

// checkpointPages is how long SQLite's log grows, in pages, before it is written
// back. Bodies stay in the store for a moment only: the longer the log, the fewer
// of their pages are ever written back.
const checkpointPages = 8000

// connect gives the writer a connection, a new one after a failure, so that no
// state of the failed one remains.
func (s *SQLite) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	c, err := s.writer.Conn(ctx)
	if err != nil {
		return failure("opening the database", err)
	}
	if err = checkPragmas(ctx, c); err != nil {
		dropConn(c)
		return err
	}
	if _, err = c.ExecContext(ctx, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", checkpointPages)); err != nil {
		dropConn(c)
		return failure("preparing the database", err)
	}
	s.conn = c
	return nil
}

// Wake returns a channel that receives a value after a commit that put something
// into the outbox.
func (s *SQLite) Wake() <-chan struct{} { return s.wake }

// Close waits for the commits that the writer has begun, refuses all others and
// closes the store. It may be called more than once.
func (s *SQLite) Close() error {
	s.once.Do(func() {
		close(s.closing)
		<-s.ended
		s.closed = s.release()
	})
	return s.closed
}

// release lets go of everything that open took, as far as it came.
func (s *SQLite) release() error {
	var errs []error
	if s.Reader.db != nil {
		errs = append(errs, s.Reader.db.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
		s.conn = nil
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// makeDir creates dir for its owner only, durably. One that exists is left as
// the operator made it.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = handOverDir(dir)
	}
	if err == nil {
		err = syncDir(filepath.Dir(filepath.Clean(dir)), (*os.File).Sync)
	}
	if err != nil {
		return failure("creating the store", err)
	}
	return nil
}

// makeDatabase creates the database file readable by its owner only; SQLite
// gives its other files the same mode.
func makeDatabase(dir string) error {
	f, err := openOrCreate(filepath.Join(dir, databaseName))
	if err == nil {
		err = errors.Join(f.Close(), syncDir(dir, (*os.File).Sync))
	}
	if err != nil {
		return failure("creating the database", err)
	}
	return nil
}

func syncDir(dir string, sync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(d), d.Close())
}

// lockDir keeps other daemons away for as long as the file is open; the kernel
// drops the lock when the process dies. The file says who has it.
func lockDir(dir string, now func() time.Time) (*os.File, error) {
	f, err := openOrCreate(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, failure("locking the store", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, readErr := io.ReadAll(io.LimitReader(f, 200))
		return nil, errors.Join(fmt.Errorf("logstore: %w: %w: %s is open in process %s",
			ErrUnavailable, ErrInUse, dir, strings.TrimSpace(string(owner))), readErr, f.Close())
	}
	if err != nil {
		return nil, failure("locking the store", errors.Join(err, f.Close()))
	}
	owner := fmt.Sprintf("%d", os.Getpid())
	if now != nil {
		owner += " since " + now().UTC().Format(time.RFC3339)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(owner+"\n"), 0)
	}
	if err != nil {
		return nil, failure("locking the store", errors.Join(err, f.Close()))
	}
	return f, nil
}
