package milter

import (
	"context"
	"net"
	"net/textproto"
	"strings"

	gomilter "github.com/emersion/go-milter"
)

// A session is what go-milter calls for one connection of the MTA. All of it
// belongs to the connection's goroutine.
type session struct {
	s       *Server
	c       *conn
	pending map[gomilter.Code]macros // arrived; the command that they belong to has not
	client  client
	tx      *transaction // nil between messages
}

// A client is what CONNECT and HELO tell of the MTA's client.
type client struct {
	connect, helo macros
	name, addr    string
	heloName      string
}

// take returns the macros of the command that has just come. They hold for it
// alone: Postfix sends no packet when it has none, and those of an earlier message
// must not stand in.
func (s *session) take(code gomilter.Code) macros {
	m := s.pending[code]
	delete(s.pending, code)
	return m
}

// Connect implements gomilter.Milter. No answer is due.
func (s *session) Connect(host, _ string, _ uint16, addr net.IP, _ *gomilter.Modifier) (gomilter.Response, error) {
	s.client = client{connect: s.take(gomilter.CodeConn), name: host}
	if addr != nil {
		s.client.addr = addr.String()
	}
	return nil, nil
}

// Helo implements gomilter.Milter. After STARTTLS it comes again.
func (s *session) Helo(name string, _ *gomilter.Modifier) (gomilter.Response, error) {
	s.client.helo = s.take(gomilter.CodeHelo)
	s.client.heloName = name
	return nil, nil
}

// MailFrom implements gomilter.Milter. Sendmail sends no ABORT between messages.
func (s *session) MailFrom(from string, _ *gomilter.Modifier) (gomilter.Response, error) {
	s.drop()
	s.tx = newTransaction(s, from)
	s.tx.learn(gomilter.CodeMail)
	return nil, nil
}

// RcptTo implements gomilter.Milter. An answer is due only if the backend is
// asked.
func (s *session) RcptTo(to string, _ *gomilter.Modifier) (gomilter.Response, error) {
	if !s.inMessage(gomilter.CodeRcpt) {
		return nil, nil
	}
	s.tx.learn(gomilter.CodeRcpt)
	if s.s.check == nil {
		s.tx.addRecipient(to)
		return nil, nil
	}
	return s.tx.checkRecipient(to).answer(), nil
}

// field takes the packet of a header field. No answer is due.
func (s *session) field(data []byte) {
	if !s.inMessage(gomilter.CodeHeader) {
		return
	}
	s.tx.learn(gomilter.CodeHeader)
	name, value, whole := parseField(data)
	if !whole {
		s.tx.malformed()
		return
	}
	s.tx.field(name, value)
}

// Header implements gomilter.Milter. It is not called: go-milter sees no fields.
func (s *session) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}

// Headers implements gomilter.Milter: the end of the header. No answer is due.
func (s *session) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	if s.inMessage(gomilter.CodeEOH) {
		s.tx.learn(gomilter.CodeEOH)
		s.tx.endHeader()
	}
	return nil, nil
}

// BodyChunk implements gomilter.Milter. No answer is due.
func (s *session) BodyChunk(chunk []byte, _ *gomilter.Modifier) (gomilter.Response, error) {
	if s.inMessage(gomilter.CodeBody) {
		s.tx.learn(gomilter.CodeBody)
		s.tx.body(chunk)
	}
	return nil, nil
}

// Body implements gomilter.Milter: the end of the message.
func (s *session) Body(*gomilter.Modifier) (gomilter.Response, error) {
	if !s.inMessage(gomilter.CodeEOB) {
		return nil, nil
	}
	s.tx.learn(gomilter.CodeEOB)
	v := s.tx.end()
	s.tx.forgetRecipients()
	s.tx = nil
	s.c.idle()
	s.s.opts.Observe(v.Action.String())
	return v.answer(), nil
}

// Abort implements gomilter.Milter. Postfix sends it after each message too.
func (s *session) Abort(*gomilter.Modifier) error {
	s.drop()
	s.c.idle()
	return nil
}

// inMessage reports whether the command came within a message; if not, the
// connection ends.
func (s *session) inMessage(code gomilter.Code) bool {
	if s.tx == nil {
		s.c.fail(errOutside(code))
		return false
	}
	return true
}

// drop gives up the message under way, if there is one.
func (s *session) drop() {
	if s.tx != nil {
		s.s.opts.Observe(EventAbort)
		s.tx.abort()
		s.tx.forgetRecipients()
		s.tx = nil
	}
}

// forget drops the message and all that is known of the client.
func (s *session) forget() {
	s.drop()
	s.c.idle()
	s.client = client{}
	clear(s.pending)
}

func (s *session) underWay() bool { return s.tx != nil }

func (s *session) queueID() string {
	if s.tx == nil {
		return ""
	}
	return s.tx.macro("i")
}

// context returns the context for one call of the backend.
func (s *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.s.keep.Context(), s.s.opts.EndTimeout)
}

func (c client) describe(e *Envelope) {
	e.ClientName = first(c.connect["{client_name}"], e.ClientName, c.name)
	e.ClientAddr = first(c.connect["{client_addr}"], e.ClientAddr, c.addr)
	e.ClientAddr = strings.TrimPrefix(e.ClientAddr, "IPv6:") // Sendmail's way to write it
	e.DaemonName = c.connect["{daemon_name}"]                // later stages carry the host's name instead
	e.Helo = c.heloName
	e.TLSVersion = c.helo["{tls_version}"]
}

// first returns the first of its arguments that is not empty.
func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
