package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	gomilter "github.com/emersion/go-milter"
)

// The most that comes with a command, in octets.
const (
	// Both MTAs send at most 65,535 octets of a body. A field that is longer than this
	// cannot be told as it was sent anyway (maxField).
	maxData   = 64 << 10
	maxMacros = 64 << 10 // of which few are kept
	// Both MTAs read lines of at most 2,048 octets from their clients (Postfix:
	// line_length_limit), and tell of one line each with CONNECT, HELO, MAIL and RCPT.
	maxLine = 8 << 10
	// A longer field is still read to its end, but not kept. Postfix: header_size_limit,
	// 100 KiB; Sendmail: MaxHeadersLength, 32 KiB.
	maxLongField = 1 << 20
	// Values of macros are kept until their command comes, and while they hold.
	maxKeptMacros = 4 << 10
)

// mostData is how many octets are read with a command.
func mostData(code gomilter.Code) int {
	switch code {
	case gomilter.CodeBody, gomilter.CodeHeader:
		return maxData
	case gomilter.CodeMacro:
		return maxMacros
	default:
		return maxLine
	}
}

var (
	errPacket = errors.New("malformed packet")
	errOldMTA = errors.New("the MTA does not offer what a faithful copy needs")
)

// neededOffers must be among the protocol options that the MTA offers. go-milter
// does not look at them, and an MTA that ignored ours would wait for answers that
// do not come, or hide blanks of header fields.
const neededOffers = gomilter.OptHeaderLeadingSpace | gomilter.OptNoUnknown | gomilter.OptNoData |
	gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoRcptReply |
	gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply

// macrosWanted is what we ask for at each stage. Postfix knows the queue id
// ("i") from DATA on, Sendmail at MAIL only.
var macrosWanted = map[gomilter.Stage][]string{
	gomilter.StageConnect:  {"j", "{daemon_name}", "{client_addr}", "{client_name}"},
	gomilter.StageHelo:     {"{tls_version}"},
	gomilter.StageMailFrom: {"i", "{auth_type}", "{auth_authen}", "{client_addr}", "{client_name}"},
	gomilter.StageRcptTo:   {"i"},
	gomilter.StageData:     {"i"},
	gomilter.StageEOH:      {"i"},
	gomilter.StageEOM:      {"i"},
}

// wanted are all names of macrosWanted: an MTA may know a value at another stage.
var wanted = func() map[string]bool {
	all := map[string]bool{}
	for _, names := range macrosWanted {
		for _, name := range names {
			all[name] = true
		}
	}
	return all
}()

// macros are the values that the MTA sent for one command, by their names with
// braces. Those that nobody asked for are not among them.
type macros map[string]string

// parseMacros reads the payload of a macro packet.
func parseMacros(data []byte) (gomilter.Code, macros, error) {
	if len(data) == 0 || len(data) > maxMacros {
		return 0, nil, fmt.Errorf("%w: macros of %d octets", errPacket, len(data))
	}
	m, kept := macros{}, 0
	for name, rest := []byte(nil), data[1:]; len(rest) > 0; {
		var value []byte
		name, rest, _ = bytes.Cut(rest, []byte{0})
		value, rest, _ = bytes.Cut(rest, []byte{0})
		if wanted[string(name)] {
			m[string(name)] = string(value)
			kept += len(value)
		}
	}
	if kept > maxKeptMacros {
		return 0, nil, fmt.Errorf("%w: values of macros of %d octets", errPacket, kept)
	}
	return gomilter.Code(data[0]), m, nil
}

// hasMacros reports whether macros of the command are taken from those that arrived;
// others are not kept for it.
func hasMacros(code gomilter.Code) bool {
	return code == gomilter.CodeConn || code == gomilter.CodeHelo || slices.Contains(stages, code)
}

// checkConnect reports whether go-milter can read a CONNECT packet. It would
// answer some malformed ones, although no answer is due, and with one that makes
// it forget its session.
func checkConnect(data []byte) error {
	_, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(rest) == 0 {
		return fmt.Errorf("%w: CONNECT", errPacket)
	}
	if family := rest[0]; (family == '4' || family == '6') && len(rest) < 3 {
		return fmt.Errorf("%w: CONNECT without a port", errPacket)
	}
	return nil
}

// checkOffers refuses an MTA that could not do what we are going to ask for.
func checkOffers(data []byte) error {
	if len(data) < 12 {
		return fmt.Errorf("%w: negotiation", errPacket)
	}
	version := binary.BigEndian.Uint32(data)
	actions := gomilter.OptAction(binary.BigEndian.Uint32(data[4:]))
	offers := gomilter.OptProtocol(binary.BigEndian.Uint32(data[8:]))
	if version < 6 || offers&neededOffers != neededOffers || actions&gomilter.OptSetSymList == 0 {
		return fmt.Errorf("%w: version %d, actions %#x, protocol %#x", errOldMTA, version, actions, offers)
	}
	return nil
}

// parseField reads the payload of a header packet, and reports whether it is a field
// that can be written as it was sent. A NUL in name or value is not, nor line ends that
// are no folds, which would make two fields of one.
func parseField(data []byte) (name, value []byte, whole bool) {
	name, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(name) == 0 || bytes.ContainsAny(name, ":\r\n") {
		return nil, nil, false
	}
	value, more, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(more) > 0 {
		return nil, nil, false
	}
	for lines := value; ; {
		_, after, fold := bytes.Cut(lines, []byte{'\n'})
		if !fold {
			return name, value, true
		}
		if len(after) == 0 || after[0] != ' ' && after[0] != '\t' {
			return nil, nil, false
		}
		lines = after
	}
}
