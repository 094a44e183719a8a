package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

var (
	// ErrSendmail wraps what Sendmail's own commands complain of, and what of its
	// configuration is not understood.
	ErrSendmail = errors.New("sendmail")
	// ErrByHand says that sendmail.cf is not what m4 makes of sendmail.mc.
	ErrByHand = errors.New("sendmail.cf was not made of sendmail.mc")
)

// Names of Sendmail's files in its directory.
const (
	MCFile = "sendmail.mc"
	CFFile = "sendmail.cf"
)

// sendmailPrograms are where Debian, Red Hat and Sendmail's own makefiles put it.
// What goes by the name sendmail may be another MTA's.
var sendmailPrograms = []string{"/usr/libexec/sendmail/sendmail", "/usr/lib/sm.bin/sendmail", "/usr/sbin/sendmail.sendmail", "/usr/sbin/sendmail"}

// A Sendmail is the configuration of one Sendmail: sendmail.mc, what m4 makes of it,
// and what Sendmail itself says of that. It is not changed after ReadSendmail.
type Sendmail struct {
	Dir     string // absolute
	Program string // absolute
	cf      *cfFile
	files   map[string][]byte // by absolute name; nil: there is none
	said    said
}

// ReadSendmail reads the configuration in dir; program "" is the Sendmail of the
// system. ErrByHand if sendmail.cf has been changed without sendmail.mc: then nobody
// can tell what the next build would lose.
func ReadSendmail(ctx context.Context, dir, program string) (*Sendmail, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Sendmail{Dir: dir, files: map[string][]byte{}}
	if s.Program, err = findSendmail(ctx, program); err != nil {
		return nil, err
	}
	mc, err := os.ReadFile(s.path(MCFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s. pecd changes no sendmail.cf that was written by hand; docs/sendmail.md has what must be in it", ErrSendmail, s.path(MCFile))
	}
	if err != nil {
		return nil, err
	}
	s.files[s.path(MCFile)] = mc
	built, err := s.build(ctx, mc)
	if err != nil {
		return nil, err
	}
	now, err := os.ReadFile(s.path(CFFile))
	if err != nil {
		return nil, err
	}
	if line, differ := differ(now, built); differ {
		return nil, fmt.Errorf("%w: %s has %q where m4 makes something else. Bring the change into %s, or build sendmail.cf anew (on Debian: sendmailconfig), and run this again", ErrByHand, s.path(CFFile), line, s.path(MCFile))
	}
	s.cf = parseCF(built)
	s.said, err = s.ask(ctx, s.path(CFFile), nil)
	return s, err
}

func (s *Sendmail) path(name string) string { return filepath.Join(s.Dir, name) }

// file returns the content of a file as it was when first asked for; nil if there is
// none.
func (s *Sendmail) file(name string) ([]byte, error) {
	if b, ok := s.files[name]; ok {
		return b, nil
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		b, err = nil, nil
	}
	if err == nil {
		s.files[name] = b
	}
	return b, err
}

// findSendmail returns the program, once it has said that it is a Sendmail.
func findSendmail(ctx context.Context, program string) (string, error) {
	list := sendmailPrograms
	if program != "" {
		list = []string{program}
	}
	for _, p := range list {
		out, _, err := command(ctx, "/", nil, p, "-d0.1", "-bt")
		var exit *exec.ExitError
		// Without a configuration it fails, but says its version first.
		if (err == nil || errors.As(err, &exit)) && strings.HasPrefix(out, "Version 8.") {
			return filepath.Abs(p)
		}
	}
	return "", fmt.Errorf("%w: no Sendmail at %s; --sendmail names another place", ErrSendmail, strings.Join(list, ", "))
}

// build has m4 make a sendmail.cf.
func (s *Sendmail) build(ctx context.Context, mc []byte) ([]byte, error) {
	out, errs, err := command(ctx, s.Dir, mc, "m4", "-")
	if err != nil || strings.Contains(errs, "m4:") {
		return nil, fmt.Errorf("%w: m4 cannot build %s: %w", ErrSendmail, s.path(MCFile), errors.Join(err, errors.New(strings.TrimSpace(errs))))
	}
	if !strings.Contains(out, "\nV10") {
		return nil, fmt.Errorf("%w: what m4 makes of %s is no configuration of Sendmail 8.14 or later", ErrSendmail, s.path(MCFile))
	}
	return []byte(out), nil
}

// differ compares two sendmail.cf but for comments, which tell when and where one was
// built, and returns the first line of a that b has not.
func differ(a, b []byte) (line string, differ bool) {
	x, y := meaning(a), meaning(b)
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return x[i], true
		}
	}
	if len(y) > len(x) {
		return "its end", true
	}
	return "", false
}

func meaning(cf []byte) (list []string) {
	for line := range strings.Lines(string(cf)) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return list
}

// command runs a program and returns what it says on its two outputs.
func command(ctx context.Context, dir string, input []byte, name string, args ...string) (out, errs string, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = dir, bytes.NewReader(input), time.Second
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}
