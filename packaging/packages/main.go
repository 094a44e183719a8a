// Command packages builds pecd's packages for Debian and Red Hat: pecd, and one
// for each shipped plugin. What it builds depends on the source and its arguments
// only, so that others can build the same and compare.
//
// It must be run in the top folder of the source.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A job is what is to be built.
type job struct {
	out     string    // where the packages go
	work    string    // where everything else goes
	goCmd   []string  // the Go command
	version string    // of the packages, such as 1.2.3
	at      time.Time // of the source: the time stamp of all files
	arch    string    // as Go calls it
	formats []string  // deb, rpm
	now     string    // the day in the manual, from at
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("packages", flag.ContinueOnError)
	out := flags.String("out", "dist", "folder for the packages")
	version := flags.String("version", "", "version, such as 1.2.3")
	at := flags.Int64("at", 0, "time of the source, in seconds since 1970")
	arch := flags.String("arch", runtime.GOARCH, "amd64 or arm64")
	goCmd := flags.String("go", "go", "the Go command")
	formats := flags.String("formats", "deb,rpm", "kinds of packages")
	work := flags.String("work", "", "folder for what is made on the way; empty: a temporary one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	j := job{version: *version, at: time.Unix(*at, 0).UTC(), arch: *arch, goCmd: strings.Fields(*goCmd), formats: strings.Split(*formats, ",")}
	return j.run(ctx, *out, *work)
}

// run builds all packages.
func (j *job) run(ctx context.Context, out, work string) (err error) {
	if j.version == "" || j.at.Unix() <= 0 {
		return errors.New("-version and -at must be given")
	}
	j.now = j.at.Format(time.DateOnly)
	if j.out, err = filepath.Abs(out); err != nil {
		return err
	}
	if j.work, err = filepath.Abs(work); err != nil {
		return err
	}
	if work == "" {
		if j.work, err = os.MkdirTemp("", "pecd-packages-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(j.work)) }()
	}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	if err := j.programs(ctx); err != nil {
		return err
	}
	if err := j.documents(ctx); err != nil {
		return err
	}
	return j.pack(ctx)
}

// command is a command in the top folder of the source, in an environment that
// differs as little as possible between machines.
func (j *job) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", j.at.Unix()))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// golang is a Go command.
func (j *job) golang(ctx context.Context, env []string, args ...string) *exec.Cmd {
	return j.command(ctx, env, j.goCmd[0], append(j.goCmd[1:len(j.goCmd):len(j.goCmd)], args...)...)
}
