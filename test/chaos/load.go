package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A sending is one message and what its client heard of it.
type sending struct {
	MsgID    string   `json:"msgid"` // with its brackets
	From     string   `json:"from"`
	To       []string `json:"to"`
	File     string   `json:"file"`     // the message as it was sent
	Accepted []span   `json:"accepted"` // attempts to which 250 was heard
	Unknown  []span   `json:"unknown"`  // attempts whose reply was lost
	Heard    []string `json:"heard"`    // of each attempt that came to nothing: when, and what was heard
}

// A span is when something began and ended, in seconds since 1970.
type span [2]float64

// Users of the stage: who sends, and who gets.
var (
	users    = []string{"alice@alfa.example", "anna@alfa.example", "bob@beta.example", "bruna@beta.example"}
	nobody   = []string{"nessuno@alfa.example", "nessuno@beta.example"}
	ordinary = []string{"mario@ordinary.example"}
)

// load sends all messages: as many of them as of the faults are over, and the rest
// when these are. A client that was put off, or whose connection broke, tries again
// with the same message, as clients do.
func (w *world) load(ctx context.Context, over <-chan struct{}) error {
	g, ctx := errgroup.WithContext(ctx)
	for k := range w.senders {
		random := rand.New(rand.NewPCG(w.seed, uint64(1000+k)))
		g.Go(func() error {
			for {
				n := w.numbers.Add(1)
				if w.until.IsZero() && n > int64(w.messages) || !w.until.IsZero() && time.Now().After(w.until) {
					return nil
				}
				if !w.turn(ctx, over, n) {
					return ctx.Err()
				}
				s, err := w.compose(random, k, n)
				if err != nil {
					return err
				}
				if err := w.deliver(ctx, &s, over); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// turn waits until message n is due.
func (w *world) turn(ctx context.Context, over <-chan struct{}, n int64) bool {
	if w.pace != nil {
		select {
		case <-w.pace:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case <-over:
			return true
		default:
		}
		if w.faults == 0 || n <= int64(w.messages)*(w.broken.Load()+1)/int64(w.faults) {
			return true
		}
		if !pause(ctx, 50*time.Millisecond) {
			return false
		}
	}
}

// compose writes a message for some recipients, with a wish for a kind of receipt,
// small mostly.
func (w *world) compose(random *rand.Rand, k int, n int64) (sending, error) {
	s := sending{MsgID: fmt.Sprintf("<caos-%d-%d@client.example>", w.seed, n), From: users[random.IntN(len(users))]}
	all := slices.Concat(users, users, ordinary)
	if random.IntN(5) == 0 {
		all = append(all, nobody...)
	}
	for range 1 + random.IntN(3) {
		to := all[random.IntN(len(all))]
		if !slices.Contains(s.To, to) {
			s.To = append(s.To, to)
		}
	}
	lines := random.IntN(60)
	switch random.IntN(40) {
	case 0:
		lines = 20_000 // 2 MB
	case 1, 2, 3:
		lines = 2_000 // past what the store keeps in the database
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "Message-ID: %s\r\nFrom: %s\r\nTo: %s\r\nSubject: caos %d\r\nDate: Sun, 22 Nov 2026 10:45:36 +0100\r\n",
		s.MsgID, s.From, strings.Join(s.To, ", "), n)
	// What is not ASCII stays as it is, in whatever charset.
	letters := []struct{ charset, text string }{{"", "qualita'"}, {"UTF-8", "qualità, perché, 100 €"}, {"ISO-8859-1", "qualit\xe0, perch\xe9"}}[random.IntN(3)]
	if letters.charset != "" {
		fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: 8bit\r\n", letters.charset)
	}
	if kind := []string{"completa", "completa", "breve", "sintetica"}[random.IntN(4)]; kind != "completa" {
		fmt.Fprintf(&b, "X-TipoRicevuta: %s\r\n", kind)
	}
	fmt.Fprintf(&b, "\r\nMessaggio %d di %d, client %d: %s.\r\n", n, w.seed, k, letters.text)
	for i := range lines {
		fmt.Fprintf(&b, "%d.%d: %x\r\n", n, i, random.Uint64())
		b.WriteString(".una riga che comincia con un punto, e poi altro testo per fare peso\r\n")
	}
	s.File = filepath.Join(w.dir, "sent", fmt.Sprint(n))
	return s, os.WriteFile(s.File, b.Bytes(), 0o644)
}

// deliver sends s until its client hears 250, and writes down what it heard. Nobody has
// patience for ever: when nothing has been broken for so long as all may take to come to
// rest, the run is over.
func (w *world) deliver(ctx context.Context, s *sending, over <-chan struct{}) error {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sendings = append(w.sendings, *s)
	}()
	raw, err := os.ReadFile(s.File)
	if err != nil {
		return err
	}
	var whole time.Time // since when nothing is broken
	for {
		select {
		case <-over:
			if whole.IsZero() {
				whole = time.Now()
			}
		default:
		}
		begin := time.Now()
		taken, lost, err := w.attempt(ctx, s, raw)
		if taken {
			s.Accepted = append(s.Accepted, span{seconds(begin), seconds(time.Now())})
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lost {
			s.Unknown = append(s.Unknown, span{seconds(begin), seconds(time.Now())})
		}
		w.disappointed(lost, err)
		s.Heard = append(s.Heard, fmt.Sprintf("%s %v", time.Now().Format(time.TimeOnly), err))
		var reply *textproto.Error
		if errors.As(err, &reply) && reply.Code/100 == 5 {
			return fmt.Errorf("%s was refused for good: %w", s.MsgID, err)
		}
		if !whole.IsZero() && time.Since(whole) > w.settle {
			return fmt.Errorf("%w: %s was not accepted within %s, and nothing is broken; its client heard: %s", errViolation, s.MsgID, w.settle, strings.Join(s.Heard, "; "))
		}
		if !pause(ctx, 300*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// errViolation says that pecd broke a promise before the judge was asked.
var errViolation = errors.New("violation")

// disappointed counts an attempt that came to nothing. In a soak none may.
func (w *world) disappointed(lost bool, err error) {
	w.putOff.Add(1)
	if w.faults > 0 {
		return
	}
	word := "put off"
	if lost {
		word = "left without a reply"
	}
	w.violated(fmt.Sprintf("a client was %s at %s, and nothing was broken: %v", word, time.Now().Format(time.TimeOnly), err))
}

// attempt is one session. lost: all was sent, and what pecd said to it did not come.
func (w *world) attempt(ctx context.Context, s *sending, raw []byte) (taken, lost bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	c, err := w.stage.Login(ctx, s.From)
	if err != nil {
		return false, false, err
	}
	defer c.Close()
	if _, err = c.Send(s.From, s.To, raw); err == nil {
		return true, false, nil
	}
	var reply *textproto.Error
	// Before the content nothing can have been taken.
	early := slices.ContainsFunc([]string{"MAIL FROM", "RCPT TO", "DATA:"}, func(p string) bool { return strings.HasPrefix(err.Error(), p) })
	lost = !errors.As(err, &reply) && !early
	// Between pecd and Postfix a reply can be lost too. Then the client hears what
	// Postfix says by itself, after all was sent.
	if strings.HasPrefix(err.Error(), "end of message") && reply != nil && reply.Code == 451 &&
		slices.ContainsFunc(postfixAlone, func(words string) bool { return strings.Contains(reply.Msg, words) }) {
		lost = true
		w.mu.Lock()
		w.heard[fmt.Sprintf("%d %s", reply.Code, reply.Msg)]++
		w.mu.Unlock()
	}
	return false, lost, err
}

// postfixAlone is what Postfix says where its milter is not there, and where its own
// cleanup died while pecd took the message.
var postfixAlone = []string{"4.7.1 Service unavailable", "4.3.0 Error: queue file write error"}

// clientPatience is longer than any timeout of Postfix towards a milter that a run
// meets, so that it is Postfix who gives up.
const clientPatience = 2 * time.Minute

// pause waits; false: ctx was done first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
