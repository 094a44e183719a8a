// Command limits is a check of pecd: it refuses messages of users who sent as many
// as they may in an hour or a day, or to as many recipients. That is a provider's
// own policy, against mailboxes whose password was stolen; RFC 6109 knows nothing
// of it.
//
// What counts is what it let pass, for the user who logged in: a message that it
// refuses counts for nothing, one that another check or the access point refuses
// has counted. The counts outlive pecd in a file of the plugin's state directory. When the power
// fails, those of the last half minute may be lost.
//
// A message that is offered again counts once: the client of a user whose message
// was put off, because the virus scanner was down, say, tries and tries.
package main

import (
	"context"
	"errors"
	"time"
	_ "time/tzdata" // a day must not depend on the host's files

	"pecd/plugins/sdk"
	"pecd/points"
)

func main() { sdk.Main(plugin) }

var plugin = sdk.Plugin{
	Name:    "limits",
	Version: "1.0.0",
	About:   "limits how much a sender may send in an hour and a day",
	Keys:    keys,
	Open:    open,
}

// open implements sdk.Plugin. It reads the counts of today.
func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	s := defaults()
	if err := errors.Join(c.Decode(&s), s.check(c)); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return nil, c.Problem("timezone", "there is no such time zone", `write for example "Europe/Rome"`)
	}
	l := &limiter{settings: s, book: newBook(zone, time.Now()), now: time.Now, log: c.Log()}
	if c.Dry() {
		return sdk.Check(l.check, points.Submission), nil
	}
	if dir := c.State(); dir == "" {
		c.Log().Warn("there is no state directory: counts end with the program")
	} else if l.journal, err = openJournal(dir, l.book, c.Log()); err != nil {
		return nil, c.Problem("", "the counts cannot be read or written: "+err.Error(), "look at the plugin's state directory "+dir)
	}
	return sdk.Check(l.check, points.Submission).WithClose(l.close), nil
}
