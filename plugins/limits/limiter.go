package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"pecd/pec"
	"pecd/plugins/sdk"
	"pecd/points"
)

// A limiter is the check. It may be used concurrently.
type limiter struct {
	settings settings
	now      func() time.Time
	log      *slog.Logger

	mu      sync.Mutex // guards what follows
	book    *book
	journal *journal             // nil without a state directory
	told    map[pec.Address]bool // logins for which an entry was found that does not count
}

// check counts m, or refuses it.
func (l *limiter) check(_ context.Context, m *sdk.Message) (points.Finding, error) {
	// Who is not logged in is for the access point to refuse.
	if m.Login == "" {
		return sdk.Clean(), nil
	}
	sender := payer(m)
	l.tell(sender, m.Sender)
	if l.settings.exempt(sender) {
		return sdk.Clean(), nil
	}
	// A mark costs reading the header, so it is made before the lock is held.
	e := entry{sender: names(sender)[0], recipients: len(m.Recipients), mark: markOf(m)}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.at = l.now()
	l.turn(e.at)
	c := l.book.of(e.sender, e.at)
	if f, over := c.over(l.settings.quota(sender), e); over {
		return f, nil
	}
	l.book.add(e)
	l.write(e)
	return sdk.Clean(), nil
}

// payer is whose message m is: who logged in. The sender of the envelope is what he
// says, and the access point looks at it only later: were it counted, any user
// could use up what another may send. It counts where logins are no addresses and
// only the MTA knows whose they are.
func payer(m *sdk.Message) pec.Address {
	if strings.Contains(m.Login, "@") || m.Sender == "" {
		return pec.Address(m.Login)
	}
	return m.Sender
}

// tell tells, once for each login, that settings name the sender of the envelope and not
// who logged in: where the MTA lets logins send as other addresses, somebody may take the
// entry for his. It names the entry alone, which is in the configuration anyway.
func (l *limiter) tell(payer, sender pec.Address) {
	if payer == sender {
		return
	}
	who := l.settings.entry(sender)
	if who == "" || l.settings.entry(payer) != "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	login := pec.Address(names(payer)[0])
	if l.told[login] {
		return
	}
	if l.told == nil {
		l.told = make(map[pec.Address]bool)
	}
	l.told[login] = true
	l.log.Warn("an entry names a sender who logs in otherwise: it does not count", "entry", who)
}

// turn begins the new day if there is one.
func (l *limiter) turn(at time.Time) {
	if !l.book.turn(at) || l.journal == nil {
		return
	}
	if err := l.journal.begin(nil); err != nil {
		l.log.Error("the counts of the old day cannot be taken away", "error", err)
	}
}

// write makes the journal follow the book. Where it cannot, the counts hold until
// the program ends; no message waits for them.
func (l *limiter) write(e entry) {
	if l.journal == nil {
		return
	}
	if err := l.journal.add(e); err != nil {
		l.log.Error("counts cannot be written, and will be lost when the plugin ends", "error", err)
	}
}

// close implements io.Closer.
func (l *limiter) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	return l.journal.close()
}

// over refuses e if it is over what its sender may.
func (c *counts) over(q quota, e entry) (points.Finding, bool) {
	limit := func(n int, italian, english string) (points.Finding, bool) {
		return sdk.Refuse(fmt.Sprintf("Raggiunto il limite di "+italian+".", n), fmt.Sprintf("The limit is reached: "+english+".", n)), true
	}
	switch {
	case c.repeated(e):
		return points.Finding{}, false
	case q.hour > 0 && c.inHour >= q.hour:
		return limit(q.hour, "%d messaggi all'ora", "%d messages per hour")
	case q.day > 0 && c.messages >= q.day:
		return limit(q.day, "%d messaggi al giorno", "%d messages per day")
	case q.recipients > 0 && c.recipients+e.recipients > q.recipients:
		return limit(q.recipients, "%d destinatari al giorno", "%d recipients per day")
	}
	return points.Finding{}, false
}

// markOf tells a message that is offered again from others: by its Message-ID, its
// size and its recipients. Without a Message-ID each is another.
func markOf(m *sdk.Message) mark {
	header, err := m.Header()
	if err != nil || header.Get("Message-ID") == "" {
		return 0
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %d", header.Get("Message-ID"), m.Size)
	for _, r := range m.Recipients {
		fmt.Fprintf(h, " %q", r.Address)
	}
	return mark(binary.BigEndian.Uint64(h.Sum(nil)))
}
