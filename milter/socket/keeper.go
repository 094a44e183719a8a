package socket

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// ErrServerClosed is returned by Keeper.Serve after Shutdown.
var ErrServerClosed = errors.New("server closed")

// A Kept is a connection that a Keeper has. Both may be called from any goroutine,
// and do not wait.
type Kept interface {
	// Drain has the connection end: now, or soon after its message has ended.
	Drain()
	// Kill has it end now. Its own goroutine does the rest.
	Kill()
}

// A Keeper has the listeners and the connections of a server, and brings them to an
// end. All methods may be called concurrently.
type Keeper struct {
	// Grace is how long Shutdown still waits for what it has cut off: a handler may be
	// about to make durable what has happened. NewKeeper sets 20 seconds.
	Grace time.Duration

	max int

	ctx    context.Context // ends when a shutdown can wait no longer
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows
	closing   bool
	killed    bool // nothing more is taken
	listeners map[net.Listener]struct{}
	conns     map[Kept]struct{}
	ended     sync.WaitGroup // one for each element of conns, and one for each Serve, which alone adds others
}

// NewKeeper returns one that keeps up to max connections at once.
func NewKeeper(max int) *Keeper {
	k := &Keeper{Grace: 20 * time.Second, max: max, listeners: map[net.Listener]struct{}{}, conns: map[Kept]struct{}{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Context ends when a shutdown can wait no longer, or nothing is left to wait for.
func (k *Keeper) Context() context.Context { return k.ctx }

// Serve has serve take connections from l until Shutdown, then returns
// ErrServerClosed. Errors of Accept that may pass do not end it (see Patient). It
// closes l.
func (k *Keeper) Serve(l net.Listener, report func(error), serve func(net.Listener) error) error {
	k.mu.Lock()
	if k.closing {
		k.mu.Unlock()
		return errors.Join(ErrServerClosed, l.Close())
	}
	k.listeners[l] = struct{}{}
	k.ended.Add(1)
	k.mu.Unlock()
	defer k.ended.Done()

	err := serve(Patient(k.ctx, l, report))

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closing {
		return ErrServerClosed
	}
	delete(k.listeners, l)
	if closeErr := l.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}

// Add takes a connection; false: it is one too many. One that was taken from its
// listener just when a shutdown began is served as those before it: nobody else
// could serve it.
func (k *Keeper) Add(c Kept) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.killed || len(k.conns) >= k.max {
		return false
	}
	k.conns[c] = struct{}{}
	k.ended.Add(1)
	if k.closing {
		c.Drain()
	}
	return true
}

// Remove is to be called once for each connection that was taken, when it has ended.
func (k *Keeper) Remove(c Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	k.ended.Done()
}

// Shutdown stops accepting, drains all connections, and waits until they have ended.
// When ctx ends first it kills them, ends the Keeper's own context, waits for their
// handlers no longer than Grace, and returns the error of ctx.
func (k *Keeper) Shutdown(ctx context.Context) error {
	err := k.drain()
	done := make(chan struct{})
	go func() { // ends with the last connection
		k.ended.Wait()
		close(done)
	}()
	select {
	case <-done:
		k.kill() // of what comes yet
		k.cancel()
		return err
	case <-ctx.Done():
		// First, so that nobody is answered by what is only cancelled.
		k.kill()
		k.cancel()
	}
	grace := time.NewTimer(k.Grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
	}
	return ctx.Err()
}

func (k *Keeper) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.killed = true
	for c := range k.conns {
		c.Kill()
	}
}

func (k *Keeper) drain() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closing = true
	var errs []error
	for l := range k.listeners {
		errs = append(errs, l.Close())
	}
	clear(k.listeners)
	for c := range k.conns {
		c.Drain()
	}
	return errors.Join(errs...)
}
