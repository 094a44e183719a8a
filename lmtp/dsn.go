package lmtp

import (
	"bytes"
	"regexp"
)

// What go-smtp takes of ORCPT and ENVID (RFC 3461): xtext of printable ASCII, and of
// addresses of type utf-8 (RFC 6533) those without an escape.
var (
	goodENVID = regexp.MustCompile(`(?i)^ENVID=` + xtext + `$`)
	goodORCPT = regexp.MustCompile(`(?i)^ORCPT=(rfc822;` + xtext + `|utf-8;[^\\+=\x00-\x20\x7f]+)$`)
)

const xtext = `([!-*,-<>-~]|\+(?-i:[2-6][0-9A-F]|7[0-9A-E]))+`

// withoutBadNames returns a MAIL or RCPT line without an ORCPT or ENVID that go-smtp would
// refuse, and the recipient, or the message, for good with it: the MTA passes on what the
// sender's server said, of any address type and with octets beyond ASCII. They only name things
// in reports of delivery, and we send none.
func withoutBadNames(line []byte) []byte {
	if !names(line) {
		return line
	}
	// A quoted local part may hold what looks like a parameter. If a parameter holds a ">",
	// what stands before is left as it is.
	at := bytes.LastIndexByte(line, '>') + 1
	if at == 0 {
		return line
	}
	good, all := bytes.Clone(line[:at]), true
	for _, p := range bytes.Fields(line[at:]) {
		named := func(name string) bool { return len(p) >= len(name) && bytes.EqualFold(p[:len(name)], []byte(name)) }
		if named("ORCPT=") && !goodORCPT.Match(p) || named("ENVID=") && !goodENVID.Match(p) {
			all = false
			continue
		}
		good = append(append(good, ' '), p...)
	}
	if all {
		return line
	}
	return append(good, '\r', '\n')
}

// names reports whether a command that begins with b names sender or recipient.
func names(b []byte) bool {
	return len(b) >= 4 && (bytes.EqualFold(b[:4], []byte("RCPT")) || bytes.EqualFold(b[:4], []byte("MAIL")))
}
