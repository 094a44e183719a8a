package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// A Canary is a certified message that a user of ours sends to himself, to see the
// whole way: submission, signature, Postfix, LMTP, mailbox store, and back.
type Canary struct {
	Submission string // host:port of the submission service, with STARTTLS
	Address    string // the user's, who is also the recipient
	Password   string
	MessageID  string // with its brackets
	Store      string // the store's directory
	Now        time.Time
	Pause      time.Duration // between looks into the register
}

// ErrCredentials is wrapped by errors about a credentials file.
var ErrCredentials = errors.New("credentials")

// ReadCredentials reads a user's address and password, a line each, from a file that
// nobody else may read.
func ReadCredentials(file string) (address, password string, err error) {
	st, err := os.Stat(file)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w; write that file, mode 0600: the user's address and, on the next line, his password", ErrCredentials, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", "", fmt.Errorf("%w: %s: others may read it; chmod 0600 %s", ErrCredentials, file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	f := strings.Split(strings.TrimRight(string(b), "\r\n"), "\n")
	if len(f) != 2 || !strings.Contains(f[0], "@") {
		return "", "", fmt.Errorf("%w: %s: write the user's address and, on the next line, the password", ErrCredentials, file)
	}
	return strings.TrimSpace(f[0]), strings.TrimSpace(f[1]), nil
}

// Fly sends the canary and waits for its delivery receipt in the register, or for the
// end of ctx. It returns what went wrong; the message stays in the user's mailbox.
func (c Canary) Fly(ctx context.Context, s Site) []Finding {
	v := &visit{Site: s}
	if err := c.send(ctx); err != nil {
		v.add("canary-refused", "%s for %s: %s", c.Submission, c.Address, text(err))
		return v.found
	}
	seen, err := c.wait(ctx)
	if err != nil {
		v.add("canary-lost", "%s of %s was sent; in the register there is %s: %s", c.MessageID, c.Address, orNone(strings.Join(seen, ", ")), text(err))
	}
	return v.found
}

// send submits the canary as the user's mail program would.
func (c Canary) send(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Submission)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	host, _, err := net.SplitHostPort(c.Submission)
	if err != nil {
		return err
	}
	s, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	// On this machine no certificate can be for the name by which it is called; what
	// is asked is whether mail passes.
	local := net.ParseIP(host).IsLoopback() || host == "localhost"
	if err := s.StartTLS(&tls.Config{ServerName: host, InsecureSkipVerify: local}); err != nil {
		return err
	}
	if err := s.Auth(smtp.PlainAuth("", c.Address, c.Password, host)); err != nil {
		return err
	}
	if err := errors.Join(s.Mail(c.Address), s.Rcpt(c.Address)); err != nil {
		return err
	}
	w, err := s.Data()
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, fmt.Sprintf("From: <%[1]s>\r\nTo: <%[1]s>\r\nSubject: pecd doctor\r\nDate: %[2]s\r\nMessage-ID: %[3]s\r\n\r\nA message that pecd doctor sends to see the whole way.\r\n",
		c.Address, c.Now.Format(time.RFC1123Z), c.MessageID))
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return s.Quit()
}

// errNoReceipt says that the time was over first.
var errNoReceipt = errors.New("no delivery receipt in time")

// wait looks into the register until the canary is delivered. seen is what it found.
func (c Canary) wait(ctx context.Context) (seen []string, err error) {
	r, err := logstore.OpenReadOnly(ctx, c.Store)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	tick := time.NewTicker(c.Pause)
	defer tick.Stop()
	for {
		seen = seen[:0]
		arrived := false
		err := r.Search(ctx, logstore.Query{MessageID: c.MessageID}, func(e logstore.Entry) error {
			seen = append(seen, string(e.Type))
			arrived = arrived || e.Type == logstore.EntryType(pec.KindDelivery)
			return nil
		})
		switch {
		case arrived:
			return seen, nil
		case ctx.Err() != nil:
			return seen, errNoReceipt
		case err != nil:
			return seen, err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
