package stage

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
)

// Mailbox returns the messages in a mailbox's INBOX as IMAP gives them: Dovecot's
// and Postfix's trace fields on top, CRLF line ends, in the order of arrival.
func (s *Stage) Mailbox(ctx context.Context, address string) ([][]byte, error) {
	b, err := s.openMailbox(ctx, address)
	if err != nil {
		return nil, err
	}
	defer b.close()
	err = b.fetch()
	return b.mails, err
}

// WaitMail returns the messages of a mailbox as soon as enough says so, asking
// the server every 50 ms. It ends with ctx, or after a minute if ctx has no
// deadline; then the error says what is there.
func (s *Stage) WaitMail(ctx context.Context, address string, enough func(mails [][]byte) bool) ([][]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	}
	b, err := s.openMailbox(ctx, address)
	if err != nil {
		return nil, err
	}
	defer b.close()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		if err := b.fetch(); err != nil {
			return b.mails, b.timedOut(ctx, err)
		}
		if enough(b.mails) {
			return b.mails, nil
		}
		select {
		case <-ctx.Done():
			return b.mails, b.timedOut(ctx, ctx.Err())
		case <-t.C:
		}
	}
}

// Count is a condition for WaitMail: at least n messages.
func Count(n int) func([][]byte) bool { return func(mails [][]byte) bool { return len(mails) >= n } }

// Empty deletes all messages of a mailbox.
func (s *Stage) Empty(ctx context.Context, address string) error {
	b, err := s.openMailbox(ctx, address)
	if err != nil {
		return err
	}
	defer b.close()
	st, err := b.c.Select("INBOX", false)
	if err != nil || st.Messages == 0 {
		return err
	}
	all := new(imap.SeqSet)
	all.AddRange(1, 0)
	if err := b.c.Store(all, imap.FormatFlagsOp(imap.AddFlags, true), []any{imap.DeletedFlag}, nil); err != nil {
		return err
	}
	return b.c.Expunge(nil)
}

// MailFiles returns the files of a mailbox that nobody has read. Where messages are
// many or large it is the quick way to see them arrive.
func (s *Stage) MailFiles(address string) ([]string, error) {
	dir, err := s.MailFolder(address)
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*"))
}

// MailFolder returns the folder of these files. Dovecot makes it for the first of them.
func (s *Stage) MailFolder(address string) (string, error) {
	m, _, err := s.find(address)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(address, "@")
	return filepath.Join(m.Dir, "mail", name, "Maildir", "new"), nil
}

// mailbox is an open IMAP connection with what has been read so far.
type mailbox struct {
	address string
	c       *client.Client
	stop    func() bool
	last    uint32 // highest UID read
	mails   [][]byte
}

func (s *Stage) openMailbox(ctx context.Context, address string) (*mailbox, error) {
	m, u, err := s.find(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.IMAP)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, err := client.New(conn)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, fmt.Errorf("imap %s: %w", m.IMAP, err)
	}
	c.Timeout = sessionTimeout
	// Whatever goes wrong comes back as an error; it need not be logged too.
	c.ErrorLog = log.New(io.Discard, "", 0)
	b := &mailbox{address: address, c: c, stop: stop}
	if err := c.Login(u.Address, u.Password); err != nil {
		b.close()
		return nil, fmt.Errorf("imap LOGIN as %s: %w", address, err)
	}
	if _, err := c.Select("INBOX", true); err != nil {
		b.close()
		return nil, fmt.Errorf("imap %s: %w", address, err)
	}
	return b, nil
}

func (b *mailbox) close() {
	_ = b.c.Logout() // the server forgets us either way
	_ = b.c.Terminate()
	b.stop()
}

// fetch reads what has come since the last call.
func (b *mailbox) fetch() error {
	if err := b.c.Noop(); err != nil {
		return err
	}
	since := new(imap.SeqSet)
	since.AddRange(b.last+1, 0)
	section := &imap.BodySectionName{Peek: true}
	ch := make(chan *imap.Message)
	done := make(chan error, 1)
	go func() {
		done <- b.c.UidFetch(since, []imap.FetchItem{imap.FetchUid, section.FetchItem()}, ch)
	}()
	var failed error
	for m := range ch { // closed by UidFetch when it returns
		// "n:*" always names the last message, read or not.
		if m.Uid <= b.last || failed != nil {
			continue
		}
		body := m.GetBody(section)
		if body == nil {
			failed = fmt.Errorf("imap: message %d without a body", m.Uid)
			continue
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			failed = err
			continue
		}
		b.mails, b.last = append(b.mails, raw), m.Uid
	}
	if err := <-done; err != nil {
		return err
	}
	return failed
}

func (b *mailbox) timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("waiting for mail at %s: %w; it holds %d messages", b.address, err, len(b.mails))
}
