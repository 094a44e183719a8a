package milter

import (
	"strings"

	gomilter "github.com/emersion/go-milter"
)

// maxReply is the length of a reply in octets. RFC 5321, 4.5.3.1.5 allows 512
// with the line end; the MTA may put something before it.
const maxReply = 480

// An answer is a packet to the MTA. Other than go-milter's own answers it never
// ends the session: go-milter would go on with a new one that has not heard the
// client's name, the sender and the recipients.
type answer struct {
	code byte
	data []byte
}

// Response implements gomilter.Response.
func (a answer) Response() *gomilter.Message {
	return &gomilter.Message{Code: a.code, Data: a.data}
}

// Continue implements gomilter.Response.
func (answer) Continue() bool { return true }

func (v Verdict) answer() answer {
	switch v.Action {
	case Continue:
		return answer{code: byte(gomilter.ActContinue)}
	case Discard:
		return answer{code: byte(gomilter.ActDiscard)}
	case Reject:
		return replyOr(v.Reply, '5', gomilter.ActReject)
	default:
		return replyOr(v.Reply, '4', gomilter.ActTempFail)
	}
}

// replyOr makes an answer with a text of ours, or the plain one if the text does
// not begin with a code of the class.
func replyOr(text string, class byte, plain gomilter.ActionCode) answer {
	text = oneLine(text)
	if len(text) < 4 || text[0] != class || !digit(text[1]) || !digit(text[2]) || text[3] != ' ' {
		return answer{code: byte(plain)}
	}
	// Both MTAs take "%%" for a "%"; Sendmail drops a text with a single one.
	text = strings.ReplaceAll(text, "%", "%%")
	return answer{code: byte(gomilter.ActReplyCode), data: append([]byte(text), 0)}
}

// oneLine returns text as at most maxReply octets of printable ASCII. Line ends
// and other controls become blanks, other characters question marks.
func oneLine(text string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(text) {
		switch {
		case r < ' ' || r == 0x7f:
			r = ' '
		case r > 0x7f:
			r = '?'
		}
		if b.Len() == maxReply {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
