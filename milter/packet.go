package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	gomilter "github.com/emersion/go-milter"
)

// maxPacket is the largest packet in octets, its command included. MTAs send at
// most 64 KiB of a body, and header fields of at most 100 KiB (Postfix:
// header_size_limit).
const maxPacket = 1 << 20

// maxMacros is the same for macros; they are kept until their command comes.
const maxMacros = 64 << 10

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

// macros are the values that the MTA sent for one command, by their names with
// braces.
type macros map[string]string

// parseMacros reads the payload of a macro packet.
func parseMacros(data []byte) (gomilter.Code, macros, error) {
	if len(data) == 0 || len(data) > maxMacros {
		return 0, nil, fmt.Errorf("%w: macros of %d octets", errPacket, len(data))
	}
	words := bytes.Split(bytes.TrimSuffix(data[1:], []byte{0}), []byte{0})
	m := make(macros, len(words)/2)
	for i := 0; i+1 < len(words); i += 2 {
		m[string(words[i])] = string(words[i+1])
	}
	return gomilter.Code(data[0]), m, nil
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

// fieldIsWhole reports whether a header packet holds a field that can be written
// as it was sent. It refuses a NUL in name or value, which go-milter drops or
// takes as a reason to leave the field out, and line ends that are no folds,
// which would make two fields of one.
func fieldIsWhole(data []byte) bool {
	name, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(name) == 0 || bytes.ContainsAny(name, ":\r\n") {
		return false
	}
	value, more, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(more) > 0 {
		return false
	}
	for {
		_, after, fold := bytes.Cut(value, []byte{'\n'})
		if !fold {
			return true
		}
		if len(after) == 0 || after[0] != ' ' && after[0] != '\t' {
			return false
		}
		value = after
	}
}
