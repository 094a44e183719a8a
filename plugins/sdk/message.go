package sdk

import (
	"bytes"
	"fmt"
	"io"
	"net/mail"
	"os"

	"pecd/pec"
	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
)

// A Message is a message with its circumstances. Addresses are as they came and
// may hold any octets.
type Message struct {
	Stage      points.Stage
	Identifier pec.Identifier // the provider's own; empty if it has none yet
	Login      string         // who authenticated; empty if nobody did
	Client     string         // IP address of the SMTP client; empty if not known
	TLS        string         // version of TLS; empty without, or if not known
	QueueID    string         // the MTA's; empty if not known
	Sender     pec.Address    // SMTP reverse path; empty for notifications
	Recipients []pec.Recipient
	Size       int64 // octets
	Facts      message.Facts

	content *pluginv1.Message
}

// NewMessage returns a message of the given octets, for tests of plugins, which
// set the other fields themselves.
func NewMessage(stage points.Stage, content []byte) *Message {
	var s message.Scanner
	s.Write(content) // a Scanner never fails
	n := int64(len(content))
	return &Message{Stage: stage, Size: n, Facts: s.Facts(),
		content: &pluginv1.Message{Content: &pluginv1.Message_Inline{Inline: content}, Size: n}}
}

// A Reader reads a message. It is for one goroutine, but for ReadAt. It is a
// message.Source, so that package message reads it as MIME.
type Reader interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
	Size() int64
}

// Open returns a reader over the message, at its beginning. It can be called
// until the check returns, several times; each reader is to be closed.
func (m *Message) Open() (Reader, error) { return OpenContent(m.content) }

// OpenContent returns a reader over a message of the protocol.
func OpenContent(m *pluginv1.Message) (Reader, error) {
	switch c := m.GetContent().(type) {
	case *pluginv1.Message_Inline:
		return inline{bytes.NewReader(c.Inline)}, nil
	case *pluginv1.Message_Path:
		f, err := os.Open(c.Path)
		if err != nil {
			return nil, fmt.Errorf("the message cannot be opened: %w", err)
		}
		return file{io.NewSectionReader(f, m.GetOffset(), m.GetSize()), f}, nil
	}
	return nil, fmt.Errorf("the message has no content")
}

type inline struct{ *bytes.Reader }

func (inline) Close() error { return nil }

type file struct {
	*io.SectionReader
	io.Closer
}

// maxHeader bounds the header that Header reads, in octets.
const maxHeader = 1 << 20

// Header returns the fields of the header. For fields as they stand, for their
// order, and for MIME parts read the message with package message.
func (m *Message) Header() (mail.Header, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	msg, err := mail.ReadMessage(io.LimitReader(r, maxHeader))
	if err != nil {
		return nil, fmt.Errorf("the header cannot be read: %w", err)
	}
	return msg.Header, nil
}
