// Command clamav is a check of pecd: it has clamd of ClamAV look at messages for
// viruses, as the rules demand of every provider (RFC 6109, 2.2.1 and 2.2.2).
//
// It holds no signatures and decides about nothing: a virus that clamd names is
// the finding "infected", and what follows is for pecd's points to say. Only an
// answer of clamd that is understood to the last octet counts. Whatever else
// happens (clamd is down, slow, restarted, or says something new) is doubt: the
// message is put off, never taken for clean.
//
// clamd gets the whole message, and then each of its parts with the transfer
// encoding undone. Its own reading of MIME ends silently at a depth that senders
// can choose to go beyond, and knows no attached message that is encoded.
package main

import (
	"context"
	"errors"

	"pecd/plugins/sdk"
)

func main() { sdk.Main(plugin) }

var plugin = sdk.Plugin{
	Name:    "clamav",
	Version: "1.0.0",
	About:   "has ClamAV's clamd look for viruses",
	Keys:    keys,
	Open:    open,
}

// open implements sdk.Plugin. It does not ask clamd: pecd may start before it,
// and what comes meanwhile is put off.
func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	s := defaults()
	if err := errors.Join(c.Decode(&s), s.check(c)); err != nil {
		return nil, err
	}
	k := newScanner(s, c.State(), c.Log())
	return sdk.Check(k.check, s.Stages...).WithEngine(k.engine), nil
}
