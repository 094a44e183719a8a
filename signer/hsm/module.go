package hsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// A cryptoki is what this package uses of PKCS #11. *pkcs11.Ctx is one.
type cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
}

// A module is a loaded library. PKCS #11 lets a process initialise it once,
// however many keys are in use.
type module struct {
	api cryptoki

	// use is held for reading during calls, and for writing while the module
	// is started anew, which makes all sessions void.
	use        sync.RWMutex
	generation uint64

	// door is passed by who begins a call, and held by a restart that has found no
	// moment without one.
	door sync.Mutex

	mu    sync.Mutex
	users int // keys; guarded by mu; 0: not initialised
}

// modules are the loaded libraries by their file. They stay loaded.
var modules struct {
	sync.Mutex
	byFile map[string]*module
}

// load returns the module in file, initialised, with one more user.
func load(file string) (*module, error) {
	if resolved, err := filepath.EvalSymlinks(file); err == nil {
		file = resolved
	}
	modules.Lock()
	defer modules.Unlock()
	m := modules.byFile[file]
	if m == nil {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("hsm: module: %w", err)
		}
		ctx := pkcs11.New(file)
		if ctx == nil {
			return nil, fmt.Errorf("hsm: %s cannot be loaded; it must be the PKCS #11 library of the module's maker for this machine", file)
		}
		m = &module{api: ctx}
	}
	if err := m.acquire(); err != nil {
		return nil, err
	}
	if modules.byFile == nil {
		modules.byFile = make(map[string]*module)
	}
	modules.byFile[file] = m
	return m, nil
}

func (m *module) acquire() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users == 0 {
		m.use.Lock()
		defer m.use.Unlock()
		if err := m.initialize(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	m.users++
	return nil
}

// initialize is called with use held.
func (m *module) initialize() error {
	m.generation++
	if err := m.api.Initialize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return fmt.Errorf("initialise the module: %w", err)
	}
	return nil
}

// begin holds use for reading, for a call.
func (m *module) begin() {
	m.door.Lock()
	defer m.door.Unlock()
	m.use.RLock()
}

// How often, and how long in between, restart looks whether all calls have ended, and
// after how many looks it lets no call begin any more.
const (
	restartTries = 100
	restartPause = 20 * time.Millisecond
	restartAlone = restartTries / 2
	restartTerm  = restartTries * restartPause
)

// restart ends and begins the module anew, unless somebody has done that since
// generation. It waits two seconds for calls that are under way: one that hangs holds
// up itself, and waiting in line for it would hold up all others. Where calls follow
// each other without a gap, those that begin in the last second wait for its end.
func (m *module) restart(generation uint64) error {
	return m.restartWith(generation, func() { time.Sleep(restartPause) })
}

// restartWith is restart that calls pause after each look.
func (m *module) restartWith(generation uint64, pause func()) error {
	alone := false
	defer func() {
		if alone {
			m.door.Unlock()
		}
	}()
	for n := 0; !m.use.TryLock(); n++ {
		if n == restartTries {
			return fmt.Errorf("%w: calls of the module did not end within %v, so it is not started anew", ErrUnavailable, restartTerm)
		}
		// Another restart that holds it serves this one too.
		alone = alone || n >= restartAlone && m.door.TryLock()
		pause()
	}
	defer m.use.Unlock()
	if m.generation != generation {
		return nil
	}
	_ = m.api.Finalize() // what cannot be ended is heard of at the beginning
	return m.initialize()
}

// release closes sessions of a key that is in no call any more and gives its use
// back; after the last the module is ended.
func (m *module) release(sessions []session) error {
	// If a restart waits, the sessions are about to become void anyhow.
	if m.use.TryRLock() {
		for _, s := range sessions {
			if s.generation == m.generation {
				_ = m.api.CloseSession(handleOf(s)) // of a token that may be away
			}
		}
		m.use.RUnlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	m.use.Lock()
	defer m.use.Unlock()
	m.generation++
	if err := m.api.Finalize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return fmt.Errorf("hsm: end the module: %w", err)
	}
	return nil
}

func is(err error, code pkcs11.Error) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && e == code
}
