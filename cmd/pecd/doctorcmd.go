package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/doctor"
	"pecd/cmd/pecd/setup"
)

// examineTime bounds a whole examination.
const examineTime = 2 * time.Minute

// doctorCmd is pecd doctor.
type doctorCmd struct {
	configFlag
	PostfixConfigDir string `help:"Postfix's configuration directory. Default: that of the only instance." placeholder:"DIR"`
	// No default: it says that Sendmail is the MTA.
	SendmailConfigDir string `help:"Directory of sendmail.mc and sendmail.cf, where Sendmail is the MTA. Default: /etc/mail, if there is no Postfix." placeholder:"DIR"`
	Sendmail          string `help:"The program sendmail. Default: where Debian and Red Hat have it." placeholder:"FILE"`
	NoDNS             bool   `name:"no-dns" help:"Ask no name server."`
	Canary            string `help:"Also send a certified message from a user to himself and wait for its delivery. FILE, mode 0600, holds his address and, on the next line, his password." placeholder:"FILE"`
	Submission        string `help:"Where the canary is submitted, with STARTTLS." default:"127.0.0.1:587" placeholder:"HOST:PORT"`
	JSON              bool   `name:"json" help:"One JSON object."`
}

// A diagnosis is what pecd doctor found, for programs.
type diagnosis struct {
	At       time.Time        `json:"at"`
	OK       bool             `json:"ok"` // no error; there may be warnings
	Findings []doctor.Finding `json:"findings"`
}

// Run looks at the installation. The answer is no if there is an error; warnings
// alone do not count.
func (c *doctorCmd) Run(ctx context.Context, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	site := c.site(ctx)
	d := diagnosis{At: time.Now().UTC(), Findings: doctor.Examine(ctx, site)}
	if c.Canary != "" && site.Config != nil {
		found, err := c.fly(ctx, site)
		if err != nil {
			return err
		}
		d.Findings = append(d.Findings, found...)
	}
	if d.Findings == nil {
		d.Findings = []doctor.Finding{} // [] in JSON
	}
	d.OK = doctor.Worst(d.Findings) != doctor.Error
	show := showDiagnosis
	if c.JSON {
		show = func(to io.Writer, d diagnosis) error { return json.NewEncoder(to).Encode(d) }
	}
	if err := show(std.out, d); err != nil {
		return err
	}
	if !d.OK {
		return errNo
	}
	return nil
}

// canaryTime is how long the canary may take: a store that is busy, a queue that
// begins again.
const canaryTime = time.Minute

// fly sends the canary.
func (c *doctorCmd) fly(ctx context.Context, site doctor.Site) ([]doctor.Finding, error) {
	address, password, err := doctor.ReadCredentials(c.Canary)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, canaryTime)
	defer cancel()
	canary := doctor.Canary{Submission: c.Submission, Address: address, Password: password, Store: site.Config.Store.Path,
		MessageID: "<" + rand.Text() + "@" + site.Config.Provider.Domain + ">", Now: time.Now(), Pause: time.Second / 2}
	return canary.Fly(ctx, site), nil
}

func showDiagnosis(to io.Writer, d diagnosis) error {
	for _, f := range d.Findings {
		if _, err := fmt.Fprintf(to, "%s: %s [%s]\n  why: %s\n  fix: %s\n", f.Severity, f.What, f.ID, f.Why, f.Fix); err != nil {
			return err
		}
	}
	count := map[doctor.Severity]int{}
	for _, f := range d.Findings {
		count[f.Severity]++
	}
	if len(d.Findings) == 0 {
		_, err := fmt.Fprintln(to, "nothing is wrong")
		return err
	}
	advice := ""
	if n := count[doctor.Advice]; n > 0 {
		advice = fmt.Sprintf(", %d pieces of advice", n)
	}
	_, err := fmt.Fprintf(to, "%d errors, %d warnings%s; docs/troubleshooting.md has a section for each\n", count[doctor.Error], count[doctor.Warning], advice)
	return err
}

// site gathers what there is; what cannot be read is left to the doctor to tell.
func (c *doctorCmd) site(ctx context.Context) doctor.Site {
	s := doctor.Site{ConfigFile: c.Config, Now: time.Now(), Clock: kernelClock, Daemonless: errNoDaemon}
	if !c.NoDNS {
		s.Resolver = net.DefaultResolver
	}
	if s.Config, s.ConfigErr = config.Load(c.Config); s.ConfigErr != nil {
		return s
	}
	s.Control = func(ctx context.Context, path string, out any) error {
		return control(ctx, s.Config.Store.Path, path, nil, out)
	}
	if in, err := load(ctx, c.Config, lookAt(s.Config)); err != nil {
		s.LoadErr = err
	} else {
		s.Loaded = &doctor.Loaded{Directory: in.directory, Index: in.trust.index.Status(), Revocation: in.trust.revocation.Status()}
		for _, t := range in.signer.Terms() {
			s.Loaded.Certificates = append(s.Loaded.Certificates, t.Identity.Certificate())
		}
		if err := in.close(); err != nil {
			fmt.Fprintln(os.Stderr, "pecd doctor:", err)
		}
	}
	if program, err := exec.LookPath("doveconf"); err == nil && strings.HasPrefix(s.Config.Delivery.Store, "unix:") {
		s.Dovecot = func(ctx context.Context) (string, error) {
			out, err := exec.CommandContext(ctx, program, "-n").Output()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
			}
			return string(out), err
		}
	}
	if dir := c.sendmailDir(); dir != "" {
		s.Sendmail, s.SendmailErr = setup.ReadSendmail(ctx, dir, c.Sendmail)
	} else {
		s.Postfix, s.PostfixErr = setup.Read(ctx, c.PostfixConfigDir)
	}
	return s
}

// sendmailDir is where Sendmail's configuration is, if Sendmail is the MTA.
func (c *doctorCmd) sendmailDir() string {
	if c.SendmailConfigDir != "" || c.PostfixConfigDir != "" {
		return c.SendmailConfigDir
	}
	if sendmailAlone() {
		return sendmailStandard
	}
	return ""
}

// sendmailStandard is where Sendmail's configuration usually is.
const sendmailStandard = "/etc/mail"

// sendmailAlone reports whether this machine has a Sendmail and no Postfix.
func sendmailAlone() bool {
	_, postfix := exec.LookPath("postconf")
	_, err := os.Stat(filepath.Join(sendmailStandard, setup.CFFile))
	return postfix != nil && err == nil
}

// lookAt is look, also before the daemon's first start: then nothing is kept yet.
func lookAt(cfg *config.Config) loading {
	l := look
	if _, err := os.Stat(cfg.Store.Path); err != nil {
		l.fresh = true
	}
	return l
}

// kernelClock asks the kernel, which hears it from whatever keeps the clock.
func kernelClock() (doctor.Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return doctor.Clock{}, err
	}
	return doctor.Clock{Synchronised: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, Error: time.Duration(t.Maxerror) * time.Microsecond}, nil
}
