package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pecd/packaging/demo/stage"
)

// An mtaChange is a change to the configuration of an MTA, whichever it is.
type mtaChange struct {
	postfix  string    // a parameter of a service, as postconf -P takes it
	sendmail [2]string // a line of sendmail.cf, and what takes its place
}

// refusesReinjection has an MTA refuse for good what pecd brings back.
func refusesReinjection(m *stage.MailServer) mtaChange {
	return mtaChange{m.Reinject + "/inet/smtpd_client_restrictions=reject",
		[2]string{"SLocal_check_mail\n", "SLocal_check_mail\nR$*\t$: <$&{daemon_name}> $1\nR<PECD> $*\t$#error $@ 5.7.1 $: \"554 refused\"\nR<$*> $*\t$: $2\n"}}
}

// reconfigure starts an MTA anew with a change. restore takes it back.
func reconfigure(t *testing.T, s *stage.Stage, m *stage.MailServer, c mtaChange) (restore func()) {
	t.Helper()
	file := filepath.Join(m.PostfixDir, "master.cf")
	if m.Sendmail != nil {
		file = filepath.Join(m.Sendmail.Home, "sendmail.cf")
	}
	old := fileText(t, file)
	anew := func(change func() error) {
		t.Helper()
		err := s.StopMTA(within(t), m)
		if err == nil {
			err = change()
		}
		if err == nil {
			err = s.StartMTA(within(t), m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	anew(func() error {
		if m.Sendmail == nil {
			if out, err := exec.Command("postconf", "-c", m.PostfixDir, "-P", c.postfix).CombinedOutput(); err != nil {
				return fmt.Errorf("postconf: %w: %s", err, out)
			}
			return nil
		}
		if strings.Count(old, c.sendmail[0]) != 1 {
			return fmt.Errorf("%s has not one %q", file, c.sendmail[0])
		}
		return os.WriteFile(file, []byte(strings.Replace(old, c.sendmail[0], c.sendmail[1], 1)), 0o644)
	})
	return func() { t.Helper(); anew(func() error { return os.WriteFile(file, []byte(old), 0o644) }) }
}

// Sendmail counts in its control file how often it has tried.
var sendmailTries = regexp.MustCompile(`(?m)^N(\d+)$`)

// tries is how often an MTA has tried in vain to deliver what is in its queue, or more:
// it grows with each time.
func tries(t *testing.T, p *stage.Provider) (n int) {
	t.Helper()
	if p.Sendmail == nil {
		return strings.Count(fileText(t, p.Maillog), "status=deferred")
	}
	queue, err := p.Queue(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queue {
		for _, found := range sendmailTries.FindAllStringSubmatch(q, -1) {
			count, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			n += count
		}
	}
	return n
}
