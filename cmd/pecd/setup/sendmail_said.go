package setup

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// said is what Sendmail itself says of a configuration, in its address test mode.
type said struct {
	complaints []string          // of the configuration, without line numbers
	local      []string          // $=w: names whose mail it delivers itself
	relayed    []string          // $=R: domains to which it takes mail from others
	mailers    map[string]Mailer // by name
	routes     map[string]string // domain -> name of the mailer
}

// A Mailer is a way of Sendmail's to deliver.
type Mailer struct {
	Program, Flags, Args string
	Line                 int64 // the longest line, octets; 0: any
}

var (
	mailerLine = regexp.MustCompile(`^mailer \d+ \((\S+)\): P=(\S*) .*?\bF=(\S*) L=(\d+) .*?\bA=(.*)$`)
	parsedLine = regexp.MustCompile(`(?m)^mailer ([^ ,]+)`)
	lineNumber = regexp.MustCompile(`^\S+: line \d+: `)
)

// ask asks Sendmail about the configuration cf, and by which mailer it would send to
// each domain.
func (s *Sendmail) ask(ctx context.Context, cf string, domains []string) (said, error) {
	a := said{mailers: map[string]Mailer{}, routes: map[string]string{}}
	for class, words := range map[string]*[]string{"$=w": &a.local, "$=R": &a.relayed} {
		out, _, err := s.test(ctx, cf, class)
		if err != nil {
			return a, err
		}
		*words = strings.Fields(strings.ToLower(out))
	}
	out, errs, err := s.test(ctx, cf, "=M")
	if err != nil {
		return a, err
	}
	for line := range strings.Lines(out) {
		if m := mailerLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			a.mailers[m[1]] = Mailer{Program: m[2], Flags: m[3], Line: number(m[4]), Args: m[5]}
		}
	}
	for line := range strings.Lines(errs) {
		if line = strings.TrimSpace(line); lineNumber.MatchString(line) {
			a.complaints = append(a.complaints, lineNumber.ReplaceAllString(line, ""))
		}
	}
	return a, s.parse(ctx, cf, domains, a.routes)
}

// parse asks where mail to each domain would go.
func (s *Sendmail) parse(ctx context.Context, cf string, domains []string, routes map[string]string) error {
	if len(domains) == 0 {
		return nil
	}
	out, _, err := s.test(ctx, cf, "/parse pecd-setup@"+strings.Join(domains, "\n/parse pecd-setup@"))
	if err != nil {
		return err
	}
	answers := strings.Split(out, "Cracked address = ")[1:]
	if len(answers) != len(domains) {
		return fmt.Errorf("%w: %s -bt answers %d of %d questions: %q", ErrSendmail, s.Program, len(answers), len(domains), out)
	}
	for i, answer := range answers {
		if m := parsedLine.FindStringSubmatch(answer); m != nil {
			routes[domains[i]] = m[1]
		}
	}
	return nil
}

// test gives commands to the address test mode and returns the answers, and what was
// said of the configuration.
func (s *Sendmail) test(ctx context.Context, cf, commands string) (answers, complaints string, err error) {
	out, errs, err := command(ctx, "/", []byte(commands+"\n"), s.Program, "-C", cf, "-bt")
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return "", "", fmt.Errorf("%w: %s -bt: %w", ErrSendmail, s.Program, errors.Join(err, ctx.Err()))
	}
	before, after, ok := strings.Cut(out, "Enter <ruleset> <address>\n")
	if !ok { // complaints alone give a code too, but it goes on
		return "", "", fmt.Errorf("%w: %s -C %s -bt says %q", ErrSendmail, s.Program, cf, strings.TrimSpace(out+errs))
	}
	var b strings.Builder
	for line := range strings.Lines(after) {
		for strings.HasPrefix(line, "> ") { // prompts
			line = line[2:]
		}
		b.WriteString(line)
	}
	return b.String(), before + errs, nil
}

// newComplaints are those of after that were not there before.
func newComplaints(before, after []string) (list []string) {
	for _, c := range after {
		if !slices.Contains(before, c) {
			list = append(list, c)
		}
	}
	return list
}
