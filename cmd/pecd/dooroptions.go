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

// gateOptions are those of the door at port 25.
func gateOptions(share *doors, observe func(string)) milter.Options {
	gate := gateDoor{share}
	return milter.Options{Backend: gate, Log: share.log, LargeHeader: largeHeader, MalformedFrom: gate.malformed, Observe: observe}
}
