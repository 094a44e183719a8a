package lmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("lmtp: the way to the mailbox store is closed")

var errEightBit = errors.New("the mailbox store does not take 8-bit mail")

// A Store is the way out to the mailbox store. Its fields are set before the first
// delivery. Deliver and Close may be called concurrently.
type Store struct {
	// Dial connects to the store's LMTP listener.
	Dial func(ctx context.Context) (net.Conn, error)
	Name string // said in LHLO; empty: "localhost"
	// CommandTimeout is for the store's answer to a command, and for it to take a
	// piece of the content. 0: 1 minute.
	CommandTimeout time.Duration
	// FinalTimeout is for its answers after the final dot. 0: 5 minutes.
	FinalTimeout time.Duration
	MaxIdle      int           // connections kept for the next delivery. 0: 8; negative: none
	IdleTime     time.Duration // for which they are kept. 0: 20 seconds

	failures, answers atomic.Int64

	mu     sync.Mutex // guards what follows
	idle   []*client  // the one used last at the end
	closed bool
}

// Deliver hands one message to the store and returns what it said for each
// recipient, in order. A recipient that comes twice is sent once and has one
// status. Recipients without an answer are deferred, also if the connection broke
// after the final dot, when the store may have the message: a second delivery is
// better than none.
//
// size is the length of the content in octets, 0 if it is not known. body writes
// the content; if it fails the connection is closed before the final dot, so that
// no half of a message is delivered. An error means that nothing is known, and all
// recipients are deferred.
func (s *Store) Deliver(ctx context.Context, sender string, recipients []string, size int64, eightBit bool,
	body func(io.Writer) error) ([]Status, error) {
	d := &delivery{sender: sender, size: size, eightBit: eightBit, body: body, known: map[string]Status{}}
	for _, r := range recipients {
		if !slices.Contains(d.recipients, r) {
			d.recipients = append(d.recipients, r)
		}
	}
	if len(recipients) == 0 {
		return nil, nil
	}
	err := s.deliver(ctx, d)
	if err != nil && !errors.Is(err, errEightBit) { // which the store has said
		s.failures.Add(1)
	} else {
		s.answers.Add(1)
	}
	if err != nil && len(d.known) == 0 {
		return nil, err
	}
	statuses := make([]Status, len(recipients))
	for i, r := range recipients {
		statuses[i] = Status{Text: "No answer from the mailbox store"}
		if known, ok := d.known[r]; ok {
			statuses[i] = known
		}
	}
	return statuses, nil
}

// Failures is how many deliveries the store did not answer, or not all of: who finds
// more of them than before knows that it is away, or hangs.
func (s *Store) Failures() int64 { return s.failures.Load() }

// Answers is how many it did: who finds more of them knows that it works.
func (s *Store) Answers() int64 { return s.answers.Load() }

// deliver tries a kept connection, which the store may have closed meanwhile, and
// then a new one.
func (s *Store) deliver(ctx context.Context, d *delivery) error {
	c, err := s.kept()
	if err != nil {
		return err
	}
	if c != nil {
		err := s.use(ctx, c, d)
		if !errors.Is(err, errStale) || ctx.Err() != nil {
			return err
		}
	}
	if c, err = s.connect(ctx); err != nil {
		return err
	}
	return s.use(ctx, c, d)
}

func (s *Store) use(ctx context.Context, c *client, d *delivery) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Conn.Close() })
	err := d.run(c)
	if !stop() { // the connection is closed, or will be
		return errors.Join(context.Cause(ctx), err)
	}
	if err == nil && c.reset() == nil {
		return s.keep(c)
	}
	_ = c.lib.Close()
	return err
}

// connect opens a connection and greets the store.
func (s *Store) connect(ctx context.Context) (*client, error) {
	raw, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := &storeConn{Conn: raw, timeout: orDefault(s.CommandTimeout, time.Minute)}
	c := &client{conn: conn, lib: smtp.NewClientLMTP(conn), name: s.Name}
	if c.name == "" {
		c.name = "localhost"
	}
	c.lib.CommandTimeout = conn.timeout
	c.lib.SubmissionTimeout = orDefault(s.FinalTimeout, 5*time.Minute)
	conn.allowReplies()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = c.lib.Hello(c.name)
	if !stop() {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greeting the mailbox store: %w", err), raw.Close())
	}
	return c, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// kept returns a connection kept from an earlier delivery, or nil.
func (s *Store) kept() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	n := len(s.idle)
	if n == 0 {
		return nil, nil
	}
	c := s.idle[n-1]
	s.idle = s.idle[:n-1]
	c.expiry.Stop() // if it is late it finds that the connection is not kept any more
	c.reused = true
	return c, nil
}

// keep keeps a connection for the next delivery.
func (s *Store) keep(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.MaxIdle
	if limit == 0 {
		limit = 8
	}
	if s.closed || len(s.idle) >= limit {
		return c.lib.Close()
	}
	c.expiry = time.AfterFunc(orDefault(s.IdleTime, 20*time.Second), func() { s.expire(c) })
	s.idle = append(s.idle, c)
	return nil
}

func (s *Store) expire(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.idle, c); i >= 0 {
		s.idle = slices.Delete(s.idle, i, i+1)
		_ = c.lib.Close() // it was only being kept
	}
}

// Close closes the connections that are kept. Deliveries under way go on.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, c := range s.idle {
		c.expiry.Stop()
		errs = append(errs, c.lib.Close())
	}
	s.idle = nil
	return errors.Join(errs...)
}
