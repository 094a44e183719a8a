package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Plugin is a program of others: a check that looks at messages, or what takes
// the place of a point. Checks are asked in the order of the tables.
type Plugin struct {
	// Name under which logs, figures and pecd plugin list show it: lower case
	// letters, digits and hyphens. Default: the file's name.
	Name string `toml:"name"`
	// Path of the program.
	Path string `toml:"path"`
	// SHA256 is the checksum that the program must have, in hexadecimal; empty: any.
	// Root or pecd's user must own the file in any case.
	SHA256 string `toml:"sha256"`
	// Timeout is how long one call may take: "90s". Default: "30s". What is asked at
	// the milter has less than MilterWait.
	Timeout string `toml:"timeout"`
	// Read and Write are more files or directories that it may read, or read and
	// write. Neither they nor the program's directory may be where the store, the
	// sealed days, keys and passwords, or the configuration are.
	Read  []string `toml:"read"`
	Write []string `toml:"write"`
	// Settings are its own; the program says what it knows: PATH describe.
	Settings map[string]any `toml:"settings"`

	Origin Origin `toml:"-"`
}

// Wait is Timeout as a duration; the configuration has checked it.
func (p Plugin) Wait() time.Duration { return duration(p.Timeout) }

// Problem is what is wrong with the key of p's table.
func (p Plugin) Problem(key, why, fix string) error {
	var list Problems
	list.add(p.Origin.File, p.Origin.Line, "plugin "+p.Name+": "+key, why, fix)
	return list.err()
}

// pluginLines are the lines on which the tables of plugins begin.
func pluginLines(data []byte) (lines []int) {
	for n, l := range strings.Split(string(data), "\n") {
		if strings.TrimSpace(l) == "[[plugin]]" {
			lines = append(lines, n+1)
		}
	}
	return lines
}

// takePlugins moves what a file said of plugins to those of the files before.
func (c *Config) takePlugins(before []Plugin, file string, data []byte, whole int) {
	lines := pluginLines(data)
	for i, p := range c.Plugins {
		p.Origin = Origin{File: file, Line: whole}
		if i < len(lines) {
			p.Origin.Line = lines[i]
		}
		if p.Name == "" && p.Path != "" {
			p.Name = filepath.Base(p.Path)
		}
		if p.Timeout == "" {
			p.Timeout = "30s"
		}
		before = append(before, p)
	}
	c.Plugins = before
}

var (
	pluginName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	hexDigest  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxPluginTimeout is the most that a call may take.
const maxPluginTimeout = 10 * time.Minute

// MilterWait is how long the milter waits for a message's decision; the LMTP door waits
// longer. A plugin that may take longer than its door waits is never found to be late.
const MilterWait = 2 * time.Minute

// checkPlugins finds what cannot work in the tables themselves; the programs are
// asked by whoever starts them.
func (c *Config) checkPlugins(p *Problems) {
	named := map[string]Origin{}
	for _, g := range c.Plugins {
		bad := func(key, why, fix string) {
			p.add(g.Origin.File, g.Origin.Line, "plugin."+key, why, fix)
		}
		if !pluginName.MatchString(g.Name) {
			bad("name", strconv.Quote(g.Name)+" is not a name of at most 40 lower case letters, digits and hyphens", `write for example name = "clamav"`)
		} else if o, ok := named[g.Name]; ok {
			bad("name", fmt.Sprintf("%q is taken already in %s, line %d", g.Name, o.File, o.Line), "give each plugin a name of its own")
		}
		named[g.Name] = g.Origin
		if !filepath.IsAbs(g.Path) {
			bad("path", strconv.Quote(g.Path)+" is not an absolute path", "write the path of the program from /")
		}
		if g.SHA256 != "" && !hexDigest.MatchString(g.SHA256) {
			bad("sha256", strconv.Quote(g.SHA256)+" is not a SHA-256 checksum", "write what sha256sum prints: 64 hexadecimal digits in lower case")
		}
		if d, err := time.ParseDuration(g.Timeout); err != nil || d < time.Second || d > maxPluginTimeout {
			bad("timeout", strconv.Quote(g.Timeout)+" is not between 1s and 10m", `write for example "30s"`)
		}
		for key, list := range map[string][]string{"read": g.Read, "write": g.Write} {
			for _, f := range list {
				if !filepath.IsAbs(f) {
					bad(key, strconv.Quote(f)+" is not an absolute path", "write the path from /")
				} else if what, ok := c.private(f); ok {
					bad(key, "with "+f+" the plugin would reach "+what, "name the files that it needs, and keep them elsewhere")
				}
			}
		}
		if !filepath.IsAbs(g.Path) {
			continue
		}
		// A plugin may read what lies beside it.
		if what, ok := c.private(filepath.Dir(resolved(g.Path))); ok {
			bad("path", "in the directory of "+g.Path+" the plugin would reach "+what, "move the program to a directory of its own, such as /usr/lib/pecd/plugins")
		}
	}
}

// private reports what of pecd's own a plugin would reach that has path.
func (c *Config) private(path string) (what string, ok bool) {
	file, err := filepath.Abs(c.file)
	if err != nil {
		file = c.file // the working directory is gone
	}
	own := []secret{{what: "the store", path: c.Store.Path}, {what: "the sealed days", path: c.Seal.Path}, {what: "the configuration", path: filepath.Dir(file)}}
	for _, p := range append(own, c.secrets()...) {
		if !filepath.IsAbs(p.path) {
			continue
		}
		if Within(p.path, path) || Within(path, p.path) {
			return p.what + ", " + p.path, true
		}
	}
	return "", false
}

// Within reports whether path is dir or lies in it, whatever symbolic links they are
// named by.
func Within(path, dir string) bool {
	path, dir = resolved(path), resolved(dir)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolved is path without symbolic links, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(resolved(parent), filepath.Base(path))
	}
	return path
}
