package socket

import (
	"io"
	"time"
)

// A Trickle reads what comes in items, such as packets, or command lines (the content of a
// message is one with its DATA). Who sends an item a few
// octets at a time wakes its reader for each of them, so after some such reads it waits
// ever longer before the next one, and finds more at once: hundreds of slow strangers then
// take little of the processors from those who speak as the MTA does, in whole items. It
// may not be used concurrently.
type Trickle struct {
	r     io.Reader
	sleep func(time.Duration)
	few   int // reads of the item, one after another, that found few octets
}

// few octets are less than fewOctets; fewReads such reads are let pass, since one who
// writes the length of a packet and the packet is no stranger.
const (
	fewOctets = 32
	fewReads  = 4
	firstNap  = 50 * time.Millisecond
	// longNap is the most. By as much a timeout may come late, or be shorter than it was
	// meant: what came during the nap is not read after it.
	longNap = 800 * time.Millisecond
)

// NewTrickle returns a Trickle over r that waits with sleep.
func NewTrickle(r io.Reader, sleep func(time.Duration)) *Trickle {
	return &Trickle{r: r, sleep: sleep}
}

// Next says that an item begins.
func (t *Trickle) Next() { t.few = 0 }

// Read reads what there is, but may wait before.
func (t *Trickle) Read(p []byte) (int, error) {
	if more := t.few - fewReads; more >= 0 {
		t.sleep(min(firstNap<<min(more, 10), longNap))
	}
	n, err := t.r.Read(p)
	if n < fewOctets {
		t.few++
	} else {
		t.few = 0
	}
	return n, err
}
