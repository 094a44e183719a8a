// Package miltertest plays the MTA of a milter, packet by packet, for tests. A
// Client behaves like Postfix 3.7: it offers all of version 6, sends macros
// before their commands, splits bodies into packets of 65,535 octets and sends
// ABORT after each message. Its parts can be called one by one to play an MTA that
// behaves otherwise.
package miltertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"pecd/milter/socket"
)

// Protocol bits that tell for which commands the milter answers.
const (
	noReplyHeader  = 1 << 7
	noReplyConnect = 1 << 12
	noReplyHelo    = 1 << 13
	noReplyMail    = 1 << 14
	noReplyRcpt    = 1 << 15
	noReplyEOH     = 1 << 18
	noReplyBody    = 1 << 19
	leadingSpace   = 1 << 20
)

// Offers of Postfix 3.7: all actions and all protocol steps of version 6.
const (
	OfferedActions  = 0x1ff
	OfferedProtocol = 0x1fffff
)

const chunk = 65535

// Macros are the values sent before a command, by names as the protocol has them:
// "i", "{auth_authen}".
type Macros map[string]string

// An Answer is what the milter said: 'c' continue, 'd' discard, 'r' reject,
// 't' temporary failure, 'a' accept, or 'y' with the SMTP reply. Code 'c' stands
// for commands that get no answer.
type Answer struct {
	Code  byte
	Reply string
}

// A Mail is one message with what the MTA knows of it. Unset macros are left out.
type Mail struct {
	From    string   // without angle brackets
	To      []string // the same
	Auth    string   // {auth_authen}
	QueueID string   // i
	Bytes   []byte   // as the client sent it; lines end in CRLF
}

// A Client is one connection to a milter.
type Client struct {
	net.Conn
	// Protocol holds the steps that the milter chose.
	Protocol uint32
	// Symbols holds the macros that the milter asked for, by stage number.
	Symbols map[uint32][]string
}

// Dial connects to a milter at addr ("unix:/path" or "inet:host:port") and
// negotiates. Every read and write of the client fails after a minute.
func Dial(addr string) (*Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := socket.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c, err := NewClient(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// NewClient negotiates on an open connection.
func NewClient(conn net.Conn) (*Client, error) {
	c := &Client{Conn: conn}
	if err := c.Packet('O', Offer(6, OfferedActions, OfferedProtocol)); err != nil {
		return nil, err
	}
	code, data, err := c.ReadPacket()
	if err != nil {
		return nil, err
	}
	if code != 'O' || len(data) < 12 {
		return nil, fmt.Errorf("miltertest: negotiation answered with %q, %d octets", code, len(data))
	}
	c.Protocol = binary.BigEndian.Uint32(data[8:])
	c.Symbols = symbols(data[12:])
	return c, nil
}

// Offer returns the payload of a negotiation packet.
func Offer(version, actions, protocol uint32) []byte {
	var b []byte
	for _, v := range []uint32{version, actions, protocol} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func symbols(data []byte) map[uint32][]string {
	m := map[uint32][]string{}
	for len(data) > 4 {
		list, rest, _ := bytes.Cut(data[4:], []byte{0})
		m[binary.BigEndian.Uint32(data)] = strings.Fields(string(list))
		data = rest
	}
	return m
}

// Packet sends one packet.
func (c *Client) Packet(code byte, data []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	p := binary.BigEndian.AppendUint32(make([]byte, 0, len(data)+5), uint32(len(data)+1))
	_, err := c.Write(append(append(p, code), data...))
	return err
}

// ReadPacket reads one packet.
func (c *Client) ReadPacket() (code byte, data []byte, err error) {
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("miltertest: packet of %d octets", n)
	}
	data = make([]byte, n-1)
	_, err = io.ReadFull(c, data)
	return head[4], data, err
}

// ReadAnswer reads the answer to a command.
func (c *Client) ReadAnswer() (Answer, error) {
	code, data, err := c.ReadPacket()
	if err != nil {
		return Answer{}, err
	}
	return Answer{Code: code, Reply: strings.TrimSuffix(string(data), "\x00")}, nil
}

// answerUnless reads an answer if the milter did not choose to give none.
func (c *Client) answerUnless(bit uint32) (Answer, error) {
	if c.Protocol&bit != 0 {
		return Answer{Code: 'c'}, nil
	}
	return c.ReadAnswer()
}

// Define sends the macros of the command that follows, if there are any.
func (c *Client) Define(command byte, m Macros) error {
	data := []byte{command}
	for name, value := range m {
		data = append(data, Strings(name, value)...)
	}
	if len(data) == 1 {
		return nil
	}
	return c.Packet('D', data)
}

// Strings returns its arguments as the protocol writes strings, each with a NUL
// at its end.
func Strings(s ...string) []byte {
	return []byte(strings.Join(s, "\x00") + "\x00")
}

func (c *Client) command(code byte, m Macros, data []byte, noReply uint32) (Answer, error) {
	if err := c.Define(code, m); err != nil {
		return Answer{}, err
	}
	if err := c.Packet(code, data); err != nil {
		return Answer{}, err
	}
	return c.answerUnless(noReply)
}

// Connect tells of a client with an IPv4 address.
func (c *Client) Connect(name, ip string, m Macros) (Answer, error) {
	data := append(Strings(name), '4', 0x30, 0x39)
	return c.command('C', m, append(data, Strings(ip)...), noReplyConnect)
}

// Helo tells how the client named itself.
func (c *Client) Helo(name string, m Macros) (Answer, error) {
	return c.command('H', m, Strings(name), noReplyHelo)
}

// Mail begins a message. The arguments are ESMTP parameters.
func (c *Client) Mail(from string, m Macros, args ...string) (Answer, error) {
	return c.command('M', m, Strings(append([]string{"<" + from + ">"}, args...)...), noReplyMail)
}

// Rcpt adds a recipient.
func (c *Client) Rcpt(to string, m Macros, args ...string) (Answer, error) {
	return c.command('R', m, Strings(append([]string{"<" + to + ">"}, args...)...), noReplyRcpt)
}

// Field sends one header field: the value is all that follows the colon, its
// folds with LF.
func (c *Client) Field(name, value string) (Answer, error) {
	return c.command('L', nil, Strings(name, value), noReplyHeader)
}

// EndHeader ends the header.
func (c *Client) EndHeader(m Macros) (Answer, error) {
	return c.command('N', m, nil, noReplyEOH)
}

// Body sends a body in packets of at most 65,535 octets.
func (c *Client) Body(b []byte) (Answer, error) {
	for len(b) > 0 {
		n := min(len(b), chunk)
		if a, err := c.command('B', nil, b[:n], noReplyBody); err != nil || a.Code != 'c' {
			return a, err
		}
		b = b[n:]
	}
	return Answer{Code: 'c'}, nil
}

// End ends the message and returns the milter's verdict.
func (c *Client) End(m Macros) (Answer, error) {
	return c.command('E', m, nil, 0)
}

// Abort gives the message up. There is no answer to it.
func (c *Client) Abort() error { return c.Packet('A', nil) }

// Quit ends the session and closes the connection.
func (c *Client) Quit() error {
	return errors.Join(c.Packet('Q', nil), c.Close())
}

// Send plays a whole message, recipients that the milter refuses left out, with
// the ABORT that Postfix sends after it. It returns the verdict at the end of the
// message, or the first other answer that ends it.
func (c *Client) Send(m Mail) (Answer, error) {
	verdict, err := c.SendOnly(m)
	if err != nil {
		return verdict, err
	}
	return verdict, c.Abort()
}

// SendOnly is Send without the ABORT, as Sendmail does it.
func (c *Client) SendOnly(m Mail) (Answer, error) {
	if a, err := c.Mail(m.From, present("{auth_authen}", m.Auth)); err != nil || a.Code != 'c' {
		return a, err
	}
	for i, to := range m.To {
		id := "" // Postfix has no queue id before the first recipient
		if i > 0 {
			id = m.QueueID
		}
		if a, err := c.Rcpt(to, present("i", id)); err != nil {
			return a, err
		}
	}
	if a, err := c.Content(m.Bytes, present("i", m.QueueID)); err != nil || a.Code != 'c' {
		return a, err
	}
	return c.End(present("i", m.QueueID))
}

func present(name, value string) Macros {
	if value == "" {
		return nil
	}
	return Macros{name: value}
}

// Content sends the bytes of a message, from its first field to the end of its
// body, as an MTA that shows values to the octet. The header ends at the first
// empty line.
func (c *Client) Content(msg []byte, m Macros) (Answer, error) {
	if c.Protocol&leadingSpace == 0 {
		return Answer{}, errors.New("miltertest: the milter did not ask for values with their blanks")
	}
	fields, body := Split(msg)
	for _, f := range fields {
		if a, err := c.Field(f[0], f[1]); err != nil || a.Code != 'c' {
			return a, err
		}
	}
	if a, err := c.EndHeader(m); err != nil || a.Code != 'c' {
		return a, err
	}
	return c.Body(body)
}

// Split cuts a message into the names and values of its fields, as an MTA shows
// them, and its body.
func Split(msg []byte) (fields [][2]string, body []byte) {
	for len(msg) > 0 {
		line, rest, _ := bytes.Cut(msg, []byte("\r\n"))
		if len(line) == 0 {
			return fields, rest
		}
		if n := len(fields); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			fields[n-1][1] += "\n" + string(line)
		} else {
			name, value, _ := strings.Cut(string(line), ":")
			fields = append(fields, [2]string{name, value})
		}
		msg = rest
	}
	return fields, nil
}
