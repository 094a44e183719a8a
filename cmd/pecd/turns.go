package main

import (
	"context"
	"sync"
)

// turns lets copies of one message through one after the other. A copy that
// finds no receipt because the first is still on its way to the mailbox store
// would be delivered a second time; the keys of the register keep it only from
// being certified twice. The zero value is ready.
type turns struct {
	mu      sync.Mutex
	waiting map[string]*turn // guarded by mu
}

// A turn belongs to whoever has its token.
type turn struct {
	token chan struct{} // capacity one; full while somebody has the turn
	n     int           // who has it or waits; guarded by turns.mu
}

// take waits until it is key's turn, or ctx ends. The turn ends with done.
func (t *turns) take(ctx context.Context, key string) (done func(), err error) {
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting = map[string]*turn{}
	}
	u := t.waiting[key]
	if u == nil {
		u = &turn{token: make(chan struct{}, 1)}
		t.waiting[key] = u
	}
	u.n++
	t.mu.Unlock()
	select {
	case u.token <- struct{}{}:
		return func() { <-u.token; t.leave(key, u) }, nil
	case <-ctx.Done():
		t.leave(key, u)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(key string, u *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.n--; u.n == 0 {
		delete(t.waiting, key)
	}
}
