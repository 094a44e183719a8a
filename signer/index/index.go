// Package index keeps the directory of the providers (indice dei gestori,
// IGPEC): it gets the signed LDIF file of RFC 6109, 4.5, from an HTTPS server
// that knows us by our certificate, or from a file, daily and when asked. The
// directory is changed in whole or not at all, after the signature was verified
// and every record was read. The last good one stays, in memory and on disk,
// whatever happens to those that follow.
//
// A directory that is genuine may still be the wrong one: an old one played back,
// or one that its maker broke. It is refused, until an operator says otherwise,
// if it was signed before ours, if our own record or certificate is gone from
// it, or if more of the domains that are certified now would be ordinary mail
// than a small part.
package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/fetch"
)

// Why a directory that came is not taken. What is wrong with its signature or
// its records is told by the errors of signer and of pec/directory. ErrOlder,
// ErrOwn and ErrShrunk are those that force overrides.
var (
	ErrNone   = errors.New("index: there is no directory yet")
	ErrOlder  = errors.New("index: the directory was signed before the one that is here")
	ErrOwn    = errors.New("index: our own record or certificate is missing in the directory")
	ErrUnfit  = errors.New("index: the directory cannot be used here")
	ErrShrunk = errors.New("index: too much is missing in the directory")
)

// Defaults of Options.
const (
	DefaultInterval = 24 * time.Hour
	DefaultRetry    = 15 * time.Minute
	DefaultLoss     = 0.5
)

// Options are what a Keeper works with.
type Options struct {
	URL  string // HTTPS; or
	File string // the same, as a file that somebody else puts there

	Client   *fetch.Client // with the client certificate; needed with URL
	Cache    *fetch.Cache  // nil: the last good one does not outlast the process
	Verifier *signer.Verifier

	Name string // providerName of our own records; "": they are not looked for

	// Certificate returns the certificate in DER that we sign with at an
	// instant; nil: it is not looked for.
	Certificate func(at time.Time) []byte

	// Loss is the part of the domains, and of the providers, that may vanish
	// between two directories. 0: DefaultLoss; 1: all.
	Loss float64

	Interval time.Duration // 0: DefaultInterval
	Retry    time.Duration // pause after a failure; 0: DefaultRetry

	Now    func() time.Time
	After  func(time.Duration) <-chan time.Time // for Run; nil: time.After
	Random io.Reader                            // spreads the fetches of all providers; nil: none
	Log    *slog.Logger                         // nil: none

	// Usable says why a directory cannot take the place of the one in use, whatever
	// is forced: else it would be the only one left at the next start. nil: all can.
	Usable func(*directory.Directory) error

	// OnChange hears of each directory that is taken, before anybody else sees
	// it, one after the other. It must not call the keeper.
	OnChange func(*directory.Directory)
}

// A Keeper keeps the directory. It may be used concurrently.
type Keeper struct {
	o       Options
	current atomic.Pointer[directory.Directory]

	updates sync.Mutex // held while something is fetched and taken
	mu      sync.Mutex // guards status
	status  Status

	// Of the one in use; guarded by updates.
	validators fetch.Validators
	digest     [sha256.Size]byte
}

// A Status says how it stands with the directory.
type Status struct {
	Source    string
	Providers int       // records
	Domains   int       // that are certified
	Signed    time.Time // when its maker signed it, as he says; zero if he does not
	Signer    string    // who signed it
	Changed   time.Time // when it was taken; its age in content
	Checked   time.Time // when it was last known to be the current one; a file: when it was written; its age
	Tried     time.Time // last attempt
	Failures  int       // since Checked
	Err       error     // of the last attempt, nil if it was good
}

// New returns a keeper without a directory: Load or Update gets one.
func New(o Options) (*Keeper, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Keeper{o: o, status: Status{Source: o.source()}}, nil
}

func (o *Options) check() error {
	if o.Loss == 0 {
		o.Loss = DefaultLoss
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Retry == 0 {
		o.Retry = DefaultRetry
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case (o.URL == "") == (o.File == ""):
		return errors.New("index: name either the URL of the directory or a file")
	case o.Verifier == nil || o.Now == nil || o.URL != "" && o.Client == nil:
		return errors.New("index: no verifier, no clock or no client")
	case !(o.Loss > 0 && o.Loss <= 1):
		return fmt.Errorf("index: a loss of %v; write a part between 0 and 1", o.Loss)
	case o.Interval < 0 || o.Retry < 0:
		return errors.New("index: a duration below zero")
	case o.URL != "":
		return o.Client.Check(o.URL)
	}
	return nil
}

func (o *Options) source() string {
	if o.URL != "" {
		return o.URL
	}
	return o.File
}

// Directory returns the directory in use, nil if there is none yet. It does not
// change; ask again for the next message.
func (k *Keeper) Directory() *directory.Directory { return k.current.Load() }

// Status returns how it stands.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Load takes the last good directory from the cache, verified as of the instant
// when it was last known to be the current one: that its maker's certificate
// ended since does not take the country's mail down. ErrNone says that the
// cache has none, or none that can be used. It may be called again when another
// process put a directory there.
func (k *Keeper) Load(ctx context.Context) error {
	k.updates.Lock()
	defer k.updates.Unlock()
	if k.o.Cache == nil {
		return ErrNone
	}
	it, err := k.o.Cache.Load(k.o.source(), directoryLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	c, err := k.open(ctx, k.o.Verifier, it.Body, it.Fetched)
	if errors.Is(err, signer.ErrRevocationUnknown) {
		// It was known when the file was taken; a network that is down now is no
		// reason to be without a directory.
		c, err = k.open(ctx, k.o.Verifier.WithoutRevokers(), it.Body, it.Fetched)
	}
	if err != nil {
		return fmt.Errorf("%w: the last good one cannot be used: %w", ErrNone, err)
	}
	if k.Directory() == nil || c.digest != k.digest {
		k.take(c, it.Fetched, k.asOf(it.Validators, it.Fetched), it.Validators)
	}
	return nil
}

// directoryLimit bounds the signed file, in octets.
const directoryLimit = signer.MaxSignedFile

// get returns the file as it is published, or says that it is the one in use.
func (k *Keeper) get(ctx context.Context, force bool) (*fetch.Answer, error) {
	if k.o.URL == "" {
		return readFile(k.o.File)
	}
	have := k.validators
	if force || k.Directory() == nil {
		have = fetch.Validators{}
	}
	return k.o.Client.Get(ctx, k.o.URL, have)
}

// readFile reads a file that somebody else puts there. When he did so is its
// validator, as the date of a server is: the cache keeps it.
func readFile(name string) (*fetch.Answer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, directoryLimit+1))
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return &fetch.Answer{Body: data, Validators: fetch.Validators{LastModified: info.ModTime().UTC().Format(http.TimeFormat)}}, nil
}

// asOf returns the instant at which a directory that was got at got, with these
// validators, was last known to be the current one. A server says so each time it is
// asked. A file says nothing by being there: whoever fetches it may have stopped long
// ago, so it counts from when it was written.
func (k *Keeper) asOf(v fetch.Validators, got time.Time) time.Time {
	if k.o.File == "" {
		return got
	}
	written, err := http.ParseTime(v.LastModified)
	if err != nil || written.After(got) {
		return got // a cache from before, or a clock that was ahead
	}
	return written
}
