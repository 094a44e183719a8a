package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"pecd/signer/hsm/hsmtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := hsmtest.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// world is a token with an RSA and an ECDSA key.
type world struct {
	rsa   *rsa.PrivateKey
	ecdsa *ecdsa.PrivateKey
	token string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{token: t.Name()[max(0, len(t.Name())-32):]}
	var err error
	if w.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if w.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	hsmtest.NewToken(t, w.token)
	hsmtest.Import(t, w.token, "firma", []byte{1}, w.rsa)
	hsmtest.Import(t, w.token, "curva", []byte{2}, w.ecdsa)
	return w
}

func (w *world) options(label string) Options {
	return Options{Module: hsmtest.Module, Token: w.token, Label: label, PIN: []byte(hsmtest.PIN), Wait: 20 * time.Second}
}

func (w *world) candidates() []crypto.PublicKey {
	return []crypto.PublicKey{w.ecdsa.Public(), w.rsa.Public()}
}

func (w *world) open(t testing.TB, o Options) *Key {
	t.Helper()
	k, err := Open(t.Context(), o, w.candidates())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

var digest = sha256.Sum256([]byte("a message"))

func check(t testing.TB, k *Key) {
	t.Helper()
	signature, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Error(err)
	} else if !holds(k.Public(), digest[:], signature) {
		t.Error("the signature does not hold")
	}
}

func TestSign(t *testing.T) {
	w := newWorld(t)
	for label, public := range map[string]interface{ Equal(crypto.PublicKey) bool }{
		"firma": &w.rsa.PublicKey, "curva": &w.ecdsa.PublicKey,
	} {
		k := w.open(t, w.options(label))
		if !public.Equal(k.Public()) {
			t.Errorf("%s: the wrong key", label)
		}
		check(t, k)
	}
	byID := w.options("")
	byID.ID = []byte{1}
	check(t, w.open(t, byID))
	k := w.open(t, w.options("firma"))
	if _, err := k.Sign(nil, digest[:], crypto.SHA1); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("a digest of the wrong length: %v", err)
	}
}

func TestSignConcurrently(t *testing.T) {
	w := newWorld(t)
	o := w.options("firma")
	o.Sessions = 3
	k := w.open(t, o)
	other := w.open(t, w.options("curva"))
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 5 {
				check(t, k)
				check(t, other)
			}
		}()
	}
	wg.Wait()
	if n := len(k.idle); n == 0 || n > 3 {
		t.Errorf("%d sessions", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	w := newWorld(t)
	with := func(change func(*Options)) Options {
		o := w.options("firma")
		change(&o)
		return o
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		o    Options
		of   []crypto.PublicKey
		want error // nil: any
	}{
		"no module":        {with(func(o *Options) { o.Module = "/nonexistent.so" }), w.candidates(), os.ErrNotExist},
		"no library":       {with(func(o *Options) { o.Module = text }), w.candidates(), nil},
		"no token":         {with(func(o *Options) { o.Token = "other" }), w.candidates(), ErrUnavailable},
		"wrong serial":     {with(func(o *Options) { o.Serial = "0000" }), w.candidates(), ErrUnavailable},
		"no key":           {with(func(o *Options) { o.Label = "other" }), w.candidates(), ErrNoKey},
		"several keys":     {with(func(o *Options) { o.Label = "" }), w.candidates(), ErrNoKey},
		"wrong PIN":        {with(func(o *Options) { o.PIN = []byte("0000") }), w.candidates(), ErrPIN},
		"of another":       {with(func(*Options) {}), []crypto.PublicKey{stranger.Public()}, ErrNoKey},
		"of no kind known": {with(func(*Options) {}), nil, ErrNoKey},
	} {
		if k, err := Open(t.Context(), tc.o, tc.of); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v, want %v", name, k, err, tc.want)
		}
	}
	check(t, w.open(t, w.options("firma")))
}

// TestTakenAway: the folder of the tokens is moved away and comes back. SoftHSM
// 2.6.1 then finds no key in its open sessions and no token for new ones, and
// cannot be initialised: CKR_GENERAL_ERROR, then CKR_CRYPTOKI_NOT_INITIALIZED
// until the folder is back and it is initialised once more.
func TestTakenAway(t *testing.T) {
	w := newWorld(t)
	k, other := w.open(t, w.options("firma")), w.open(t, w.options("curva"))
	tokens := hsmtest.Tokens(t)
	away := tokens + ".away"
	for round := range 3 {
		check(t, k)
		check(t, other)
		if err := os.Rename(tokens, away); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				_, err := k.Sign(nil, digest[:], crypto.SHA256)
				if !errors.Is(err, ErrUnavailable) {
					t.Errorf("round %d, without token: %v", round, err)
				}
			}()
		}
		wg.Wait()
		if err := os.Rename(away, tokens); err != nil {
			t.Fatal(err)
		}
		check(t, k)
		check(t, other)
	}
}

// TestPINOnce: a refused PIN is not tried again.
func TestPINOnce(t *testing.T) {
	m := &fake{}
	k := &Key{module: &module{api: m, users: 1}, options: Options{Wait: time.Minute, PIN: []byte("1")},
		slots: make(chan struct{}, 1), done: make(chan struct{})}
	m.login = pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)
	for range 3 {
		if _, err := k.run(t.Context(), job{}); !errors.Is(err, ErrPIN) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if m.logins.Load() != 1 {
		t.Errorf("%d logins", m.logins.Load())
	}
}

// TestReturns: each error that a module gives when it goes away in the middle of
// a call is ErrUnavailable while it lasts and forgotten afterwards.
func TestReturns(t *testing.T) {
	w := newWorld(t)
	for _, code := range []uint{pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_TOKEN_NOT_PRESENT,
		pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_HOST_MEMORY} {
		real := w.open(t, w.options("firma"))
		f := &faulty{cryptoki: real.module.api}
		m := &module{api: f, generation: real.module.generation, users: 1}
		k := &Key{module: m, options: w.options("firma"), public: real.public, slots: make(chan struct{}, 2), done: make(chan struct{})}
		check(t, k)
		check(t, k)
		f.set(code)
		if _, err := k.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, ErrUnavailable) || !is(err, pkcs11.Error(code)) {
			t.Errorf("%v: %v", pkcs11.Error(code), err)
		}
		f.set(0)
		check(t, k)
		if f.restarts == 0 {
			t.Errorf("%v: never started anew", pkcs11.Error(code))
		}
		f.once(code) // gone between two signatures: nobody hears of it
		check(t, k)
	}
}

// TestHangs: a module that does not answer keeps nobody waiting longer than he
// wants, and no more threads than there are sessions.
func TestHangs(t *testing.T) {
	f := &fake{hang: make(chan struct{})}
	k := &Key{module: &module{api: f, users: 1}, options: Options{Wait: 50 * time.Millisecond},
		slots: make(chan struct{}, 2), done: make(chan struct{})}
	for range 5 {
		if _, err := k.run(t.Context(), job{}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.run(canceled, job{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(k.slots); n != 2 {
		t.Errorf("%d calls", n)
	}
	if err := k.Close(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Close while calls hang: %v", err)
	}
	close(f.hang)
	k.slots <- struct{}{} // both calls end
	k.slots <- struct{}{}
}

// TestHangsAlone: while a call hangs, a module that should be started anew is not, and
// healthy sessions go on.
func TestHangsAlone(t *testing.T) {
	m := &module{api: &fake{}, users: 1}
	m.use.RLock() // the call that hangs
	waited := make(chan error)
	go func() { waited <- m.restart(m.generation) }()
	for {
		select {
		case err := <-waited:
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			m.use.RUnlock()
			if err := m.restart(m.generation); err != nil {
				t.Errorf("when the call has ended: %v", err)
			}
			m.begin() // nor does the door stay closed
			m.use.RUnlock()
			return
		default:
			if !m.use.TryRLock() {
				t.Fatal("a session in order is held up")
			}
			m.use.RUnlock()
		}
	}
}

// TestRestartAmongCalls: a module that is never idle is started anew all the same, and
// begins calls again then.
func TestRestartAmongCalls(t *testing.T) {
	m := &module{api: &fake{}, users: 1}
	generation, calls := m.generation, 0
	m.begin()
	err := m.restartWith(generation, func() { // the next call begins, if it may, before the last one ends
		if m.door.TryLock() {
			m.door.Unlock()
			m.begin()
			calls++
		}
		m.use.RUnlock()
	})
	if err != nil || m.generation != generation+1 || calls != restartAlone {
		t.Errorf("%d calls, %v", calls, err)
	}
	if !m.door.TryLock() || !m.use.TryLock() {
		t.Error("no call may begin after it")
	}
}

func TestClosed(t *testing.T) {
	w := newWorld(t)
	k, err := Open(t.Context(), w.options("firma"), w.candidates())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := k.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
	check(t, w.open(t, w.options("firma"))) // the module begins anew
}

// A faulty passes calls on to a real module, or fails.
type faulty struct {
	cryptoki
	mu       sync.Mutex
	code     uint
	left     int // how often it fails; -1: always
	restarts int
}

func (f *faulty) set(code uint)  { f.mu.Lock(); f.code, f.left = code, -1; f.mu.Unlock() }
func (f *faulty) once(code uint) { f.mu.Lock(); f.code, f.left = code, 1; f.mu.Unlock() }

func (f *faulty) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.code == 0 || f.left == 0 {
		return nil
	}
	f.left = max(f.left-1, -1)
	return pkcs11.Error(f.code)
}

// Finalize and Initialize are not passed on: other keys use the module.
func (f *faulty) Finalize() error { f.restarts++; return nil }

func (f *faulty) Initialize(...pkcs11.InitializeOption) error { return f.fault() }

func (f *faulty) OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error) {
	if err := f.fault(); err != nil {
		return 0, err
	}
	return f.cryptoki.OpenSession(slot, flags)
}

func (f *faulty) Sign(s pkcs11.SessionHandle, b []byte) ([]byte, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.cryptoki.Sign(s, b)
}

// A fake is a module with one slot that cannot sign.
type fake struct {
	cryptoki
	login  error
	logins atomic.Int32
	hang   chan struct{}
}

func (f *fake) Finalize() error                                      { return nil }
func (f *fake) Initialize(...pkcs11.InitializeOption) error          { return nil }
func (f *fake) CloseSession(pkcs11.SessionHandle) error              { return nil }
func (f *fake) GetTokenInfo(uint) (pkcs11.TokenInfo, error)          { return pkcs11.TokenInfo{}, nil }
func (f *fake) OpenSession(uint, uint) (pkcs11.SessionHandle, error) { return 1, nil }

func (f *fake) GetSlotList(bool) ([]uint, error) {
	if f.hang != nil {
		<-f.hang
	}
	return []uint{7}, nil
}

func (f *fake) Login(pkcs11.SessionHandle, uint, string) error { f.logins.Add(1); return f.login }

func (f *fake) FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error {
	return pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)
}
