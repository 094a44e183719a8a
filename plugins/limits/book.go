package main

import "time"

// A book holds the counts of one day. It is guarded by its owner.
type book struct {
	zone    *time.Location
	day     string    // as in "2026-11-22"
	last    time.Time // the latest instant, which is in that day
	senders map[string]*counts
}

// counts are those of one sender.
type counts struct {
	hour       int64 // which full hour inHour counts: hours since 1970
	inHour     int
	messages   int
	recipients int
	seen       map[mark]int // how often messages came
}

// A mark tells messages apart; zero is a message that cannot be told.
type mark uint64

// An entry is a message that was let pass.
type entry struct {
	at         time.Time
	sender     string
	recipients int
	mark       mark
}

func newBook(zone *time.Location, at time.Time) *book {
	b := &book{zone: zone}
	b.turn(at)
	return b
}

// maxBack is how far a clock may be put back in the course of things. One that goes
// further back was wrong before.
const maxBack = time.Hour

// turn begins a new day if at is in one, and reports whether it did. A clock that
// is put back a little begins no day again; one that had jumped ahead does, or
// the counts of that day would add up until it comes.
func (b *book) turn(at time.Time) bool {
	if back := b.last.Sub(at); back > 0 && back <= maxBack {
		return false
	}
	b.last = at
	day := at.In(b.zone).Format(time.DateOnly)
	if day == b.day {
		return false
	}
	b.day, b.senders = day, map[string]*counts{}
	return true
}

// of are the counts of a sender, as they stand at an instant.
func (b *book) of(sender string, at time.Time) *counts {
	c := b.senders[sender]
	if c == nil {
		c = &counts{seen: map[mark]int{}}
		b.senders[sender] = c
	}
	// The hour before is one of a clock that was put back a little.
	if hour := at.Unix() / 3600; hour > c.hour || hour < c.hour-1 {
		c.hour, c.inHour = hour, 0
	}
	return c
}

// maxRepeats is how often a message may come again without being counted. Clients
// offer a message anew that was put off, because the virus scanner was down, say:
// that must not use up what the user may send. A program that sends ever the same
// message is limited all the same.
const maxRepeats = 20

// repeated reports whether e is a message that came before and does not count.
func (c *counts) repeated(e entry) bool {
	n := c.seen[e.mark]
	return e.mark != 0 && n > 0 && n <= maxRepeats
}

// add counts e.
func (b *book) add(e entry) {
	c := b.of(e.sender, e.at)
	again := c.repeated(e)
	if e.mark != 0 {
		c.seen[e.mark]++
	}
	if again {
		return
	}
	c.messages++
	c.recipients += e.recipients
	c.inHour++
}
