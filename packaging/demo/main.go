// Command demo shows certified mail at work on one machine: two providers and an
// ordinary mail server on 127.0.0.1, with throw-away keys. "make demo",
// "make demo-up" and "make demo-down" call it.
//
// It touches neither the system's mail servers nor anything outside its
// directory, and needs root because Postfix and Dovecot do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"pecd/packaging/demo/stage"
)

const usage = `usage: demo [-dir DIR] [-pecd FILE] COMMAND

  story   bring everything up, send a certified message, show and check what
          follows, clean up
  up      bring everything up and leave it running; describes it in DIR/env.json
  down    stop everything and remove it

`

func main() {
	dir := flag.String("dir", ".demo", "directory of the demo")
	pecd := flag.String("pecd", "bin/pecd", "the pecd to run")
	mta := flag.String("mta", stage.MTAPostfix, "the providers' MTA: postfix or sendmail")
	keys := flag.String("keys", stage.KeysPEM, "where the providers' keys are: pem, pkcs12 or softhsm")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage); flag.PrintDefaults() }
	flag.Parse()
	// SIGPIPE too: "make demo | head" must not leave servers behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	t := newTerminal(os.Stdout)
	err := command(ctx, flag.Arg(0), t, stage.Options{Dir: *dir, PecdBinary: *pecd, Keys: *keys, MTA: *mta, Log: io.Discard})
	t.drop()
	switch {
	case errors.Is(err, errUsage):
		flag.Usage()
		os.Exit(2)
	case errors.Is(err, context.Canceled):
		fmt.Fprintf(os.Stderr, "\ndemo: interrupted; what it had started is stopped\n")
		os.Exit(1)
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

func command(ctx context.Context, name string, t *terminal, o stage.Options) error {
	run, ok := map[string]func(context.Context, *terminal, stage.Options) error{
		"story": story, "up": up, "down": down,
	}[name]
	if !ok {
		return errUsage
	}
	if os.Geteuid() != 0 {
		return stage.ErrNotRoot
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	unlock, err := lock(o.Dir)
	if err != nil {
		return err
	}
	return errors.Join(run(ctx, t, o), unlock())
}

// lock keeps a second command from working on the same directory. unlock also
// removes the directory if nothing is left in it.
func lock(dir string) (unlock func() error, err error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("another demo command is at work in %s", dir)
		}
		// The one before us may have removed it between our open and our lock.
		held, err1 := f.Stat()
		there, err2 := os.Stat(dir)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return func() error { return errors.Join(removeIfEmpty(dir), f.Close()) }, nil
		}
		_ = f.Close()
	}
}

func removeIfEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func envFile(dir string) string { return filepath.Join(dir, "env.json") }

// up brings the servers up and leaves them. What is up already stays.
func up(ctx context.Context, t *terminal, o stage.Options) error {
	dir := o.Dir
	if s, err := stage.Open(dir); err == nil && s.Alive() {
		if _, err := os.Stat(envFile(dir)); err == nil {
			t.printf("The demo is up already; %s describes it. \"make demo-down\" stops it.\n", envFile(dir))
			return nil
		}
	}
	// A description of what no longer runs would mislead.
	if err := os.Remove(envFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, err := bringUp(ctx, t, o)
	if errors.Is(err, context.Canceled) {
		return errors.Join(err, stage.Clean(context.WithoutCancel(ctx), dir))
	}
	if err != nil {
		return err
	}
	if err := s.WriteEnv(envFile(dir)); err != nil {
		return err
	}
	t.printf("\n")
	return describe(t, s, envFile(dir))
}

// mtaName is the name of the providers' MTA.
func mtaName(o stage.Options) string {
	if o.MTA == stage.MTASendmail {
		return "Sendmail"
	}
	return "Postfix"
}

// bringUp builds and starts a stage. After an error nothing runs; what it wrote
// stays for the reader of its logs.
func bringUp(ctx context.Context, t *terminal, o stage.Options) (*stage.Stage, error) {
	if _, err := os.Stat(o.PecdBinary); err != nil {
		return nil, fmt.Errorf("no pecd to run: %w; \"make build\" builds it", err)
	}
	t.begin("keys, certificates and the signed directory of providers")
	s, err := stage.New(ctx, o)
	if err != nil {
		return nil, err
	}
	t.done()
	t.begin("%s, Dovecot and pecd of two providers, Postfix and Dovecot of an ordinary server", mtaName(o))
	if err := s.Start(ctx); err != nil {
		return nil, fmt.Errorf("%w\n\nThe logs are below %s", err, s.Root)
	}
	t.done()
	return s, nil
}

// describe says how to reach what runs.
func describe(t *terminal, s *stage.Stage, file string) error {
	var rows [][]string
	for _, p := range s.Providers() {
		for _, u := range append(append([]stage.User{}, p.Users...), p.Service[0]) {
			rows = append(rows, []string{u.Address, u.Password, p.Submission, p.IMAP})
		}
	}
	for _, u := range s.Ordinary.Users {
		rows = append(rows, []string{u.Address, u.Password, s.Ordinary.Submission, s.Ordinary.IMAP})
	}
	t.table([]string{"mailbox", "password", "SMTP (STARTTLS)", "IMAP"}, rows)
	t.printf("\nMail and logs are below %s.\n%s describes all of it. \"make demo-down\" stops it.\n", s.Root, file)
	return nil
}

// down stops and removes what up, or a story that was cut off, has left.
func down(ctx context.Context, t *terminal, o stage.Options) error {
	dir := o.Dir
	found := false
	for _, d := range []string{dir, filepath.Join(dir, "story")} {
		if _, err := os.Lstat(filepath.Join(d, "run")); err == nil {
			found = true
		}
		t.begin("stopping the servers")
		if err := stage.Clean(ctx, d); err != nil {
			return err
		}
		t.drop()
	}
	for _, name := range []string{"env.json", "story"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if !found {
		t.printf("The demo is not up.\n")
		return nil
	}
	t.printf("The demo is stopped and removed.\n")
	return nil
}
