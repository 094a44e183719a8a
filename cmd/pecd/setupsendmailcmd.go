package main

import (
	"context"
	"fmt"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
)

// sendmailFlags say which Sendmail is meant.
type sendmailFlags struct {
	SendmailConfigDir string `help:"Directory of sendmail.mc and sendmail.cf." default:"/etc/mail" placeholder:"DIR"`
	Sendmail          string `help:"The program sendmail. Default: where Debian and Red Hat have it." placeholder:"FILE"`
}

// setupSendmailCmd is pecd setup sendmail.
type setupSendmailCmd struct {
	configFlag
	sendmailFlags
	Apply bool `help:"Make the changes, after a backup." xor:"what"`
	Undo  bool `help:"Take back what --apply changed last." xor:"what"`
}

// restartSendmail is what makes changes hold.
const restartSendmail = "systemctl restart sendmail"

// Run shows what must change in Sendmail for pecd, makes it, or takes it back.
func (c *setupSendmailCmd) Run(ctx context.Context, std streams) error {
	if c.Undo {
		warnOfOutbox(ctx, c.Config, std.err)
		backup, left, err := setup.UndoSendmail(ctx, c.SendmailConfigDir, c.Sendmail)
		return undone(std.out, c.SendmailConfigDir, backup, left, err, restartSendmail)
	}
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	s, err := setup.ReadSendmail(ctx, c.SendmailConfigDir, c.Sendmail)
	if err != nil {
		return err
	}
	want := wantsOf(ctx, cfg, std)
	plan, err := s.Plan(ctx, want)
	if err != nil {
		return err
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(std.err, "note:", n)
	}
	if plan.Empty() {
		_, err := fmt.Fprintf(std.out, "nothing to do: Sendmail in %s is set up for pecd\n", s.Dir)
		return err
	}
	if err := s.Diff(plan, std.out); err != nil {
		return err
	}
	again := "pecd setup sendmail --config " + c.Config + " --sendmail-config-dir " + s.Dir
	if c.Sendmail != "" {
		again += " --sendmail " + s.Program
	}
	if !c.Apply {
		_, err := fmt.Fprintf(std.err, "nothing was changed yet. To make these changes: %s --apply\n", again)
		return err
	}
	backup, err := s.Apply(ctx, plan, want, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.err, "done; the old files are in %s\n  next: %s\n  to take it back: %s --undo\n", backup, restartSendmail, again)
	return err
}
