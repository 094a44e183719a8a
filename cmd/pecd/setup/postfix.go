package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Postfix is the configuration of one instance, as postconf(1) tells it. It is
// not changed after Read. Its methods may be called concurrently.
type Postfix struct {
	Dir      string // config_directory, absolute
	Services []Service

	raw      map[string]string // main.cf and defaults
	expanded map[string]string // the same, $names replaced
	set      map[string]bool   // what main.cf sets itself
	files    map[string][]byte // main.cf and master.cf as they were read

	mu     sync.Mutex // guards what follows
	asked  map[question]answer
	tried  map[string]bool              // tables that were asked
	broken map[string]error             // tables that cannot be read, as far as they were asked
	listed map[string]map[string]string // what is in a table, as far as that was asked
}

// Read asks postconf(1) for the instance in dir. dir "" is the default instance, and
// an error if there are several.
func Read(ctx context.Context, dir string) (*Postfix, error) {
	if dir == "" {
		var err error
		if dir, err = onlyInstance(ctx); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &Postfix{Dir: dir, set: map[string]bool{}, asked: map[question]answer{}, tried: map[string]bool{}, broken: map[string]error{}, listed: map[string]map[string]string{}}
	var own, fields, options map[string]string
	files, ferr := contents(dir) // before postconf: a change meanwhile must not go unseen
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range []struct {
		to    *map[string]string
		flags []string
	}{{&p.raw, nil}, {&p.expanded, []string{"-x"}}, {&own, []string{"-n"}}, {&fields, []string{"-F"}}, {&options, []string{"-Px"}}} {
		g.Go(func() (err error) {
			*r.to, err = settings(gctx, dir, r.flags...)
			return err
		})
	}
	if err := errors.Join(g.Wait(), ferr); err != nil {
		return nil, err
	}
	p.files = files
	for name := range own {
		p.set[name] = true
	}
	p.readServices(fields, options)
	return p, nil
}

// onlyInstance is the default configuration directory, if that is the only one.
func onlyInstance(ctx context.Context, flags ...string) (string, error) {
	out, err := run(ctx, "postconf", append(flags, "-hx", "config_directory", "multi_instance_directories")...)
	if err != nil {
		return "", err
	}
	dir, more, _ := strings.Cut(strings.TrimRight(out, "\n"), "\n")
	if more = strings.TrimSpace(more); more != "" {
		return "", fmt.Errorf("%w: %s %s; name one with --postfix-config-dir", ErrInstances, dir, more)
	}
	return dir, nil
}

// run runs one of Postfix's commands and returns what it prints.
func run(ctx context.Context, name string, args ...string) (string, error) {
	return runWith(ctx, nil, name, args...)
}

// runWith is run with something to read.
func runWith(ctx context.Context, in io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = in
	// Set by a Postfix that started us, it would point to another instance.
	// Taken out, not emptied: for Postfix an empty one is a directory, too.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAIL_CONFIG=") })
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s %s: %w: %s", ErrPostfix, name, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// settings reads "name = value" lines.
func settings(ctx context.Context, dir string, flags ...string) (map[string]string, error) {
	out, err := run(ctx, "postconf", append([]string{"-c", dir}, flags...)...)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, "="); ok {
			m[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return m, nil
}

// Get returns a setting of main.cf, with $names replaced.
func (p *Postfix) Get(name string) string { return p.expanded[name] }

// Knows reports whether this version of Postfix has the setting.
func (p *Postfix) Knows(name string) bool { _, ok := p.raw[name]; return ok }

// In returns a setting as it holds for a service: its own -o, or else main.cf's.
func (p *Postfix) In(s *Service, name string) string {
	if v, ok := s.expanded[name]; ok {
		return v
	}
	return p.Get(name)
}

// Int returns a number of main.cf; 0 if it is none.
func (p *Postfix) Int(name string) int64 { return number(p.Get(name)) }

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// QueueDir is the directory in which services that are chrooted live.
func (p *Postfix) QueueDir() string { return filepath.Clean(p.Get("queue_directory")) }

// units are those of time in Postfix's settings.
var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}

// Duration reads a time of Postfix, such as 5d; a number alone counts in standard.
func Duration(s string, standard time.Duration) time.Duration {
	if s == "" {
		return 0
	}
	if u, ok := units[s[len(s)-1]]; ok {
		return time.Duration(number(s[:len(s)-1])) * u
	}
	return time.Duration(number(s)) * standard
}

// Words splits a list of Postfix's at blanks and commas, but not inside of braces.
func Words(s string) []string { return split(s, ", \t\r\n") }

func split(s, at string) (words []string) {
	depth, start := 0, -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case depth == 0 && strings.IndexByte(at, c) >= 0:
			if start >= 0 {
				words = append(words, s[start:i])
			}
			start = -1
			continue
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		words = append(words, s[start:])
	}
	return words
}

// unbrace takes the braces off "{ x }".
func unbrace(s string) (string, bool) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return s, false
	}
	return strings.TrimSpace(s[1 : len(s)-1]), true
}
