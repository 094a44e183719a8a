package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxReply bounds an answer of clamd in octets. VERSIONCOMMANDS, its longest, has
// 200.
const maxReply = 4 << 10

var (
	// errReply says that clamd answered what this plugin does not know.
	errReply = errors.New("clamd's answer is not understood")
	// errTooLarge says that clamd takes no stream of that size (StreamMaxLength).
	errTooLarge = errors.New("over clamd's limit")
)

// A reply is what clamd says of a stream. Virus is empty if it found none.
type reply struct{ virus string }

// parseReply reads the answer to the n-th command of a session, without the NUL
// at its end, in the words of clamd 0.96 to 1.4:
//
//	n: stream: OK
//	n: stream: NAME FOUND
//	n: INSTREAM size limit exceeded. ERROR
//
// Anything else is errReply: clean is only what says so.
func parseReply(line string, n int) (reply, error) {
	text, ok := strings.CutPrefix(line, strconv.Itoa(n)+": ")
	if !ok && strings.HasPrefix(line, "INSTREAM ") { // it has no number in some versions
		text = line
	} else if !ok {
		return reply{}, fmt.Errorf("%w: %.200q", errReply, line)
	}
	if text == "INSTREAM size limit exceeded. ERROR" {
		return reply{}, errTooLarge
	}
	text, stream := strings.CutPrefix(text, "stream: ")
	name, found := strings.CutSuffix(text, " FOUND")
	switch {
	case stream && text == "OK":
		return reply{}, nil
	case stream && found && name != "":
		return reply{virus: virusName(name)}, nil
	}
	return reply{}, fmt.Errorf("%w: %.200q", errReply, line)
}

// maxVirus bounds a virus' name in octets, as the protocol of plugins does.
const maxVirus = 200

// virusName is name in printable ASCII: it goes into notices that are signed.
func virusName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
	return name[:min(len(name), maxVirus)]
}

// suspicion reports whether name is a guess of clamd's and no signature of a
// virus.
func suspicion(name string) bool {
	return strings.HasPrefix(name, "Heuristics.") || strings.HasPrefix(name, "PUA.")
}

// exceeded reports whether name says that clamd left out some of the stream.
func exceeded(name string) bool { return strings.HasPrefix(name, "Heuristics.Limits.Exceeded") }
