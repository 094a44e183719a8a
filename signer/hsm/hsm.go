// Package hsm signs with keys that live in a hardware module behind PKCS #11
// (OASIS, version 2.40): RSA by PKCS #1 v1.5 and ECDSA. It knows no mail and
// never sees a private key.
//
// A module may go away and come back. Whatever it answers but a signature is
// ErrUnavailable: the caller waits and tries again, and when the module is back
// it works, without a restart. The same PIN is never tried again after it was
// refused: tokens lock themselves.
package hsm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Errors of Open and of the methods of Key.
var (
	// ErrUnavailable says that the module does not sign now.
	ErrUnavailable = errors.New("hsm: the key is not available")
	// ErrNoKey says that the token is there and holds no such key, or several.
	ErrNoKey = errors.New("hsm: no such key")
	// ErrPIN says that the token refused the PIN. It comes with ErrUnavailable.
	ErrPIN = errors.New("hsm: the token refused the PIN")
)

// What Options has where it is zero.
const (
	DefaultSessions = 8
	DefaultWait     = 10 * time.Second
)

// Options say where a key is. Of Token and Serial, and of Label and ID, one is
// enough; what is given must fit.
type Options struct {
	Module   string        // file of the module's library
	Token    string        // label of the token
	Serial   string        // serial number of the token
	Label    string        // CKA_LABEL of the private key
	ID       []byte        // CKA_ID of the private key
	PIN      []byte        // of the token's user
	Sessions int           // the most at a time; DefaultSessions if 0
	Wait     time.Duration // for a free session and the signature; DefaultWait if 0
}

// A Key is a crypto.Signer whose private key is in a token. It may be used
// concurrently. Close ends it.
type Key struct {
	module  *module
	options Options
	public  crypto.PublicKey

	// slots bounds the sessions: who is in a call of the module holds one. A
	// call cannot be ended from outside; one that hangs keeps its slot.
	slots chan struct{}
	done  chan struct{} // closed by Close

	mu         sync.Mutex // guards what follows
	idle       []session
	closed     bool
	pinRefused bool
}

// A session is an open session with the key's handle in it.
type session struct {
	handle     uint // CK_SESSION_HANDLE
	key        uint // CK_OBJECT_HANDLE
	generation uint64
	always     bool // CKA_ALWAYS_AUTHENTICATE: the PIN is wanted at each use
}

// Open returns the key that options name, which must be the private half of one
// of candidates: a trial signature tells which, since not every token gives its
// public keys away. Errors wrap ErrUnavailable if the token cannot be used now,
// and ErrNoKey if it has no such key.
func Open(ctx context.Context, options Options, candidates []crypto.PublicKey) (*Key, error) {
	m, err := load(options.Module)
	if err != nil {
		return nil, err
	}
	return open(ctx, m, options, candidates)
}

// open takes over one use of m.
func open(ctx context.Context, m *module, options Options, candidates []crypto.PublicKey) (*Key, error) {
	if options.Sessions <= 0 {
		options.Sessions = DefaultSessions
	}
	if options.Wait <= 0 {
		options.Wait = DefaultWait
	}
	options.PIN = slices.Clone(options.PIN)
	k := &Key{module: m, options: options, slots: make(chan struct{}, options.Sessions), done: make(chan struct{})}
	if err := k.recognise(ctx, candidates); err != nil {
		_ = k.Close()
		return nil, err
	}
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. It draws no randomness from the reader.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignContext signs digest, waiting for a session and the module until ctx or
// Options.Wait ends. Errors but for a wrong use wrap ErrUnavailable.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	job, err := newJob(k.public, digest, opts.HashFunc())
	if err != nil {
		return nil, err
	}
	return k.run(ctx, job)
}

// run does job in a goroutine of its own, which ends when the module answers
// and holds a slot until then.
func (k *Key) run(ctx context.Context, j job) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.options.Wait)
	defer cancel()
	select {
	case k.slots <- struct{}{}:
	case <-k.done:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no free session: %w", ErrUnavailable, ctx.Err())
	}
	type answer struct {
		signature []byte
		err       error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { <-k.slots }()
		signature, err := k.attempt(j)
		answers <- answer{signature, err}
	}()
	select {
	case a := <-answers:
		return a.signature, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no answer: %w", ErrUnavailable, ctx.Err())
	}
}

// attempt does j in an idle session, then in a new one, then in a new one after
// the module was started anew: what was inserted after the start is seen by
// some modules only then.
func (k *Key) attempt(j job) (signature []byte, err error) {
	for try := range 3 {
		var generation uint64
		signature, generation, err = k.once(j, try == 0)
		switch {
		case err == nil:
			return signature, nil
		case errors.Is(err, ErrPIN), errors.Is(err, errClosed):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case try == 1:
			if again := k.module.restart(generation); again != nil {
				return nil, fmt.Errorf("%w: %w, and %w", ErrUnavailable, err, again)
			}
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// once does j in one session. After an error that session and all idle ones are
// gone: they have most likely met the same fate.
func (k *Key) once(j job, mayReuse bool) (signature []byte, generation uint64, err error) {
	k.module.begin()
	defer k.module.use.RUnlock()
	generation = k.module.generation
	s, err := k.session(mayReuse, generation)
	if err != nil {
		return nil, generation, err
	}
	if signature, err = j.sign(k, s); err != nil {
		k.discard(s)
		return nil, generation, err
	}
	k.giveBack(s)
	return signature, generation, nil
}

var errClosed = errors.New("hsm: the key was closed")

// session returns an idle session or a new one.
func (k *Key) session(mayReuse bool, generation uint64) (session, error) {
	k.mu.Lock()
	closed, refused := k.closed, k.pinRefused
	for mayReuse && len(k.idle) > 0 {
		last := len(k.idle) - 1
		s := k.idle[last]
		k.idle = k.idle[:last]
		if s.generation == generation {
			k.mu.Unlock()
			return s, nil
		}
	}
	k.mu.Unlock()
	switch {
	case closed:
		return session{}, errClosed
	case refused:
		return session{}, fmt.Errorf("%w before; correct it and load the key again", ErrPIN)
	}
	s, err := k.newSession()
	if errors.Is(err, ErrPIN) {
		k.mu.Lock()
		k.pinRefused = true
		k.mu.Unlock()
	}
	s.generation = generation
	return s, err
}

func (k *Key) giveBack(s session) {
	k.mu.Lock()
	keep := !k.closed
	if keep {
		k.idle = append(k.idle, s)
	}
	k.mu.Unlock()
	if !keep {
		_ = k.module.api.CloseSession(handleOf(s))
	}
}

// discard closes s and all idle sessions; the caller holds module.use.
func (k *Key) discard(s session) {
	k.mu.Lock()
	gone := append(k.idle, s)
	k.idle = nil
	k.mu.Unlock()
	for _, s := range gone {
		if s.generation == k.module.generation {
			_ = k.module.api.CloseSession(handleOf(s)) // gone already, as a rule
		}
	}
}

// Close waits for the calls that are under way, Options.Wait at most, and closes
// the sessions. Signing afterwards is ErrUnavailable. If a call hangs, Close
// says so and leaves the module as it is. Close may be called again.
func (k *Key) Close() error {
	k.mu.Lock()
	again := k.closed
	k.closed = true
	idle := k.idle
	k.idle = nil
	k.mu.Unlock()
	if again {
		return nil
	}
	close(k.done)
	deadline := time.NewTimer(k.options.Wait)
	defer deadline.Stop()
	for range cap(k.slots) {
		select {
		case k.slots <- struct{}{}:
		case <-deadline.C:
			return fmt.Errorf("%w: the module does not answer; its sessions stay open", ErrUnavailable)
		}
	}
	clear(k.options.PIN)
	return k.module.release(idle)
}
