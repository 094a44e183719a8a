package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// carries is what of the source each package is made of.
var carries = map[string][]string{
	"pecd":                    {"./cmd/pecd"},
	"pecd-plugin-attachments": {"./plugins/attachments"},
	"pecd-plugin-clamav":      {"./plugins/clamav"},
	"pecd-plugin-limits":      {"./plugins/limits"},
}

// A module is somebody's Go module that a program is made of.
type module struct {
	Path, Version, Dir string
	Main               bool
}

// copyright says who made what is in a package, and under which terms: the texts
// of all modules that it is made of, and of Go's own library.
func (j *job) copyright(ctx context.Context, pkgs []string) ([]byte, error) {
	modules, err := j.modules(ctx, pkgs)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("This package holds pecd, and the Go modules that it is made of, compiled into one program.\n")
	for _, m := range modules {
		texts, err := licences(m.Dir)
		if err != nil {
			return nil, err
		}
		if len(texts) == 0 {
			return nil, fmt.Errorf("%s %s has no licence: %s", m.Path, m.Version, m.Dir)
		}
		fmt.Fprintf(&b, "\n%s\n%s %s\n%s\n", strings.Repeat("=", 78), m.Path, m.Version, strings.Repeat("=", 78))
		for _, t := range texts {
			fmt.Fprintf(&b, "\n%s\n", t)
		}
	}
	return b.Bytes(), nil
}

// modules are what the packages are made of, by their paths, pecd first.
func (j *job) modules(ctx context.Context, pkgs []string) ([]module, error) {
	root, err := j.golang(ctx, nil, "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	env := []string{"CGO_ENABLED=1", "GOOS=linux", "GOARCH=" + j.arch}
	out, err := j.golang(ctx, env, append([]string{"list", "-deps", "-json=Module"}, pkgs...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	list := []module{{Path: "The Go programming language", Dir: strings.TrimSpace(string(root))}}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *module }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && !seen[m.Path] {
			seen[m.Path] = true
			list = append(list, *m)
		}
	}
	sort.Slice(list, func(i, k int) bool {
		if list[i].Main != list[k].Main {
			return list[i].Main
		}
		return list[i].Path < list[k].Path
	})
	return list, nil
}

// licence matches the files in which modules tell their terms.
var licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([-.].*)?$`)

// licences are the texts in a folder.
func licences(dir string) (texts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !licence.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, strings.TrimSpace(string(b)))
	}
	return texts, nil
}
