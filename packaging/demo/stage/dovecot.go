package stage

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// dovecotView is what the template of Dovecot sees.
type dovecotView struct {
	*MailServer
	IMAPPort         string
	MailUID, MailGID int
}

// writeDovecot writes the configuration and the users. All mail belongs to the
// system's user mail: Dovecot will not write mail as root, and the demo makes no
// user accounts.
func writeDovecot(m *MailServer) error {
	dir := filepath.Join(m.Dir, "dovecot")
	owner, err := lookupUser("mail")
	if err != nil {
		return err
	}
	mail := filepath.Join(m.Dir, "mail")
	for _, d := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "state"), mail} {
		if err := makeDir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(mail, owner.uid, owner.gid); err != nil {
		return err
	}
	view := dovecotView{MailServer: m, MailUID: owner.uid, MailGID: owner.gid}
	if _, view.IMAPPort, err = net.SplitHostPort(m.IMAP); err != nil {
		return err
	}
	name, err := dovecotTemplate()
	if err != nil {
		return err
	}
	conf, err := render(name, view)
	if err != nil {
		return err
	}
	if err := writeFile(m.dovecotConf(), conf, 0o644); err != nil {
		return err
	}
	return m.writeUsers(mail, owner)
}

// dovecotTemplate returns the template for the Dovecot that is installed: the
// configurations of 2.3 (Debian 12, Ubuntu 24.04) and 2.4 (Debian 13) are two
// languages.
func dovecotTemplate() (string, error) {
	out, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("dovecot --version: %w; is it installed? (packaging/prerequisites demo)", err)
	}
	return templateFor(string(out))
}

func templateFor(version string) (string, error) {
	for _, known := range []string{"2.3", "2.4"} {
		if strings.HasPrefix(version, known+".") {
			return "dovecot-" + known + ".conf", nil
		}
	}
	return "", fmt.Errorf("Dovecot is %q; the demo knows how to configure 2.3 and 2.4", strings.TrimSpace(version))
}

func (m *MailServer) writeUsers(mail string, owner account) error {
	var b bytes.Buffer
	for _, u := range m.mailboxes() {
		name, _, _ := strings.Cut(u.Address, "@")
		fmt.Fprintf(&b, "%s:{PLAIN}%s:%d:%d::%s::\n", u.Address, u.Password, owner.uid, owner.gid, filepath.Join(mail, name))
	}
	file := filepath.Join(m.Dir, "dovecot", "users")
	if err := writeFile(file, b.Bytes(), 0o600); err != nil {
		return err
	}
	dovecot, err := lookupUser("dovecot")
	if err != nil {
		return err
	}
	return os.Chown(file, dovecot.uid, dovecot.gid) // read by the auth service, which is not root
}

// mailboxes returns all mailboxes of the server.
func (m *MailServer) mailboxes() []User { return append(append([]User{}, m.Users...), m.Service...) }

func (m *MailServer) dovecotConf() string { return filepath.Join(m.Dir, "dovecot", "dovecot.conf") }

func (s *Stage) startDovecot(ctx context.Context, m *MailServer) error {
	if m.dovecotPID() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	out := filepath.Join(m.Dir, "dovecot", "start.log")
	if err := launch(ctx, out, "dovecot", "-c", m.dovecotConf()); err != nil {
		return fmt.Errorf("Dovecot of %s: %w%s", m.Domain, err, tail(m.DovecotLog, 10))
	}
	if err := answers(ctx, m.IMAP, "* OK"); err != nil {
		return fmt.Errorf("Dovecot of %s: %w%s", m.Domain, err, tail(m.DovecotLog, 10))
	}
	s.logf("%s: Dovecot runs, pid %d", m.Domain, m.dovecotPID())
	return nil
}

func (m *MailServer) dovecotPID() int {
	return pidOf(filepath.Join(m.Dir, "dovecot", "run", "master.pid"), m.Dir)
}

func stopDovecot(ctx context.Context, m *MailServer) error {
	return terminate(ctx, "Dovecot of "+m.Domain, m.dovecotPID, stopTimeout)
}

// StopDovecot stops the server's Dovecot: the mailbox store is down.
func (s *Stage) StopDovecot(ctx context.Context, m *MailServer) error { return stopDovecot(ctx, m) }

// StartDovecot starts the server's Dovecot again.
func (s *Stage) StartDovecot(ctx context.Context, m *MailServer) error { return s.startDovecot(ctx, m) }
