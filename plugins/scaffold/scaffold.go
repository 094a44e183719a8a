// Package scaffold writes new plugin projects: `pecd plugin new`. A project
// builds, passes its tests and `pecd plugin check` as it is written. It carries
// the SDK that it was made with, and needs no network but Go's module proxy.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"text/template"

	"pecd"
	"pecd/plugins/protocol"
)

// Errors of New.
var (
	ErrName  = errors.New("a name has 1 to 40 lower case letters, digits and hyphens, begins with a letter, and is not sdk")
	ErrKind  = errors.New("a kind is check, access, reception or delivery")
	ErrTaken = errors.New("there is something already")
)

//go:embed template
var templates embed.FS

// modules holds go.mod and go.sum of the projects, and of the SDK that they
// carry. They are made by: go test ./plugins/scaffold -run TestModules -update
//
//go:embed module
var modules embed.FS

// A project is what the templates are filled with.
type project struct {
	Name     string
	Does     string // in a sentence
	Settings string // an example, in TOML
	Point    bool
}

var kinds = map[protocol.Kind]project{
	protocol.KindCheck: {Does: "A check for pecd: it refuses messages whose subject is empty or lacks a word.",
		Settings: `word = "prot."    # what every subject has to hold`},
	protocol.KindAccess: {Does: "An access point for pecd: it takes no message without a subject, or with too many certified recipients.",
		Settings: `max = 100    # certified recipients of one message`, Point: true},
	protocol.KindReception: {Does: "A reception point for pecd: it takes ordinary mail from senders of some domains only.",
		Settings: `domains = ["example.com"]    # whose ordinary mail is taken`, Point: true},
	protocol.KindDelivery: {Does: "A delivery point for pecd: it says in words of its own why a full mailbox took nothing.",
		Settings: `full = "casella piena"    # what the notice says of a full mailbox`, Point: true},
}

// Kinds are the kinds of projects.
func Kinds() []string {
	var list []string
	for k := range kinds {
		list = append(list, string(k))
	}
	sort.Strings(list)
	return list
}

var names = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// New writes a project of the given kind with the name of a plugin to dir, which
// must be empty or not exist. Where it fails, what it wrote is left for the
// caller to look at.
func New(dir, name, kind string) error {
	p, ok := kinds[protocol.Kind(kind)]
	switch {
	case !ok:
		return fmt.Errorf("%q: %w", kind, ErrKind)
	case !names.MatchString(name) || len(name) > protocol.MaxName || name == "sdk":
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	p.Name = name
	if err := empty(dir); err != nil {
		return err
	}
	for _, from := range []string{"all", kind} {
		if err := p.fill(dir, path.Join("template", from)); err != nil {
			return err
		}
	}
	if err := p.goMod(dir); err != nil {
		return err
	}
	return WriteSDK(filepath.Join(dir, "sdk"))
}

// empty makes dir, which must hold nothing.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s: %w: %s", dir, ErrTaken, entries[0].Name())
	}
	return nil
}

// fill writes the files of one folder of templates.
func (p project) fill(dir, from string) error {
	// Go and TOML have their own use for braces and brackets.
	t, err := template.New("").Delims("<<", ">>").ParseFS(templates, from+"/*.tmpl")
	if err != nil {
		return err
	}
	for _, f := range t.Templates() {
		var b bytes.Buffer
		if err := f.Execute(&b, p); err != nil {
			return err
		}
		name := strings.TrimSuffix(f.Name(), ".tmpl")
		if name == "gitignore" {
			name = ".gitignore" // go:embed takes no file that begins with a dot
		}
		if err := write(filepath.Join(dir, name), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// goMod writes the project's go.mod and go.sum.
func (p project) goMod(dir string) error {
	from := "check"
	if p.Point {
		from = "point"
	}
	mod, err := modules.ReadFile("module/" + from + ".mod")
	if err != nil {
		return err
	}
	mod = append([]byte("module example.com/"+p.Name+"\n"), mod...)
	if err := write(filepath.Join(dir, "go.mod"), mod); err != nil {
		return err
	}
	return copyModule(filepath.Join(dir, "go.sum"), from+".sum")
}

// WriteSDK writes the SDK to dir as the module pecd: the source that plugins are
// made with, without tests.
func WriteSDK(dir string) error {
	err := fs.WalkDir(pecd.SDK, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") || name == "go.mod" || name == "go.sum" {
			return err
		}
		b, err := pecd.SDK.ReadFile(name)
		if err != nil {
			return err
		}
		return write(filepath.Join(dir, filepath.FromSlash(name)), b)
	})
	if err != nil {
		return err
	}
	if err := copyModule(filepath.Join(dir, "go.mod"), "sdk.mod"); err != nil {
		return err
	}
	return copyModule(filepath.Join(dir, "go.sum"), "sdk.sum")
}

func copyModule(to, from string) error {
	b, err := modules.ReadFile("module/" + from)
	if err != nil {
		return err
	}
	return write(to, b)
}

func write(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}
