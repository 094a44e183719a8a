package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
	"pecd/logstore"
)

// setupPostfixCmd is pecd setup postfix.
type setupPostfixCmd struct {
	configFlag
	PostfixConfigDir string `help:"Postfix's configuration directory. Default: that of the only instance." placeholder:"DIR"`
	Apply            bool   `help:"Make the changes, after a backup." xor:"what"`
	Undo             bool   `help:"Take back what --apply changed last." xor:"what"`
}

// Run shows what must change in Postfix for pecd, makes it, or takes it back.
func (c *setupPostfixCmd) Run(ctx context.Context, std streams) error {
	if c.Undo {
		warnOfOutbox(ctx, c.Config, std.err)
		pf, err := setup.Read(ctx, c.PostfixConfigDir)
		if err != nil {
			return err
		}
		return undoPostfix(ctx, pf, std.out)
	}
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	pf, err := setup.Read(ctx, c.PostfixConfigDir)
	if err != nil {
		return err
	}
	want := wantsOf(ctx, cfg, std)
	plan, err := pf.Plan(ctx, want)
	if err != nil {
		return err
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(std.err, "note:", n)
	}
	if plan.Empty() {
		_, err := fmt.Fprintf(std.out, "nothing to do: Postfix in %s is set up for pecd\n", pf.Dir)
		return err
	}
	if err := pf.Diff(ctx, plan, std.out); err != nil {
		return err
	}
	again := "pecd setup postfix --config " + c.Config + " --postfix-config-dir " + pf.Dir
	if !c.Apply {
		_, err := fmt.Fprintf(std.err, "nothing was changed yet. To make these changes: %s --apply\n", again)
		return err
	}
	backup, err := pf.Apply(ctx, plan, want, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.err, "done; the old files are in %s\n  next: postfix -c %s reload (restart where a port is new and Postfix is older than 3.3)\n  to take it back: %s --undo\n", backup, pf.Dir, again)
	return err
}

// wantsOf is what the MTA is asked for. The directory is read without the key: what the
// MTA needs must not hang on a hardware module, or on the day a certificate ends.
func wantsOf(ctx context.Context, cfg *config.Config, std streams) setup.Wants {
	in := &installation{config: cfg}
	err := in.loadTrust(ctx, lookAt(cfg))
	if in.trust != nil && in.trust.revocation != nil {
		in.trust.revocation.Close()
	}
	want := setup.WantsOf(cfg, in.directory)
	if want.Partial {
		if err == nil {
			err = fmt.Errorf("the directory does not give the domain %s to a provider with the name %q", cfg.Provider.Domain, cfg.Provider.Name)
		}
		fmt.Fprintf(std.err, "note: only the domain of provider.domain is set up, no TLS policy for other providers is made, and tables of an earlier --apply stay as they are: %v\n  run this again when that is mended\n", err)
	}
	return want
}

func undoPostfix(ctx context.Context, pf *setup.Postfix, out io.Writer) error {
	backup, left, err := pf.Undo(ctx)
	return undone(out, pf.Dir, backup, left, err, "postfix -c "+pf.Dir+" reload")
}

// warnOfOutbox tells of messages that are certified as accepted and have not left: without
// the listener that undo takes away they do not.
func warnOfOutbox(ctx context.Context, file string, to io.Writer) {
	cfg, err := config.Load(file)
	if err != nil {
		return // undo needs no configuration
	}
	r, err := logstore.OpenReadOnly(ctx, cfg.Store.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		fmt.Fprintf(to, "note: it is not known whether signed messages wait to go out: %v\n", err)
		return
	}
	defer r.Close()
	stats, err := r.Stats(ctx)
	switch {
	case err != nil:
		fmt.Fprintf(to, "note: it is not known whether signed messages wait to go out: %v\n", err)
	case stats.Outbox > 0:
		fmt.Fprintf(to, "note: %d signed messages wait to go out, and do not without the listener for them: take no mail from users, wait until they are gone, and only then remove pecd\n", stats.Outbox)
	}
}

// undone tells what was taken back in dir.
func undone(out io.Writer, dir, backup string, left []string, err error, next string) error {
	if errors.Is(err, setup.ErrNothing) {
		fmt.Fprintln(out, err)
		return nil
	}
	if err != nil {
		return err
	}
	if len(left) > 0 {
		fmt.Fprintf(out, "changed by somebody since, or needed by that, and left alone: %s\n  what still calls pecd goes on to be certified: take pecd out there by hand before you remove pecd\n", strings.Join(left, ", "))
	}
	if !strings.HasSuffix(backup, setup.UndoneSuffix) {
		fmt.Fprintf(out, "taken back as far as that does not need it; once nothing calls pecd, run --undo again for the rest\n  next: %s\n", next)
		return errNo
	}
	fmt.Fprintf(out, "taken back; a copy of the old files stays in %s\n  next: %s\n", backup, next)
	n, err := setup.Applications(dir)
	if n > 0 {
		fmt.Fprintf(out, "%d earlier applications are left; run --undo again to take them back\n", n)
	}
	if err == nil && len(left) > 0 {
		return errNo
	}
	return err
}
