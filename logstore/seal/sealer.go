package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pecd/logstore"
	"pecd/signer/timestamp"
)

// Defaults of Options.
const (
	DefaultAfter    = 10 * time.Minute
	DefaultLate     = 6 * time.Hour
	DefaultRetry    = time.Minute
	DefaultMaxRetry = 15 * time.Minute
)

// Options say what a Sealer seals, and how.
type Options struct {
	Dir      string // of the days; made if it is missing
	Provider string // name in the manifests
	Zone     *time.Location
	Register Register
	Signer   Signer
	Stamper  Stamper
	// Verifier checks each day before it is published, and the last one before the
	// next is sealed.
	Verifier *Verifier

	After    time.Duration // from a day's end to its seal; 0: DefaultAfter
	Late     time.Duration // from a day's end to the alarm; 0: DefaultLate
	Retry    time.Duration // to the next attempt, doubled each time; 0: DefaultRetry
	MaxRetry time.Duration // between two attempts; 0: DefaultMaxRetry

	Now   func() time.Time
	Timer func(time.Duration) <-chan time.Time // for Run; nil: time.After
	Log   *slog.Logger                         // nil discards
}

// A Sealer seals one day after the other. It may be used concurrently, also
// beside one in another process.
type Sealer struct {
	o    Options
	step func(string) error // tests crash there

	mu     sync.Mutex // guards what follows
	status Status
}

// New returns a sealer for the folder of o.
func New(o Options) (*Sealer, error) {
	if o.Dir == "" || o.Provider == "" || o.Zone == nil || o.Register == nil || o.Signer == nil || o.Stamper == nil || o.Verifier == nil || o.Now == nil {
		return nil, errors.New("seal: incomplete options")
	}
	if _, err := time.LoadLocation(o.Zone.String()); err != nil || o.Zone == time.Local {
		return nil, fmt.Errorf("seal: the zone %q has no name that is known elsewhere", o.Zone)
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&o.After, DefaultAfter}, {&o.Late, DefaultLate}, {&o.Retry, DefaultRetry}, {&o.MaxRetry, DefaultMaxRetry}} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if o.Timer == nil {
		o.Timer = time.After
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Sealer{o: o, step: func(string) error { return nil }}, nil
}

// part is the folder in which a day is made. What a crash leaves in it is removed
// before the next is begun.
const part = ".part"

// Seal seals all days that are over for the time After and are not sealed yet, in
// their order, and returns their manifests, also with an error. Days without
// entries are sealed too. The first day is that of the first entry. A day's entries
// are those from after the last seal to the last one with an instant of that day:
// entries are numbered as they are written, and one that was written late belongs
// to the next day's file.
func (s *Sealer) Seal(ctx context.Context) (sealed []Manifest, err error) {
	return s.SealAll(ctx, func(int64, int64) {})
}

// SealAll is Seal that tells after each day how many are done, and of how many.
func (s *Sealer) SealAll(ctx context.Context, progress func(done, total int64)) (sealed []Manifest, err error) {
	defer func() {
		if !errors.Is(err, ErrBusy) {
			s.note(err)
		}
	}()
	s.look(ctx)
	release, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.RemoveAll(filepath.Join(s.o.Dir, part)); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	last, err := s.last(ctx)
	if err != nil {
		return nil, err
	}
	for {
		day, err := s.next(ctx, last)
		s.reached(last, day)
		if err != nil || day.IsZero() || !s.due(day) {
			return sealed, err
		}
		if last, err = s.sealDay(ctx, day, last); err != nil {
			return sealed, fmt.Errorf("%s: %w", day, err)
		}
		sealed = append(sealed, last.Manifest)
		done := int64(len(sealed))
		progress(done, done+s.dueFrom(day.Next()))
		s.o.Log.Info("day sealed", "day", day, "entries", last.Manifest.Entries, "stamped", last.Stamped)
	}
}

// look finds out which day is next, if that is not known: a folder that cannot be
// written must not keep the alarm from being raised.
func (s *Sealer) look(ctx context.Context) {
	if !s.Status().Next.IsZero() {
		return
	}
	last, err := s.last(ctx)
	if err != nil {
		// As far as can be seen nothing is sealed, also if a seal is unsound: days are
		// late then, and the attempt that follows says why.
		last = Seal{}
	}
	if day, err := s.next(ctx, last); err == nil {
		s.reached(last, day)
	}
}

// lock makes sure that nobody else seals, in the folder that it makes.
func (s *Sealer) lock() (release func(), err error) {
	if err := makeDir(s.o.Dir); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.o.Dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("seal: %w", err)
	}
	return func() { f.Close() }, nil // the lock goes with the file
}

// last returns the last seal, after a check of its signature and token. If there
// is none its day is zero.
func (s *Sealer) last(ctx context.Context) (Seal, error) {
	files := os.DirFS(s.o.Dir)
	days, err := Days(files)
	if err != nil || len(days) == 0 {
		return Seal{}, err
	}
	seal, problem := s.o.Verifier.readSeal(ctx, files, days[len(days)-1])
	if problem != nil {
		return Seal{}, fmt.Errorf("%w: %w", ErrUnsound, problem)
	}
	return seal, nil
}

// next returns the day to be sealed after last; zero if the register is empty.
func (s *Sealer) next(ctx context.Context, last Seal) (day Day, err error) {
	if !last.Manifest.Day.IsZero() {
		return last.Manifest.Day.Next(), nil
	}
	err = s.o.Register.Chain(ctx, 1, func(l logstore.Link) error {
		day = DayOf(l.At, s.o.Zone)
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return day, err
}

func (s *Sealer) due(day Day) bool {
	_, until := day.Bounds(s.o.Zone)
	return !s.o.Now().Before(until.Add(s.o.After))
}

// dueFrom is how many days are due, day the first.
func (s *Sealer) dueFrom(day Day) (n int64) {
	for ; s.due(day); day = day.Next() {
		n++
	}
	return n
}

// sealDay makes the seal of day. Until the rename a crash leaves a part that the
// next attempt removes; after it the day is there whole.
func (s *Sealer) sealDay(ctx context.Context, day Day, last Seal) (Seal, error) {
	m, err := s.plan(ctx, day, last)
	if err != nil {
		return Seal{}, err
	}
	made := filepath.Join(s.o.Dir, part)
	dir := filepath.Join(made, day.String())
	if err := errors.Join(os.RemoveAll(made), os.MkdirAll(dir, 0o700)); err != nil {
		return Seal{}, fmt.Errorf("seal: %w", err)
	}
	// 1. The entries, and the digests of the files that hold them.
	if err := s.export(ctx, dir, &m); err != nil {
		return Seal{}, err
	}
	if err := s.step("exported"); err != nil {
		return Seal{}, err
	}
	// 2. The manifest, the provider's signature, the time stamp on it.
	if err := s.sign(ctx, filepath.Join(dir, day.String()), m); err != nil {
		return Seal{}, err
	}
	// 3. All is on stable storage under its names, and a stranger would find it good.
	if err := syncDir(dir); err != nil {
		return Seal{}, fmt.Errorf("seal: %w", err)
	}
	r := s.o.Verifier.VerifyDay(ctx, os.DirFS(made), day)
	if !last.Manifest.Day.IsZero() {
		follow(&DayResult{Day: last.Manifest.Day, Seal: &last}, &r)
	}
	if !r.Sound {
		return Seal{}, fmt.Errorf("%w: %w", ErrUnsound, r.Problem)
	}
	if err := s.step("verified"); err != nil {
		return Seal{}, err
	}
	// 4. The one step that publishes it.
	if err := os.Rename(dir, filepath.Join(s.o.Dir, day.String())); err != nil {
		return Seal{}, fmt.Errorf("seal: %w", err)
	}
	if err := s.step("renamed"); err != nil {
		return Seal{}, err
	}
	if err := errors.Join(syncDir(s.o.Dir), os.Remove(made)); err != nil {
		return Seal{}, fmt.Errorf("seal: %w", err)
	}
	return *r.Seal, nil
}

// plan says which entries the day has.
func (s *Sealer) plan(ctx context.Context, day Day, last Seal) (Manifest, error) {
	since, until := day.Bounds(s.o.Zone)
	span, err := s.o.Register.Span(ctx, since, until)
	if err != nil {
		return Manifest{}, err
	}
	now := s.o.Now().In(s.o.Zone).Truncate(time.Second)
	m := Manifest{
		Format: FormatSeal, Text: FormatText, Provider: s.o.Provider,
		Day: day, Zone: s.o.Zone.String(), Since: since, Until: until,
		Sealed: now, SealedUnix: now.Unix(),
		First:          last.Manifest.Last + 1,
		ChainBefore:    last.Manifest.ChainAfter,
		PreviousSHA256: last.Digest,
	}
	m.Last = max(last.Manifest.Last, span.Last)
	m.Entries = m.Last - m.First + 1
	if m.Entries > 0 {
		return m, nil
	}
	// A day without entries does not notice by itself that the register lost some.
	head, err := s.o.Register.Head(ctx)
	if err == nil && (head.Seq < m.Last || head.Seq == m.Last && head.Chain != m.ChainBefore) {
		err = fmt.Errorf("%w: it ends at entry %d", ErrBroken, head.Seq)
	}
	return m, err
}

// sign writes the manifest, its signature and the time stamp of that.
func (s *Sealer) sign(ctx context.Context, base string, m Manifest) error {
	manifest, err := m.marshal()
	if err != nil {
		return err
	}
	p7m, err := s.o.Signer.SignSeal(ctx, bytes.Clone(manifest), m.Sealed)
	if err != nil {
		return fmt.Errorf("seal: signature: %w", err)
	}
	if err := s.step("signed"); err != nil {
		return err
	}
	token, err := s.o.Stamper.Stamp(ctx, sha256.Sum256(p7m))
	if err != nil {
		return err
	}
	if err := s.step("stamped"); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{nameManifest, manifest}, {nameSeal, p7m}, {nameToken, token.Raw}} {
		if err := writeFile(base+f.name, f.data); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	return nil
}

var (
	_ Stamper  = (*timestamp.Client)(nil)
	_ Register = (*logstore.SQLite)(nil)
	_ Register = (*logstore.Reader)(nil)
)
