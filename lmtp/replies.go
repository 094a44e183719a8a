package lmtp

import (
	"errors"
	"net"
	"sync"
	"time"
)

// maxHeld is how many octets of replies are held at most.
const maxHeld = 4 << 10

var errLastWord = errors.New("the last word has been said")

// A replies holds what is said to the client until the client is listened to again:
// one who sends several commands at a time hears the answers together (RFC 2920, 3.2),
// and LHLO is answered in one piece. go-smtp itself writes each line by itself. Its
// methods may be called concurrently: go-smtp says what has come of a message while
// another goroutine reads the end of it.
//
// LMTPData sends what is held before it asks the backend, which may take its time: 354, and
// what became of the message before.
type replies struct {
	net.Conn
	timeout time.Duration // for each time that they are sent

	mu   sync.Mutex
	held []byte
	err  error // once it has failed nobody hears us any more
}

// Write holds p. It reports only that the client is gone.
func (r *replies) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, p...)
	if len(r.held) >= maxHeld {
		r.send()
	}
	return len(p), r.err
}

// flush sends what is held.
func (r *replies) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send()
	return r.err
}

// lastWord sends what is held, and p. Nothing is sent after it.
func (r *replies) lastWord(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, p...)
	r.send()
	if r.err == nil {
		r.err = errLastWord
	}
}

func (r *replies) send() {
	if len(r.held) > 0 && r.err == nil {
		if r.err = r.Conn.SetWriteDeadline(time.Now().Add(r.timeout)); r.err == nil {
			_, r.err = r.Conn.Write(r.held)
		}
	}
	r.held = r.held[:0]
}
