// Command attachments is a check of pecd: it refuses messages by the media types
// and the file names of what they carry, in attached messages and in zip archives
// too. That is a provider's own policy, which RFC 6109 knows nothing of.
//
// It reads what senders say of their attachments, and no content but the
// directories of archives: it is no virus scanner. It reads no archives but zip,
// and no uuencoded text. Everything it does is bounded; a message that needs more
// is treated as the setting "unreadable" says.
package main

import (
	"context"
	"errors"

	"pecd/plugins/sdk"
)

func main() { sdk.Main(plugin) }

var plugin = sdk.Plugin{
	Name:    "attachments",
	Version: "1.0.0",
	About:   "refuses attachments by media type and file name, in zip archives too",
	Keys:    keys,
	Open:    open,
}

// open implements sdk.Plugin.
func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	s := defaults()
	if err := errors.Join(c.Decode(&s), s.check(c)); err != nil {
		return nil, err
	}
	f := &filter{settings: s, unpack: maxUnpacked, temp: c.State()}
	return sdk.Check(f.check, s.Stages...), nil
}
