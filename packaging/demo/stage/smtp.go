package stage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"strings"
	"time"
)

// sessionTimeout bounds a whole SMTP or IMAP session whose context has no
// earlier deadline.
const sessionTimeout = 5 * time.Minute

// Submit sends raw as the user with this address does: submission, STARTTLS,
// AUTH PLAIN, one transaction. raw goes over the wire as it is, octet for octet
// (only dots are stuffed), and must end with CRLF. It returns the server's last
// line, such as "2.0.0 Ok: queued as ID". A refusal is a *textproto.Error with
// the SMTP code, at the first refused recipient too.
func (s *Stage) Submit(ctx context.Context, user, from string, rcpts []string, raw []byte) (string, error) {
	c, err := s.Login(ctx, user)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Send(from, rcpts, raw)
}

// Deliver hands raw to a server as another server does, without AUTH, and with
// STARTTLS if it is announced. addr is host:port, such as s.Beta.SMTP.
func (s *Stage) Deliver(ctx context.Context, addr, from string, rcpts []string, raw []byte) (string, error) {
	c, err := s.Dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Send(from, rcpts, raw)
}

// A Session is an SMTP connection to one of the stage's servers, for tests that
// want to say things their own way. It is not safe for concurrent use.
type Session struct {
	*smtp.Client
	stop func() bool
}

// Dial connects to addr, says EHLO and uses STARTTLS if it is announced. When
// ctx ends, the connection is closed.
func (s *Stage) Dial(ctx context.Context, addr string) (*Session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(sessionTimeout)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	if err := conn.SetDeadline(deadline); err != nil {
		_ = conn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, err := s.greet(conn)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, fmt.Errorf("smtp %s: %w", addr, err)
	}
	return &Session{Client: c, stop: stop}, nil
}

func (s *Stage) greet(conn net.Conn) (*smtp.Client, error) {
	c, err := smtp.NewClient(conn, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	if err := c.Hello("client.example"); err != nil {
		return nil, err
	}
	if ok, _ := c.Extension("STARTTLS"); !ok {
		return c, nil
	}
	ca, err := os.ReadFile(s.TLSCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return c, c.StartTLS(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
}

// Login connects to the submission port of a user's server and authenticates.
func (s *Stage) Login(ctx context.Context, address string) (*Session, error) {
	m, u, err := s.find(address)
	if err != nil {
		return nil, err
	}
	c, err := s.Dial(ctx, m.Submission)
	if err != nil {
		return nil, err
	}
	if err := c.Auth(smtp.PlainAuth("", u.Address, u.Password, "127.0.0.1")); err != nil {
		c.Close()
		return nil, fmt.Errorf("smtp AUTH as %s: %w", address, err)
	}
	return c, nil
}

// Close says QUIT and closes the connection.
func (c *Session) Close() error {
	defer c.stop()
	if c.Quit() == nil {
		return nil
	}
	return c.Client.Close()
}

// Send runs one transaction; see Submit. Several may follow one another.
func (c *Session) Send(from string, rcpts []string, raw []byte) (string, error) {
	if err := c.mail(from, rcpts, raw); err != nil {
		return "", err
	}
	for _, r := range rcpts {
		if _, err := c.Command(25, "RCPT TO:<%s>", r); err != nil {
			return "", fmt.Errorf("RCPT TO:<%s>: %w", r, err)
		}
	}
	if _, err := c.Command(354, "DATA"); err != nil {
		return "", fmt.Errorf("DATA: %w", err)
	}
	if err := writeData(c.Text.W, raw); err != nil {
		return "", err
	}
	_, reply, err := c.Text.ReadResponse(250)
	if err != nil {
		return "", fmt.Errorf("end of message: %w", err)
	}
	return reply, nil
}

// mail says MAIL FROM with what the message needs.
func (c *Session) mail(from string, rcpts []string, raw []byte) error {
	params := ""
	if ok, _ := c.Extension("8BITMIME"); ok && !ascii(raw) {
		params += " BODY=8BITMIME"
	}
	if !ascii([]byte(from + strings.Join(rcpts, ""))) {
		params += " SMTPUTF8"
	}
	if _, err := c.Command(250, "MAIL FROM:<%s>%s", from, params); err != nil {
		return fmt.Errorf("MAIL FROM:<%s>: %w", from, err)
	}
	return nil
}

// Command sends one line and reads the reply. If its code is not expect (one, two
// or three digits), the error is a *textproto.Error.
func (c *Session) Command(expect int, format string, args ...any) (string, error) {
	if err := c.Text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	_, reply, err := c.Text.ReadResponse(expect)
	return reply, err
}

// writeData sends a message with dots stuffed at the beginning of lines and
// changes nothing else; textproto's writer would turn a bare LF into CRLF.
func writeData(w *bufio.Writer, raw []byte) error {
	start := true // of a line
	for len(raw) > 0 {
		if start && raw[0] == '.' {
			if err := w.WriteByte('.'); err != nil {
				return err
			}
		}
		n := bytes.Index(raw, []byte("\r\n")) + 2
		if n < 2 {
			n = len(raw)
		}
		if _, err := w.Write(raw[:n]); err != nil {
			return err
		}
		start = bytes.HasSuffix(raw[:n], []byte("\r\n"))
		raw = raw[n:]
	}
	end := ".\r\n"
	if !start {
		end = "\r\n.\r\n" // SMTP cannot carry a message without a line end
	}
	if _, err := w.WriteString(end); err != nil {
		return err
	}
	return w.Flush()
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// find returns the server and the login of a mailbox.
func (s *Stage) find(address string) (*MailServer, User, error) {
	for _, m := range s.servers() {
		for _, u := range m.mailboxes() {
			if u.Address == address {
				return m, u, nil
			}
		}
	}
	return nil, User{}, fmt.Errorf("stage: no mailbox %s", address)
}
