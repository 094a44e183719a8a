package main

import (
	"pecd/cmd/pecd/config"
	"pecd/milter"
)

// accessOptions are those of the door for submissions.
func accessOptions(share *doors, c config.Access, observe func(string)) milter.Options {
	return milter.Options{Backend: accessDoor{share}, Log: share.log, MaxMessage: c.NoticeSize, TooLarge: tooLarge(c.MaxSize),
		LargeHeader: largeHeader, Malformed: malformed, Observe: observe}
}

// gateOptions are those of the door at port 25. What the MTA cannot show there to the
// octet passes: it comes whole by LMTP, where the reception point decides. The To field
// of an envelope may be such a one, and its provider cannot send it otherwise.
func gateOptions(share *doors, observe func(string)) milter.Options {
	return milter.Options{Backend: gateDoor{share}, Log: share.log, LargeHeader: largeHeader,
		Malformed: milter.Verdict{Action: milter.Continue}, Observe: observe}
}
