package courier

import (
	"sync"
	"time"
)

// An absence is what the senders know together of a listener that cannot be reached:
// one of them dials now and then, the others bring meanwhile what goes straight. The
// methods may be called concurrently.
type absence struct {
	// over receives a value when it is time to try again, or the listener is there.
	over chan struct{}

	mu          sync.Mutex // guards what follows
	connections int        // open now
	failures    int        // in a row, while there was none
	shut        bool       // nobody dials now, or one who has been sent ahead
	timer       *time.Timer
}

// enter reports whether one may dial. After a failure that is one at a time.
func (a *absence) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut {
		return false
	}
	a.shut = a.failures > 0
	return true
}

// lasts reports whether nobody may dial now. Who hears so may wait for over.
func (a *absence) lasts() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shut
}

// fail says that a connection could not be made, and returns the how many-th time that
// is; zero if the listener is there and keeps other connections. Several who dialled at
// the same time count once.
func (a *absence) fail(retry func(int) time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.connections > 0 {
		a.end()
		return 0
	}
	if a.timer == nil {
		a.failures++
		a.shut = true
		a.timer = time.AfterFunc(retry(a.failures), a.again)
	}
	return a.failures
}

// connected says that a connection was made, and is to be followed by closed.
func (a *absence) connected() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connections++
	a.end()
}

func (a *absence) closed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connections--
}

// again lets the next one try.
func (a *absence) again() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut, a.timer = false, nil
	a.tell()
}

// end ends the absence, if there is one. The caller holds mu.
func (a *absence) end() {
	if a.failures == 0 {
		return
	}
	if a.timer != nil {
		a.timer.Stop() // where that comes too late somebody tries early
	}
	a.failures, a.shut, a.timer = 0, false, nil
	a.tell()
}

func (a *absence) tell() {
	select {
	case a.over <- struct{}{}:
	default:
	}
}
