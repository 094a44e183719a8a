package lmtp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

var (
	// errStale: the store closed the connection before it was used again.
	errStale   = errors.New("the connection was closed meanwhile")
	errReplies = errors.New("the mailbox store says too much")
)

// maxReplies bounds what the store may say during one delivery, in octets.
const maxReplies = 4 << 20

// A storeConn is a connection to the store with deadlines for what is written;
// go-smtp sets those for what is read.
type storeConn struct {
	net.Conn
	timeout time.Duration
	replies int // octets that the store may still say
}

func (c *storeConn) allowReplies() { c.replies = maxReplies }

func (c *storeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.replies -= n; c.replies < 0 {
		return 0, errReplies
	}
	return n, err
}

func (c *storeConn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// A client is one connection to the store.
type client struct {
	conn    *storeConn
	lib     *smtp.Client
	name    string      // said in LHLO
	expiry  *time.Timer // while it is kept
	reused  bool        // it served a delivery before
	pending bool        // a transaction was begun and not ended
	leaving bool        // the store said 421: it closes the connection
}

// reset makes the connection ready for another delivery.
func (c *client) reset() error {
	if c.leaving {
		return errStale
	}
	if !c.pending {
		return nil
	}
	c.pending = false
	if err := c.lib.Reset(); err != nil {
		return err
	}
	return c.lib.Hello(c.name) // go-smtp wants to say it again; better now than at the next delivery
}

// A delivery is one message on its way to the store.
type delivery struct {
	sender     string
	recipients []string // each once
	size       int64
	eightBit   bool
	body       func(io.Writer) error
	known      map[string]Status // what the store said
}

// run sends the message over c. The error says why some recipients have no
// answer; then the connection is not usable.
func (d *delivery) run(c *client) error {
	c.conn.allowReplies()
	if ok, _ := c.lib.Extension("8BITMIME"); d.eightBit && !ok {
		return errEightBit
	}
	taken, err := d.mail(c)
	if err != nil || len(taken) == 0 {
		return err
	}
	data, err := c.lib.Data()
	if err != nil {
		return d.refused(c, err, taken...)
	}
	w := newStuffer(c.conn)
	if err := d.body(w); err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	if err := w.finish(); err != nil {
		return fmt.Errorf("sending the message: %w", err)
	}
	return d.finish(c, data, taken)
}

// mail gives sender and recipients, and returns those that the store takes.
func (d *delivery) mail(c *client) (taken []string, err error) {
	utf8, _ := c.lib.Extension("SMTPUTF8")
	opts := &smtp.MailOptions{Size: d.size, UTF8: utf8 && !d.ascii()}
	if err := c.lib.Mail(d.sender, opts); err != nil {
		if c.reused && closing(err) {
			return nil, errors.Join(errStale, err)
		}
		return nil, d.refused(c, err, d.recipients...)
	}
	c.pending = true
	for _, r := range d.recipients {
		if err := c.lib.Rcpt(r, nil); err == nil {
			taken = append(taken, r)
		} else if err := d.refused(c, err, r); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

// refused records the store's refusal; another error is returned.
func (d *delivery) refused(c *client, err error, recipients ...string) error {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return err
	}
	c.leaving = c.leaving || reply.Code == 421
	status := statusOf(reply)
	if status.OK() { // a reply that has no place here
		return fmt.Errorf("the mailbox store answers out of turn: %w", err)
	}
	for _, r := range recipients {
		d.known[r] = status
	}
	return nil
}

// finish sends the final dot and takes an answer for each recipient.
func (d *delivery) finish(c *client, data *smtp.DataCommand, taken []string) error {
	c.pending = false
	texts, err := data.CloseWithLMTPResponse()
	var refusals smtp.LMTPDataError
	_ = errors.As(err, &refusals)
	missing := 0
	for _, r := range taken {
		if text, ok := texts[r]; ok {
			d.known[r] = statusOfText(text.StatusText)
		} else if reply, ok := refusals[r]; ok {
			d.known[r] = statusOf(reply)
			c.leaving = c.leaving || reply.Code == 421
		} else {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d recipients without an answer of the mailbox store: %w", missing, err)
	}
	return nil
}

func (d *delivery) ascii() bool {
	for _, s := range append([]string{d.sender}, d.recipients...) {
		for i := range len(s) {
			if s[i] >= 0x80 {
				return false
			}
		}
	}
	return true
}

// closing reports whether err means that the store has closed the connection.
func closing(err error) bool {
	var reply *smtp.SMTPError
	return !errors.As(err, &reply) || reply.Code == 421
}
