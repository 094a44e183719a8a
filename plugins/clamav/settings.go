package main

import (
	"errors"
	"slices"
	"time"

	"pecd/milter/socket"
	"pecd/plugins/sdk"
	"pecd/points"
)

// settings are the plugin's table; keys is what they mean.
type settings struct {
	Socket      string         `json:"socket"`
	Timeout     sdk.Duration   `json:"timeout"`
	MaxSize     int64          `json:"max_size"`
	TooLarge    answer         `json:"too_large"`
	TooComplex  answer         `json:"too_complex"`
	Heuristics  answer         `json:"heuristics"`
	Connections int            `json:"connections"`
	Stages      []points.Stage `json:"stages"`
}

// An answer is what is done about a message of a certain sort.
type answer string

const (
	answerDefer    answer = "defer"    // put it off
	answerRefuse   answer = "refuse"   // the finding "refused"
	answerClean    answer = "clean"    // nothing
	answerInfected answer = "infected" // the finding "infected"
)

func defaults() settings {
	return settings{
		Socket:      "unix:/run/clamav/clamd.ctl",
		Timeout:     sdk.Duration(time.Minute),
		MaxSize:     256 << 20,
		TooLarge:    answerDefer,
		TooComplex:  answerRefuse,
		Heuristics:  answerRefuse,
		Connections: 8,
		Stages:      []points.Stage{points.Submission, points.Incoming},
	}
}

var keys = []sdk.Key{
	{Name: "socket", Type: `string, "unix:/path" or "inet:host:port"`, Default: `"unix:/run/clamav/clamd.ctl"`,
		About: "where clamd listens (LocalSocket, or TCPAddr and TCPSocket of clamd.conf); over inet the message travels in clear"},
	{Name: "timeout", Type: "duration", Default: `"60s"`,
		About: "how long one message may take, all its parts together; what takes longer is put off"},
	{Name: "max_size", Type: "integer, octets", Default: "268435456",
		About: "the largest message that is sent to clamd. What clamd itself takes is its StreamMaxLength, which Debian sets to 25M: raise it, with MaxFileSize and MaxScanSize, above the largest message that pecd takes"},
	{Name: "too_large", Type: `string, "defer", "refuse" or "clean"`, Default: `"defer"`,
		About: "what happens to a message that is over max_size or clamd's StreamMaxLength. The rules want every message looked at, and no sender is guilty of a limit that is set too low: so it waits, and the log tells you, until you raise the limit"},
	{Name: "too_complex", Type: `string, "refuse" or "clean"`, Default: `"refuse"`,
		About: "what happens to a message that cannot be looked at whole because of what it is: over 1,000 parts, nested too deep, or clamd says Heuristics.Limits.Exceeded. clamd says that only with AlertExceedsMax yes, which is recommended: without it clamd calls clean what it left out"},
	{Name: "heuristics", Type: `string, "infected", "refuse" or "clean"`, Default: `"refuse"`,
		About: "what happens to a message that clamd only suspects (names that begin with Heuristics. or PUA.): a guess is no virus, so by default no virus is certified and nobody gets the message"},
	{Name: "connections", Type: "integer", Default: "8",
		About: "how many messages clamd looks at at the same time; the others wait within their timeout; not over clamd's MaxThreads"},
	{Name: "stages", Type: `list of strings, of "submission", "incoming", "delivery"`, Default: `["submission", "incoming"]`,
		About: "at which moments messages are looked at; the rules want both of the default"},
}

// check returns what is wrong with s, all of it.
func (s settings) check(c sdk.Config) error {
	var all []error
	wrong := func(is bool, key, why, fix string) {
		if is {
			all = append(all, c.Problem(key, why, fix))
		}
	}
	_, _, err := socket.Parse(s.Socket)
	wrong(err != nil, "socket", "it is not an address", `write "unix:/path" or "inet:host:port"`)
	wrong(s.Timeout <= 0, "timeout", "it is not above zero", `write for example "60s"`)
	wrong(s.MaxSize <= 0, "max_size", "it is not above zero", "write clamd's StreamMaxLength in octets")
	wrong(!slices.Contains([]answer{answerDefer, answerRefuse, answerClean}, s.TooLarge), "too_large",
		"there is no such choice", `write "defer", "refuse" or "clean"`)
	wrong(!slices.Contains([]answer{answerRefuse, answerClean}, s.TooComplex), "too_complex",
		"there is no such choice", `write "refuse" or "clean"`)
	wrong(!slices.Contains([]answer{answerInfected, answerRefuse, answerClean}, s.Heuristics), "heuristics",
		"there is no such choice", `write "infected", "refuse" or "clean"`)
	wrong(s.Connections < 1 || s.Connections > 1000, "connections", "it is not between 1 and 1000", "write what MaxThreads of clamd.conf is, or less")
	wrong(len(s.Stages) == 0, "stages", "there is none", `write ["submission", "incoming"]`)
	for _, stage := range s.Stages {
		wrong(!slices.Contains(points.Stages, stage), "stages", "there is no such stage", `the stages are "submission", "incoming" and "delivery"`)
	}
	return errors.Join(all...)
}
