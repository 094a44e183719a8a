package stage

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// Octets. pecd's own limit is 100 MiB (access.max_size). Postfix must let a
// little more through to it, so that pecd can say why it refuses, and must take
// back the envelope of the largest original. It wants one and a half times the
// limit as free space on the disk.
const (
	submissionSizeLimit = 120_000_000
	sizeLimit           = 160_000_000
)

// postfixView is what the templates of Postfix see.
type postfixView struct {
	*MailServer
	Plain                          bool              // no pecd
	Milter                         string            // socket of another milter of submission, if Plain; empty: none
	LMTP                           string            // socket that takes mail for the own domain
	Ways                           map[string]string // domain -> next hop
	RelayHost                      string            // next hop of all others
	More                           []string          // lines of main.cf
	Encrypt                        []string          // next hops to which TLS is compulsory
	TLSCA                          string
	SizeLimit, SubmissionSizeLimit int
}

func (s *Stage) postfixView(m *MailServer, o Options) postfixView {
	v := postfixView{
		MailServer: m, Plain: o.WithoutPecd || m == &s.Ordinary.MailServer,
		LMTP: m.socket("lmtp.sock"), Ways: map[string]string{}, TLSCA: s.TLSCA, More: o.MainCF,
		SizeLimit: sizeLimit, SubmissionSizeLimit: submissionSizeLimit,
	}
	if v.Plain {
		v.LMTP = m.socket("store.sock")
	}
	if o.WithoutPecd && o.Milter != "" && m != &s.Ordinary.MailServer {
		v.Milter = m.socket(o.Milter)
	}
	way := func(other *MailServer) string {
		if o.Way == nil {
			return hop(other.SMTP)
		}
		return hop(o.Way(m.Domain, other.Domain, other.SMTP))
	}
	for _, other := range s.servers() {
		if other != m {
			v.Ways[other.Domain] = way(other)
		}
	}
	for _, p := range s.Providers() {
		if &p.MailServer != m {
			v.Encrypt = append(v.Encrypt, way(&p.MailServer))
		}
	}
	if m != &s.Ordinary.MailServer {
		v.RelayHost = hop(s.Ordinary.SMTP)
	}
	return v
}

// hop turns host:port into Postfix's form of a next hop without MX lookup.
func hop(addr string) string {
	i := strings.LastIndexByte(addr, ':')
	return "[" + addr[:i] + "]" + addr[i:]
}

// render executes a template.
func render(name string, view any) ([]byte, error) {
	var b strings.Builder
	err := templates.ExecuteTemplate(&b, name, view)
	return []byte(b.String()), err
}

func (s *Stage) writePostfix(m *MailServer, o Options) error {
	dir := filepath.Dir(m.PostfixDir)
	for _, d := range []string{dir, m.PostfixDir} {
		if err := makeDir(d, 0o755); err != nil {
			return err
		}
	}
	if err := Spool(filepath.Join(dir, "queue"), filepath.Join(dir, "data")); err != nil {
		return err
	}
	postfix, err := lookupUser("postfix")
	if err != nil {
		return err
	}
	// The log too: postsuper, which complains of what a killed Postfix has left, is not root
	// when it does, and the start fails where it cannot write there.
	if err := writeFile(m.Maillog, nil, 0o644); err != nil {
		return err
	}
	if err := os.Chown(m.Maillog, postfix.uid, postfix.gid); err != nil {
		return err
	}
	// Sockets: pecd (root) makes its own here, Postfix connects through its group.
	sock := filepath.Join(m.Dir, "sock")
	if err := makeDir(sock, 0o755); err != nil {
		return err
	}
	view := s.postfixView(m, o)
	for _, name := range []string{"main.cf", "master.cf"} {
		b, err := render(name, view)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(m.PostfixDir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Spool makes the queue and the data directory of a Postfix, with those that postfix(1)
// would make in them at its first start, by some forty programs.
func Spool(queue, data string) error {
	postfix, err := lookupUser("postfix")
	if err != nil {
		return err
	}
	g, err := user.LookupGroup("postdrop")
	if err != nil {
		return err
	}
	postdrop, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		in       string
		mode     fs.FileMode
		uid, gid int
		names    []string
	}{
		{"", 0o755, 0, 0, []string{queue}},
		{queue, 0o755, 0, 0, []string{"pid"}},
		{queue, 0o700, postfix.uid, 0, []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"}},
		{queue, 0o730, postfix.uid, postdrop, []string{"maildrop"}},
		{queue, 0o710, postfix.uid, postdrop, []string{"public"}},
		{"", 0o700, postfix.uid, 0, []string{data}},
	} {
		for _, name := range l.names {
			d := filepath.Join(l.in, name)
			if err := errors.Join(makeDir(d, l.mode), os.Chown(d, l.uid, l.gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Settle makes the main.cf in dir an old file: one that has just been written Postfix
// looks at for up to two seconds before it believes it.
func Settle(dir string) error {
	return os.Chtimes(filepath.Join(dir, "main.cf"), time.Time{}, time.Now().Add(-time.Hour))
}

type account struct{ uid, gid int }

func lookupUser(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("%w; is the package installed? (packaging/prerequisites demo)", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return account{uid, gid}, errors.Join(err1, err2)
}

func (s *Stage) startMTA(ctx context.Context, m *MailServer) error {
	if m.Sendmail != nil {
		return s.startSendmail(ctx, m)
	}
	return s.startPostfix(ctx, m)
}

func (s *Stage) startPostfix(ctx context.Context, m *MailServer) error {
	if m.mtaPID() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// Without a terminal Postfix says what is wrong only in its log.
	out := filepath.Join(m.Dir, "postfix", "start.log")
	if err := launch(ctx, out, "postfix", "-c", m.PostfixDir, "start"); err != nil {
		return fmt.Errorf("Postfix of %s: %w%s", m.Domain, err, tail(m.Maillog, 10))
	}
	for _, addr := range []string{m.SMTP, m.Reinject} {
		if err := answers(ctx, addr, "220 mail."+m.Domain); err != nil {
			return fmt.Errorf("Postfix of %s: %w%s", m.Domain, err, tail(m.Maillog, 10))
		}
	}
	s.logf("%s: Postfix runs, pid %d", m.Domain, m.mtaPID())
	return nil
}

// mtaPID is the pid of Postfix's master or of Sendmail's daemon; 0: it does not run.
func (m *MailServer) mtaPID() int {
	if m.Sendmail != nil {
		return pidOf(m.sendmailPIDFile(), m.Dir)
	}
	return pidOf(filepath.Join(m.Dir, "postfix", "queue", "pid", "master.pid"), m.Dir)
}

func (s *Stage) stopMTA(ctx context.Context, m *MailServer) error {
	err := terminate(ctx, "the MTA of "+m.Domain, m.mtaPID, stopTimeout)
	if m.Sendmail != nil {
		err = errors.Join(err, m.endSessions(ctx))
	}
	return err
}

// StopMTA stops the server's MTA and leaves its queue.
func (s *Stage) StopMTA(ctx context.Context, m *MailServer) error { return s.stopMTA(ctx, m) }

// StartMTA starts the server's MTA again.
func (s *Stage) StartMTA(ctx context.Context, m *MailServer) error { return s.startMTA(ctx, m) }

// Queue returns the MTA's queue: with Postfix a JSON object per message as
// postqueue(1) documents, with Sendmail its control file. An empty queue has none.
func (m *MailServer) Queue(ctx context.Context) ([]string, error) {
	if m.Sendmail != nil {
		return m.sendmailMessages()
	}
	some, err := m.queues()
	if err != nil || !some {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "postqueue", "-c", m.PostfixDir, "-j").Output()
	if err != nil {
		return nil, fmt.Errorf("postqueue: %w", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }), nil
}

// queues reports whether Postfix has any message in its queue. Who waits for an empty
// one asks often, and to start a program each time costs more than the mail does. The
// folders are looked at in the order in which a message goes through them, and, since one
// that was deferred comes back, twice.
func (m *MailServer) queues() (bool, error) {
	for _, folder := range []string{"maildrop", "incoming", "active", "deferred", "incoming", "active", "hold"} {
		some := false
		err := filepath.WalkDir(filepath.Join(filepath.Dir(m.PostfixDir), "queue", folder), func(_ string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // it has just left, or Postfix was never started
				return nil
			case err != nil:
				return err
			case !d.IsDir():
				some = true
				return fs.SkipAll
			}
			return nil
		})
		if err != nil || some {
			return some, err
		}
	}
	return false, nil
}

// PutOff reports whether a message of Queue has been tried and must wait.
func (m *MailServer) PutOff(queued string) bool {
	if m.Sendmail != nil {
		return strings.Contains(queued, "\nMDeferred")
	}
	return strings.Contains(queued, `"delay_reason"`)
}

// Flush makes the MTA try everything in its queue now.
func (m *MailServer) Flush(ctx context.Context) error {
	if m.Sendmail != nil {
		_, err := command(ctx, "/", nil, "unshare", m.asHost("-q")...)
		return err
	}
	out, err := exec.CommandContext(ctx, "postqueue", "-c", m.PostfixDir, "-f").CombinedOutput()
	if err != nil {
		return fmt.Errorf("postqueue -f: %w: %s", err, out)
	}
	return nil
}
